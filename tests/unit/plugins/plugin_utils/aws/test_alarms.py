"""CloudWatch by moto through boto3; refusals are answers in AWS's documented form."""

from __future__ import annotations

import importlib
import sys
import typing as t

import boto3
import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.alarms import read_alarms, regions_of
from botocore.exceptions import EndpointConnectionError

from tests.unit.plugins.plugin_utils.aws.cloudwatch import REGION, answer_with, make_alarm, moto, raise_alarm

__all__ = ["moto"]


pytestmark = pytest.mark.usefixtures("moto")


def test_a_metric_alarm_is_read_with_its_state_reason_and_time() -> None:
    make_alarm("fleet-5xx")
    raise_alarm("fleet-5xx", "ALARM", "Threshold Crossed: 7.0 > 5.0.")
    make_alarm("not-asked")
    (alarm,) = read_alarms(["fleet-5xx", "missing"], [REGION])
    assert (alarm.name, alarm.region, alarm.state) == ("fleet-5xx", REGION, "ALARM")
    assert alarm.reason == "Threshold Crossed: 7.0 > 5.0."
    assert alarm.since.startswith("20")
    assert alarm.since.endswith("Z")


def test_a_composite_alarm_is_read_too() -> None:
    make_alarm("fleet-5xx")
    make_alarm("fleet-rollout", rule="ALARM(fleet-5xx)")
    assert {alarm.name for alarm in read_alarms(["fleet-rollout", "fleet-5xx"], [REGION])} == {
        "fleet-rollout",
        "fleet-5xx",
    }


def test_composite_alarms_are_asked_for_because_aws_leaves_them_out(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[t.Any] = []
    answer_with(monkeypatch, lambda parameters: asked.append(parameters))
    read_alarms(["a"], [REGION])
    assert asked == [{"AlarmNames": ["a"], "AlarmTypes": ["MetricAlarm", "CompositeAlarm"]}]


def test_each_region_of_the_fleet_is_asked() -> None:
    make_alarm("a", region="eu-west-1")
    make_alarm("b")
    found = read_alarms(["a", "b"], ["eu-west-1", REGION])
    assert [(alarm.name, alarm.region) for alarm in found] == [("a", "eu-west-1"), ("b", REGION)]


def test_the_regions_are_those_of_the_hosts_or_else_the_shells(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = [{"fleet_region": "us-west-2"}, {"fleet_region": "eu-west-1"}, {"fleet_region": "us-west-2"}, {}]
    assert regions_of(hosts) == ["eu-west-1", "us-west-2"]
    with pytest.raises(FleetError, match=r"no host has fleet_region, and this shell has no AWS_REGION\. Set one"):
        regions_of([{}, {"fleet_region": None}])
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-south-1")
    assert regions_of([{}]) == ["ap-south-1"]


@pytest.mark.parametrize(
    ("code", "said", "message"),
    [
        (
            "AccessDenied",
            "User: arn:aws:iam::1:user/ops is not authorized to perform: cloudwatch:DescribeAlarms on resource: *",
            "DescribeAlarms in us-east-1 failed (AccessDenied). The credentials lack the right "
            "cloudwatch:DescribeAlarms on *: allow that IAM action, then run again.",
        ),
        ("AccessDenied", "", "lack the right cloudwatch:DescribeAlarms on *"),
        ("ExpiredToken", "The security token is expired", "The credentials have expired. Log in again"),
        ("InvalidClientTokenId", "", "AWS does not know these credentials in us-east-1."),
        ("InternalServiceFault", "Something broke.", "failed (InternalServiceFault). AWS says: Something broke."),
    ],
)
def test_a_refusal_names_the_region_and_what_to_do(
    code: str, said: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, lambda _parameters: (code, said))
    with pytest.raises(FleetError) as refused:
        read_alarms(["a"], [REGION])
    assert message in refused.value.message


def test_no_answer_names_the_address_without_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_parameters: t.Any) -> t.NoReturn:
        raise EndpointConnectionError(endpoint_url="https://user:secret@monitoring.us-east-1.amazonaws.com")

    answer_with(monkeypatch, fail)
    with pytest.raises(FleetError) as refused:
        read_alarms(["a"], [REGION])
    said = refused.value.message
    assert said.startswith(
        "DescribeAlarms in us-east-1 was not answered (EndpointConnectionError). monitoring.us-east-1"
    )
    assert "secret" not in said


def test_no_credentials_and_an_unknown_profile_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "missing")
    with pytest.raises(FleetError, match="There is no AWS profile as AWS_PROFILE names it"):
        read_alarms(["a"], [REGION])
    with pytest.raises(FleetError, match="There is no AWS profile"):
        regions_of([])
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setattr("botocore.session.Session.get_credentials", lambda *_given: None)
    with pytest.raises(FleetError, match=r"There are no complete AWS credentials \(NoCredentialsError\)"):
        read_alarms(["a"], [REGION])


def test_a_region_that_is_no_name_is_said() -> None:
    with pytest.raises(FleetError, match="CloudWatch cannot be used in region 'us east'"):
        read_alarms(["a"], ["us east"])


def test_without_boto3_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def find(name: str, *more: t.Any) -> t.Any:
        if name.startswith("boto3"):
            raise ImportError("No module", name="boto3")
        return real(name, *more)

    monkeypatch.setattr(importlib, "import_module", find)
    with pytest.raises(FleetError, match=r"needs the Python library boto3.*requirements/controller\.txt") as refused:
        read_alarms(["a"], [REGION])
    assert sys.executable in refused.value.message


def test_boto3_names_the_call_as_the_table_of_rights_does() -> None:
    assert boto3.client("cloudwatch", REGION).meta.method_to_api_mapping["describe_alarms"] == "DescribeAlarms"
