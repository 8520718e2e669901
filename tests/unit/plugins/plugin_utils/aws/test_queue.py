"""A queue by moto through boto3."""

from __future__ import annotations

import json

import boto3
import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.queue import EventQueue

from tests.unit.plugins.plugin_utils.aws.cloudwatch import REGION, moto

__all__ = ["moto"]

pytestmark = pytest.mark.usefixtures("moto")


def make_queue(**attributes: str) -> tuple[EventQueue, str]:
    url = boto3.client("sqs", REGION).create_queue(QueueName="fleet-events", Attributes=attributes)["QueueUrl"]
    return EventQueue(url, REGION, "a test"), url


def test_a_message_is_received_kept_and_deleted() -> None:
    queue, url = make_queue()
    boto3.client("sqs", REGION).send_message(QueueUrl=url, MessageBody="hello")
    (message,) = queue.receive(0, 30)
    assert message.body == "hello"
    assert queue.receive(0, 30) == [], "another receiver gets nothing meanwhile"
    assert queue.extend(message, 0)
    (again,) = queue.receive(0, 30)
    assert (again.id, again.body) == (message.id, "hello")
    queue.delete(again)
    assert queue.receive(0, 0) == []


def test_a_message_that_another_receipt_has_taken_is_no_error() -> None:
    queue, url = make_queue()
    boto3.client("sqs", REGION).send_message(QueueUrl=url, MessageBody="hello")
    (first,) = queue.receive(0, 0)
    queue.delete(first)
    queue.delete(first)
    assert not queue.extend(first, 30)


def test_the_dead_letters_are_as_aws_says_them() -> None:
    queue, url = make_queue()
    assert queue.dead_letters() == ""
    dead = boto3.client("sqs", REGION).create_queue(QueueName="dead")["QueueUrl"]
    arn = boto3.client("sqs", REGION).get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])
    policy = {"deadLetterTargetArn": arn["Attributes"]["QueueArn"], "maxReceiveCount": 5}
    boto3.client("sqs", REGION).set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": json.dumps(policy)})
    assert json.loads(queue.dead_letters())["maxReceiveCount"] == 5


def test_a_queue_that_is_not_there_is_named() -> None:
    queue = EventQueue(f"https://sqs.{REGION}.amazonaws.com/123456789012/nothing", REGION, "a test")
    with pytest.raises(FleetError, match=r"ReceiveMessage of queue nothing in us-east-1 failed \(.*NonExistentQueue"):
        queue.receive(0, 0)
