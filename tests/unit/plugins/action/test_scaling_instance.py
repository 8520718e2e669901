"""The action plugin behind module scaling_instance, against the lab's AWS."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path
from unittest import mock

import pytest
from ansible_collections.inference.fleet.plugins.action.scaling_instance import JOURNAL, ActionModule

from tests.integration.aws.conftest import Scaled, make_scaled, scaled, scaling_cloud
from tests.unit.lab.aws.conftest import REGION, wait_for

__all__ = ["make_scaled", "scaled", "scaling_cloud"]


class Call:
    """The action for one instance."""

    def __init__(self, scaled: Scaled, instance: str, records: Path) -> None:
        self._arguments = {
            "instance": instance,
            "region": REGION,
            "endpoint": scaled.cloud.url,
            "records": str(records / "records"),
            "outcome": str(records / "outcome.json"),
        }
        self._records = records

    def __call__(self, state: str, *, check: bool = False, **further: t.Any) -> dict[str, t.Any]:
        arguments = {**self._arguments, "state": state, **further}
        task = mock.Mock(args=arguments, async_val=0, check_mode=check, action="inference.fleet.scaling_instance")
        action = ActionModule(task, mock.MagicMock(), mock.Mock(), mock.Mock(), mock.Mock(), mock.Mock())
        result: dict[str, t.Any] = action.run(task_vars={"inventory_hostname": "fleet_1"})
        return result

    def journal(self) -> list[dict[str, t.Any]]:
        path = self._records / "records" / JOURNAL
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def outcome(self) -> dict[str, str]:
        said: dict[str, str] = json.loads((self._records / "outcome.json").read_text())
        return said


def test_a_host_joins_once(scaled: Scaled, tmp_path: Path) -> None:
    instance = scaled.start_one()
    call = Call(scaled, instance, tmp_path)
    looked = call("looked")
    assert (looked["changed"], looked["group"], looked["lifecycle_state"], looked["waits"]) == (
        False,
        scaled.name,
        "Pending:Wait",
        "join",
    )
    joined = call("joined", tag="joining")
    assert joined["actions"] == [
        "remove the tag inference:state",
        f"complete the hook of group {scaled.name} with CONTINUE",
    ]
    assert (scaled.states(), scaled.tag(instance)) == ({instance: "InService"}, "")
    assert call.outcome() == {"verdict": "joined", "reason": ""}
    again = call("joined")
    assert (again["changed"], again["actions"], again["waits"]) == (False, [], "")
    assert [(event["event"], event["host"], event["instance"]) for event in call.journal()] == [
        ("joined", "fleet_1", instance)
    ]


def test_in_check_mode_nothing_is_changed(scaled: Scaled, tmp_path: Path) -> None:
    instance = scaled.start_one()
    call = Call(scaled, instance, tmp_path)
    for state, tag, actions in (("joined", "joining", 2), ("abandoned", "joining", 1), ("leaving", "", 1)):
        assert len(call(state, check=True, tag=tag)["actions"]) == actions
    assert (scaled.states(), scaled.tag(instance)) == ({instance: "Pending:Wait"}, "joining")
    assert list(tmp_path.iterdir()) == []


def test_a_host_that_fails_is_abandoned_with_the_reason_and_stays_no_member(scaled: Scaled, tmp_path: Path) -> None:
    instance = scaled.start_one()
    call = Call(scaled, instance, tmp_path)
    call("abandoned", tag="joining", reason="The gate failed: no golden answer.")
    assert scaled.states()[instance].startswith("Terminating")
    assert scaled.tag(instance) == "joining"
    assert call.outcome() == {"verdict": "abandoned", "reason": "The gate failed: no golden answer."}
    assert call.journal()[0]["reason"] == "The gate failed: no golden answer."


def test_a_kept_host_goes_on_waiting(scaled: Scaled, tmp_path: Path) -> None:
    instance = scaled.start_one()
    call = Call(scaled, instance, tmp_path)
    assert call("kept", reason="The gate failed.")["actions"] == []
    assert scaled.states() == {instance: "Pending:Wait"}
    assert call.outcome()["verdict"] == "kept"


def test_a_host_leaves_once(scaled: Scaled, tmp_path: Path) -> None:
    instance = scaled.start_one()
    call = Call(scaled, instance, tmp_path)
    call("joined", tag="joining")
    scaled.scale(0)
    wait_for(scaled.states, {instance: "Terminating:Wait"})
    assert call("leaving")["actions"] == ["set the tag inference:state to leaving"]
    assert scaled.tag(instance) == "leaving"
    assert call("leaving", tag="leaving")["actions"] == []
    assert call("left")["changed"]
    wait_for(scaled.states, {})
    assert not call("left")["changed"]


def test_a_host_whose_group_ends_it_meanwhile_does_not_join(scaled: Scaled, tmp_path: Path) -> None:
    instance = scaled.start_one()
    call = Call(scaled, instance, tmp_path)
    call("joined")
    scaled.scale(0)
    wait_for(scaled.states, {instance: "Terminating:Wait"})
    result = call("joined", tag="joining")
    assert result["failed"]
    assert result["msg"] == (
        f"fleet_1 ({instance}) passed its gate, but group {scaled.name} is ending it (Terminating:Wait). It does not "
        "join."
    )
    assert scaled.tag(instance) == "joining"


def test_only_the_hooks_of_the_fleet_are_completed(scaled: Scaled, tmp_path: Path) -> None:
    scaled.autoscaling.put_lifecycle_hook(
        LifecycleHookName="inventory",
        AutoScalingGroupName=scaled.name,
        LifecycleTransition="autoscaling:EC2_INSTANCE_LAUNCHING",
        HeartbeatTimeout=3600,
    )
    instance = scaled.start_one()
    call = Call(scaled, instance, tmp_path)
    assert call("joined", tag="joining")["changed"]
    assert scaled.states() == {instance: "Pending:Wait"}, "the other hook is another program's"
    assert call("joined", hooks=["inventory"])["changed"]
    assert scaled.states() == {instance: "InService"}


def test_a_host_of_no_group_only_has_a_tag(scaled: Scaled, tmp_path: Path) -> None:
    instance, _address = scaled.cloud.instance()
    scaled.cloud.client("ec2").create_tags(Resources=[instance], Tags=[{"Key": "inference:state", "Value": "joining"}])
    call = Call(scaled, instance, tmp_path)
    assert call("looked")["group"] == ""
    assert call("joined", tag="joining")["actions"] == ["remove the tag inference:state"]
    assert scaled.tag(instance) == ""
    assert not call("left")["changed"]


def test_a_journal_that_cannot_be_written_is_named(scaled: Scaled, tmp_path: Path) -> None:
    call = Call(scaled, scaled.start_one(), tmp_path)
    (tmp_path / "records").write_text("a file")
    result = call("joined", tag="joining")
    assert result["failed"]
    assert "cannot be written under" in result["msg"]


@pytest.mark.parametrize("state", ["joined", "left"])
def test_a_wait_that_ended_meanwhile_is_no_error(scaled: Scaled, tmp_path: Path, state: str) -> None:
    """Between the look and the call another run completed the hook."""
    instance = scaled.start_one()
    call = Call(scaled, instance, tmp_path)
    if state == "left":
        call("joined")
        scaled.scale(0)
        wait_for(scaled.states, {instance: "Terminating:Wait"})
    hook = {"joined": "join", "left": "leave"}[state]
    before = ActionModule.act
    with mock.patch(
        "ansible_collections.inference.fleet.plugins.action.scaling_instance._Turn._change",
        autospec=True,
        side_effect=lambda turn, said, change: _complete_first(scaled, hook, instance, change),
    ):
        assert not call(state).get("failed")
    assert ActionModule.act is before


def _complete_first(scaled: Scaled, hook: str, instance: str, change: t.Callable[[], t.Any]) -> None:
    scaled.autoscaling.complete_lifecycle_action(
        AutoScalingGroupName=scaled.name, LifecycleHookName=hook, InstanceId=instance, LifecycleActionResult="CONTINUE"
    )
    change()
