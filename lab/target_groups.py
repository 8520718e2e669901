"""The lab's load balancer on AWS's side: its target groups, its listeners and their settings."""

from __future__ import annotations

import typing as t

from lab import balancer, ec2, settings
from lab.state import Lab

BALANCER = "fleet"
#: The ports of the groups' hosts, which the balancer listens on too.
PORTS = {"inference": balancer.EDGE_PORT, "gateway": balancer.GATEWAY_PORT}


def ensure(lab: Lab) -> list[str]:
    """Create what is missing; return the changes. It registers no target.

    What a person or a test has set of a group since then stays.
    """
    elb = ec2.client(lab, "elbv2")
    subnet = ec2.ensure_subnet(lab)
    vpc = ec2.client(lab).describe_subnets(SubnetIds=[subnet])["Subnets"][0]["VpcId"]
    changed = []
    present = {one["TargetGroupName"]: one["TargetGroupArn"] for one in elb.describe_target_groups()["TargetGroups"]}
    for name, port in _wanted():
        if name not in present:
            made = elb.create_target_group(
                Name=name,
                Protocol="HTTP",
                Port=port,
                VpcId=vpc,
                TargetType="instance",
                HealthCheckPath="/health",
                Matcher={"HttpCode": "200"},
                **settings.HEALTH_CHECK,
            )
            present[name] = made["TargetGroups"][0]["TargetGroupArn"]
            pairs = _pairs(settings.TARGET_GROUP)
            elb.modify_target_group_attributes(TargetGroupArn=present[name], Attributes=pairs)
            changed.append(f"created target group {name}")
    changed += _ensure_balancer(elb, subnet, present)
    return changed


def _ensure_balancer(elb: t.Any, subnet: str, groups: dict[str, str]) -> list[str]:
    changed = []
    found = [one for one in elb.describe_load_balancers()["LoadBalancers"] if one["LoadBalancerName"] == BALANCER]
    if not found:
        found = elb.create_load_balancer(Name=BALANCER, Subnets=[subnet], Scheme="internal")["LoadBalancers"]
        changed.append(f"created load balancer {BALANCER}")
    arn = found[0]["LoadBalancerArn"]
    elb.modify_load_balancer_attributes(LoadBalancerArn=arn, Attributes=_pairs(settings.LOAD_BALANCER))
    ports = {one["Port"] for one in elb.describe_listeners(LoadBalancerArn=arn)["Listeners"]}
    for name, port in _wanted():
        if port not in ports:
            forward = {"Type": "forward", "TargetGroupArn": groups[name]}
            elb.create_listener(LoadBalancerArn=arn, Protocol="HTTP", Port=port, DefaultActions=[forward])
            changed.append(f"created the listener of {name}")
    return changed


def find(lab: Lab, role: str) -> list[str]:
    """The ARNs of the target groups of a role."""
    names = [group["name"] for group in settings.TARGET_GROUPS if group["role"] == role]
    found = ec2.client(lab, "elbv2").describe_target_groups(Names=names)["TargetGroups"]
    return [str(one["TargetGroupArn"]) for one in found]


def states(lab: Lab) -> t.Iterator[str]:
    """A line for each target of the lab's groups."""
    elb = ec2.client(lab, "elbv2")
    hosts = {one["InstanceId"]: one.get("PrivateIpAddress", "") for one in ec2.instances(lab)}
    names = {lab.address(host): host.name for host in lab.hosts.values()}
    for group in elb.describe_target_groups(Names=[name for name, _ in _wanted()])["TargetGroups"]:
        found = elb.describe_target_health(TargetGroupArn=group["TargetGroupArn"])["TargetHealthDescriptions"]
        if not found:
            yield f"target group {group['TargetGroupName']}: no target is registered"
        for one in found:
            ident, health = one["Target"]["Id"], one["TargetHealth"]
            host = names.get(hosts.get(ident, ""), ident)
            reason = health.get("Reason", "")
            said = f"{health['State']}{f' ({reason})' if reason else ''}"
            yield f"target group {group['TargetGroupName']}: {host} port {one['Target']['Port']} {said}"


def _pairs(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in values.items()]


def _wanted() -> list[tuple[str, int]]:
    return [(group["name"], PORTS[group["role"]]) for group in settings.TARGET_GROUPS]
