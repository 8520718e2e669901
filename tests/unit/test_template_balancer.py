"""The balancer of examples/aws/fleet.yml, by the table of settings: moto drops the attributes of a template."""

from __future__ import annotations

import typing as t

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import REGISTRATION
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.readings import (
    BalancerNeeds,
    BalancerReading,
    GroupReading,
    ListenerReading,
    TargetHost,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.table import look

from tests.project import ROOT
from tests.unit.plugins.plugin_utils.balancer.answers import BALANCER, GROUP, LISTENER, REGION, forward, target

DOCUMENT: t.Any = yaml.safe_load((ROOT / "examples" / "aws" / "fleet.yml").read_text())
RESOURCES: t.Any = DOCUMENT["Resources"]
#: What AWS adds to a group that does not name it.
DEFAULTS = {"HealthCheckPort": "traffic-port", "HealthCheckEnabled": True, "LoadBalancerArns": [BALANCER]}


def resolved(value: t.Any) -> t.Any:
    """A value of the template with the defaults of its parameters; what only exists on AWS stays as it is."""
    if isinstance(value, dict) and "Ref" in value:
        return DOCUMENT["Parameters"].get(value["Ref"], {}).get("Default", value["Ref"])
    return value


def attributes(properties: t.Any, name: str) -> dict[str, str]:
    return {one["Key"]: str(resolved(one["Value"])) for one in properties[name]}


def reading(resource: str, **changes: str) -> GroupReading:
    """A target group of the template, as AWS would describe it."""
    own = RESOURCES[resource]["Properties"]
    described = {name: resolved(value) for name, value in own.items() if name != "TargetGroupAttributes"}
    balancer = RESOURCES["Balancer"]["Properties"]
    listener = RESOURCES["Listener"]["Properties"]
    scaling = [
        {
            "AutoScalingGroupName": name,
            "HealthCheckType": one["Properties"].get("HealthCheckType", "EC2"),
        }
        for name, one in RESOURCES.items()
        if one["Type"] == "AWS::AutoScaling::AutoScalingGroup"
    ]
    assert scaling
    return GroupReading(
        {**DEFAULTS, **described, "TargetGroupArn": GROUP, "TargetGroupName": resource, "VpcId": "vpc-1"},
        {**attributes(own, "TargetGroupAttributes"), **changes},
        [target(f"i-{number}", port=own["Port"]) for number in (1, 2)],
        [
            BalancerReading(
                {"LoadBalancerArn": BALANCER, "LoadBalancerName": "fleet", "Type": balancer["Type"]},
                attributes(balancer, "LoadBalancerAttributes"),
                [
                    ListenerReading(
                        {
                            "ListenerArn": LISTENER,
                            "Protocol": listener["Protocol"],
                            "Port": listener["Port"],
                            # Which of the two groups is a parameter.
                            "DefaultActions": [forward()],
                        }
                    )
                ],
            )
        ],
        scaling,
    )


def found(group: GroupReading) -> dict[str, str]:
    port = group.described["Port"]
    hosts = [TargetHost(f"gpu-{number}", f"i-{number}", port, REGION, vpc="vpc-1") for number in (1, 2)]
    needs = BalancerNeeds(REGISTRATION, hosts, groups=(GROUP,))
    return {one.setting: one.found.value for one in look(group, needs) if one.found.verdict != "ok"}


@pytest.mark.parametrize("resource", ["TargetGroup", "GatewayTargetGroup"])
def test_the_settings_of_the_template_have_no_finding(resource: str) -> None:
    assert found(reading(resource)) == {}


def test_a_template_with_awss_defaults_would_have_some() -> None:
    defaults = {"deregistration_delay.timeout_seconds": "300", "slow_start.duration_seconds": "30"}
    assert found(reading("TargetGroup", **defaults)) == {
        "deregistration delay": "300 s",
        "slow start (ALB)": "30 s with least_outstanding_requests",
    }
