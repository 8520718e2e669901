"""Target groups over HTTP, as boto3 sees them: states that real health checks drive."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest
from botocore.exceptions import ClientError

from tests.project import open_directly
from tests.unit.lab.aws.conftest import Cloud, wait_for
from tests.unit.lab.aws.targets import Answering

HEALTHY = ("healthy", "")
DRAINING = ("draining", "Target.DeregistrationInProgress")
UNUSED = ("unused", "Target.NotRegistered")
MISMATCH = ("unhealthy", "Target.ResponseCodeMismatch")


def test_a_target_is_healthy_when_its_check_passes_and_unhealthy_when_it_does_not(cloud: Cloud) -> None:
    instance, address = cloud.instance()
    with Answering(address) as target:
        group = cloud.group("states", target.port, listener=80)
        assert cloud.health(group, Targets=[{"Id": instance}]) == {(instance, target.port): UNUSED}
        assert cloud.health(group) == {}
        cloud.client("elbv2").register_targets(TargetGroupArn=group, Targets=[{"Id": instance}])
        wait_for(lambda: cloud.health(group), {(instance, target.port): HEALTHY})
        assert set(target.paths) == {"/health"}
        target.status = 503
        wait_for(lambda: cloud.health(group), {(instance, target.port): MISMATCH})
        target.status = 200
        wait_for(lambda: cloud.health(group), {(instance, target.port): HEALTHY})


def test_a_target_drains_for_the_delay_and_may_come_back_meanwhile(cloud: Cloud) -> None:
    elb = cloud.client("elbv2")
    instance, address = cloud.instance()
    with Answering(address) as target:
        group = cloud.group("drains", target.port, listener=80)
        key = (instance, target.port)
        which = {"TargetGroupArn": group, "Targets": [{"Id": instance}]}
        elb.register_targets(**which)
        wait_for(lambda: cloud.health(group), {key: HEALTHY})
        elb.deregister_targets(**which)
        assert cloud.health(group) == {key: DRAINING}
        elb.deregister_targets(**which)
        elb.register_targets(**which)
        wait_for(lambda: cloud.health(group), {key: HEALTHY})
        cloud.delay(group, 20)
        elb.deregister_targets(**which)
        wait_for(lambda: cloud.health(group), {})
        assert cloud.health(group, Targets=[{"Id": instance}]) == {key: UNUSED}
        # What is not there can be deregistered.
        elb.deregister_targets(**which)


def test_a_group_without_a_listener_is_not_in_use_and_checks_no_target(cloud: Cloud) -> None:
    instance, address = cloud.instance()
    with Answering(address) as target:
        group = cloud.group("alone", target.port)
        cloud.client("elbv2").register_targets(TargetGroupArn=group, Targets=[{"Id": instance}])
        assert cloud.health(group) == {(instance, target.port): ("unused", "Target.NotInUse")}


def test_an_instance_has_a_state_for_each_of_its_ports(cloud: Cloud) -> None:
    elb = cloud.client("elbv2")
    instance, address = cloud.instance()
    with Answering(address) as first, Answering(address, status=500) as second:
        group = cloud.group("ports", first.port, listener=80)
        both = [{"Id": instance, "Port": one.port} for one in (first, second)]
        elb.register_targets(TargetGroupArn=group, Targets=both)
        wait_for(lambda: cloud.health(group), {(instance, first.port): HEALTHY, (instance, second.port): MISMATCH})
        # Without its port the group's own is meant.
        elb.deregister_targets(TargetGroupArn=group, Targets=[{"Id": instance}])
        assert cloud.health(group) == {(instance, first.port): DRAINING, (instance, second.port): MISMATCH}


def test_a_group_of_addresses_takes_addresses(cloud: Cloud) -> None:
    elb = cloud.client("elbv2")
    instance, address = cloud.instance()
    with Answering(address) as target:
        group = cloud.group("addresses", target.port, listener=80, TargetType="ip")
        with pytest.raises(ClientError, match="ValidationError"):
            elb.register_targets(TargetGroupArn=group, Targets=[{"Id": instance}])
        elb.register_targets(TargetGroupArn=group, Targets=[{"Id": address}])
        wait_for(lambda: cloud.health(group), {(address, target.port): HEALTHY})
    other = cloud.group("instances", 8000)
    with pytest.raises(ClientError, match="ValidationError"):
        elb.register_targets(TargetGroupArn=other, Targets=[{"Id": address}])


def test_an_instance_that_does_not_run_is_unused_and_cannot_be_registered(cloud: Cloud) -> None:
    elb, ec2 = cloud.client("elbv2"), cloud.client("ec2")
    instance, address = cloud.instance()
    with Answering(address) as target:
        group = cloud.group("stopped", target.port, listener=80)
        which = {"TargetGroupArn": group, "Targets": [{"Id": instance}]}
        elb.register_targets(**which)
        wait_for(lambda: cloud.health(group), {(instance, target.port): HEALTHY})
        ec2.stop_instances(InstanceIds=[instance])
        assert cloud.health(group) == {(instance, target.port): ("unused", "Target.InvalidState")}
        with pytest.raises(ClientError, match="not in a running state"):
            elb.register_targets(**which)
        ec2.terminate_instances(InstanceIds=[instance])
        assert cloud.health(group) == {(instance, target.port): DRAINING}
    with pytest.raises(ClientError, match="InvalidTarget"):
        elb.register_targets(TargetGroupArn=group, Targets=[{"Id": "i-0123456789abcdef0"}])


def test_a_target_of_another_vpc_is_refused(cloud: Cloud) -> None:
    vpc = cloud.client("ec2").create_vpc(CidrBlock="10.9.0.0/24")["Vpc"]["VpcId"]
    group = cloud.group("elsewhere", 8000, VpcId=vpc)
    with pytest.raises(ClientError, match="not in the same VPC"):
        cloud.client("elbv2").register_targets(TargetGroupArn=group, Targets=[{"Id": cloud.instance()[0]}])


def test_a_group_that_is_not_there_has_awss_error(cloud: Cloud) -> None:
    elb = cloud.client("elbv2")
    with pytest.raises(ClientError, match="TargetGroupNotFound"):
        elb.describe_target_groups(Names=["flet"])
    arn = cloud.group("once", 8000).replace("targetgroup/once", "targetgroup/twice")
    for call in (elb.describe_target_health, elb.describe_target_group_attributes):
        with pytest.raises(ClientError, match="TargetGroupNotFound"):
            call(TargetGroupArn=arn)


def test_groups_and_balancers_have_awss_attributes_and_take_no_others(cloud: Cloud) -> None:
    elb = cloud.client("elbv2")
    group = cloud.group("attributes", 8000, listener=80, delay=300)
    pairs = elb.describe_target_group_attributes(TargetGroupArn=group)["Attributes"]
    found = {pair["Key"]: pair["Value"] for pair in pairs}
    assert found["deregistration_delay.timeout_seconds"] == "300"
    assert found["target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage"] == "off"
    misspelt = {"Key": "deregistration_delay.timeout_second", "Value": "600"}
    with pytest.raises(ClientError, match="is not recognized"):
        elb.modify_target_group_attributes(TargetGroupArn=group, Attributes=[misspelt])
    balancer = elb.describe_load_balancers(Names=["attributes"])["LoadBalancers"][0]["LoadBalancerArn"]
    pairs = elb.describe_load_balancer_attributes(LoadBalancerArn=balancer)["Attributes"]
    assert {"Key": "idle_timeout.timeout_seconds", "Value": "60"} in pairs
    network = cloud.group("network", 8000, Protocol="TCP", HealthCheckProtocol="HTTP")
    pairs = elb.describe_target_group_attributes(TargetGroupArn=network)["Attributes"]
    assert {"Key": "target_health_state.unhealthy.connection_termination.enabled", "Value": "true"} in pairs


def test_scheduled_events_are_set_and_cleared(cloud: Cloud) -> None:
    instance, _ = cloud.instance()

    def announce(what: list[dict[str, str]], instance: str = instance) -> None:
        url = f"{cloud.url}/lab/events/{instance}"
        open_directly(urllib.request.Request(url, data=json.dumps(what).encode(), method="PUT"), timeout=30).close()

    def scheduled() -> list[dict[str, str]]:
        answer = cloud.client("ec2").describe_instance_status(InstanceIds=[instance], IncludeAllInstances=True)
        events: list[dict[str, str]] = answer["InstanceStatuses"][0].get("Events", [])
        return events

    assert scheduled() == []
    event = {"InstanceEventId": "instance-event-1", "Code": "system-reboot", "Description": "scheduled reboot"}
    announce([{**event, "NotBefore": "2026-12-01T09:00:00Z"}])
    assert [(one["Code"], str(one["NotBefore"])) for one in scheduled()] == [
        ("system-reboot", "2026-12-01 09:00:00+00:00")
    ]
    announce([])
    assert scheduled() == []
    with pytest.raises(urllib.error.HTTPError, match="404"):
        announce([], "i-00000000")
