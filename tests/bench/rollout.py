"""The duration of rollouts and what clients lose: two hosts with the real engine, then many with the stand-in."""

from __future__ import annotations

import dataclasses
import json
import random
import shlex
import tempfile
import time
import typing as t
from pathlib import Path

from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import steps

from tests.bench.fleet import Fleet
from tests.e2e.rollouts import Rollout, Traffic
from tests.fakes.standin.lab import StandinLab, inventories
from tests.project import Run

RESTART = "playbooks/rolling_restart.yml"
STREAMS, REQUESTS_PER_SECOND = 20, 10
LOAD = f"{STREAMS} streams and {REQUESTS_PER_SECOND} requests/s"
HOSTS = 20
ROUNDS = 6
SEED = 20261122
# The last one only records the result: too short to be hit.
STEPS = [step.name for step in steps.of_instances()[:-1]]

Report = t.Callable[[str, str], None]


@dataclasses.dataclass
class Lost:
    """The clients' requests, and the lost ones."""

    sent: int = 0
    failed: int = 0

    def add(self, report: dict[str, t.Any]) -> None:
        self.sent += report["requests"]["sent"] + report["streams"]["begun"]
        self.failed += report["requests"]["failed"] + report["streams"]["failed"] + report["streams"]["cut"]

    def __str__(self) -> str:
        return f"{self.failed} of {self.sent} requests and streams lost"


@dataclasses.dataclass
class Scene:
    """A lab, its clients' address and key, a directory for files, and the inventory's arguments."""

    environment: dict[str, str]
    place: Path
    inventory: list[str]

    def rollout(self, *words: str) -> Rollout:
        return Rollout(self.environment, self.place, *self.inventory, *words)

    def finish(self, *words: str) -> tuple[Rollout, Run]:
        """A rollout that finishes."""
        run = self.rollout(*words)
        done = run.wait()
        if done.code:
            raise SystemExit(f"bench: {shlex.join(words)} failed:\n{done.output[-6000:]}")
        return run, done

    def clients(self) -> Traffic:
        return Traffic(self.environment, self.place / "traffic.json", STREAMS, REQUESTS_PER_SECOND)


def two_hosts(fleet: Fleet, report: Report) -> None:
    """A rolling restart of two hosts with the real engine, under load."""
    fleet.grow(2)
    names = fleet.names(2)
    fleet.site(names)
    with tempfile.TemporaryDirectory() as place:
        scene = Scene({**fleet.environment, **client_variables(fleet.client_environment())}, Path(place), [])
        _restart(scene, report, f"{len(names)} hosts, real engine", "-l", ",".join(names))


def many_hosts(report: Report) -> None:
    """A rolling restart of many hosts, and then rollouts with one fault each."""
    with StandinLab("rollouts", "10.221.0.0/24", HOSTS) as fleet, tempfile.TemporaryDirectory() as place:
        began = time.monotonic()
        done = fleet.site()
        if done.code:
            raise SystemExit(f"bench: site.yml failed:\n{done.output[-6000:]}")
        report("rollout", f"{HOSTS} bare hosts, stand-in engine: site.yml {time.monotonic() - began:.0f} s")
        exports = fleet.lab("env", "--client", "demo").output
        scene = Scene({**fleet.environment, **client_variables(exports)}, Path(place), inventories())
        _restart(scene, report, f"{HOSTS} hosts, stand-in engine")
        faults = Faults(scene, fleet, random.Random(SEED))  # noqa: S311 - the same faults each time, nothing secret
        lost = Lost()
        for number in range(1, ROUNDS + 1):
            clients = scene.clients()
            happened = faults.one(number)
            lost.add(clients.stop())
            report("", f"round {number} of {ROUNDS} (seed {SEED}): {happened}")
        report("rollout", f"in all rounds: {lost}")


class Faults:
    """A rollout fails half-way, and the next run finishes it.

    Args:
        scene: the environment.
        fleet: the lab.
        chance: selects the fault, the host and the step.
    """

    def __init__(self, scene: Scene, fleet: StandinLab, chance: random.Random) -> None:
        self._scene = scene
        self._fleet = fleet
        self._chance = chance

    def one(self, number: int) -> str:
        """The fault."""
        host = self._chance.choice(self._fleet.hosts)
        faults = (self._controller_killed, self._engine_killed, self._release_fails, self._host_lost)
        return self._chance.choice(faults)(host, number)

    def _controller_killed(self, host: str, _number: int) -> str:
        step = self._chance.choice(STEPS)
        run = self._scene.rollout(RESTART)
        run.wait_for("step", host=host, step=step)
        run.kill()
        self._scene.finish(RESTART)
        return f"controller killed in {host}'s {step}; run again, it finished"

    def _engine_killed(self, host: str, _number: int) -> str:
        run = self._scene.rollout(RESTART)
        run.wait_for("step", host=host, step="gate")
        self._fleet.on(host, "systemctl kill --signal=KILL vllm@0.service")
        ended = run.wait()
        self._scene.finish(RESTART)
        became = "it stopped; run again, it" if ended.code else "the gate waited, and it"
        return f"engine of {host} killed in its gate: {became} finished"

    def _release_fails(self, host: str, number: int) -> str:
        name, value = self._chance.choice((("WRONG_ANSWER", "1"), ("START_ERROR", "out_of_memory")))
        fault = f"{{{{ {{'FAKE_ENGINE_{name}': '{value}'}} if inventory_hostname == '{host}' else {{}} }}}}"
        option = {"engine": "vllm", "vllm_max_num_seqs": 100 + number}
        ended = self._scene.rollout("site.yml", "-e", json.dumps({**option, "vllm_environment": fault})).wait()
        if not ended.code or "rolled back to" not in ended.text:
            raise SystemExit(f"bench: the release of {host} should have failed:\n{ended.output[-6000:]}")
        self._scene.finish("site.yml", "-e", json.dumps(option))
        return f"release of {host} failed ({name.lower()}) and was rolled back; repaired, it finished"

    def _host_lost(self, host: str, _number: int) -> str:
        run = self._scene.rollout(RESTART)
        run.wait_for("step", host=host, step="stop")
        self._fleet.lab("stop", host, "--crash")
        ended = run.wait()
        self._fleet.lab("start", host)
        if not ended.code:
            raise SystemExit(f"bench: the rollout that lost {host} should have stopped:\n{ended.output[-6000:]}")
        self._scene.finish(RESTART)
        return f"{host} went away after its drain; back again, it finished"


def _restart(scene: Scene, report: Report, what: str, *words: str) -> None:
    clients = scene.clients()
    run, _done = scene.finish(RESTART, *words)
    lost = Lost()
    lost.add(clients.stop())
    record = json.loads((run.record / "record.json").read_text(encoding="utf-8"))
    totals, waves = record["totals"], len(record["waves"])
    rest = totals["seconds"] - totals["out_seconds"]
    report("rollout", f"{what}, {LOAD}: restarted in {totals['seconds']:.0f} s and {waves} waves, {lost}")
    report("", f"= {totals['out_seconds']:.0f} s of stop, start and gate + {rest:.0f} s ({rest / waves:.1f} s a wave)")


def client_variables(exports: str) -> dict[str, str]:
    """What `python -m lab env` exports."""
    found = dict(line.removeprefix("export ").split("=", 1) for line in exports.splitlines() if "=" in line)
    return {name: shlex.split(value)[0] for name, value in found.items()}
