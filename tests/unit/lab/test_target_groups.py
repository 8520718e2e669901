"""The lab's target groups and balancer, in the lab's AWS."""

from __future__ import annotations

from lab import ec2, settings, target_groups
from lab.state import Lab
from tests.unit.lab.aws.conftest import Cloud, cloud

__all__ = ["cloud"]


def test_the_labs_target_groups_are_made_once_and_are_set_as_wanted(cloud: Cloud, lab: Lab) -> None:
    lab.ec2_port = cloud.port
    ec2.register(lab)
    assert target_groups.ensure(lab) == [
        "created target group fleet",
        "created target group fleet-gateways",
        "created load balancer fleet",
        "created the listener of fleet",
        "created the listener of fleet-gateways",
    ]
    assert target_groups.ensure(lab) == []
    elb = cloud.client("elbv2")
    names = ["fleet", "fleet-gateways"]
    groups = elb.describe_target_groups(Names=names)["TargetGroups"]
    assert [(one["TargetGroupName"], one["Port"]) for one in groups] == [("fleet", 8000), ("fleet-gateways", 4000)]
    assert all(one["LoadBalancerArns"] and one["HealthCheckPath"] == "/health" for one in groups)
    attributes = elb.describe_target_group_attributes(TargetGroupArn=groups[0]["TargetGroupArn"])["Attributes"]
    assert settings.TARGET_GROUP.items() <= {one["Key"]: one["Value"] for one in attributes}.items()
    # Instances and groups are in one VPC, and only what knows that the host serves registers it.
    hosts = cloud.client("ec2").describe_instances(Filters=[{"Name": "tag:Name", "Values": ["inference-1"]}])
    assert hosts["Reservations"][0]["Instances"][0]["VpcId"] == groups[0]["VpcId"]
    assert cloud.health(groups[0]["TargetGroupArn"]) == {}
    assert list(target_groups.states(lab)) == [f"target group {name}: no target is registered" for name in names]
    elb.register_targets(
        TargetGroupArn=groups[0]["TargetGroupArn"], Targets=[{"Id": ec2.find_instance(lab, lab.host("inference-1"))}]
    )
    assert next(target_groups.states(lab)).startswith("target group fleet: inference-1 port 8000 ")
