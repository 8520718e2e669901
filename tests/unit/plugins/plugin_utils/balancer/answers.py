"""A target group and its balancer in AWS's form, set as the fleet needs them, and changes of that."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import REGISTRATION
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.readings import (
    BalancerNeeds,
    BalancerReading,
    GroupReading,
    ListenerReading,
    TargetHost,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.table import SettingFinding, look

REGION = "us-east-1"
_ARN = f"arn:aws:elasticloadbalancing:{REGION}:123456789012:"
GROUP = f"{_ARN}targetgroup/fleet/73e2d6bc24d8a067"
OTHER = f"{_ARN}targetgroup/old/0a1b2c3d4e5f6071"
BALANCER = f"{_ARN}loadbalancer/app/fleet/50dc6c495c0c9188"
LISTENER = f"{_ARN}listener/app/fleet/50dc6c495c0c9188/f2f7dc8efc522ab2"
HTTP_LISTENER = f"{_ARN}listener/app/fleet/50dc6c495c0c9188/0123456789abcdef"
RULE = f"{_ARN}listener-rule/app/fleet/50dc6c495c0c9188/f2f7dc8efc522ab2/9683b2d02a6cabee"

ON_GROUP = f"aws elbv2 modify-target-group --region {REGION} --target-group-arn {GROUP}"
ON_ATTRIBUTES = f"aws elbv2 modify-target-group-attributes --region {REGION} --target-group-arn {GROUP} --attributes"
ON_BALANCER = f"aws elbv2 modify-load-balancer-attributes --region {REGION} --load-balancer-arn {BALANCER} --attributes"

HOSTS = tuple(
    TargetHost(f"gpu-{number}", f"i-{number}", 8000, REGION, f"us-east-1{zone}", "vpc-1")
    for number, zone in ((1, "a"), (2, "a"), (3, "b"), (4, "b"))
)
NEEDS = BalancerNeeds(REGISTRATION, HOSTS, groups=(GROUP,))

#: As DescribeTargetGroups, with the settings of the documentation.
DESCRIBED: dict[str, t.Any] = {
    "TargetGroupArn": GROUP,
    "TargetGroupName": "fleet",
    "Protocol": "HTTP",
    "Port": 8000,
    "VpcId": "vpc-1",
    "HealthCheckProtocol": "HTTP",
    "HealthCheckPort": "traffic-port",
    "HealthCheckEnabled": True,
    "HealthCheckIntervalSeconds": 5,
    "HealthCheckTimeoutSeconds": 4,
    "HealthyThresholdCount": 2,
    "UnhealthyThresholdCount": 2,
    "HealthCheckPath": "/health",
    "Matcher": {"HttpCode": "200"},
    "LoadBalancerArns": [BALANCER],
    "TargetType": "instance",
    "ProtocolVersion": "HTTP1",
}
#: As DescribeTargetGroupAttributes: AWS's defaults, except for the delay.
ATTRIBUTES = {
    "deregistration_delay.timeout_seconds": "600",
    "stickiness.enabled": "false",
    "stickiness.type": "lb_cookie",
    "load_balancing.cross_zone.enabled": "use_load_balancer_configuration",
    "load_balancing.algorithm.type": "round_robin",
    "slow_start.duration_seconds": "0",
    "target_group_health.dns_failover.minimum_healthy_targets.count": "1",
    "target_group_health.dns_failover.minimum_healthy_targets.percentage": "off",
    "target_group_health.unhealthy_state_routing.minimum_healthy_targets.count": "1",
    "target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage": "off",
}
ALB: dict[str, t.Any] = {
    "LoadBalancerArn": BALANCER,
    "LoadBalancerName": "fleet",
    "Type": "application",
    "VpcId": "vpc-1",
    "AvailabilityZones": [
        {"ZoneName": "us-east-1a", "SubnetId": "subnet-a"},
        {"ZoneName": "us-east-1b", "SubnetId": "subnet-b"},
    ],
}
ALB_ATTRIBUTES = {"idle_timeout.timeout_seconds": "600", "load_balancing.cross_zone.enabled": "true"}


def forward(arn: str = GROUP, weight: int = 1) -> dict[str, t.Any]:
    """An action as DescribeListeners returns it."""
    config = {"TargetGroups": [{"TargetGroupArn": arn, "Weight": weight}]}
    return {"Type": "forward", "TargetGroupArn": arn, "ForwardConfig": config}


def listener(*actions: dict[str, t.Any], arn: str = LISTENER, port: int = 443, rules: t.Any = ()) -> ListenerReading:
    protocol = "HTTPS" if port == 443 else "HTTP"
    described = {"ListenerArn": arn, "LoadBalancerArn": BALANCER, "Port": port, "Protocol": protocol}
    return ListenerReading({**described, "DefaultActions": list(actions)}, rules)


def target(identifier: str, state: str = "healthy", reason: str = "", port: int = 8000) -> dict[str, t.Any]:
    health = {"State": state, **({"Reason": reason} if reason else {})}
    return {"Target": {"Id": identifier, "Port": port}, "HealthCheckPort": str(port), "TargetHealth": health}


def balancer(**changes: t.Any) -> BalancerReading:
    given = {"described": ALB, "attributes": ALB_ATTRIBUTES, "listeners": (listener(forward()),)}
    return BalancerReading(**{**given, **changes})


def group(
    described: t.Mapping[str, t.Any] | None = None, attributes: t.Mapping[str, str] | None = None, **changes: t.Any
) -> GroupReading:
    """The group, with changes of what AWS describes and of its attributes."""
    reading = GroupReading(
        {**DESCRIBED, **(described or {})},
        {**ATTRIBUTES, **(attributes or {})},
        [target(host.target) for host in HOSTS],
        (balancer(),),
    )
    return dataclasses.replace(reading, **changes)


def nlb(**attributes: str) -> GroupReading:
    """The same group behind an NLB, with the attributes of one."""
    described = {"Protocol": "TCP", "Matcher": {"HttpCode": "200"}}
    own = {"target_health_state.unhealthy.connection_termination.enabled": "false", **attributes}
    network = balancer(described={**ALB, "Type": "network"}, attributes={"load_balancing.cross_zone.enabled": "true"})
    return group(described, own, balancers=(network,))


def findings(reading: GroupReading, needs: BalancerNeeds, setting: str) -> list[SettingFinding]:
    return [one for one in look(reading, needs) if one.setting == setting]


def needs(**changes: t.Any) -> BalancerNeeds:
    return dataclasses.replace(NEEDS, **changes)
