"""A lab whose hosts run the stand-in, deployed by the roles as they are.

::

    with StandinLab("rollout", "10.220.0.0/24", hosts=6) as fleet:
        assert fleet.site().code == 0
        fleet.faults("inference-3", slow_token=0.5)
        run = fleet.site("-e", "vllm_max_num_seqs=4")
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import typing as t
from pathlib import Path

import openai

from lab import state
from tests.fakes.standin import wheels
from tests.project import MODEL, ROOT, Run, run

#: The inventory that goes beside inventories/lab.
OVERLAY = ROOT / "tests" / "fakes" / "fleet"
#: The wheelhouse of the labs, as their hosts see it.
WHEELHOUSE_ON_HOSTS = "/srv/wheelhouse"
ENGINE_PORT = 8100


def prepare(lab: str, accelerator: str = "cpu") -> Path:
    """Make the wheels and the locks for a lab, which is up or will be. Run it again when the stand-in has changed.

    Args:
        lab: its name.
        accelerator: the fleet's.

    Returns:
        The directory in the lab's state that tests/fakes/fleet reads: locks, and vars.json.
    """
    made = wheels.build_all()
    folder = wheels.write_wheels(made, state.cache_root() / "wheelhouse")
    place = state.state_root() / lab / "fake-engines"
    wheels.write_locks(made, place / "locks", wheels.system_python(), accelerator)
    found = {"find_links": [f"{WHEELHOUSE_ON_HOSTS}/{folder.name}"], "locks": str(place / "locks")}
    (place / "vars.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return place


class StandinLab:
    """A lab of its own with the stand-in as its engine; it goes when the block ends.

    Args:
        name: the lab's.
        subnet: the lab's.
        hosts: how many inference hosts; the first is the canary.
        balancer: what decides who gets requests: ``health``, or ``registration`` in target groups.
        metadata: whether each host has EC2's instance metadata.

    Attributes:
        environment: what Ansible and the lab's command are started with.
    """

    def __init__(self, name: str, subnet: str, hosts: int, balancer: str = "health", metadata: bool = False) -> None:
        self.name = name
        self._balancer = balancer
        self._metadata = ["--metadata"] if metadata else []
        self._subnet = subnet
        self._hosts = hosts
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "INFERENCE_FLEET_LAB": name,
            "ANSIBLE_NOCOLOR": "1",
        }

    def __enter__(self) -> t.Self:
        # What a run that was killed has left would not be bare.
        self._checked("down")
        self.up(self._hosts)
        return self

    def __exit__(self, *_exception: object) -> None:
        self._checked("down")

    @property
    def hosts(self) -> list[str]:
        return [f"inference-{number}" for number in range(1, self._hosts + 1)]

    def up(self, hosts: int) -> None:
        """Have so many hosts."""
        self._hosts = hosts
        words = ["--subnet", self._subnet, "--hosts", str(hosts), "--balancer", self._balancer, *self._metadata]
        self._checked("up", *words)
        prepare(self.name)
        self.environment["LAB_EC2_ENDPOINT"] = state.require(self.name).ec2_endpoint

    def multiply(self, hosts: int) -> None:
        """Have so many hosts; the further ones have a copy of the last one's disk."""
        image = self.hosts[-1]
        self._hosts, first = hosts, self._hosts + 1
        for number in range(first, hosts + 1):
            self._checked("add", f"inference-{number}", "--role", "inference", "--image", image)

    def run(self, *command: str, timeout: float = 1200) -> Run:
        return run(*command, environment=self.environment, timeout=timeout)

    def playbook(self, *words: str) -> Run:
        return self.run("ansible-playbook", *inventories(), *words)

    def site(self, *words: str) -> Run:
        return self.playbook("site.yml", "-e", "engine=vllm", *words)

    def lab(self, verb: str, *words: str) -> Run:
        return self.run(sys.executable, "-m", "lab", verb, "--name", self.name, *words)

    def on(self, host: str, command: str) -> str:
        """What a command on a host prints."""
        done = self.lab("ssh", host, "--", command)
        assert done.code == 0, done.output
        return done.output.strip()

    def process(self, host: str, unit: str = "vllm@0.service") -> str:
        return self.on(host, f"systemctl show --value --property MainPID {unit}")

    def release(self, host: str, index: int = 0) -> str:
        """The release that an instance runs."""
        return self.on(host, f"cat /run/inference/{index}/release")

    def faults(self, host: str, index: int = 0, **values: t.Any) -> None:
        """Have an instance that runs go wrong in these ways, and in no others (engine.FAULTS), until it restarts."""
        url = f"http://127.0.0.1:{ENGINE_PORT + index}/fake/faults"
        self.on(host, f"curl --silent --show-error --fail --data {shlex.quote(json.dumps(values))} {url}")

    def client(self, name: str = "demo") -> openai.OpenAI:
        """An OpenAI client of the lab's balancer."""
        exports = self.lab("env", "--client", name).output
        found = dict(line.removeprefix("export ").split("=", 1) for line in exports.splitlines() if "=" in line)
        return openai.OpenAI(
            base_url=shlex.split(found["OPENAI_BASE_URL"])[0],
            api_key=shlex.split(found["OPENAI_API_KEY"])[0],
            max_retries=0,
        )

    def ask(self, question: str = "What is the capital of France?") -> str:
        """What the fleet answers, through the balancer."""
        answer = self.client().chat.completions.create(model=MODEL, messages=[{"role": "user", "content": question}])
        return answer.choices[0].message.content or ""

    def _checked(self, verb: str, *words: str) -> None:
        done = self.lab(verb, *words)
        assert done.code == 0, done.output


def inventories() -> list[str]:
    """The words that name the lab's inventory with the stand-in's beside it."""
    return ["-i", str(ROOT / "inventories" / "lab"), "-i", str(OVERLAY)]
