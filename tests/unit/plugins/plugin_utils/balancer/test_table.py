"""The table as a whole."""

from __future__ import annotations

from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.table import (
    SETTINGS,
    errors,
    look,
    repairs,
    warnings,
)

from tests import balancer_settings
from tests.unit.plugins.plugin_utils.balancer.answers import ON_ATTRIBUTES, ON_GROUP, group, needs, nlb


def test_settings_as_documented_have_no_finding() -> None:
    for reading in (group(), nlb()):
        assert {one.found.verdict for one in look(reading, needs())} == {"ok"}
    assert repairs(look(group(), needs())) == []


def test_each_setting_has_one_name() -> None:
    names = [setting.name for setting in SETTINGS]
    assert len(names) == len(set(names))


def test_errors_and_warnings_are_sentences_with_their_repairs() -> None:
    found = look(
        group({"HealthCheckPath": "/"}, {"stickiness.enabled": "true", "deregistration_delay.timeout_seconds": "300"}),
        needs(),
    )
    assert errors(found) == [
        "Target group fleet, health check path: /, wanted /health: only /health says whether the host serves; the "
        f"edge answers / with 401 or 404. Repair: {ON_GROUP} --health-check-path /health",
        "Target group fleet, deregistration delay: 300 s, wanted at least 600 s: streams longer than 300 s would be "
        "cut: set deregistration_delay.timeout_seconds to 600. "
        f"Repair: {ON_ATTRIBUTES} Key=deregistration_delay.timeout_seconds,Value=600",
    ]
    assert warnings(found) == [
        "Target group fleet, stickiness: on, wanted off: a client stays with one host, so load is not shared, and a "
        f"host that comes back gets little of it. Repair: {ON_ATTRIBUTES} Key=stickiness.enabled,Value=false"
    ]
    assert repairs(found) == [
        f"{ON_GROUP} --health-check-path /health",
        f"{ON_ATTRIBUTES} Key=deregistration_delay.timeout_seconds,Value=600",
        f"{ON_ATTRIBUTES} Key=stickiness.enabled,Value=false",
    ]


def test_a_row_has_what_the_playbook_shows() -> None:
    row = next(one.as_row() for one in look(group({"HealthCheckPath": "/"}), needs()) if one.found.verdict != "ok")
    assert row == {
        "group": "fleet",
        "setting": "health check path",
        "is": "/",
        "wanted": "/health",
        "why": "only /health says whether the host serves; the edge answers / with 401 or 404",
        "verdict": "error",
    }


def test_the_page_is_written_from_the_table() -> None:
    text = balancer_settings.PAGE.read_text()
    assert balancer_settings.written(text) == text, "run: python -m tests.balancer_settings"


def test_the_chinese_page_names_every_setting() -> None:
    text = balancer_settings.PAGE.with_name("aws.zh-CN.md").read_text()
    assert [setting.name for setting in SETTINGS if f"| {setting.name} |" not in text] == []
