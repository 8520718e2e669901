"""Alarms in moto's CloudWatch, and answers that moto does not give."""

from __future__ import annotations

import os
import typing as t

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.paginate import Paginator
from moto import mock_aws
from moto.cloudwatch.models import cloudwatch_backends
from moto.core import DEFAULT_ACCOUNT_ID

REGION = "us-east-1"

#: An error's code and message, or None for an answer without alarms.
Answer = t.Callable[[dict[str, t.Any]], t.Optional[tuple[str, str]]]


METRIC: dict[str, t.Any] = {
    "Namespace": "AWS/ApplicationELB",
    "MetricName": "HTTPCode_Target_5XX_Count",
    "Statistic": "Sum",
    "Period": 60,
    "EvaluationPeriods": 3,
    "Threshold": 5.0,
    "ComparisonOperator": "GreaterThanThreshold",
}


def make_alarm(name: str, *, region: str = REGION, rule: str = "") -> None:
    boto3.client("cloudwatch", region).put_metric_alarm(AlarmName=name, **METRIC)
    # moto describes composite alarms, and has no call to make one.
    cloudwatch_backends[DEFAULT_ACCOUNT_ID][region].alarms[name].rule = rule or None


def raise_alarm(name: str, state: str, reason: str = "Threshold Crossed.", region: str = REGION) -> None:
    boto3.client("cloudwatch", region).set_alarm_state(AlarmName=name, StateValue=state, StateReason=reason)


def answer_with(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
    """Let each DescribeAlarms be answered by a function of its parameters."""

    def paginate(_self: Paginator[t.Any], **parameters: t.Any) -> t.Iterator[dict[str, t.Any]]:
        error = answer(parameters)
        if error:
            raise ClientError({"Error": {"Code": error[0], "Message": error[1]}}, "DescribeAlarms")
        yield {}

    monkeypatch.setattr(Paginator, "paginate", paginate)


@pytest.fixture
def moto(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[None]:
    """A CloudWatch without alarms, and none of this machine's AWS settings."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    with mock_aws():
        yield
