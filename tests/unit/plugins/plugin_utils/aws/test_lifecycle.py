"""Refusals of Auto Scaling, as AWS documents them. What works is tested with the service (events/test_service.py) and
with action scaling_instance, against the lab's hooks."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.lifecycle import CONTINUE, ScalingGroups
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.members import GroupMember
from botocore.client import BaseClient
from botocore.exceptions import ClientError

from tests.unit.plugins.plugin_utils.aws.cloudwatch import REGION, moto

__all__ = ["moto"]

pytestmark = pytest.mark.usefixtures("moto")

WAITS = GroupMember("i-0a1b2c3d4e5f60718", "fleet", "Pending:Wait")
HOOK = {
    "LifecycleHookName": "join",
    "LifecycleTransition": "autoscaling:EC2_INSTANCE_LAUNCHING",
    "HeartbeatTimeout": 300,
}


def refuse(monkeypatch: pytest.MonkeyPatch, code: str, said: str) -> None:
    """Have a group with a hook, whose completion and heartbeat AWS refuses."""

    def answer(_self: t.Any, operation: str, _parameters: dict[str, t.Any]) -> dict[str, t.Any]:
        if operation == "DescribeLifecycleHooks":
            return {"LifecycleHooks": [HOOK, {**HOOK, "LifecycleHookName": "another program's"}]}
        raise ClientError({"Error": {"Code": code, "Message": said}}, operation)

    monkeypatch.setattr(BaseClient, "_make_api_call", answer)


def groups() -> ScalingGroups:
    return ScalingGroups(REGION, "a test")


def test_a_wait_that_is_over_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "ValidationError", "No active Lifecycle Action found with instance ID i-0a1b2c3d4e5f60718")
    assert not groups().complete(WAITS, CONTINUE)
    assert not groups().beat(WAITS)


@pytest.mark.parametrize(
    ("code", "said", "message"),
    [
        ("ValidationError", "LifecycleActionResult must be CONTINUE or ABANDON", "AWS says: LifecycleActionResult"),
        (
            "AccessDenied",
            "User: arn:aws:iam::1:user/ops is not authorized to perform: autoscaling:CompleteLifecycleAction",
            "CompleteLifecycleAction of i-0a1b2c3d4e5f60718 at hook join of group fleet in us-east-1 failed "
            "(AccessDenied). The credentials lack the right autoscaling:CompleteLifecycleAction",
        ),
        ("ExpiredToken", "The security token is expired", "The credentials have expired."),
    ],
)
def test_any_other_refusal_is_one(monkeypatch: pytest.MonkeyPatch, code: str, said: str, message: str) -> None:
    refuse(monkeypatch, code, said)
    with pytest.raises(FleetError) as caught:
        groups().complete(WAITS, CONTINUE)
    assert message in caught.value.message


def test_hooks_of_other_programs_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "", "")
    assert [(hook.name, hook.verb, hook.timeout) for hook in groups().hooks("fleet")] == [("join", "join", 300)]
    assert "Group fleet has no hook for autoscaling:EC2_INSTANCE_TERMINATING" in groups().missing_hooks("fleet")


def test_a_group_that_does_not_exist_is_named() -> None:
    with pytest.raises(FleetError, match="There is no Auto Scaling group fleet in us-east-1"):
        groups().members(["fleet"])
    assert groups().member("i-0a1b2c3d4e5f60718") is None
