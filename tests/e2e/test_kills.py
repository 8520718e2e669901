"""Kills the controller at each step, without a failed request. Uses the stand-in for the engines: they are not killed
here, and a real one would take half a minute to start."""

from __future__ import annotations

import json
import re
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import steps

from lab import state
from tests.e2e.conftest import Fleet
from tests.e2e.rollouts import Playbook, Rollout, Traffic, nothing_was_lost
from tests.e2e.test_keys import ROTATE
from tests.e2e.test_rollouts import RESTART
from tests.fakes.standin.lab import StandinLab, inventories

pytestmark = pytest.mark.long

# The last one only records the result: too short to be hit.
STEPS = [step.name for step in steps.of_instances()[:-1]]


@pytest.fixture(scope="module")
def fleet() -> t.Iterator[Fleet]:
    with StandinLab("kills", "10.218.0.0/24", hosts=2) as lab:
        deployed = lab.site()
        assert deployed.code == 0, deployed.output
        made = Fleet(lab.environment, inventories())
        made.read_environment()
        yield made


def test_a_controller_that_is_killed_at_any_step_costs_nothing(fleet: Fleet, tmp_path: Path) -> None:
    clients = Traffic(fleet.environment, tmp_path / "traffic.json", 4, 5)
    before = fleet.process("inference-2")
    for step in STEPS:
        run = Rollout(fleet.environment, tmp_path, *fleet.inventory, RESTART, "-l", "inference-1")
        run.wait_for("step", host="inference-1", step=step)
        run.kill()
        assert fleet.process("inference-2") == before
    reported = fleet.playbook("playbooks/status.yml")
    assert "0 of its 1 hosts are done. The same command goes on with it." in reported.text
    last = Rollout(fleet.environment, tmp_path, *fleet.inventory, RESTART, "-l", "inference-1").wait()
    assert last.code == 0
    assert "Goes on with" in last.text
    assert nothing_was_lost(clients.stop())
    assert fleet.health("inference-1") == "200"
    assert "The same command goes on" not in fleet.playbook("playbooks/status.yml").text


def test_a_controller_killed_at_any_step_leaves_its_client_a_working_key(fleet: Fleet, tmp_path: Path) -> None:
    whole = fleet.playbook(ROTATE, "-e", "client=demo")
    assert whole.code == 0, whole.output
    tasks = re.findall(r"^TASK \[(inference\.fleet\.keys : [^\]]+)\]", whole.output, re.MULTILINE)
    before_all = "Validating|Look whether|Look from which|Keep other"
    steps = [task for task in dict.fromkeys(tasks) if not re.search(before_all, task)]
    assert len(steps) > 12
    # The gate's client is not rotated: a client that is not rotated never sees a refusal.
    clients = Traffic(fleet.environment, tmp_path / "traffic.json", 1, 5, fleet.keys("gate")["current"])
    for step in steps:
        before = fleet.keys()["current"]
        run = Playbook(fleet.environment, tmp_path, *fleet.inventory, ROTATE, "-e", "client=demo")
        run.wait_for_task(step)
        run.kill()
        known = {before, *fleet.keys().values()}
        assert any(fleet.answers(key) == [200, 200] for key in known), f"killed at {step}"
    done = Playbook(fleet.environment, tmp_path, *fleet.inventory, ROTATE, "-e", "client=demo").wait()
    assert done.code == 0
    assert nothing_was_lost(clients.stop())
    assert list(fleet.keys()) == ["current"]
    assert fleet.answers(fleet.keys()["current"]) == [200, 200]
    store = json.loads((state.require(fleet.name).directory / "keys.json").read_text())
    assert store["rotation"] is None
    assert all(key["proven"] for key in store["clients"]["demo"]["retired"])
