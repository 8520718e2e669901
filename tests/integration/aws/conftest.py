"""The lab's AWS with Auto Scaling groups: hooks, and their events in a queue."""

from __future__ import annotations

import itertools
import json
import typing as t

import pytest

from tests.unit.lab.aws.conftest import Cloud, serve

_NUMBERS = itertools.count(1)


class Scaled:
    """An Auto Scaling group with hooks, and a queue with its events, in the lab's AWS."""

    def __init__(self, cloud: Cloud, hooks: dict[str, int]) -> None:
        number = next(_NUMBERS)
        self.cloud = cloud
        self.name = f"fleet-{number}"
        self.autoscaling, self.sqs = cloud.client("autoscaling"), cloud.client("sqs")
        dead = self.sqs.create_queue(QueueName=f"{self.name}-dead")["QueueUrl"]
        self.dead = str(dead)
        policy = {"deadLetterTargetArn": self._arn(dead), "maxReceiveCount": 5}
        made = self.sqs.create_queue(
            QueueName=f"{self.name}-events", Attributes={"RedrivePolicy": json.dumps(policy), "VisibilityTimeout": "5"}
        )
        self.queue = str(made["QueueUrl"])
        events = cloud.client("events")
        kinds = ["EC2 Instance-launch Lifecycle Action", "EC2 Instance-terminate Lifecycle Action"]
        pattern = {"detail-type": kinds, "detail": {"AutoScalingGroupName": [self.name]}}
        events.put_rule(Name=self.name, EventPattern=json.dumps(pattern))
        events.put_targets(Rule=self.name, Targets=[{"Id": "queue", "Arn": self._arn(self.queue)}])
        template = cloud.client("ec2").create_launch_template(
            LaunchTemplateName=self.name,
            LaunchTemplateData={
                "ImageId": "ami-0abcdef1234567890",
                "InstanceType": "g6e.xlarge",
                "TagSpecifications": [
                    {
                        "ResourceType": "instance",
                        "Tags": [
                            {"Key": "Name", "Value": self.name},
                            {"Key": "inference:role", "Value": "inference"},
                            {"Key": "inference:state", "Value": "joining"},
                        ],
                    }
                ],
            },
        )["LaunchTemplate"]
        self.autoscaling.create_auto_scaling_group(
            AutoScalingGroupName=self.name,
            MinSize=0,
            MaxSize=9,
            DesiredCapacity=0,
            LaunchTemplate={"LaunchTemplateId": template["LaunchTemplateId"], "Version": "$Latest"},
            VPCZoneIdentifier=cloud.subnet,
        )
        for name, word, result in (("join", "LAUNCHING", "ABANDON"), ("leave", "TERMINATING", "CONTINUE")):
            if name in hooks:
                self.autoscaling.put_lifecycle_hook(
                    LifecycleHookName=name,
                    AutoScalingGroupName=self.name,
                    LifecycleTransition=f"autoscaling:EC2_INSTANCE_{word}",
                    HeartbeatTimeout=hooks[name],
                    DefaultResult=result,
                )

    def _arn(self, url: str) -> str:
        answer = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return str(answer["Attributes"]["QueueArn"])

    def scale(self, number: int) -> None:
        self.autoscaling.set_desired_capacity(AutoScalingGroupName=self.name, DesiredCapacity=number)

    def states(self) -> dict[str, str]:
        """The lifecycle states of the group's instances."""
        answer = self.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[self.name])
        return {one["InstanceId"]: one["LifecycleState"] for one in answer["AutoScalingGroups"][0]["Instances"]}

    def start_one(self) -> str:
        """Start one instance more; its id."""
        before = self.states()
        self.scale(len(before) + 1)
        (instance,) = set(self.states()) - set(before)
        return instance

    def tag(self, instance: str) -> str:
        """The instance's tag inference:state; empty for none."""
        tags = self.cloud.client("ec2").describe_tags(Filters=[{"Name": "resource-id", "Values": [instance]}])["Tags"]
        return next((str(one["Value"]) for one in tags if one["Key"] == "inference:state"), "")

    def send(self, body: str) -> None:
        self.sqs.send_message(QueueUrl=self.queue, MessageBody=body)

    def left(self, url: str = "") -> int:
        """The messages in the queue, those that something has received included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self.sqs.get_queue_attributes(QueueUrl=url or self.queue, AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)


@pytest.fixture(scope="session")
def scaling_cloud(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Cloud]:
    with serve(tmp_path_factory.mktemp("scaling"), "--speed", "1") as running:
        yield running


@pytest.fixture
def scaled(scaling_cloud: Cloud) -> Scaled:
    """A group of its own, whose hooks wait for an hour."""
    return Scaled(scaling_cloud, {"join": 3600, "leave": 3600})


@pytest.fixture
def make_scaled(scaling_cloud: Cloud) -> t.Callable[[dict[str, int]], Scaled]:
    """Makes a group with other hooks."""
    return lambda hooks: Scaled(scaling_cloud, hooks)
