"""Auto Scaling groups of the lab: a host for each instance that they launch."""

from __future__ import annotations

import ipaddress
import json
import sys
import time
import traceback
import typing as t

from lab import ec2, processes, settings, target_groups
from lab.errors import LabError
from lab.state import Host, Lab, cache_root, state_root

POLL_SECONDS = 1.0
LAUNCH, TERMINATE = "join", "leave"


def stop(lab: Lab) -> bool:
    return processes.stop(lab.directory / "scaling", f"{lab.name}/scaling")


def ensure(lab: Lab, group: str, lock: int) -> list[str]:
    """Have the group, its hooks, the queue that has their events, and the process that keeps hosts for it."""
    changed = []
    scaling = ec2.client(lab, "autoscaling")
    if not scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])["AutoScalingGroups"]:
        _create(lab, scaling, group)
        changed.append(f"created Auto Scaling group {group}")
    place = lab.directory / "scaling"
    if processes.read(place / "process.json") is None:
        processes.stop(place, f"{lab.name}/scaling")
        argv = [sys.executable, "-m", "lab.scaling", lab.name]
        places = {"INFERENCE_FLEET_STATE": str(state_root()), "INFERENCE_FLEET_CACHE": str(cache_root())}
        processes.start(place, argv, lock=lock, group=f"{lab.name}/scaling", env=places)
    return changed


def set_capacity(lab: Lab, group: str, count: int) -> None:
    ec2.client(lab, "autoscaling").set_desired_capacity(AutoScalingGroupName=group, DesiredCapacity=count)


def _create(lab: Lab, scaling: t.Any, group: str) -> None:
    """What examples/aws/fleet.yml has of it."""
    tags = {"Name": group, "inference:role": "inference", "inference:ring": "stable", "inference:state": "joining"}
    ec2.client(lab).create_launch_template(
        LaunchTemplateName=group,
        LaunchTemplateData={
            "ImageId": ec2.IMAGE,
            "InstanceType": "g6e.xlarge",
            "TagSpecifications": [
                {"ResourceType": "instance", "Tags": [{"Key": key, "Value": tags[key]} for key in tags]}
            ],
        },
    )
    arn = make_queue(lab, settings.QUEUE)
    events = ec2.client(lab, "events")
    events.put_rule(Name=settings.QUEUE, EventPattern=json.dumps(settings.EVENT_PATTERN))
    events.put_targets(Rule=settings.QUEUE, Targets=[{"Id": "queue", "Arn": arn}])
    hooks = [(LAUNCH, "LAUNCHING", "ABANDON"), (TERMINATE, "TERMINATING", "CONTINUE")]
    scaling.create_auto_scaling_group(
        AutoScalingGroupName=group,
        LaunchTemplate={"LaunchTemplateName": group, "Version": "$Latest"},
        MinSize=0,
        MaxSize=settings.LARGEST_GROUP,
        DesiredCapacity=0,
        VPCZoneIdentifier=ec2.ensure_subnet(lab),
        TargetGroupARNs=target_groups.find(lab, "inference") if lab.balancer == "registration" else [],
        LifecycleHookSpecificationList=[
            {
                "LifecycleHookName": name,
                "LifecycleTransition": f"autoscaling:EC2_INSTANCE_{transition}",
                "HeartbeatTimeout": settings.HOOK_TIMEOUT,
                "DefaultResult": result,
            }
            for name, transition, result in hooks
        ],
    )


def make_queue(lab: Lab, name: str) -> str:
    """A queue with its dead letters; its ARN."""
    sqs = ec2.client(lab, "sqs")

    def make(name: str, **attributes: str) -> str:
        url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return str(found["Attributes"]["QueueArn"])

    dead = make(f"{name}-dead")
    policy = json.dumps({"deadLetterTargetArn": dead, "maxReceiveCount": 5})
    return make(name, RedrivePolicy=policy)


def compare(lab: Lab, instances: t.Sequence[dict[str, t.Any]]) -> tuple[list[dict[str, t.Any]], list[Host]]:
    """The instances without a host, and the hosts whose instance has ended."""
    # By their ids: an address is given again, and names are alike.
    running = {one["InstanceId"] for one in instances}
    missing = [one for one in instances if one["InstanceId"] not in lab.hosts]
    return missing, [host for host in lab.hosts.values() if host.group and host.name not in running]


def leaving(lab: Lab) -> set[str]:
    """The instances that their groups have decided to end."""
    found = ec2.client(lab, "autoscaling").describe_auto_scaling_instances()["AutoScalingInstances"]
    return {one["InstanceId"] for one in found if one["LifecycleState"].startswith("Terminating")}


def differs(lab: Lab, instances: t.Sequence[dict[str, t.Any]]) -> bool:
    return any(compare(lab, instances))


def admit(lab: Lab, instance: dict[str, t.Any]) -> Host:
    """Record a host for the instance: its address, its tags, and a name that no other host has."""
    address = ipaddress.ip_address(instance["PrivateIpAddress"])
    network = ipaddress.ip_network(lab.subnet)
    if address not in network:
        raise LabError(f"Instance {instance['InstanceId']} has the address {address}, outside of {lab.subnet}.")
    taken = [host.name for host in lab.hosts.values() if lab.address(host) == str(address)]
    if taken:
        raise LabError(f"Instance {instance['InstanceId']} has the address {address} of host {taken[0]}.")
    tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
    number = int(address) - int(network.network_address)
    host = Host(
        name=instance["InstanceId"],
        number=number,
        role=tags.get("inference:role", ""),
        ring=tags.get("inference:ring", ""),
        engine=tags.get("inference:engine", ""),
        instance_type=instance["InstanceType"],
        group=ec2.group_of(instance),
    )
    lab.hosts[host.name] = host
    return host


def main(name: str) -> None:
    """Keep hosts for the groups' instances, for ever."""
    from lab import verbs

    while True:
        try:
            verbs.follow(name)
        except Exception:  # the next look may go better: the API starts again, an address is free
            traceback.print_exc()
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1])
