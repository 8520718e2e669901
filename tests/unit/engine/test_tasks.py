"""What may lead back to an earlier release, read from the tasks of role engine."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
import yaml

TASKS = Path(__file__).resolve().parents[3] / "roles" / "engine" / "tasks"

#: What the change of an instance consists of; nothing else may stand where a failure leads back.
CHANGING = {
    "inference.fleet.edge_drain",
    "inference.fleet.edge_keys",
    "inference.fleet.engine_key",
    "inference.fleet.engine_ready",
    "ansible.builtin.systemd_service",
    "ansible.builtin.set_fact",
    "ansible.builtin.assert",
    # Never fails: a journal that cannot be written is a warning.
    "inference.fleet.rollout_event",
}
#: Those of its states that the change consists of.
RELEASE_STATES = {"active", "restored", "removed"}
#: Roles that prove something or configure the host; they are not walked into.
ROLES = {"inference.fleet.gate", "inference.fleet.edge"}
KEYWORDS = {"name", "when", "vars", "loop", "loop_control", "register", "block", "rescue", "always"}


def load(name: str) -> list[dict[str, t.Any]]:
    tasks: list[dict[str, t.Any]] = yaml.safe_load((TASKS / name).read_text())
    return tasks


def walked(tasks: list[dict[str, t.Any]]) -> t.Iterator[tuple[str, t.Any]]:
    """Each action and its arguments, also of included files."""
    for task in tasks:
        if "block" in task:
            yield from walked(task["block"])
            continue
        action = next(name for name in task if name not in KEYWORDS)
        if action == "ansible.builtin.include_tasks":
            yield from walked(load(task[action]))
        elif action == "ansible.builtin.include_role":
            assert task[action]["name"] in ROLES
        else:
            yield action, task[action]


def guarded(name: str) -> list[dict[str, t.Any]]:
    """The tasks of a file whose failure leads to its first rescue."""
    return [task for task in load(name) if "rescue" in task][:1]


@pytest.mark.parametrize("name", ["deploy_instance.yml", "remove_instance.yml", "roll_back_instance.yml"])
def test_only_the_change_itself_leads_back(name: str) -> None:
    blocks = guarded(name)
    assert blocks
    for action, arguments in walked(blocks):
        if action == "inference.fleet.engine_release":
            assert arguments["state"] in RELEASE_STATES
        else:
            assert action in CHANGING


def test_the_gate_through_the_edge_is_the_last_that_leads_back() -> None:
    last = guarded("deploy_instance.yml")[0]["block"][-1]
    assert last["ansible.builtin.include_tasks"] == "start_and_gate.yml"
    after = [task["name"] for task in load("start_and_gate.yml")]
    assert after[after.index("start_and_gate | Gate through the edge") + 1 :] == [
        "start_and_gate | Remember that it was proved",
        "start_and_gate | Go by the host where its requests come to",
    ]


@pytest.mark.parametrize("name", ["deploy_instance.yml", "remove_instance.yml"])
def test_what_is_written_down_afterwards_leads_nowhere(name: str) -> None:
    *_change, notes = load(name)
    assert notes["ansible.builtin.include_tasks"] == "confirm_instance.yml"
    assert notes["when"] == "engine_report is not defined"
    for note in notes["vars"]["__engine_notes"]:
        assert [action for action, _arguments in walked(load(f"note_{note}.yml"))]
    (guard,) = load("note.yml")
    assert [next(iter(set(task) - KEYWORDS)) for task in guard["rescue"]] == ["ansible.builtin.set_fact"]


def test_the_way_back_lets_requests_finish_as_the_way_forward_does() -> None:
    drains = {
        name: next(arguments for action, arguments in walked(guarded(name)) if action == "inference.fleet.edge_drain")
        for name in ("deploy_instance.yml", "roll_back_instance.yml")
    }
    for option in ("lame_duck_seconds", "wait"):
        forward, back = (str(drains[name][option]).split(" if ")[0] for name in drains)
        assert forward == back


def test_each_turn_gates_with_the_key_of_its_time() -> None:
    tasks = load("../../rollout/tasks/turn_walk.yml")
    included = [
        (role["name"], role.get("tasks_from")) for task in tasks if (role := task.get("ansible.builtin.include_role"))
    ]
    reveal, deploy = ("inference.fleet.keys", "reveal"), ("inference.fleet.engine", "deploy")
    assert included.index(reveal) < included.index(deploy)
