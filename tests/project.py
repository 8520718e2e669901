"""Commands of the project, run as by a user."""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
import typing as t
import urllib.request
from pathlib import Path

#: Opens addresses of this machine and its lab, without the environment's proxies.
open_directly = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

ROOT = Path(__file__).resolve().parents[1]
#: The served name of the lab's tiny model: the fleet's default.
MODEL = "Qwen/Qwen3-VL-8B-Instruct"


@dataclasses.dataclass(frozen=True)
class Run:
    """A command's result."""

    code: int
    output: str

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        """Ansible's last lines: for each host how many tasks were ok, changed, failed, …"""
        lines = self.output.partition("PLAY RECAP")[2].splitlines()
        found = (re.match(r"(\S+)\s+: (ok=.*)", line) for line in lines)
        return {
            match[1]: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", match[2])}
            for match in found
            if match
        }

    @property
    def text(self) -> str:
        """The output on one line, for messages that Ansible wraps."""
        return re.sub(r"\s+", " ", self.output)


def run(*command: str, environment: t.Mapping[str, str], timeout: float = 1200, directory: Path = ROOT) -> Run:
    """Run a command, in the checkout or another directory; its output is shown when a test fails.

    Raises:
        subprocess.TimeoutExpired: it was still running after ``timeout`` seconds.
    """
    done = subprocess.run(
        command,
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=timeout,
        check=False,
    )
    print(f"$ {shlex.join(command)}\n{done.stdout}")
    return Run(done.returncode, done.stdout)
