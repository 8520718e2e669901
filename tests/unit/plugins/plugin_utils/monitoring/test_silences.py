"""Where and for how long a rollout silences alerts."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring import silences


def planned(**seconds: float | None) -> dict[str, t.Any]:
    hosts = {host: {"expected_seconds": expected} for host, expected in seconds.items()}
    return {"verb": "site", "who": "anna@laptop", "hosts": hosts}


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, {"host": "watch-1", "url": "http://127.0.0.1:9093", "config": "/etc/prometheus/alertmanager.yml"}),
        (
            {"monitoring_alertmanager_port": 19093},
            {"host": "watch-1", "url": "http://127.0.0.1:19093", "config": "/etc/prometheus/alertmanager.yml"},
        ),
        (
            {"monitoring_alertmanager_url": "https://alerts.example", "monitoring_prometheus": "external"},
            {"host": "watch-1", "url": "https://alerts.example", "config": None},
        ),
        ({"monitoring_prometheus": "external"}, None),
    ],
)
def test_the_alertmanager_follows_from_the_hosts_variables(
    variables: dict[str, t.Any], place: dict[str, t.Any] | None
) -> None:
    assert silences.alertmanagers(["watch-1"], {"watch-1": variables}) == ([place] if place else [])


def test_without_a_monitoring_host_there_is_none() -> None:
    assert silences.alertmanagers([], {"gpu-1": {}}) == []


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        # Twice the slowest host of the turn.
        (planned(a=400.0, b=500.0, c=2000.0), 1000.0),
        (planned(a=20.0, b=30.0), 600.0),
        (planned(a=400.0, b=9000.0), 3600.0),
        # One of them has never been changed.
        (planned(a=20.0, b=None), 3600.0),
    ],
)
def test_a_silence_is_as_long_as_planned_and_never_endless(plan: dict[str, t.Any], expected: float) -> None:
    assert silences.seconds(plan, ["a", "b"], 3600) == expected


def test_a_silence_names_its_reason() -> None:
    turn = {"wave": 2, "waves": 5, "hosts": ["a", "b"]}
    assert silences.comment(planned(), turn) == "site, wave 2 of 5: a, b. By anna@laptop."


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"problem": "Alertmanager at http://127.0.0.1:9093: refused"}, "watch-1: Alertmanager at http"),
        ({"unreachable": True, "msg": "No route to host."}, "watch-1: No route to host. The rollout"),
        ({"failed": True, "msg": "No module"}, "watch-1: No module. The rollout"),
        ({"failed": True}, "watch-1: no reason given. The rollout"),
    ],
)
def test_what_went_wrong_is_said_with_the_host(result: dict[str, t.Any], said: str) -> None:
    place = {"__rollout_alertmanager": {"host": "watch-1"}}
    (note,) = silences.notes([{**place, **result}, {**place, "problem": ""}], ["a", "b"], ends=False)
    assert note.startswith("The alerts of a, b are not silenced")
    assert said in note
    (note,) = silences.notes([{**place, **result}], ["a", "b"], ends=True)
    assert note.startswith("The silence of a, b could not be ended: it ends by itself")
