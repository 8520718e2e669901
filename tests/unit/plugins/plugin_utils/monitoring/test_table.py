"""The table of alerts, and what is made of it."""

from __future__ import annotations

import dataclasses
import json

import botocore.session
import botocore.validate
import pytest
import yaml
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring import cloudwatch, rules
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.alert import Alert, check_alerts
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.table import ALERTS

from tests import alerts_page

GOOD = Alert("Some", "a summary", "vector(1)", "page", "a meaning", "an action", "5m")


def test_the_table_is_valid() -> None:
    check_alerts(ALERTS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"severity": "critical"}, "Some has the severity 'critical'; valid are page, ticket, none."),
        ({"name": "some alert"}, "'some alert' is no name; one is in CamelCase."),
        ({"holds": "5 minutes"}, "Some holds '5 minutes'; valid are a number and s, m, h or d, or nothing."),
        ({"holds": "0m"}, "Some holds '0m'"),
        ({"action": " "}, "Some has no action."),
        ({"expression": ""}, "Some has no expression."),
    ],
)
def test_a_wrong_row_is_refused_by_name(change: dict[str, str], message: str) -> None:
    with pytest.raises(FleetError) as caught:
        check_alerts([GOOD, dataclasses.replace(GOOD, **{"name": "Other", **change})])
    assert message.replace("Some has", f"{change.get('name', 'Other')} has").replace(
        "Some holds", "Other holds"
    ) in str(caught.value)


def test_two_alerts_of_one_name_are_refused() -> None:
    with pytest.raises(FleetError, match="Some is there twice"):
        check_alerts([GOOD, GOOD])


def test_pages_are_few_and_name_what_to_do() -> None:
    pages = {alert.name for alert in ALERTS if alert.severity == "page"}
    assert pages == {
        "ErrorBudgetBurnFast",
        "ErrorBudgetBurnSlow",
        "FirstTokenBurnFast",
        "FirstTokenBurnSlow",
        "FirstTokenStalls",
        "CapacityHalf",
        "EngineHangs",
        "WatchdogGaveUp",
        "FiguresMissing",
        "HangsSpread",
        "GpuFault",
        "GpuFailed",
        "GpuMissing",
        "ProbeFails",
        "KeyExpiresSoon",
        "CertificateExpiresSoon",
        "DiskFull",
    }


def test_the_rule_file_has_every_alert_with_its_entry_in_the_page() -> None:
    document = yaml.safe_load(rules.rule_file("https://wiki.example/alerts"))
    found = {one["alert"]: one for group in document["groups"] for one in group["rules"]}
    assert list(found) == [alert.name for alert in ALERTS]
    hang = found["EngineHangs"]
    assert hang["annotations"]["runbook"] == "https://wiki.example/alerts#enginehangs"
    assert hang["labels"] == {"severity": "page"}
    assert hang["for"] == "2m"
    assert "for" not in found["DeadMan"]


def test_expressions_are_complete_in_themselves() -> None:
    """No recording rule: CloudWatch has none."""
    groups = yaml.safe_load(rules.rule_file())["groups"]
    assert all("record" not in one for group in groups for one in group["rules"])


def test_alerts_can_be_left_out_by_name() -> None:
    text = rules.rule_file(without=["DeadMan", "GpuHot"])
    assert "DeadMan" not in text
    assert "EngineHangs" in text
    with pytest.raises(FleetError, match="There is no alert DeadMann"):
        rules.rule_file(without=["DeadMann"])


def test_the_page_is_up_to_date() -> None:
    assert alerts_page.PAGE.read_text(encoding="utf-8") == alerts_page.written(), "run: python -m tests.alerts_page"


def test_the_example_of_cloudwatch_is_up_to_date() -> None:
    assert alerts_page.ALARMS.read_text(encoding="utf-8") == cloudwatch.alarms_file(), (
        "run: python -m tests.alerts_page"
    )


def test_cloudwatch_takes_every_alarm() -> None:
    """By boto3's own description of PutMetricAlarm: lengths, ranges and names."""
    session = botocore.session.get_session()
    model = session.get_service_model("cloudwatch").operation_model("PutMetricAlarm").input_shape
    assert model
    described = json.loads(alerts_page.ALARMS.read_text(encoding="utf-8"))
    assert len(described) == len([alert for alert in ALERTS if alert.severity != "none"])
    for one in described:
        assert not botocore.validate.ParamValidator().validate(one, model).has_errors(), one["AlarmName"]
        assert len(one["AlarmDescription"]) <= 1024, one["AlarmName"]
        query = one["EvaluationCriteria"]["PromQLCriteria"]
        assert len(query["Query"]) <= 10000, one["AlarmName"]
        assert 0 <= query["PendingPeriod"] <= 86400, one["AlarmName"]


def test_values_of_ansibles_own_types_can_be_written() -> None:
    class Text(str):
        __slots__ = ()

    class Pairs(dict[str, str]):
        pass

    assert rules.dump(Pairs(a=Text("15s"), b=Text("x\ny"))) == "a: 15s\nb: |-\n  x\n  y\n"
