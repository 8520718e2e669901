"""What `announce` changes: the metadata service's file, the API's scheduled events, EventBridge."""

from __future__ import annotations

import json
import typing as t

import pytest

from lab import ec2, notices
from lab.state import Host, Lab
from tests.unit.lab.aws.conftest import Cloud, cloud

__all__ = ["cloud"]


@pytest.fixture
def host(cloud: Cloud, lab: Lab) -> Host:
    lab.ec2_port = cloud.port
    ec2.register(lab)
    return lab.host("inference-1")


def said(lab: Lab, host: Host) -> dict[str, str]:
    found: dict[str, str] = json.loads((lab.host_directory(host) / "metadata/said.json").read_text())
    return found


def scheduled(lab: Lab, host: Host) -> list[dict[str, t.Any]]:
    ids = [ec2.find_instance(lab, host)]
    answer = ec2.client(lab).describe_instance_status(InstanceIds=ids, IncludeAllInstances=True)
    events: list[dict[str, t.Any]] = answer["InstanceStatuses"][0].get("Events", [])
    return events


def test_maintenance_is_announced_on_the_host_and_in_the_api_each_with_its_dates(lab: Lab, host: Host) -> None:
    notices.announce(lab, host, "maintenance", 600)
    (event,) = scheduled(lab, host)
    (on_host,) = json.loads(said(lab, host)["events/maintenance/scheduled"])
    assert event["Code"] == on_host["Code"] == "system-reboot"
    assert on_host["NotBefore"].endswith(f"{event['NotBefore']:%Y %H:%M:%S} GMT")
    notices.announce(lab, host, "nothing", None)
    assert scheduled(lab, host) == []
    assert said(lab, host)["events/maintenance/scheduled"] == "[]"


def test_a_spot_notice_is_announced_on_the_host_and_on_eventbridge(cloud: Cloud, lab: Lab, host: Host) -> None:
    sqs, events = cloud.client("sqs"), cloud.client("events")
    queue = sqs.create_queue(QueueName="spot")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_rule(Name="spot", EventPattern=json.dumps({"source": ["aws.ec2"]}))
    events.put_targets(Rule="spot", Targets=[{"Id": "queue", "Arn": arn}])
    notices.announce(lab, host, "spot", None)
    assert json.loads(said(lab, host)["spot/instance-action"])["action"] == "terminate"
    (message,) = sqs.receive_message(QueueUrl=queue)["Messages"]
    event = json.loads(message["Body"])
    assert event["detail-type"] == "EC2 Spot Instance Interruption Warning"
    assert event["detail"] == {"instance-id": ec2.find_instance(lab, host), "instance-action": "terminate"}
    notices.announce(lab, host, "nothing", None)
    assert "spot/instance-action" not in said(lab, host)


def test_a_host_that_its_group_ends_says_so_beside_what_it_says_already(lab: Lab, host: Host) -> None:
    notices.mark_leaving(lab, host)
    assert not (lab.host_directory(host) / "metadata").exists()
    notices.announce(lab, host, "rebalance", None)
    notices.mark_leaving(lab, host)
    assert said(lab, host)["autoscaling/target-lifecycle-state"] == "Terminated"
    assert "events/recommendations/rebalance" in said(lab, host)


def test_a_scratch_host_has_notices_too_and_no_instance_in_the_api(
    cloud: Cloud, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.ec2_port = cloud.port
    monkeypatch.setattr(ec2, "client", pytest.fail)
    scratch = lab.host("scratch-1")
    notices.announce(lab, scratch, "spot", None)
    assert json.loads(said(lab, scratch)["spot/instance-action"])["action"] == "terminate"
    assert said(lab, scratch)["instance-id"].startswith("i-0")
