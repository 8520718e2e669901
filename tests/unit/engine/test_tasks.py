"""The order of an instance's change, and the ways back to an earlier release, read from role engine's tasks."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import steps

from tests.project import ROOT

TASKS = Path(__file__).resolve().parents[3] / "roles" / "engine" / "tasks"

KEYWORDS = {"name", "when", "module_defaults", "vars", "loop", "loop_control", "register", "block", "rescue", "always"}
CHANGE = "inference.fleet.engine_change"

Task = dict[str, t.Any]


def load(name: str) -> list[Task]:
    return yaml.safe_load((TASKS / name).read_text()) or []


def walked(tasks: list[Task]) -> t.Iterator[tuple[str, t.Any]]:
    """Each action and its arguments, including blocks and included files, without their rescue."""
    for task in tasks:
        if "block" in task:
            yield from walked(task["block"])
            continue
        action = next(name for name in task if name not in KEYWORDS)
        if action == "ansible.builtin.include_tasks":
            yield from walked(load(task[action]))
        else:
            yield action, task[action]


def taken(tasks: list[Task]) -> list[str]:
    """The steps of module engine_change, and the gates between them."""
    found = []
    for action, arguments in walked(tasks):
        if action == CHANGE:
            found.append(arguments["step"])
        elif action == "ansible.builtin.include_role":
            found.append(arguments["name"])
    return found


def test_an_attempt_takes_the_steps_in_their_order_with_the_gates_between_them() -> None:
    (block,) = load("attempt.yml")
    gate = "inference.fleet.gate"
    release = [task for task in block["block"] if task.get("ansible.builtin.include_tasks") != "remove_instance.yml"]
    assert taken(release) == [
        *("drain", "stop", "start", "gate", gate, "undrain"),
        # Where a gateway changes its kind, its edge leads to the process from here on.
        *("inference.fleet.edge", "edge_gate", gate, "prove", "follow"),
    ]
    assert [step for step in taken(release) if steps.find(step)] == [step.name for step in steps.of_instances()[:-1]]
    assert taken(load("remove_instance.yml")) == ["inference.fleet.edge", "undrain"]


def test_only_the_change_and_its_proof_lead_back() -> None:
    assert {action for action, _arguments in walked(load("attempt.yml"))} == {
        CHANGE,
        "inference.fleet.engine_ready",
        "ansible.builtin.include_role",
        # The rest of a removed instance.
        "ansible.builtin.set_fact",
    }


def test_one_place_judges_every_failure() -> None:
    (block,) = load("attempt.yml")
    (judge,) = block["rescue"]
    assert judge[CHANGE]["step"] == "judge"
    # And what is measured comes back or is judged in the same place.
    (measured,) = load("measure_drained.yml")
    assert [task[CHANGE]["step"] for task in measured["rescue"]] == ["judge"]
    rescued = sorted(path.name for path in TASKS.glob("*.yml") if "rescue:" in path.read_text())
    assert rescued == ["attempt.yml", "measure_drained.yml", "tune.yml"]
    # A search that breaks off is no failed change: the instance is put back as at its end.
    drained, searched = [task for task in load("tune.yml") if "rescue" in task]
    assert [task[CHANGE]["step"] for task in drained["rescue"]] == ["judge"]
    assert taken(drained["block"]) == ["drain"]
    assert [next(name for name in task if name not in KEYWORDS) for task in searched["rescue"]] == [
        "ansible.builtin.set_fact"
    ]


def test_a_measured_instance_is_measured_drained_and_gated_before_and_after_it_is_undrained() -> None:
    (block,) = load("measure_drained.yml")
    steps = [
        task[CHANGE]["step"] if CHANGE in task else task["ansible.builtin.include_role"] for task in block["block"]
    ]
    benchmark = {"name": "inference.fleet.benchmark", "tasks_from": "measure"}
    own_gate, edge_gate = {"name": "inference.fleet.gate", "tasks_from": "instance"}, {"name": "inference.fleet.gate"}
    assert steps == [
        "drain", "measure", benchmark, "gate", own_gate, "undrain", "edge_gate", edge_gate, "prove", "follow",
    ]  # fmt: skip
    assert not {"stop", "start"} & {step for step in steps if isinstance(step, str)}


def test_the_way_back_takes_the_same_steps_and_what_was_proved_is_written_down_outside_of_it() -> None:
    begin, _ahead, forward, back, confirm = load("deploy_instance.yml")
    assert begin[CHANGE]["step"] == "begin"
    for number, attempt in enumerate((forward, back), 1):
        assert attempt["ansible.builtin.include_tasks"] == "attempt.yml"
        assert attempt["when"] == f"engine_change.attempt == {number}"
    assert confirm[CHANGE]["step"] == "confirm"


def test_what_a_start_reads_is_read_before_the_drain() -> None:
    _begin, ahead, forward, _back, _confirm = load("deploy_instance.yml")
    assert ahead["inference.fleet.engine_read_ahead"]["release"] == "{{ __engine_staged.release }}"
    # On the way back the instance does not serve meanwhile.
    assert "engine_change.attempt == 1" in ahead["when"]
    drain, *_rest = load(forward["ansible.builtin.include_tasks"])[0]["block"]
    assert drain[CHANGE]["step"] == "drain"


def test_what_was_tried_comes_into_service_only_by_the_steps_of_every_change() -> None:
    tasks = load("tune.yml")
    assert taken(tasks[:3]) == ["begin", "drain", "inference.fleet.tune"]
    concluded, forward, back, confirm = tasks[3:]
    assert concluded[CHANGE]["step"] == "conclude"
    for number, attempt in enumerate((forward, back), 1):
        assert attempt["ansible.builtin.include_tasks"] == "attempt.yml"
        assert attempt["when"] == f"engine_change.attempt == {number}"
    assert confirm[CHANGE]["step"] == "confirm"
    # A trial ends before anything that lets requests come.
    assert taken(load("try.yml")) == ["trial", "start", "gate", "inference.fleet.gate"]


def test_each_step_hands_the_change_on() -> None:
    """The next step would get a skipped step as its input."""
    for path in TASKS.glob("*.yml"):
        tasks = load(path.name)
        for task in tasks + [inner for outer in tasks for inner in outer.get("block", []) + outer.get("rescue", [])]:
            if CHANGE in task:
                assert task["register"] == "engine_change"
                assert "engine_change" in task[CHANGE]["change"]
                # The trials end for an instance that was drained; where the drain failed, nothing follows.
                assert ("when" in task) == (task[CHANGE]["step"] == "conclude")


def test_no_file_name_is_made_of_variables() -> None:
    for role in ("engine", "rollout", "gate"):
        for path in (TASKS.parents[1] / role / "tasks").glob("*.yml"):
            names = [
                line for line in path.read_text().splitlines() if "include_tasks:" in line or "tasks_from:" in line
            ]
            assert not [line for line in names if "{{" in line], path
            assert "split(" not in path.read_text(), f"{path}: release, engine and unit come as fields"


def test_each_turn_gates_with_the_key_of_its_time() -> None:
    tasks = load("../../rollout/tasks/turn_walk.yml")
    included = [
        (role["name"], role.get("tasks_from")) for task in tasks if (role := task.get("ansible.builtin.include_role"))
    ]
    reveal, deploy = ("inference.fleet.keys", "reveal"), ("inference.fleet.engine", "deploy")
    assert included.index(reveal) < included.index(deploy)


def names(tasks: list[Task]) -> list[str]:
    """What is included, and the modules that run, in their order."""
    found = []
    for task in tasks:
        if "ansible.builtin.include_tasks" in task:
            found.append(task["ansible.builtin.include_tasks"])
        elif "ansible.builtin.include_role" in task:
            found.append(
                f"{task['ansible.builtin.include_role']['name']}/{task['ansible.builtin.include_role'].get('tasks_from')}"
            )
        else:
            found.append(f"{next(name for name in task if name not in KEYWORDS)}/{task.get('register')}")
    return found


def test_a_turns_alerts_are_silent_exactly_while_its_hosts_are_changed() -> None:
    tasks = load("../../rollout/tasks/turn_walk.yml")
    states = {
        task["vars"]["__rollout_silence"]: number
        for number, task in enumerate(tasks)
        if "__rollout_silence" in task.get("vars", {})
    }
    order = names(tasks)
    deploy = order.index("inference.fleet.engine/deploy")
    back = next(number for number, name in enumerate(order) if number > deploy and name == "put_back.yml")
    assert states["present"] == deploy - 1
    assert states["absent"] == back + 1
    # Nothing in between ends the run: a host that fails is the turn's outcome.
    entries = ("deploy", "measure", "tune")
    changes = [*(f"inference.fleet.engine/{entry}" for entry in entries), "put_back.yml"]
    assert order[deploy : states["absent"]] == changes


def test_the_key_of_metrics_moves_while_both_keys_are_valid() -> None:
    order = names(load("../../keys/tasks/finish.yml"))
    assert order.index("inference.fleet.api_key/keys_finished") < order.index("move_metrics.yml")
    assert order.index("move_metrics.yml") < order.index("update_and_prove.yml")


@pytest.mark.parametrize("path", sorted((ROOT / "playbooks").rglob("*.yml")), ids=lambda path: path.stem)
def test_a_playbook_that_keeps_what_a_host_has_goes_by_it(path: Path) -> None:
    """By its variables the host may have another engine, with another unit."""
    text = path.read_text()
    if "inference.fleet.engine_release:" in text:
        assert "engine_kept:" in text
