"""The lab's load balancer on AWS's side: its target groups, its listeners and their settings."""

from __future__ import annotations

import dataclasses
import typing as t

from lab import ec2, settings
from lab.state import Lab

BALANCER = "fleet"


@dataclasses.dataclass(frozen=True)
class GroupOfTargets:
    """A target group of the lab: the hosts of one role, on the port of their edge, which the balancer listens on too."""

    name: str
    role: str
    port: int


GROUPS = (GroupOfTargets("fleet", "inference", 8000), GroupOfTargets("fleet-gateways", "gateway", 4000))


def ensure(lab: Lab, subnet: str) -> list[str]:
    """Create what is missing, and set everything as wanted; return the changes. Nobody is registered here."""
    elb = ec2.client(lab, "elbv2")
    vpc = ec2.client(lab).describe_subnets(SubnetIds=[subnet])["Subnets"][0]["VpcId"]
    changed = []
    present = {one["TargetGroupName"]: one["TargetGroupArn"] for one in elb.describe_target_groups()["TargetGroups"]}
    for group in GROUPS:
        if group.name not in present:
            made = elb.create_target_group(
                Name=group.name,
                Protocol="HTTP",
                Port=group.port,
                VpcId=vpc,
                TargetType="instance",
                HealthCheckPath="/health",
                Matcher={"HttpCode": "200"},
                **settings.HEALTH_CHECK,
            )
            present[group.name] = made["TargetGroups"][0]["TargetGroupArn"]
            changed.append(f"created target group {group.name}")
        elb.modify_target_group_attributes(TargetGroupArn=present[group.name], Attributes=_pairs(settings.GROUP))
    changed += _ensure_balancer(elb, subnet, present)
    return changed


def _ensure_balancer(elb: t.Any, subnet: str, groups: dict[str, str]) -> list[str]:
    changed = []
    found = [one for one in elb.describe_load_balancers()["LoadBalancers"] if one["LoadBalancerName"] == BALANCER]
    if not found:
        found = elb.create_load_balancer(Name=BALANCER, Subnets=[subnet], Scheme="internal")["LoadBalancers"]
        changed.append(f"created load balancer {BALANCER}")
    arn = found[0]["LoadBalancerArn"]
    elb.modify_load_balancer_attributes(LoadBalancerArn=arn, Attributes=_pairs(settings.BALANCER))
    ports = {one["Port"] for one in elb.describe_listeners(LoadBalancerArn=arn)["Listeners"]}
    for group in GROUPS:
        if group.port not in ports:
            forward = {"Type": "forward", "TargetGroupArn": groups[group.name]}
            elb.create_listener(LoadBalancerArn=arn, Protocol="HTTP", Port=group.port, DefaultActions=[forward])
            changed.append(f"created the listener of {group.name}")
    return changed


def _pairs(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in values.items()]
