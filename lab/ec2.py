"""The lab's AWS (lab/aws), and in it one EC2 instance for each host of the fleet."""

from __future__ import annotations

import http
import http.client
import json
import sys
import time
import typing as t

from lab import processes, settings
from lab.errors import LabError
from lab.state import Host, Lab

REGION = "us-east-1"
IMAGE = "ami-0abcdef1234567890"
START_SECONDS = 90.0


def group(lab: Lab) -> str:
    return f"{lab.name}/ec2"


def ensure_server(lab: Lab, lock: int) -> None:
    """Start the API server if it is not running; ``wait`` waits until it answers."""
    place = lab.directory / "ec2"
    if processes.read(place / "process.json") is not None:
        return
    processes.stop(place, group(lab))
    argv = [sys.executable, "-m", "lab.aws.server", "--port", str(lab.ec2_port)]
    argv += ["--balancer", str(lab.balancer_socket), "--settle", str(settings.SETTLE)]
    processes.start(place, argv, lock=lock, group=group(lab))


def wait(lab: Lab) -> None:
    deadline = time.monotonic() + START_SECONDS
    place = lab.directory / "ec2"
    while True:
        if processes.read(place / "process.json") is None:
            raise LabError(f"The EC2 API server ended at its start (port {lab.ec2_port}): {processes.tail(place)}")
        connection = http.client.HTTPConnection("127.0.0.1", lab.ec2_port, timeout=5)
        try:
            connection.request("GET", "/moto-api/data.json")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        if time.monotonic() > deadline:
            raise LabError(f"The EC2 API server does not answer on {lab.ec2_endpoint}: {processes.tail(place)}")
        time.sleep(0.1)


def stop_server(lab: Lab) -> bool:
    return processes.stop(lab.directory / "ec2", group(lab))


def client(lab: Lab, service: str = "ec2") -> t.Any:
    """boto3's client of the lab's AWS, independent of this shell's AWS settings."""
    import boto3

    # Its types list the services by name.
    connect: t.Any = boto3.client
    return connect(
        service,
        region_name=REGION,
        endpoint_url=lab.ec2_endpoint,
        aws_access_key_id="lab",
        aws_secret_access_key="lab",  # noqa: S106 - moto takes any
    )


def tags(host: Host) -> dict[str, str]:
    wanted = {"Name": host.name, "inference:role": host.role}
    if host.ring:
        wanted["inference:ring"] = host.ring
    if host.engine:
        wanted["inference:engine"] = host.engine
    return wanted


def register(lab: Lab) -> list[str]:
    """Sync the API to the lab: an instance per host, with its address, tags and state; return the changes.

    Instances of Auto Scaling groups are the groups' own.
    """
    ec2 = client(lab)
    found = {}
    changed = []
    # By address, because a test may have given two of them one name.
    hosts = {lab.address(host): host for host in lab.hosts.values() if host.role}
    for instance in _instances(ec2):
        if group_of(instance):
            continue
        host = hosts.get(instance["PrivateIpAddress"])
        if host is None or instance["InstanceType"] != host.instance_type:
            name = next((tag["Value"] for tag in instance.get("Tags", []) if tag["Key"] == "Name"), "")
            ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
            changed.append(f"terminated {name or instance['InstanceId']}")
        else:
            found[host.name] = instance
    for host in [host for host in lab.fleet() if not host.group]:
        if host.name not in found:
            found[host.name] = _launch(ec2, lab, host)
            changed.append(f"launched {host.name}")
        changed += _adjust(ec2, host, found[host.name])
    return changed


def group_of(instance: dict[str, t.Any]) -> str:
    """The Auto Scaling group of an instance, or nothing."""
    found = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
    return found.get("aws:autoscaling:groupName", "")


def find_instance(lab: Lab, host: Host) -> str:
    """The id of the host's instance, by its address: names may be alike."""
    wanted = lab.address(host)
    for instance in _instances(client(lab)):
        if instance.get("PrivateIpAddress") == wanted:
            return str(instance["InstanceId"])
    raise LabError(f"The EC2 API of lab {lab.name} has no instance with the address {wanted} of {host.name}.")


def instances(lab: Lab) -> list[dict[str, t.Any]]:
    """All instances that have not been terminated."""
    return _instances(client(lab))


def grouped_instances(lab: Lab) -> list[dict[str, t.Any]]:
    """The instances that Auto Scaling groups have launched and not ended."""
    return [instance for instance in instances(lab) if group_of(instance)]


def schedule(lab: Lab, instance: str, events: list[dict[str, str]]) -> None:
    """Set the instance's scheduled events in DescribeInstanceStatus."""
    connection = http.client.HTTPConnection("127.0.0.1", lab.ec2_port, timeout=30)
    try:
        connection.request("PUT", f"/lab/events/{instance}", json.dumps(events))
        status = connection.getresponse().status
    finally:
        connection.close()
    if status != http.HTTPStatus.NO_CONTENT:
        raise LabError(f"The EC2 API of lab {lab.name} answered {status} for the events of {instance}.")


def put_event(lab: Lab, kind: str, detail: dict[str, str]) -> None:
    """Put an event of EC2's own on EventBridge."""
    event = {"Source": "aws.ec2", "DetailType": kind, "Detail": json.dumps(detail)}
    client(lab, "events").put_events(Entries=[event])


def _instances(ec2: t.Any) -> list[dict[str, t.Any]]:
    states = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
    pages = ec2.get_paginator("describe_instances").paginate(Filters=states)
    return [instance for page in pages for group_ in page["Reservations"] for instance in group_["Instances"]]


def _launch(ec2: t.Any, lab: Lab, host: Host) -> dict[str, t.Any]:
    launched = ec2.run_instances(
        ImageId=IMAGE,
        InstanceType=host.instance_type,
        MinCount=1,
        MaxCount=1,
        SubnetId=ensure_subnet(lab),
        PrivateIpAddress=lab.address(host),
        TagSpecifications=[
            {
                "ResourceType": "instance",
                "Tags": [{"Key": key, "Value": value} for key, value in tags(host).items()],
            }
        ],
    )
    instance: dict[str, t.Any] = launched["Instances"][0]
    return {**instance, "State": {"Name": "running"}}


def ensure_subnet(lab: Lab) -> str:
    """The lab's subnet in a VPC of its own."""
    ec2 = client(lab)
    found = ec2.describe_subnets(Filters=[{"Name": "cidr-block", "Values": [lab.subnet]}])["Subnets"]
    if not found:
        vpc = ec2.create_vpc(CidrBlock=lab.subnet)["Vpc"]["VpcId"]
        found = [ec2.create_subnet(VpcId=vpc, CidrBlock=lab.subnet)["Subnet"]]
    return str(found[0]["SubnetId"])


def _adjust(ec2: t.Any, host: Host, instance: dict[str, t.Any]) -> list[str]:
    changed = []
    ids = [instance["InstanceId"]]
    now = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
    wanted = tags(host)
    if stale := [{"Key": key} for key in now if key not in wanted]:
        ec2.delete_tags(Resources=ids, Tags=stale)
    if missing := [{"Key": key, "Value": value} for key, value in wanted.items() if now.get(key) != value]:
        ec2.create_tags(Resources=ids, Tags=missing)
    if stale or missing:
        changed.append(f"tagged {host.name}")
    if host.stopped and instance["State"]["Name"] == "running":
        ec2.stop_instances(InstanceIds=ids)
        changed.append(f"stopped {host.name}")
    if not host.stopped and instance["State"]["Name"] != "running":
        ec2.start_instances(InstanceIds=ids)
        changed.append(f"started {host.name}")
    return changed
