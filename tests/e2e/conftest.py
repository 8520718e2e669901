"""The fleet of the end-to-end test: a lab of its own, created by the README's own commands."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import typing as t
import urllib.error
import urllib.request
from pathlib import Path

import openai
import pytest

from lab import state
from tests.e2e.rollouts import Traffic
from tests.project import ROOT, Run, open_directly, run

LAB = "e2e"
HOSTS = ("inference-1", "inference-2")
#: The search for secrets comes after the others, and examines everything that they have left; the tests after it have
#: their own lab.
ORDER = (
    "test_converged",
    "test_fleet",
    "test_clients",
    "test_keys",
    "test_rollouts",
    "test_engines",
    "test_gateway",
    "test_secrets",
    "test_kills",
    "test_gateway_faults",
    "test_scaling",
    "test_notices",
    "test_registration",
    "test_benchmark",
    "test_tune",
)
SUBNET = "10.217.0.0/24"


class Fleet:
    """Runs the project's commands on a lab.

    Args:
        environment: of the commands; it names the lab.
        inventory: Ansible's arguments, where the inventory is not the one of ansible.cfg alone.
    """

    def __init__(self, environment: dict[str, str], inventory: t.Sequence[str] = ()) -> None:
        self.environment = environment
        self.inventory = list(inventory)
        self.name = environment["INFERENCE_FLEET_LAB"]

    def run(self, *command: str, timeout: float = 1200) -> Run:
        return run(*command, environment=self.environment, timeout=timeout)

    def playbook(self, *words: str) -> Run:
        return self.run("ansible-playbook", *self.inventory, *words)

    def lab(self, *words: str) -> Run:
        return self.run(sys.executable, "-m", "lab", *words)

    def on(self, host: str, command: str) -> str:
        """The output of a command on a host."""
        done = self.lab("ssh", "--name", self.name, host, "--", command)
        assert done.code == 0, done.output
        return done.output.strip()

    def process(self, host: str, unit: str = "vllm@0.service") -> str:
        return self.on(host, f"systemctl show --value --property MainPID {unit}")

    def keys(self, client: str = "demo") -> dict[str, str]:
        """The client's keys in the store, by their slot."""
        document = json.loads((state.require(self.name).directory / "keys.json").read_text())
        found = document["clients"][client]
        return {slot: found[slot]["key"] for slot in ("current", "pending", "previous") if found[slot]}

    def answers(self, key: str) -> list[int]:
        """Each host's answer to a key."""
        return [status(f"http://{self.address(host)}:8000/v1/models", key) for host in HOSTS]

    def address(self, host: str) -> str:
        lab = state.require(self.name)
        return str(lab.address(lab.host(host)))

    def health(self, host: str) -> str:
        """The status of a host's /health, requested on the host."""
        return self.on(host, "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8000/health; true")

    def read_environment(self) -> None:
        """Set the exports of `script/demo env`: the address, and client demo's current key."""
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


def status(url: str, key: str | None = None, body: bytes | None = None) -> int:
    """The status of one request, a POST where it has a body."""
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with open_directly(request, timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture(scope="session")
def fleet() -> t.Iterator[Fleet]:
    """The lab, bare; it is removed when the tests end, whatever their result."""
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: ORDER.index(item.path.stem) if item.path.stem in ORDER else -1)


class StartTraffic(t.Protocol):
    def __call__(self, streams: int = 20, requests_per_second: float = 10, key: str = "") -> Traffic: ...


@pytest.fixture
def traffic(demo: Run, fleet: Fleet, tmp_path: Path) -> t.Iterator[StartTraffic]:
    """Starts clients; those that are still running at the end of the test are stopped."""
    started: list[Traffic] = []

    def start(streams: int = 20, requests_per_second: float = 10, key: str = "") -> Traffic:
        output = tmp_path / f"traffic{len(started)}.json"
        started.append(Traffic(fleet.environment, output, streams, requests_per_second, key))
        return started[-1]

    yield start
    for one in started:
        one.stop()
