"""Hosts for the instances of Auto Scaling groups: which are missing, which have ended."""

from __future__ import annotations

import typing as t

import pytest

from lab import ec2, scaling
from lab.errors import LabError
from lab.state import Lab
from tests.unit.lab.aws.conftest import Cloud, cloud

__all__ = ["cloud"]


def launched(ident: str, address: str) -> dict[str, t.Any]:
    tags = {"Name": "fleet", "inference:role": "inference", "aws:autoscaling:groupName": "fleet"}
    return {
        "InstanceId": ident,
        "PrivateIpAddress": address,
        "InstanceType": "g6e.2xlarge",
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }


def test_an_instance_gets_a_host_of_its_address_and_its_tags(lab: Lab) -> None:
    first = launched("i-1", "10.99.0.40")
    assert scaling.compare(lab, [first]) == ([first], [])
    host = scaling.admit(lab, first)
    assert (host.name, lab.address(host), host.role, host.group) == ("i-1", "10.99.0.40", "inference", "fleet")
    assert host.instance_type == "g6e.2xlarge"
    assert not scaling.differs(lab, [first])
    # Two of one name are two hosts, and the next host of the lab's own has another address.
    scaling.admit(lab, launched("i-2", "10.99.0.15"))
    assert lab.address(lab.new_host("inference-9")) == "10.99.0.16"


def test_a_host_ends_with_its_instance_even_if_its_address_was_given_again(lab: Lab) -> None:
    host = scaling.admit(lab, launched("i-1", "10.99.0.40"))
    second = launched("i-2", "10.99.0.40")
    assert scaling.compare(lab, [second]) == ([second], [host])
    assert scaling.compare(lab, []) == ([], [host])


def test_an_address_that_cannot_be_is_an_error(lab: Lab) -> None:
    with pytest.raises(LabError, match=r"10\.99\.0\.11 of host inference-1"):
        scaling.admit(lab, launched("i-1", "10.99.0.11"))
    with pytest.raises(LabError, match=r"outside of 10\.99\.0\.0/24"):
        scaling.admit(lab, launched("i-1", "10.98.0.11"))


def test_instances_of_groups_are_the_groups_own(cloud: Cloud, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.ec2_port = cloud.port
    monkeypatch.setattr(scaling.processes, "start", lambda *arguments, **named: None)
    ec2.register(lab)
    assert scaling.ensure(lab, "pool", lock=0) == ["created Auto Scaling group pool"]
    assert scaling.ensure(lab, "pool", lock=0) == []
    scaling.set_capacity(lab, "pool", 2)
    instances = [one for one in ec2.grouped_instances(lab) if ec2.group_of(one) == "pool"]
    assert len(instances) == 2
    for instance in instances:
        scaling.admit(lab, instance)
    # They are neither launched a second time nor ended because they have no name of a host.
    assert ec2.register(lab) == []
    assert {one["InstanceId"] for one in instances} <= {one["InstanceId"] for one in ec2.grouped_instances(lab)}
    assert scaling.leaving(lab) & {one["InstanceId"] for one in instances} == set()
    queue = cloud.client("sqs").get_queue_url(QueueName="fleet-events")["QueueUrl"]
    assert cloud.client("sqs").receive_message(QueueUrl=queue)["Messages"]
    scaling.set_capacity(lab, "pool", 0)
