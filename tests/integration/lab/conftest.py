"""A real lab, with its state in a directory of the test's own. Needs root."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


class Machine:
    """The lab's command line, for one lab."""

    def __init__(self, name: str, state: Path) -> None:
        self.name = name
        self.state = state
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "LAB_"))},
            "INFERENCE_FLEET_STATE": str(state),
            "INFERENCE_FLEET_LAB": name,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "lab", *arguments],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __call__(self, *arguments: str, fails: bool = False) -> str:
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=300)
        assert (process.returncode != 0) is fails, said
        return said

    def ssh(self, host: str, command: str, fails: bool = False) -> str:
        return self("ssh", host, "--", command, fails=fails).strip()

    def ansible(self, *arguments: str) -> str:
        """Ansible with the lab's own inventory."""
        exports = dict(line.removeprefix("export ").split("=", 1) for line in self("env").splitlines() if "=" in line)
        result = subprocess.run(
            ["ansible", *arguments],
            cwd=ROOT,
            env={**self.environment, "LAB_EC2_ENDPOINT": exports["LAB_EC2_ENDPOINT"], "ANSIBLE_FORCE_COLOR": "false"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert result.stdout or result.returncode == 0, result.stderr
        return result.stdout


@pytest.fixture(scope="session", autouse=True)
def root() -> None:
    if os.geteuid() != 0:
        pytest.exit("the lab's own tests need root: they make networks and machines")


def traces(name: str) -> dict[str, list[str]]:
    """Everything on this machine with a lab's name or in its state directory."""

    def lines(*argv: str) -> list[str]:
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()

    arguments = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                arguments.append((entry / "cmdline").read_text(errors="replace").replace("\0", " "))
    places = ["/run/netns", "/run/systemd/nspawn/propagate"]
    return {
        "processes": [line for line in arguments if f"/{name}/" in line],
        "interfaces": [line for line in lines("ip", "-brief", "link") if f"fl-{name}" in line],
        "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if name in line],
        "tables": [line for line in lines("nft", "list", "tables") if name in line],
        "groups": [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/inference-fleet/{name}")],
        "places": [str(path) for place in places for path in Path(place).glob(f"*{name}*")],
    }


def gone(machine: Machine) -> bool:
    return not any(traces(machine.name).values()) and not machine.state.exists()


@pytest.fixture
def machine(tmp_path: Path) -> t.Iterator[Machine]:
    """A name and a state directory; the test's lab is removed."""
    made = Machine(f"t{os.getpid() % 1000000}", tmp_path / "state")
    yield made
    made("down")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Machine]:
    """A lab of two hosts that the tests of a module share."""
    made = Machine(f"m{os.getpid() % 1000000}", tmp_path_factory.mktemp("lab") / "state")
    try:
        made("up", "--subnet", "10.216.1.0/24")
        yield made
    finally:
        made("down")
