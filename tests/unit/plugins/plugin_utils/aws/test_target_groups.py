"""Target groups by moto through boto3; what moto does not answer comes from botocore's Stubber."""

from __future__ import annotations

import typing as t

import boto3
import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.aws import target_groups
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.session import AwsService
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.target_groups import TargetGroups, region_of_shell
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import BalancedHost, WantedGroup
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.health import summarize
from botocore.stub import Stubber

from tests.unit.plugins.plugin_utils.aws.cloudwatch import REGION, moto
from tests.unit.plugins.plugin_utils.balancer.fleet import group, host, member

__all__ = ["moto"]

pytestmark = pytest.mark.usefixtures("moto")


class Cloud:
    """A VPC with instances, a balancer, and target groups that it uses."""

    def __init__(self, region: str = REGION) -> None:
        self.region = region
        # boto3's stubs know fewer values than a fixture's parameters.
        make: t.Any = boto3.client
        ec2 = make("ec2", region)
        self.vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        zones = ec2.describe_availability_zones()["AvailabilityZones"]
        self.subnets = [
            ec2.create_subnet(
                VpcId=self.vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone=zones[number]["ZoneName"]
            )["Subnet"]["SubnetId"]
            for number in range(2)
        ]
        self._ec2 = ec2
        self.elbv2 = make("elbv2", region)
        made = self.elbv2.create_load_balancer(Name="fleet", Subnets=self.subnets)
        self.balancer = made["LoadBalancers"][0]["LoadBalancerArn"]

    def make_group(self, name: str, port: int = 8000, kind: str = "instance", listener: int = 0) -> str:
        made = self.elbv2.create_target_group(Name=name, Protocol="HTTP", Port=port, VpcId=self.vpc, TargetType=kind)
        arn = str(made["TargetGroups"][0]["TargetGroupArn"])
        if listener:
            action = {"Type": "forward", "TargetGroupArn": arn}
            self.elbv2.create_listener(
                LoadBalancerArn=self.balancer, Protocol="HTTP", Port=listener, DefaultActions=[action]
            )
        return arn

    def start(self, name: str, **fields: t.Any) -> BalancedHost:
        made = self._ec2.run_instances(ImageId="ami-1", MinCount=1, MaxCount=1, SubnetId=self.subnets[0])
        one = made["Instances"][0]
        return host(
            name,
            **{
                "instance_id": one["InstanceId"],
                "address": one["PrivateIpAddress"],
                "vpc": self.vpc,
                "region": self.region,
                **fields,
            },
        )


def test_hosts_are_registered_seen_and_deregistered() -> None:
    cloud = Cloud()
    cloud.make_group("fleet", listener=80)
    hosts = [cloud.start("gpu-1"), cloud.start("gpu-2")]
    groups = TargetGroups()
    before = groups.look(hosts)
    assert before.problems == ()
    assert [one.host for one in before.missing(["gpu-1", "gpu-2"])] == ["gpu-1", "gpu-2"]
    groups.register(before.missing(["gpu-1", "gpu-2"]))
    after = groups.look_again(before)
    assert [summarize(after, one) for one in ("gpu-1", "gpu-2")] == ["healthy 1/1", "healthy 1/1"]
    groups.deregister(after.of(["gpu-2"]))
    last = groups.look(hosts)
    assert [summarize(last, one) for one in ("gpu-1", "gpu-2")] == ["healthy 1/1", "unused: Target.NotRegistered"]


def test_deregistering_what_is_not_there_is_no_failure() -> None:
    cloud = Cloud()
    cloud.make_group("fleet", listener=80)
    groups = TargetGroups()
    look = groups.look([cloud.start("gpu-1")])
    groups.deregister(look.of(["gpu-1"]))
    groups.deregister(look.of(["gpu-1"]))


def test_a_group_of_addresses_and_one_with_its_own_port() -> None:
    cloud = Cloud()
    cloud.make_group("fleet", kind="ip", listener=80)
    cloud.make_group("plain", port=80, listener=81)
    wanted = (WantedGroup("fleet"), WantedGroup("plain", port=8000))
    one = cloud.start("gpu-1", wanted=wanted)
    groups = TargetGroups()
    groups.register(groups.look([one]).memberships)
    found = {
        str(one["Target"]["Id"]): int(one["Target"]["Port"])
        for arn in groups.look([one]).health
        for one in cloud.elbv2.describe_target_health(TargetGroupArn=arn[0])["TargetHealthDescriptions"]
    }
    assert found == {one.address: 8000, one.instance_id: 8000}


def test_each_region_is_asked_for_its_own_groups() -> None:
    here, there = Cloud(), Cloud("eu-west-1")
    here.make_group("fleet", listener=80)
    there.make_group("fleet", listener=80)
    hosts = [here.start("gpu-1"), there.start("gpu-2")]
    look = TargetGroups().look(hosts)
    assert [(one.host, one.group.region) for one in look.memberships] == [("gpu-1", REGION), ("gpu-2", "eu-west-1")]


def test_a_group_without_a_listener_has_no_balancer() -> None:
    cloud = Cloud()
    cloud.make_group("fleet")
    (one,) = TargetGroups().look([cloud.start("gpu-1")]).memberships
    assert one.group.balancers == ()


def test_a_misspelt_name_is_a_problem_at_once_and_no_error() -> None:
    cloud = Cloud()
    cloud.make_group("fleet")
    look = TargetGroups().look([cloud.start("gpu-1", wanted=(WantedGroup("flete"),))])
    assert look.memberships == ()
    assert look.problems == (
        "There is no target group flete in us-east-1, where gpu-1 is. Is it fleet? Correct fleet_target_groups.",
    )


def test_without_groups_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_groups, "open_service", lambda *_given: pytest.fail("AWS was asked"))
    assert TargetGroups().look([host(wanted=()), host("gpu-2", ports=())]).memberships == ()


def test_one_call_registers_all_hosts_of_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, str, int]] = []

    def call(self: AwsService, method: str, about: str = "", **parameters: t.Any) -> dict[str, t.Any]:
        made.append((method, about, len(parameters["Targets"])))
        return {}

    monkeypatch.setattr(AwsService, "call", call)
    members = [member(f"gpu-{number}", of) for of in (group(), group("b")) for number in range(1, 4)]
    TargetGroups().register(members)
    TargetGroups().deregister([member(f"gpu-{number}") for number in range(1, 102)])
    assert made == [
        ("register_targets", "target group fleet", 3),
        ("register_targets", "target group b", 3),
        ("deregister_targets", "target group fleet", 100),
        ("deregister_targets", "target group fleet", 1),
    ]


@pytest.mark.parametrize(
    ("act", "method", "right", "where"),
    [
        ("look_again", "describe_target_health", "DescribeTargetHealth", r"\*"),
        ("register", "register_targets", "RegisterTargets", "target group fleet"),
        ("deregister", "deregister_targets", "DeregisterTargets", "target group fleet"),
    ],
)
def test_a_missing_right_is_named_with_the_group(
    act: str, method: str, right: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make: t.Any = boto3.client

    def open_stub(service: str, region: str, *_given: t.Any) -> AwsService:
        client = make("elbv2", region)
        stubber = Stubber(client)
        said = f"User: arn:aws:iam::1:user/ops is not authorized to perform: elasticloadbalancing:{right} on resource"
        stubber.add_client_error(method, "AccessDenied", said)
        stubber.activate()
        return AwsService(lambda: client, service, region)

    monkeypatch.setattr(target_groups, "open_service", open_stub)
    groups = TargetGroups()
    given: t.Any = target_groups.BalancerLook((member(),)) if act == "look_again" else [member()]
    with pytest.raises(FleetError, match=f"lack the right elasticloadbalancing:{right} on {where}: allow that IAM"):
        getattr(groups, act)(given)


def test_the_region_of_hosts_without_one_is_that_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    assert region_of_shell() == ""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert region_of_shell() == "eu-west-1"
