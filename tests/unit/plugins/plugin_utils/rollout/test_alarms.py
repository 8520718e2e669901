from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.alarms import (
    MOST,
    Alarm,
    AlarmVerdict,
    check_names,
    judge,
    missing,
    unreadable,
)

REASON = "Threshold Crossed: 3 out of the last 3 datapoints were greater than the threshold (5.0)."


def alarm(state: str, name: str = "fleet-5xx", region: str = "us-east-1", **more: str) -> Alarm:
    return Alarm(name, region, state, more.get("reason", REASON), more.get("since", "2027-01-15T08:00:00Z"))


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["a", "b", "a"], ["a", "b"]),
        ('["a", "b, c"]', ["a", "b, c"]),
        ("[]", []),
        ([], []),
        ("", []),
        (None, []),
    ],
)
def test_names_come_from_yaml_and_from_the_command_line(given: t.Any, names: list[str]) -> None:
    assert check_names(given) == names


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("fleet-5xx", "rollout_stop_on_alarms is 'fleet-5xx', which is no list of alarms' names."),
        ({"a": 1}, "which is no list"),
        ("7", "which is no list"),
        (["a", 7], "has 7, which is no alarm's name"),
        ([""], "has '', which is no alarm's name"),
        (["a\nb"], "without control characters"),
        (["x" * 256], "a text of 1 to 255 characters"),
        (["arn:aws:cloudwatch:us-east-1:1:alarm:a"], "give the alarm's name, the part after ':alarm:'"),
        ([f"a{number}" for number in range(MOST + 1)], "has 101 names; at most 100"),
    ],
)
def test_what_is_no_list_of_names_is_refused_with_an_example(given: t.Any, said: str) -> None:
    with pytest.raises(FleetError) as refused:
        check_names(given)
    assert said in refused.value.message
    assert refused.value.message.endswith("For example: rollout_stop_on_alarms: [fleet-rollout].")


def test_an_alarm_stops_it_with_its_reason_its_time_and_the_way_on() -> None:
    look = judge([alarm("OK", "other"), alarm("ALARM")])
    assert look.stop == (
        f"CloudWatch alarm fleet-5xx in us-east-1 is in ALARM since 2027-01-15T08:00:00Z: {REASON} "
        "Go on when it is OK; without this check: -e '{\"rollout_stop_on_alarms\": []}'."
    )
    assert look.notes == ()


def test_all_alarms_that_are_raised_are_named() -> None:
    look = judge([alarm("ALARM", "a"), alarm("ALARM", "b", "eu-west-1")])
    assert "alarm a in us-east-1" in look.stop
    assert "alarm b in eu-west-1" in look.stop
    assert look.stop.count("Go on when they are OK") == 1


def test_an_alarm_without_data_is_noted_and_stops_nothing() -> None:
    look = judge([alarm("INSUFFICIENT_DATA")])
    assert look.stop == ""
    assert look.notes == (
        "CloudWatch alarm fleet-5xx in us-east-1 is in INSUFFICIENT_DATA since 2027-01-15T08:00:00Z, which does not "
        "stop the rollout. Look whether its metric still gets data.",
    )
    assert judge([alarm("OK")]) == AlarmVerdict()


def test_a_reason_is_one_line_and_not_endless() -> None:
    stop = judge([alarm("ALARM", reason="one\n\x1b[31mtwo " + "x" * 900)]).stop
    assert "one [31mtwo" in stop
    assert len(stop) < 520
    assert "CloudWatch gives no reason." in judge([alarm("ALARM", reason="", since="")]).stop


def test_alarms_that_no_region_has_are_named_with_the_regions() -> None:
    found = [alarm("OK", "a", "eu-west-1")]
    assert missing(["a"], found, ["eu-west-1", "us-east-1"]) == ""
    assert missing(["a", "b"], found, ["eu-west-1", "us-east-1"]) == (
        "CloudWatch has no alarm b in eu-west-1, us-east-1."
    )
    assert "none of the alarms b, c in eu-west-1." in missing(["b", "c"], found, ["eu-west-1"])


def test_alarms_that_cannot_be_read_stop_it() -> None:
    assert unreadable("No answer.").stop == "The alarms of rollout_stop_on_alarms cannot be read: No answer."
