"""The fleet of the end-to-end test: a lab of its own, made by the very commands that the README gives."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import typing as t
from pathlib import Path

import openai
import pytest

from tests.e2e.rollouts import Traffic
from tests.project import ROOT, Run, run

LAB = "e2e"
SUBNET = "10.217.0.0/24"


class Fleet:
    """Runs the project's commands on the lab of this test."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def run(self, *command: str, timeout: float = 1200) -> Run:
        return run(*command, environment=self.environment, timeout=timeout)

    def playbook(self, *words: str) -> Run:
        return self.run("ansible-playbook", *words)

    def lab(self, *words: str) -> Run:
        return self.run(sys.executable, "-m", "lab", *words)

    def on(self, host: str, command: str) -> str:
        """What a command on a host prints."""
        done = self.lab("ssh", "--name", LAB, host, "--", command)
        assert done.code == 0, done.output
        return done.output.strip()

    def process(self, host: str, unit: str = "vllm@0.service") -> str:
        return self.on(host, f"systemctl show --value --property MainPID {unit}")

    def read_environment(self) -> None:
        """Take over what `script/demo env` exports: the address, and the key that client demo has now."""
        exports = self.run("script/demo", "env")
        assert exports.code == 0, exports.output
        for line in exports.output.splitlines():
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").partition("=")
                self.environment[name] = shlex.split(value)[0]

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=self.environment["OPENAI_BASE_URL"], api_key=self.environment["OPENAI_API_KEY"], max_retries=0
        )


@pytest.fixture(scope="session")
def fleet() -> t.Iterator[Fleet]:
    """The lab, bare; it goes when the tests end, whatever became of them."""
    environment = {
        **os.environ,
        "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}",
        "INFERENCE_FLEET_LAB": LAB,
        "ANSIBLE_NOCOLOR": "1",
    }
    made = Fleet(environment)
    made.lab("down", "--name", LAB)
    try:
        up = made.lab("up", "--name", LAB, "--subnet", SUBNET, "--hosts", "2")
        assert up.code == 0, up.output
        yield made
    finally:
        down = made.run("script/demo", "down")
        assert down.code == 0, down.output
        left = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
        assert LAB not in left


@pytest.fixture(scope="session")
def demo(fleet: Fleet) -> Run:
    """`script/demo` on the bare lab; afterwards the fleet serves, and the environment is that of `script/demo env`."""
    run = fleet.run("script/demo", timeout=1800)
    assert run.code == 0, run.output[-6000:]
    fleet.read_environment()
    return run


class StartTraffic(t.Protocol):
    def __call__(self, streams: int = 20, requests_per_second: float = 10, key: str = "") -> Traffic: ...


@pytest.fixture
def traffic(demo: Run, fleet: Fleet, tmp_path: Path) -> t.Iterator[StartTraffic]:
    """Starts clients; those that still run at the end of the test end with it."""
    started: list[Traffic] = []

    def start(streams: int = 20, requests_per_second: float = 10, key: str = "") -> Traffic:
        output = tmp_path / f"traffic{len(started)}.json"
        started.append(Traffic(fleet.environment, output, streams, requests_per_second, key))
        return started[-1]

    yield start
    for one in started:
        one.stop()
