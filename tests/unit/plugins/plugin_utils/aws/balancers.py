"""A fleet's target group behind a balancer, in moto's Elastic Load Balancing."""

from __future__ import annotations

import dataclasses
import typing as t

import boto3

REGION = "us-east-1"
VPC_RANGE = "10.1.0.0/16"


@dataclasses.dataclass(frozen=True)
class Made:
    """What was made.

    Attributes:
        group: the target group's ARN.
        balancer: the balancer's ARN; empty without one.
        listener: the listener's ARN; empty without one.
        subnets: one in each of two zones.
        vpc: the VPC.
    """

    group: str
    balancer: str
    listener: str
    subnets: list[str]
    vpc: str


def make_client(service: str) -> t.Any:
    """boto3's client in the region of the tests."""
    make: t.Any = boto3.client
    return make(service, REGION)


def make_group(connect: t.Callable[[str], t.Any] = make_client, name: str = "fleet", **options: t.Any) -> Made:
    """A target group with the settings of docs/aws.md, a balancer and a listener that forwards to it.

    Args:
        connect: makes a client of a service; that of make_client by default.
        name: of group and balancer.
        options: further ones of the group.
    """
    elbv2, ec2 = connect("elbv2"), connect("ec2")
    vpc, subnets = _network(ec2)
    settings = {
        "Protocol": "HTTP",
        "Port": 8000,
        "VpcId": vpc,
        "TargetType": "instance",
        "HealthCheckPath": "/health",
        "HealthCheckIntervalSeconds": 5,
        "HealthCheckTimeoutSeconds": 4,
        "HealthyThresholdCount": 2,
        "UnhealthyThresholdCount": 2,
        "Matcher": {"HttpCode": "200"},
    }
    group = elbv2.create_target_group(Name=name, **{**settings, **options})["TargetGroups"][0]["TargetGroupArn"]
    elbv2.modify_target_group_attributes(
        TargetGroupArn=group, Attributes=[{"Key": "deregistration_delay.timeout_seconds", "Value": "600"}]
    )
    balancer = elbv2.create_load_balancer(Name=name, Subnets=subnets)["LoadBalancers"][0]["LoadBalancerArn"]
    elbv2.modify_load_balancer_attributes(
        LoadBalancerArn=balancer, Attributes=[{"Key": "idle_timeout.timeout_seconds", "Value": "600"}]
    )
    listener = elbv2.create_listener(
        LoadBalancerArn=balancer,
        Protocol="HTTP",
        Port=80,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": group}],
    )["Listeners"][0]["ListenerArn"]
    return Made(group, balancer, listener, subnets, vpc)


def _network(ec2: t.Any) -> tuple[str, list[str]]:
    """A VPC with a subnet in each of two zones, made at the first call."""
    known = ec2.describe_vpcs(Filters=[{"Name": "cidr", "Values": [VPC_RANGE]}])["Vpcs"]
    vpc = (known[0] if known else ec2.create_vpc(CidrBlock=VPC_RANGE)["Vpc"])["VpcId"]
    found = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["Subnets"]
    if not found:
        found = [
            ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.1.{number}.0/24", AvailabilityZone=zone)["Subnet"]
            for number, zone in enumerate((f"{REGION}a", f"{REGION}b"))
        ]
    return vpc, [one["SubnetId"] for one in found]


def launch(subnet: str, connect: t.Callable[[str], t.Any] = make_client, **options: t.Any) -> str:
    """The id of a running instance."""
    made = connect("ec2").run_instances(
        ImageId="ami-0abcdef1234567890",
        InstanceType="g6e.xlarge",
        MinCount=1,
        MaxCount=1,
        SubnetId=subnet,
        **options,
    )
    return str(made["Instances"][0]["InstanceId"])
