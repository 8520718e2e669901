"""Refusals are answers in AWS's documented form; botocore's Stubber gives them."""

from __future__ import annotations

import typing as t

import boto3
import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.aws_errors import AwsFailure
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.session import AwsService, open_service, own_region
from botocore.exceptions import EndpointConnectionError, NoCredentialsError
from botocore.stub import Stubber

from tests.unit.plugins.plugin_utils.aws.cloudwatch import REGION, make_alarm, moto

__all__ = ["moto"]

pytestmark = pytest.mark.usefixtures("moto")

DENIED = "User: arn:aws:sts::1:assumed-role/ops is not authorized to perform: {} because no policy allows it"


class Clients:
    """A client for each time that one is made; the answers of each, in their order."""

    def __init__(self, service: str, *answers: t.Callable[[Stubber], None]) -> None:
        self.made = 0
        self._service = service
        self._answers = answers

    def make(self) -> t.Any:
        make: t.Any = boto3.client
        client = make(self._service, REGION)
        stubber = Stubber(client)
        if self.made < len(self._answers):
            self._answers[self.made](stubber)
        stubber.activate()
        self.made += 1
        return client


def refusing(code: str, said: str = "") -> t.Callable[[Stubber], None]:
    return lambda stubber: stubber.add_client_error("describe_alarms", code, said)


def alarms(*answers: t.Callable[[Stubber], None]) -> tuple[AwsService, Clients]:
    clients = Clients("cloudwatch", *answers)
    return AwsService(clients.make, "cloudwatch", REGION), clients


@pytest.mark.parametrize(
    ("code", "said", "message"),
    [
        (
            "AccessDenied",
            DENIED.format("cloudwatch:DescribeAlarms"),
            "DescribeAlarms of alarm a in us-east-1 failed (AccessDenied). The credentials lack the right "
            "cloudwatch:DescribeAlarms on *: allow that IAM action, then run again.",
        ),
        ("AccessDenied", "", "lack the right cloudwatch:DescribeAlarms on *"),
        ("UnauthorizedOperation", "", "lack the right cloudwatch:DescribeAlarms on *"),
        ("Other", DENIED.format("kms:Decrypt"), "lack the right kms:Decrypt"),
        ("InvalidClientTokenId", "", "AWS does not know these credentials in us-east-1."),
        ("Throttling", "Rate exceeded", "AWS throttles the calls, also after 5 attempts."),
        ("Odd", "It broke sk-aaaaaaaaaaaaaaaaaaaaaaaa.", "failed (Odd). AWS says: It broke sk-…."),
    ],
)
def test_a_refusal_names_call_region_and_what_to_do(code: str, said: str, message: str) -> None:
    service, _clients = alarms(refusing(code, said))
    with pytest.raises(AwsFailure) as refused:
        service.call("describe_alarms", "alarm a")
    assert message in refused.value.message
    assert refused.value.code == code


def test_expired_credentials_are_read_once_more() -> None:
    service, clients = alarms(
        refusing("ExpiredToken"), lambda stubber: stubber.add_response("describe_alarms", {"MetricAlarms": []})
    )
    assert service.call("describe_alarms")["MetricAlarms"] == []
    assert clients.made == 2


def test_credentials_that_are_still_expired_are_named() -> None:
    service, clients = alarms(refusing("ExpiredToken"), refusing("ExpiredToken"))
    with pytest.raises(FleetError, match=r"DescribeAlarms in us-east-1 failed \(ExpiredToken\)\. The credentials have"):
        service.call("describe_alarms")
    assert clients.made == 2


def test_a_page_may_have_several_lists() -> None:
    make_alarm("a")
    make_alarm("b", rule="ALARM(a)")
    service = open_service("cloudwatch", REGION, "x")
    found = service.pages("describe_alarms", "MetricAlarms", "CompositeAlarms", AlarmTypes=["MetricAlarm"])
    assert [one["AlarmName"] for one in found] == ["a", "b"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            EndpointConnectionError(endpoint_url="https://user:secret@host"),
            "was not answered (EndpointConnectionError). monitoring.us-east-1.amazonaws.com cannot be reached. Check",
        ),
        (NoCredentialsError(), "There are no complete AWS credentials (NoCredentialsError)"),
    ],
)
def test_no_answer_says_why_without_a_password(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_given: t.Any) -> t.NoReturn:
        raise error

    service = open_service("cloudwatch", REGION, "x")
    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", fail)
    with pytest.raises(FleetError) as refused:
        service.call("describe_alarms")
    assert message in refused.value.message
    assert "secret" not in refused.value.message


def test_a_parameter_of_the_wrong_kind_is_said() -> None:
    service = open_service("cloudwatch", REGION, "x")
    with pytest.raises(FleetError, match=r"was not answered \(ParamValidationError\)\. .*AlarmNames"):
        service.call("describe_alarms", AlarmNames="a")


def test_a_stand_in_on_this_machine_never_gets_a_persons_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[t.Any] = []

    def client(_self: t.Any, *_given: t.Any, **named: t.Any) -> object:
        made.append(named)
        return object()

    monkeypatch.setattr("boto3.session.Session.client", client)
    for endpoint in ("http://127.0.0.1:5570", "https://vpce-1.elasticloadbalancing.us-east-1.vpce.amazonaws.com", ""):
        open_service("elbv2", REGION, "x", endpoint)
    assert [(one["endpoint_url"], one.get("aws_access_key_id")) for one in made] == [
        ("http://127.0.0.1:5570", "lab"),
        ("https://vpce-1.elasticloadbalancing.us-east-1.vpce.amazonaws.com", None),
        (None, None),
    ]


def test_what_cannot_be_opened_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FleetError, match=r"Elastic Load Balancing cannot be used in region 'us east' \(Invalid"):
        open_service("elbv2", "us east", "x")
    with pytest.raises(FleetError, match=r"cannot be used in region 'us-east-1' at no-url \(ValueError\)"):
        open_service("elbv2", REGION, "x", "no-url")
    monkeypatch.setenv("AWS_PROFILE", "missing")
    with pytest.raises(FleetError, match="There is no AWS profile as AWS_PROFILE names it"):
        own_region("x")
