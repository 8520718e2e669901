"""Auto Scaling by moto, through the action of a task."""

from __future__ import annotations

import typing as t
from unittest import mock

import boto3
import pytest
import yaml
from ansible_collections.inference.fleet.plugins.action.scale_in_protection import ARGUMENTS, ActionModule
from ansible_collections.inference.fleet.plugins.module_utils.core.aws_errors import AwsFailure
from ansible_collections.inference.fleet.plugins.modules import scale_in_protection
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.protection import ScaledInstance, ScaleInProtection
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.session import AwsService

from tests.unit.plugins.plugin_utils.aws.cloudwatch import REGION, moto

__all__ = ["moto"]

Result = dict[str, t.Any]
CLAIM = {"id": "r", "verb": "site", "who": "a", "controller": "here:/r", "since": "2027-01-15T08:00:00Z"}


class Scaled:
    """Two hosts of an Auto Scaling group, the second one protected by a user, and a host of none."""

    def __init__(self) -> None:
        make: t.Any = boto3.client
        self._autoscaling = make("autoscaling", REGION)
        ec2 = make("ec2", REGION)
        zone = ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
        self._autoscaling.create_launch_configuration(
            LaunchConfigurationName="c", ImageId="ami-1", InstanceType="t2.micro"
        )
        self._autoscaling.create_auto_scaling_group(
            AutoScalingGroupName="fleet",
            LaunchConfigurationName="c",
            MinSize=2,
            MaxSize=2,
            AvailabilityZones=[zone],
        )
        ids = sorted(one["InstanceId"] for one in self._instances())
        self._autoscaling.set_instance_protection(
            AutoScalingGroupName="fleet", InstanceIds=ids[1:], ProtectedFromScaleIn=True
        )
        tags = {"aws:autoscaling:groupName": "fleet"}
        self.hosts: dict[str, Result] = {
            f"gpu-{number}": {"fleet_region": REGION, "aws_instance_id": one, "aws_ec2_tags": tags}
            for number, one in enumerate(ids, 1)
        }
        self.hosts["gpu-3"] = {"fleet_region": REGION, "aws_instance_id": "i-3", "aws_ec2_tags": {}}
        self.hosts["desk"] = {}

    def _instances(self) -> list[Result]:
        return list(self._autoscaling.describe_auto_scaling_instances()["AutoScalingInstances"])

    def protected(self) -> list[str]:
        ids = {one["InstanceId"] for one in self._instances() if one["ProtectedFromScaleIn"]}
        return [name for name, own in self.hosts.items() if own.get("aws_instance_id") in ids]

    def ask(self, state: str, *, check: bool = False, **arguments: t.Any) -> Result:
        args = {"state": state, "hosts": list(self.hosts), **arguments}
        task = mock.Mock(args=args, async_val=0, check_mode=check, action="inference.fleet.scale_in_protection")
        action = ActionModule(task, mock.MagicMock(), mock.Mock(), mock.Mock(), mock.Mock(), mock.Mock())
        return action.run(task_vars={"hostvars": self.hosts})


@pytest.fixture
def scaled(moto: None) -> Scaled:
    return Scaled()


def test_hosts_are_protected_once(scaled: Scaled) -> None:
    looked = scaled.ask("looked")
    assert {name: one["protected"] for name, one in looked["hosts"].items()} == {"gpu-1": False, "gpu-2": True}
    assert looked["hosts"]["gpu-1"]["group"] == "fleet"
    assert scaled.ask("protected", check=True)["changed"] is False
    assert scaled.protected() == ["gpu-2"]
    assert scaled.ask("protected")["changed"]
    assert scaled.protected() == ["gpu-1", "gpu-2"]
    assert not scaled.ask("protected")["changed"]


def test_only_what_a_rollout_protected_is_taken_back(scaled: Scaled) -> None:
    scaled.ask("protected")
    scaled.hosts["gpu-1"]["claim_now"] = {"claim": {**CLAIM, "protected": "fleet"}}
    scaled.hosts["gpu-2"]["claim_now"] = {"claim": CLAIM}
    back = scaled.ask("unprotected", claims="claim_now", controller="here:/r")
    assert (back["changed"], list(back["hosts"])) == (True, ["gpu-1"])
    assert scaled.protected() == ["gpu-2"]


@pytest.mark.parametrize(
    ("held", "controller", "left"),
    [
        (True, "there:/r", ["gpu-1", "gpu-2"]),
        (False, "there:/r", ["gpu-2"]),
        (True, "here:/r", ["gpu-2"]),
    ],
)
def test_a_host_that_another_rollout_holds_stays_protected(
    scaled: Scaled, held: bool, controller: str, left: list[str]
) -> None:
    scaled.ask("protected")
    claim = {**CLAIM, "held": held, "controller": controller, "protected": "fleet"}
    scaled.hosts["gpu-1"]["claim_now"] = {"claim": claim}
    scaled.ask("unprotected", claims="claim_now", controller="here:/r")
    assert scaled.protected() == left


def refuse(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    def call(_self: AwsService, method: str, *_given: t.Any, **_named: t.Any) -> t.NoReturn:
        raise AwsFailure(f"{method} failed ({code}).", code)

    monkeypatch.setattr(AwsService, "call", call)


def test_a_refusal_fails_or_is_reported(scaled: Scaled, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "AccessDenied")
    assert scaled.ask("protected")["failed"]
    answer = scaled.ask("protected", report=True)
    assert (answer.get("failed"), answer["problem"]) == (None, "set_instance_protection failed (AccessDenied).")


def test_an_instance_that_left_its_group_needs_no_protection(scaled: Scaled, monkeypatch: pytest.MonkeyPatch) -> None:
    protection = ScaleInProtection(REGION, "x")
    refuse(monkeypatch, "ValidationError")
    one = ScaledInstance("i-1", "fleet", "InService", True)
    assert protection.set([one], False) == []
    with pytest.raises(AwsFailure):
        protection.set([ScaledInstance("i-1", "fleet", "InService", False)], True)
    # AWS protects only what is in service.
    assert protection.set([ScaledInstance("i-1", "fleet", "Terminating:Wait", False)], True) == []


def test_without_a_host_of_a_group_nothing_is_asked(scaled: Scaled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScaleInProtection, "look", lambda *_given: pytest.fail("AWS was asked"))
    del scaled.hosts["gpu-1"], scaled.hosts["gpu-2"]
    assert scaled.ask("protected")["hosts"] == {}
    assert scaled.ask("unprotected", claims="claim_now")["hosts"] == {}


def test_the_documentation_has_every_option() -> None:
    documented = yaml.safe_load(scale_in_protection.DOCUMENTATION)["options"]
    assert documented.keys() == ARGUMENTS.keys()
