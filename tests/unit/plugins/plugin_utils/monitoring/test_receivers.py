"""Who gets alerts."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.receivers import (
    alertmanager,
    check_receivers,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.table import ALERTS

HOOK: dict[str, t.Any] = {"name": "on-call", "severities": ["page"], "webhook": {"url": "https://hooks.example/x"}}


@pytest.mark.parametrize(
    ("receivers", "message"),
    [
        ({"name": "x"}, "monitoring_receivers is {'name': 'x'}; it must be a list."),
        (["x"], "monitoring_receivers[0] is 'x'; it must be a dictionary."),
        ([{**HOOK, "severities": ["critical"]}], "has the severity 'critical'; valid are page, ticket, none."),
        ([{"name": "x", "severities": ["page"], "pager": {}}], "has pager; valid are webhook, sns, email, matchers"),
        ([{"name": "x", "severities": ["page"]}], "must be one of webhook, sns, email; it is none of them."),
        ([{**HOOK, "sns": {"topic_arn": "a"}}], "it is sns and webhook."),
        ([{**HOOK, "webhook": {"uri": "https://x"}}], "webhook lacks url."),
        ([{**HOOK, "webhook": {"url": "hooks.example"}}], "url of its webhook is no address"),
        ([{**HOOK, "webhook": "https://x"}], "it must be a dictionary with url."),
        ([{"name": "x", "severities": ["page"], "email": {"to": "a"}}], "email lacks from, smarthost."),
        ([{**HOOK, "severities": []}], "gets no alert"),
        ([{**HOOK, "severities": "page"}], "has severities: 'page'; it must be a list."),
        ([{**HOOK, "matchers": ["team"]}], "has the matcher 'team'"),
        ([{**HOOK, "name": "none"}], "has the name 'none'"),
        ([HOOK, HOOK], "monitoring_receivers has 'on-call' twice."),
    ],
)
def test_a_wrong_receiver_is_refused_with_what_is_valid(receivers: t.Any, message: str) -> None:
    with pytest.raises(FleetError) as caught:
        check_receivers(receivers)
    assert message in str(caught.value)


def test_the_address_of_a_webhook_is_in_no_message() -> None:
    with pytest.raises(FleetError) as caught:
        check_receivers([{**HOOK, "webhook": {"url": "ftp://secret"}}])
    assert "secret" not in str(caught.value)


def test_each_receiver_has_a_route_and_what_none_asks_for_goes_to_no_one() -> None:
    sns = {"name": "team", "severities": ["ticket"], "sns": {"topic_arn": "arn:x", "region": "us-east-1"}}
    owner = {**HOOK, "name": "owner", "severities": [], "matchers": ['client="team-a"'], "repeat": "1d"}
    document = alertmanager([HOOK, sns, owner])
    assert document["route"]["receiver"] == "none"
    assert [(one["receiver"], one["matchers"], one["continue"]) for one in document["route"]["routes"]] == [
        ("on-call", ['severity=~"page"'], True),
        ("team", ['severity=~"ticket"'], True),
        ("owner", ['client="team-a"'], True),
    ]
    assert document["route"]["routes"][2]["repeat_interval"] == "1d"
    assert document["receivers"][2] == {
        "name": "team",
        "sns_configs": [{"topic_arn": "arn:x", "sigv4": {"region": "us-east-1"}, "send_resolved": True}],
    }


def test_inhibitions_name_alerts_that_exist() -> None:
    known = {alert.name for alert in ALERTS}
    for one in alertmanager([])["inhibit_rules"]:
        for side in (*one["source_matchers"], *one["target_matchers"]):
            assert set(side.partition('"')[2].rstrip('"').split("|")) <= known, side
