"""What is read of target groups, from moto; refusals are answers in AWS's documented form."""

from __future__ import annotations

import typing as t

import boto3
import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.balancers import read_groups
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.session import AwsService
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.readings import GroupReading
from botocore.client import BaseClient
from botocore.exceptions import ClientError

from tests.unit.plugins.plugin_utils.aws.balancers import REGION, Made, launch, make_group
from tests.unit.plugins.plugin_utils.aws.cloudwatch import moto

__all__ = ["moto"]

pytestmark = pytest.mark.usefixtures("moto")


def service(name: str) -> AwsService:
    client: t.Any = boto3.client
    return AwsService(lambda: client(name, REGION), name, REGION)


def described(made: Made) -> t.Any:
    return boto3.client("elbv2", REGION).describe_target_groups(TargetGroupArns=[made.group])["TargetGroups"]


def read(made: Made) -> GroupReading:
    (reading,) = read_groups(service("elbv2"), service("autoscaling"), described(made))
    return reading


def test_a_group_is_read_with_its_attributes_targets_balancer_and_listener() -> None:
    made = make_group()
    instance = launch(made.subnets[0])
    elbv2 = boto3.client("elbv2", REGION)
    elbv2.register_targets(TargetGroupArn=made.group, Targets=[{"Id": instance, "Port": 8000}])
    reading = read(made)
    assert (reading.arn, reading.name, reading.region) == (made.group, "fleet", REGION)
    assert reading.attributes["deregistration_delay.timeout_seconds"] == "600"
    assert [one["Target"]["Id"] for one in reading.health] == [instance]
    (balancer,) = reading.balancers
    assert (balancer.arn, balancer.name, balancer.zones) == (made.balancer, "fleet", ["us-east-1a", "us-east-1b"])
    assert balancer.attributes["idle_timeout.timeout_seconds"] == "600"
    (listener,) = balancer.listeners
    assert (listener.described["ListenerArn"], listener.said) == (made.listener, "HTTP:80")
    assert [rule["IsDefault"] for rule in listener.rules] == [True]
    assert reading.scaling == []


def test_a_group_without_a_balancer_is_read_too() -> None:
    made = make_group()
    elbv2 = boto3.client("elbv2", REGION)
    lonely = elbv2.create_target_group(Name="lonely", Protocol="HTTP", Port=8000, VpcId=made.vpc)["TargetGroups"]
    (reading,) = read_groups(service("elbv2"), service("autoscaling"), lonely)
    assert (reading.name, list(reading.balancers), list(reading.health)) == ("lonely", [], [])


def test_auto_scaling_groups_are_those_that_register_in_the_group() -> None:
    made = make_group()
    scaling = boto3.client("autoscaling", REGION)
    scaling.create_launch_configuration(
        LaunchConfigurationName="l", ImageId="ami-0abcdef1234567890", InstanceType="g6e.xlarge"
    )
    for name, arns in (("mine", [made.group]), ("other", [])):
        scaling.create_auto_scaling_group(
            AutoScalingGroupName=name,
            LaunchConfigurationName="l",
            MinSize=0,
            MaxSize=1,
            VPCZoneIdentifier=made.subnets[0],
            TargetGroupARNs=arns,
            HealthCheckType="ELB",
        )
    (found,) = read(made).scaling
    assert (found["AutoScalingGroupName"], found["HealthCheckType"]) == ("mine", "ELB")


def test_without_a_group_nothing_is_asked() -> None:
    def ask() -> t.NoReturn:
        raise AssertionError

    silent = AwsService(lambda: None, "elbv2", REGION)
    assert read_groups(silent, silent, []) == []


@pytest.mark.parametrize(
    ("denied", "message"),
    [
        (
            "DescribeTargetGroupAttributes",
            "DescribeTargetGroupAttributes of target group fleet in us-east-1 failed (AccessDenied). The credentials "
            "lack the right elasticloadbalancing:DescribeTargetGroupAttributes on *: allow that IAM action, then run "
            "again.",
        ),
        (
            "DescribeAutoScalingGroups",
            "DescribeAutoScalingGroups in us-east-1 failed (AccessDenied). The credentials lack the right "
            "autoscaling:DescribeAutoScalingGroups on *: allow that IAM action, then run again.",
        ),
        (
            "DescribeLoadBalancerAttributes",
            "DescribeLoadBalancerAttributes of balancer app/fleet/",
        ),
    ],
)
def test_a_denied_call_names_the_right(denied: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_group()
    real = BaseClient._make_api_call  # type: ignore[attr-defined]

    def answer(client: t.Any, operation: str, parameters: dict[str, t.Any]) -> t.Any:
        if operation == denied:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": ""}}, operation)
        return real(client, operation, parameters)

    monkeypatch.setattr(BaseClient, "_make_api_call", answer)
    with pytest.raises(FleetError) as failed:
        read(made)
    assert message in failed.value.message
