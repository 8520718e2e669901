"""The lab for measurements, and Ansible on it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

from lab import hosts, state

ROOT = Path(__file__).resolve().parents[2]
LONGEST_RUN = 1800
_TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(?:[\w.]+ : )?(?P<name>.+?)\] \**$")
_RECAP = re.compile(r"^\S+\s+: ok=\d+\s+changed=(?P<changed>\d+)")


@dataclasses.dataclass
class Run:
    """One run of a playbook: its duration, and each of its tasks."""

    seconds: float = 0.0
    changed: int = 0
    tasks: list[tuple[float, str]] = dataclasses.field(default_factory=list)

    def seconds_in(self, *names: str) -> float:
        """Seconds in the tasks whose name ends in one of ``names``."""
        found = [seconds for seconds, name in self.tasks if name.endswith(names)]
        if not found:
            raise SystemExit(
                f"bench: no task is called {' or '.join(names)}: the roles have changed, adapt tests/bench"
            )
        return sum(found)

    def longest(self, count: int, *without: str) -> list[tuple[float, str]]:
        return sorted((task for task in self.tasks if not task[1].endswith(without)), reverse=True)[:count]


class Fleet:
    """A lab, from bare hosts to nothing.

    Args:
        name: the lab's.
        subnet: the lab's.
    """

    def __init__(self, name: str, subnet: str) -> None:
        self.name = name
        self._subnet = subnet
        self._environment = {
            **os.environ,
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_DEPRECATION_WARNINGS": "false",
            "INFERENCE_FLEET_LAB": name,
        }

    def __enter__(self) -> Fleet:
        # Leftovers of a killed run would not be bare.
        self._lab("down")
        return self

    def __exit__(self, *_exception: object) -> None:
        self._lab("down")

    @staticmethod
    def names(count: int) -> list[str]:
        return [f"inference-{number}" for number in range(1, count + 1)]

    def grow(self, count: int) -> None:
        """Create at least ``count`` hosts."""
        lab = state.load(self.name)
        if lab is None or len(lab.hosts) < count:
            self._lab("up", "--subnet", self._subnet, "--hosts", str(count))
        self._environment["LAB_EC2_ENDPOINT"] = state.require(self.name).ec2_endpoint

    def reset(self, host: str) -> None:
        self._lab("reset", host)

    def memory(self, names: t.Sequence[str] = ()) -> str:
        """The memory of hosts, all or the named ones."""
        lab = state.require(self.name)
        found = [hosts.memory(lab, host) for host in lab.hosts.values() if not names or host.name in names]
        sizes = ", ".join(f"{one.proportional / 1e6:.0f}" for one in found)
        return f"{sizes} MB (proportional set size of its {found[0].processes} processes)"

    def site(self, limit: t.Sequence[str] = (), engine: str = "vllm") -> Run:
        return self._playbook("site.yml", limit, engine)

    def on(self, host: str, command: str) -> str:
        """What a command prints on a host."""
        lab = state.require(self.name)
        done = subprocess.run(
            hosts.ssh(lab, lab.host(host), command), capture_output=True, text=True, check=True, timeout=120
        )
        return done.stdout.strip()

    def url(self, host: str) -> str:
        """The address of a host's edge."""
        lab = state.require(self.name)
        return f"http://{lab.address(lab.host(host))}:8000"

    def probe(self, host: str, pairs: int) -> dict[str, dict[str, float]]:
        """Send requests to the host's engine and its edge in turns, on the host itself."""
        source = (Path(__file__).parent / "probe.py").read_text(encoding="utf-8")
        lab = state.require(self.name)
        # The program and the key are sent on stdin: everybody can read arguments.
        done = subprocess.run(
            hosts.ssh(lab, lab.host(host), "python3 -"),
            input=f"{source}\nmain({self.key('gate')!r}, {pairs})\n",
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        found: dict[str, dict[str, float]] = json.loads(done.stdout)
        return found

    @property
    def environment(self) -> dict[str, str]:
        """Of Ansible and the lab's commands."""
        return self._environment

    def client_environment(self, client: str = "demo") -> str:
        """The lines that export address and key for a client."""
        return subprocess.run(
            [sys.executable, "-m", "lab", "env", "--name", self.name, "--client", client],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def key(self, client: str) -> str:
        """A client's key."""
        exports = self.client_environment(client)
        found = re.search(r"^export OPENAI_API_KEY=(\S+)$", exports, re.MULTILINE)
        if found is None:
            raise SystemExit(f"bench: the lab has no key of client {client}")
        return found[1]

    def _lab(self, verb: str, *words: str) -> None:
        command = [sys.executable, "-m", "lab", verb, "--name", self.name, *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"bench: {' '.join(command[1:])} failed:\n{done.stdout}{done.stderr}")

    def _playbook(self, playbook: str, limit: t.Sequence[str], engine: str) -> Run:
        command = [program("ansible-playbook"), playbook, "-e", f"engine={engine}"]
        command += ["--limit", ",".join(limit)] if limit else []
        return timed(command, self._environment)


def program(name: str) -> str:
    """A program of the environment that this one runs in."""
    return str(Path(sys.executable).parent / name)


def timed(command: list[str], environment: t.Mapping[str, str]) -> Run:
    """Run ansible-playbook, and record when each of its tasks began.

    Raises:
        SystemExit: it failed.
    """
    run, seen = Run(), []
    began = time.monotonic()
    task: tuple[float, str] | None = None
    with _running(command, environment) as process:
        for line in t.cast(t.IO[str], process.stdout):
            seen.append(line)
            now = time.monotonic()
            found = _TASK.match(line.strip())
            recap = _RECAP.match(line)
            if found or line.startswith(("PLAY [", "PLAY RECAP")):
                if task:
                    run.tasks.append((now - task[0], task[1]))
                task = (now, found["name"]) if found else None
            elif recap:
                run.changed += int(recap["changed"])
    run.seconds = time.monotonic() - began
    if process.returncode:
        raise SystemExit(f"bench: {' '.join(command[1:])} failed:\n{''.join(seen[-60:])}")
    return run


@contextlib.contextmanager
def _running(command: list[str], environment: t.Mapping[str, str]) -> t.Iterator[subprocess.Popen[str]]:
    """A program whose lines are read as they arrive; it outlives neither the block nor LONGEST_RUN."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    timer = threading.Timer(LONGEST_RUN, process.kill)
    timer.start()
    try:
        yield process
        process.wait()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
