"""The columns of playbooks/status.yml that AWS fills."""

from __future__ import annotations

import typing as t

import boto3
import pytest
from ansible_collections.inference.fleet.plugins.action.aws_status import ActionModule
from botocore.client import BaseClient
from botocore.exceptions import ClientError

from tests.unit.plugins.action.balancer_fleet import BalancedFleet
from tests.unit.plugins.plugin_utils.aws.cloudwatch import moto

__all__ = ["moto"]


@pytest.fixture
def fleet(moto: None) -> BalancedFleet:
    return BalancedFleet()


def test_each_host_has_its_state_and_its_events(fleet: BalancedFleet) -> None:
    targets = [{"Id": fleet.hosts["gpu-2"]["aws_instance_id"], "Port": 8000}]
    fleet.elbv2.deregister_targets(TargetGroupArn=fleet.made.group, Targets=targets)
    result = fleet.ask(ActionModule, hosts=["gpu-1", "gpu-2", "gw-1"])
    assert result["hosts"] == {
        "gpu-1": {"balancer": "healthy 1/1", "events": ""},
        "gpu-2": {"balancer": "unused: Target.NotRegistered", "events": ""},
        "gw-1": {"events": ""},
    }
    assert (result["columns"], result["notes"]) == (["balancer", "events"], [])


def test_in_mode_health_the_state_is_shown_too(fleet: BalancedFleet) -> None:
    fleet.set_for_all(balancer_mode="health")
    assert fleet.ask(ActionModule, hosts=["gpu-1"])["hosts"]["gpu-1"]["balancer"] == "healthy 1/1"


def test_without_aws_there_is_no_column_and_no_call(fleet: BalancedFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    for own in fleet.hosts.values():
        del own["aws_instance_id"]
        own["fleet_target_groups"] = []
    monkeypatch.setattr(boto3.session.Session, "client", lambda *_given, **_more: pytest.fail("AWS was asked"))
    result = fleet.ask(ActionModule, hosts=list(fleet.hosts))
    assert (result["hosts"], result["columns"], result["notes"]) == ({}, [], [])


def test_a_group_that_does_not_exist_is_a_note_and_leaves_the_rest(fleet: BalancedFleet) -> None:
    fleet.set_for_all(fleet_target_groups=[{"name": "missing", "role": "inference"}])
    result = fleet.ask(ActionModule, hosts=["gpu-1"])
    assert result["columns"] == ["events"]
    assert not result.get("failed")
    (note,) = result["notes"]
    assert note.startswith("There is no target group missing in us-east-1, where gpu-1 is.")


def test_a_variable_that_is_wrong_is_a_note(fleet: BalancedFleet) -> None:
    fleet.set_for_all(fleet_target_groups="fleet")
    result = fleet.ask(ActionModule, hosts=["gpu-1"])
    assert result["columns"] == ["events"]
    assert result["notes"][0].startswith("The state of hosts at the balancer cannot be read: fleet_target_groups is")


def test_many_problems_are_a_few_notes(fleet: BalancedFleet) -> None:
    for number in range(3, 9):
        fleet.hosts[f"gpu-{number}"] = {**fleet.hosts["gpu-1"], "inventory_hostname": f"gpu-{number}"}
    fleet.set_for_all(fleet_target_groups=[{"name": "missing", "role": "inference"}])
    notes = fleet.ask(ActionModule, hosts=list(fleet.hosts))["notes"]
    assert len(notes) == 4
    assert notes[-1] == "5 more: playbooks/balancer.yml has all."


@pytest.mark.parametrize(
    ("denied", "columns", "note"),
    [
        (
            "DescribeInstanceStatus",
            ["balancer"],
            "The events of EC2 in us-east-1 cannot be read: DescribeInstanceStatus in us-east-1 failed "
            "(UnauthorizedOperation). The credentials lack the right ec2:DescribeInstanceStatus on *: allow that IAM "
            "action, then run again.",
        ),
        (
            "DescribeTargetHealth",
            ["events"],
            "The state of hosts at the balancer cannot be read: DescribeTargetHealth of target group fleet in "
            "us-east-1 failed (UnauthorizedOperation). The credentials lack the right "
            "elasticloadbalancing:DescribeTargetHealth on *: allow that IAM action, then run again.",
        ),
    ],
)
def test_a_missing_right_is_a_note_and_leaves_the_rest(
    denied: str, columns: list[str], note: str, fleet: BalancedFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = BaseClient._make_api_call  # type: ignore[attr-defined]

    def answer(client: t.Any, operation: str, parameters: dict[str, t.Any]) -> t.Any:
        if operation == denied:
            raise ClientError({"Error": {"Code": "UnauthorizedOperation", "Message": ""}}, operation)
        return real(client, operation, parameters)

    monkeypatch.setattr(BaseClient, "_make_api_call", answer)
    result = fleet.ask(ActionModule, hosts=["gpu-1"])
    assert not result.get("failed")
    assert (result["columns"], result["notes"]) == (columns, [note])
