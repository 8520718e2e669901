"""The events of EC2: what is asked, and what a table shows of the answer."""

from __future__ import annotations

import datetime
import typing as t

import boto3
import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.scheduled_events import read_events, say_events
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.session import AwsService
from botocore.stub import Stubber

from tests.unit.plugins.plugin_utils.aws.balancers import REGION, launch, make_group
from tests.unit.plugins.plugin_utils.aws.cloudwatch import moto

__all__ = ["moto"]

pytestmark = pytest.mark.usefixtures("moto")


def at(hour: int, zone: int = 0) -> datetime.datetime:
    return datetime.datetime(2026, 12, 3, hour, 30, tzinfo=datetime.timezone(datetime.timedelta(hours=zone)))


def event(code: str, description: str = "", hour: int = 2) -> dict[str, t.Any]:
    return {"Code": code, "Description": description, "NotBefore": at(hour), "NotAfter": at(hour + 2)}


def stubbed(instances: list[str], *events: dict[str, t.Any]) -> AwsService:
    client = boto3.client("ec2", REGION)
    stub = Stubber(client)
    for begin in range(0, len(instances), 100):
        part = instances[begin : begin + 100]
        stub.add_response(
            "describe_instance_status",
            {"InstanceStatuses": [{"InstanceId": one, "Events": list(events)} for one in part[:1]]},
            {"InstanceIds": part, "IncludeAllInstances": True},
        )
    stub.activate()
    return AwsService(lambda: client, "ec2", REGION)


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([], ""),
        ([event("system-reboot", "scheduled reboot")], "system-reboot 2026-12-03 02:30"),
        (
            [event("instance-retirement", hour=9), event("system-reboot")],
            "system-reboot 2026-12-03 02:30, instance-retirement 2026-12-03 09:30",
        ),
        ([event("system-reboot", "[Completed] scheduled reboot")], ""),
        ([event("system-reboot", "[Canceled] scheduled reboot")], ""),
        ([{"Code": "instance-stop"}], "instance-stop"),
        ([{"Code": "instance-stop", "NotBefore": at(2, zone=-8)}], "instance-stop 2026-12-03 10:30"),
    ],
)
def test_what_a_table_shows_of_events(events: list[dict[str, t.Any]], said: str) -> None:
    assert say_events(events) == said


def test_stopped_instances_are_asked_about_too_and_a_hundred_at_once() -> None:
    ids = [f"i-{number}" for number in range(250)]
    found = read_events(stubbed(ids, event("system-reboot")), ids)
    assert found == {one: "system-reboot 2026-12-03 02:30" for one in ("i-0", "i-100", "i-200")}


def test_moto_has_no_events_and_answers_for_stopped_instances() -> None:
    made = make_group()
    ids = [launch(made.subnets[0]) for _each in range(2)]
    boto3.client("ec2", REGION).stop_instances(InstanceIds=ids[:1])
    service = AwsService(lambda: boto3.client("ec2", REGION), "ec2", REGION)
    assert read_events(service, ids) == {}
    assert read_events(service, []) == {}


def test_a_missing_right_is_named() -> None:
    client = boto3.client("ec2", REGION)
    stub = Stubber(client)
    stub.add_client_error("describe_instance_status", "UnauthorizedOperation", "")
    stub.activate()
    with pytest.raises(FleetError, match=r"lack the right ec2:DescribeInstanceStatus on \*"):
        read_events(AwsService(lambda: client, "ec2", REGION), ["i-1"])
