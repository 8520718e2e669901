from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.clients import edge_values
from ansible_collections.inference.fleet.plugins.module_utils.clients.limits import Limits
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.facts import series
from ansible_collections.inference.fleet.plugins.module_utils.facts.access_log import AccessCounters
from ansible_collections.inference.fleet.plugins.module_utils.facts.answers import Answer
from ansible_collections.inference.fleet.plugins.module_utils.facts.exposition import Series, render

NOON = "2026-11-29T12:00:00Z"
AT = 1795953600


def shown(found: t.Iterable[Series]) -> list[tuple[t.Any, ...]]:
    return [(one.name.removeprefix("fleet_"), *one.labels.values(), one.value) for one in found]


def test_a_release_names_what_runs() -> None:
    manifest = {"engine": "vllm", "version": "0.32.0", "model": "Qwen/Qwen3-VL-8B-Instruct", "served_name": ""}
    expected = ("release_info", "0", "vllm", "0.32.0", "vllm-0123456789ab", "Qwen/Qwen3-VL-8B-Instruct", 1)
    assert shown(series.of_release("0", "vllm-0123456789ab", manifest)) == [expected]
    assert shown(series.of_release("0", "x", {**manifest, "served_name": "short"}))[0][5] == "short"


@pytest.mark.parametrize("passed", [True, False])
def test_a_gate_has_its_verdict_and_its_time(passed: bool) -> None:
    record = {"at": NOON, "passed": passed, "checks": []}
    assert shown(series.of_gate("vllm-0", record)) == [
        ("gate_passed", "vllm-0", passed),
        ("gate_timestamp_seconds", "vllm-0", AT),
    ]


def test_drains_have_their_owners() -> None:
    def mark(by: str) -> dict[str, str]:
        return {"state": "drained", "by": by, "reason": "fan", "since": NOON}

    aws = {"state": "lame_duck", "reason": "spot", "since": NOON, "notices": ["spot"]}
    document = {**mark("operator"), "instances": {"engine-1": mark("rollout")}, "aws": aws}
    assert shown(series.of_drains(document, "drain.json")) == [
        ("drain_since_timestamp_seconds", "host", "operator", AT),
        ("drain_since_timestamp_seconds", "host", "aws", AT),
        ("drain_since_timestamp_seconds", "engine-1", "rollout", AT),
    ]
    assert series.of_drains(None, "drain.json") == []
    with pytest.raises(FleetError, match=r"drain\.json"):
        series.of_drains(["no record"], "drain.json")


def test_a_rollout_that_is_over_claims_nothing() -> None:
    claim = {"id": "r1", "verb": "site", "who": "ann", "controller": "c:/x", "since": NOON}
    assert shown(series.of_claim(claim, "rollout.json")) == [("rollout_claim_timestamp_seconds", "r1", "site", AT)]
    # One that stopped in the middle.
    assert series.of_claim({**claim, "held": False}, "rollout.json")
    assert series.of_claim({**claim, "finished": True}, "rollout.json") == []
    assert series.of_claim(None, "rollout.json") == []


def test_clients_are_named_and_nothing_of_their_keys() -> None:
    expiring, unlimited = Limits({"expires": NOON}), Limits()
    lines = [
        f"{'a' * 64} {edge_values.render('team-a', expiring)}",
        f"{'b' * 64} {edge_values.render('team-a', Limits({'expires': '2026-11-30T12:00:00Z'}))}",
        f"{'c' * 64} {edge_values.render('team-b', unlimited)}",
        f"{'d' * 64} {edge_values.render('team-c', Limits({'max_concurrent': 3}))}",
    ]
    found = series.of_clients("# Written by edge_keys.\n" + "\n".join(lines), "keys.map")
    assert shown(found) == [("client_expires_timestamp_seconds", "team-a", AT)]
    assert "aaaa" not in str(found)


def test_a_map_of_a_later_version_is_not_guessed_at() -> None:
    with pytest.raises(FleetError, match=r"keys\.map has clients in version 9"):
        series.of_clients(f"{'a' * 64} v=9|team-a|1", "keys.map")


def test_the_look_counts_what_it_could_not_read() -> None:
    assert shown(series.of_look({"gates": 2, "log": 0}, 5.5)) == [
        ("look_problems", "gates", 2),
        ("look_problems", "log", 0),
        ("last_look_timestamp_seconds", 5.5),
    ]


def test_requests_and_their_answers_are_counted_by_client() -> None:
    counters = AccessCounters()
    counters.rejected["team-a", "queue_full"] = 3
    counters.served["team-a"] = (2, 2500)
    counters.answers.add(Answer("team-a", "m", True, 100, 64, 11, 50, 200))
    counters.answers.add(Answer("team-a", "m", False, 100, None, 5, 30, 100))
    found = series.of_requests(counters)
    assert shown(found) == [
        ("requests_rejected_total", "team-a", "queue_full", 3),
        ("request_seconds_sum", "team-a", 2.5),
        ("request_seconds_count", "team-a", 2),
        ("answers_total", "team-a", "m", "partial", 1),
        ("answers_total", "team-a", "m", "whole", 1),
        ("prompt_tokens_total", "team-a", "m", 200),
        ("cached_tokens_total", "team-a", "m", 64),
        ("answer_tokens_total", "team-a", "m", 16),
        ("first_token_seconds_sum", "team-a", 0.08),
        ("first_token_seconds_count", "team-a", 2),
        ("token_gap_seconds_sum", "team-a", 0.2),
        ("token_gap_seconds_count", "team-a", 10),
    ]
    assert "# TYPE fleet_token_gap_seconds summary\n" in render(found)
