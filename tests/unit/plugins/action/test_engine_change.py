"""The action that runs the steps of an instance's change: modules, journal, and failures in Ansible."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path
from unittest import mock

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible_collections.inference.fleet.plugins.action.engine_change import ARGUMENTS, STEPS, ActionModule
from ansible_collections.inference.fleet.plugins.module_utils.instances.plan import Instance
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import steps

Result = dict[str, t.Any]

INSTANCE = Instance(0, "vllm", (0,), 8000).as_dict()
STAGED = {
    "index": 0,
    "release": "vllm-new",
    "running": "vllm-old",
    "running_unit": "vllm@0.service",
    "pending": "its release changes",
}
DRAINED = {"idle": False, "requests": [{"client": "a"}], "engines": [], "waited": 4.0, "lame_duck_seconds": 6}


class Host:
    """A host whose modules answer as the test sets, by name; all others change something."""

    def __init__(self, journal: Path | str = "", answers: dict[str, t.Any] | None = None) -> None:
        self.journal = str(journal)
        self.answers = answers or {}
        self.asked: list[tuple[str, Result]] = []
        self.variables: Result = {"inventory_hostname": "gpu-1", "hostvars": {}}

    def run(self, step: str, change: Result | None = None, *, check: bool = False, **arguments: t.Any) -> Result:
        task = mock.Mock(
            args={"step": step, "change": change or {}, **arguments},
            async_val=0,
            check_mode=check,
            action="inference.fleet.engine_change",
        )
        action = ActionModule(task, mock.MagicMock(), mock.Mock(), mock.Mock(), mock.Mock(), mock.Mock())
        with mock.patch.object(action, "_execute_module", self.execute):
            return dict(action.run(task_vars=self.variables))

    def begin(self, change: Result | None = None, **arguments: t.Any) -> Result:
        given = {"staged": STAGED, "instances": [INSTANCE], "journal": self.journal, "rollout": "r1", **arguments}
        return self.run("begin", change, **given)

    def execute(self, module_name: str, module_args: Result, task_vars: Result) -> Result:
        assert task_vars is self.variables
        self.asked.append((module_name, dict(module_args)))
        module_args["_ansible_added"] = True
        answer = self.answers.get(module_name, {"changed": True})
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)


def events(journal: Path) -> list[Result]:
    return [{k: v for k, v in json.loads(line).items() if k != "at"} for line in journal.read_text().splitlines()]


def test_a_step_runs_its_modules_and_notes_itself_in_the_journal(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    host = Host(journal, {"inference.fleet.edge_drain": {**DRAINED, "changed": True, "warnings": ["slow"]}})
    begun = host.begin(lame_duck_seconds=6, drain_seconds="300")
    assert host.asked == []
    result = host.run("drain", begun)
    assert host.asked == [
        (
            "inference.fleet.edge_drain",
            {"state": "drained", "by": "rollout", "reason": "its release changes", "lame_duck_seconds": 6, "wait": 300},
        )
    ]
    assert events(journal) == [
        {"event": "step", "host": "gpu-1", "instance": "vllm-0", "step": "drain", "attempt": 1},
        {"event": "drained", "host": "gpu-1", "instance": "vllm-0", **DRAINED},
    ]
    assert (result["changed"], result.get("failed"), result["warnings"]) == (True, None, ["slow"])
    assert result["step"] == "drain"


def test_what_a_step_was_is_known_after_it_failed_and_is_judged(tmp_path: Path) -> None:
    failing = {"ansible.builtin.systemd_service": {"failed": True, "msg": "Job timed out"}}
    host = Host(tmp_path / "journal.jsonl", {"inference.fleet.edge_drain": DRAINED, **failing})
    failed = host.run("stop", host.run("drain", host.begin()))
    assert failed["failed"]
    assert (failed["msg"], failed["step"]) == ("Stop the unit: Job timed out", "stop")
    judged = host.run("judge", failed, task="attempt | Stop what runs", reason="whatever")
    assert not judged.get("failed")
    assert (judged["attempt"], judged["failure"]) == (2, "Stop the unit: Job timed out")


@pytest.mark.parametrize(
    ("failed", "failure"),
    [
        ({"task": "ask | Ask and judge", "reason": "London"}, "Ask and judge: London"),
        ({}, "a task: no reason given"),
    ],
)
def test_the_failure_of_another_task_is_judged_by_its_name_and_reason(failed: Result, failure: str) -> None:
    host = Host()
    change = host.run("gate", host.run("stop", host.begin()))
    assert host.run("judge", change, **failed)["failure"] == failure


def test_a_host_that_does_not_answer_is_no_failure_to_be_judged() -> None:
    host = Host(answers={"inference.fleet.edge_drain": AnsibleConnectionFailure("No route to host")})
    with pytest.raises(AnsibleConnectionFailure, match="No route to host"):
        host.run("drain", host.begin())


def test_a_note_that_cannot_be_written_is_a_value_and_no_failed_task() -> None:
    host = Host(answers={"inference.fleet.rollout_claim": {"failed": True, "msg": "No space left on device"}})
    change = host.run("prove", host.run("stop", host.begin()))
    result = host.run("confirm", change)
    assert not result.get("failed")
    assert result["outcome"] == "unrecorded"
    assert "No space left on device" in result["message"]


def test_after_one_that_failed_the_next_instance_is_left_alone() -> None:
    host = Host()
    other = {"staged": {**STAGED, "index": 1}, "instances": [INSTANCE, Instance(1, "vllm", (1,), 8000).as_dict()]}
    for outcome, attempt in (("failed", 0), ("unrecorded", 0), ("rolled_back", 0), ("done", 1), ("", 1)):
        before = {**host.begin(), "outcome": outcome, "message": "why"}
        result = host.begin(before, **other)
        assert result["attempt"] == attempt
        assert (result["instance"]["index"], result["message"]) == ((1, "") if attempt else (0, "why"))
        assert host.run("confirm", result)["outcome"] == outcome * (not attempt)
    assert host.asked == []


def test_a_further_node_looks_at_the_first() -> None:
    host = Host()
    span = {"rank": 1, "nodes": ["gpu-0", "gpu-1"]}
    further = {**INSTANCE, "span": span, "serves": False}
    change = host.run("prove", host.run("stop", host.begin(instances=[further])))
    host.variables["hostvars"] = {"gpu-0": {}}
    failed = host.run("follow", change)
    assert failed["failed"]
    assert failed["msg"] == "it was not proved on gpu-0, where its requests come to"
    first = host.run("prove", host.run("stop", host.begin()))
    host.variables["hostvars"] = {"gpu-0": {"engine_change": first}}
    assert host.run("follow", change)["passed"] == 1


def test_check_mode_and_a_full_disk_write_nothing_to_the_journal(tmp_path: Path) -> None:
    journal = tmp_path / "gone" / "journal.jsonl"
    host = Host(journal, {"inference.fleet.edge_drain": DRAINED})
    assert "warnings" not in host.run("drain", host.begin(), check=True)
    result = host.run("drain", host.begin())
    assert not result.get("failed")
    assert f"The journal {journal} cannot be written" in result["warnings"][0]


def test_an_unknown_step_is_refused() -> None:
    with pytest.raises(AnsibleError, match="value of step must be one of: begin, drain"):
        Host().run("dance")


def test_each_step_of_a_rollout_can_be_taken() -> None:
    assert [step.name for step in steps.STEPS if not step.balancer] == [*STEPS, "confirm"]
    assert {step.name for step in steps.of_instances()} < set(ARGUMENTS["step"]["choices"])
