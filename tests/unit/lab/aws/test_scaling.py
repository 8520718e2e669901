"""Auto Scaling over HTTP, as boto3 sees it: hooks, events on a queue, target groups, scale-in."""

from __future__ import annotations

import itertools
import json
import typing as t

import pytest
from botocore.exceptions import ClientError

from tests.unit.lab.aws.conftest import Cloud, wait_for

#: So long that no heartbeat is missed while a test looks: 7200 seconds of the server are three minutes here.
LONG = 7200
NAMES = itertools.count(1)


class Scaled:
    """A group of the test's own, with a queue that has its events."""

    def __init__(self, cloud: Cloud, *, groups: t.Sequence[str] = (), largest: int = 3) -> None:
        self.cloud = cloud
        self.name = f"scaled-{next(NAMES)}"
        self.api = cloud.client("autoscaling")
        self._sqs = cloud.client("sqs")
        self._queue = self._sqs.create_queue(QueueName=self.name)["QueueUrl"]
        arn = self._sqs.get_queue_attributes(QueueUrl=self._queue, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]
        events = cloud.client("events")
        pattern = {"source": ["aws.autoscaling"], "detail": {"AutoScalingGroupName": [self.name]}}
        events.put_rule(Name=self.name, EventPattern=json.dumps(pattern))
        events.put_targets(Rule=self.name, Targets=[{"Id": "queue", "Arn": arn}])
        tags = [{"Key": "Name", "Value": self.name}, {"Key": "inference:role", "Value": "inference"}]
        cloud.client("ec2").create_launch_template(
            LaunchTemplateName=self.name,
            LaunchTemplateData={
                "ImageId": "ami-0abcdef1234567890",
                "InstanceType": "g6e.xlarge",
                "TagSpecifications": [{"ResourceType": "instance", "Tags": tags}],
            },
        )
        self.api.create_auto_scaling_group(
            AutoScalingGroupName=self.name,
            LaunchTemplate={"LaunchTemplateName": self.name, "Version": "$Latest"},
            MinSize=0,
            MaxSize=largest,
            DesiredCapacity=0,
            VPCZoneIdentifier=cloud.subnet,
            TargetGroupARNs=list(groups),
        )

    def hook(self, name: str, transition: str, *, timeout: int = LONG, result: str = "ABANDON") -> None:
        self.api.put_lifecycle_hook(
            AutoScalingGroupName=self.name,
            LifecycleHookName=name,
            LifecycleTransition=f"autoscaling:EC2_INSTANCE_{transition}",
            HeartbeatTimeout=timeout,
            DefaultResult=result,
        )

    def scale(self, count: int) -> None:
        self.api.set_desired_capacity(AutoScalingGroupName=self.name, DesiredCapacity=count)

    def members(self) -> dict[str, str]:
        group = self.api.describe_auto_scaling_groups(AutoScalingGroupNames=[self.name])["AutoScalingGroups"][0]
        return {one["InstanceId"]: one["LifecycleState"] for one in group["Instances"]}

    def states(self) -> list[str]:
        return sorted(self.members().values())

    def events(self) -> list[dict[str, t.Any]]:
        """The messages since the last look, without those that only report."""
        found = []
        while messages := self._sqs.receive_message(QueueUrl=self._queue, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                self._sqs.delete_message(QueueUrl=self._queue, ReceiptHandle=message["ReceiptHandle"])
                found.append(json.loads(message["Body"]))
        return [one for one in found if one["detail-type"].endswith("Lifecycle Action")]

    def complete(self, instance: str, hook: str, result: str = "CONTINUE") -> None:
        self.api.complete_lifecycle_action(
            AutoScalingGroupName=self.name,
            LifecycleHookName=hook,
            InstanceId=instance,
            LifecycleActionResult=result,
        )


def test_a_launch_waits_for_its_hook_and_is_told_on_the_queue(cloud: Cloud) -> None:
    group = Scaled(cloud)
    group.hook("join", "LAUNCHING")
    group.scale(1)
    ((instance, state),) = group.members().items()
    assert state == "Pending:Wait"
    (event,) = group.events()
    assert (event["source"], event["detail-type"]) == ("aws.autoscaling", "EC2 Instance-launch Lifecycle Action")
    detail = event["detail"]
    assert (detail["EC2InstanceId"], detail["LifecycleHookName"]) == (instance, "join")
    assert detail["LifecycleTransition"] == "autoscaling:EC2_INSTANCE_LAUNCHING"
    # EC2 says that it runs, with the tags of the launch template, so every inventory sees it.
    found = cloud.client("ec2").describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    assert found["State"]["Name"] == "running"
    assert {"Key": "Name", "Value": group.name} in found["Tags"]
    assert {"Key": "aws:autoscaling:groupName", "Value": group.name} in found["Tags"]
    group.api.complete_lifecycle_action(
        AutoScalingGroupName=group.name,
        LifecycleHookName="join",
        LifecycleActionToken=detail["LifecycleActionToken"],
        LifecycleActionResult="CONTINUE",
    )
    assert group.members() == {instance: "InService"}


def test_a_launch_that_is_abandoned_is_terminated_and_replaced(cloud: Cloud) -> None:
    group = Scaled(cloud)
    group.hook("join", "LAUNCHING")
    group.scale(1)
    (first,) = group.members()
    group.complete(first, "join", "ABANDON")
    wait_for(group.states, ["Pending:Wait"])
    (second,) = group.members()
    assert second != first
    found = cloud.client("ec2").describe_instances(InstanceIds=[first])["Reservations"][0]["Instances"][0]
    assert found["State"]["Name"] == "terminated"
    assert [one["detail"]["EC2InstanceId"] for one in group.events()] == [first, second]


def test_a_timeout_has_the_default_result(cloud: Cloud) -> None:
    group = Scaled(cloud)
    group.hook("join", "LAUNCHING", timeout=30, result="CONTINUE")
    group.scale(1)
    wait_for(group.states, ["InService"])
    assert [one["detail"]["LifecycleHookName"] for one in group.events()] == ["join"]


def test_heartbeats_are_for_an_action_that_waits(cloud: Cloud) -> None:
    group = Scaled(cloud)
    group.hook("join", "LAUNCHING")
    group.scale(1)
    (instance,) = group.members()
    which = {"AutoScalingGroupName": group.name, "LifecycleHookName": "join", "InstanceId": instance}
    group.api.record_lifecycle_action_heartbeat(**which)
    group.complete(instance, "join")
    with pytest.raises(ClientError, match="No active Lifecycle Action found"):
        group.api.record_lifecycle_action_heartbeat(**which)
    with pytest.raises(ClientError, match="No active Lifecycle Action found"):
        group.complete(instance, "join")


def test_the_group_registers_who_is_in_service_and_deregisters_before_the_hook(cloud: Cloud) -> None:
    target_group = cloud.group("autoscaled", 8000, listener=80)
    group = Scaled(cloud, groups=[target_group])
    group.hook("join", "LAUNCHING")
    group.hook("leave", "TERMINATING", result="CONTINUE")
    group.scale(2)
    first, second = group.members()
    assert cloud.health(target_group) == {}
    group.complete(first, "join")
    assert list(cloud.health(target_group)) == [(first, 8000)]
    group.complete(second, "join")
    group.events()
    group.scale(1)
    # First the deregistration delay, then the hook.
    assert group.members() == {first: "Terminating", second: "InService"}
    assert cloud.health(target_group)[first, 8000][0] == "draining"
    assert group.events() == []
    cloud.delay(target_group, 0)
    group.scale(0)
    wait_for(lambda: group.members().get(second), "Terminating:Wait")
    assert (second, 8000) not in cloud.health(target_group)
    (event,) = group.events()
    assert event["detail-type"] == "EC2 Instance-terminate Lifecycle Action"
    assert event["detail"]["EC2InstanceId"] == second
    group.complete(second, "leave")
    assert second not in group.members()


def test_what_was_deregistered_by_others_is_not_registered_again(cloud: Cloud) -> None:
    target_group = cloud.group("deregistered", 8000, listener=80)
    group = Scaled(cloud, groups=[target_group])
    group.scale(1)
    (instance,) = group.members()
    cloud.client("elbv2").deregister_targets(TargetGroupArn=target_group, Targets=[{"Id": instance}])
    group.scale(2)
    assert {ident: state for (ident, _), (state, _) in cloud.health(target_group).items()}[instance] == "draining"


def test_scale_in_spares_who_is_protected(cloud: Cloud) -> None:
    group = Scaled(cloud)
    group.scale(2)
    first, second = group.members()
    which = {"AutoScalingGroupName": group.name, "InstanceIds": [first, second]}
    group.api.set_instance_protection(ProtectedFromScaleIn=True, **which)
    group.scale(1)
    assert list(group.members()) == [first, second]
    group.api.set_instance_protection(ProtectedFromScaleIn=False, AutoScalingGroupName=group.name, InstanceIds=[second])
    wait_for(lambda: list(group.members()), [first])
    with pytest.raises(ClientError, match="is not part of Auto Scaling group"):
        group.api.set_instance_protection(ProtectedFromScaleIn=True, **which)


def test_an_instance_that_joins_cannot_be_protected(cloud: Cloud) -> None:
    group = Scaled(cloud)
    group.hook("join", "LAUNCHING")
    group.scale(1)
    with pytest.raises(ClientError, match="is not in InService"):
        group.api.set_instance_protection(
            ProtectedFromScaleIn=True, AutoScalingGroupName=group.name, InstanceIds=list(group.members())
        )


def test_an_instance_that_somebody_ends_is_replaced(cloud: Cloud) -> None:
    group = Scaled(cloud)
    group.scale(1)
    (first,) = group.members()
    cloud.client("ec2").terminate_instances(InstanceIds=[first])
    wait_for(group.states, ["InService"])
    assert first not in group.members()


def test_what_aws_refuses_is_refused(cloud: Cloud) -> None:
    group = Scaled(cloud)
    with pytest.raises(ClientError, match="above max value 3"):
        group.scale(4)
    with pytest.raises(ClientError, match="must be between 30 and 7200"):
        group.hook("join", "LAUNCHING", timeout=7201)
    group.name = "misspelt"
    with pytest.raises(ClientError, match="AutoScalingGroup name not found"):
        group.hook("join", "LAUNCHING")
    with pytest.raises(ClientError, match="AutoScalingGroup name not found"):
        group.scale(1)
