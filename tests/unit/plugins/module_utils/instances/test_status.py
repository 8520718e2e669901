from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.engines.metrics import Load
from ansible_collections.inference.fleet.plugins.module_utils.instances.status import (
    Unit,
    gate_of,
    instance_of,
    parse_units,
    rows_of,
    short_revision,
)

SHOWN = """\
Id=vllm@0.service
LoadState=loaded
ActiveState=active
SubState=running
ActiveEnterTimestampMonotonic=1000000000

Id=vllm@1.service
LoadState=loaded
ActiveState=failed
SubState=failed
ActiveEnterTimestampMonotonic=5

Id=sglang@0.service
LoadState=loaded
ActiveState=inactive
SubState=dead
ActiveEnterTimestampMonotonic=0

Id=sglang@3.service
LoadState=not-found
ActiveState=inactive
SubState=dead

Id=vllm@0.service
LoadState=loaded
ActiveState=active
SubState=running
ActiveEnterTimestampMonotonic=1000000000
"""
MANIFEST = {
    "engine": "vllm",
    "version": "0.32.0",
    "model": "Qwen/Qwen3-VL-8B-Instruct",
    "revision": "0c351dd01ed87e9c1b53cbc748cba10e6187ff3b",
    "served_name": "Qwen/Qwen3-VL-8B-Instruct",
    "created": "2026-11-22T12:00:00+00:00",
}

REASON = "spot, terminates 12:03:10 UTC"
NOTICE: dict[str, t.Any] = {
    "reason": REASON,
    "aws": {"state": "drained", "reason": REASON, "since": "then", "notices": ["spot"]},
}


def test_units_are_read_once_and_only_if_they_exist() -> None:
    assert parse_units(SHOWN, monotonic=1600.0, now=1_700_000_600.0) == [
        Unit("vllm", 0, "active", "running", 1_700_000_000.0),
        Unit("vllm", 1, "failed", "failed", None),
        Unit("sglang", 0, "inactive", "dead", None),
    ]


@pytest.mark.parametrize("shown", ["", "\n\n", "Failed to connect to bus", "Id=ssh.service\nLoadState=loaded\n"])
def test_no_units_are_no_units(shown: str) -> None:
    assert parse_units(shown, 1.0, 2.0) == []


def test_an_instance_is_its_release_its_unit_and_its_load() -> None:
    units = parse_units(SHOWN, 1600.0, 1_700_000_600.0)
    instance = instance_of(0, "vllm-0123456789ab", MANIFEST, units, Load("vllm", 2, 1, 0.031), {})
    assert instance["name"] == "vllm-0"
    assert (instance["state"], instance["since"]) == ("active", "2023-11-14T22:13:20Z")
    assert (instance["running"], instance["waiting"], instance["kv_usage"]) == (2, 1, 0.031)


def test_a_unit_without_a_release_names_its_engine() -> None:
    instance = instance_of(
        1, None, {}, [Unit("vllm", 1, "inactive", "dead", None), Unit("sglang", 1, "active", "running", 1.0)], None, {}
    )
    assert (instance["engine"], instance["state"], instance["version"]) == ("sglang", "active", None)


def test_a_release_without_a_unit_is_absent() -> None:
    instance = instance_of(0, "vllm-0123456789ab", MANIFEST, [], None, {})
    assert (instance["state"], instance["since"], instance["running"]) == ("absent", None, None)


def status(**changes: t.Any) -> dict[str, t.Any]:
    whole: dict[str, t.Any] = {
        "instances": [],
        "edge": {"health": None},
        "drain": None,
        "gates": {},
        "driver": None,
        "problems": [],
    }
    return {**whole, **changes}


def test_a_row_is_what_a_person_looks_for() -> None:
    units = parse_units(SHOWN, 1600.0, 1_700_000_600.0)
    gates = {"vllm-0": gate_of({"at": "2026-11-22T12:30:59+00:00", "passed": True, "checks": ["much"]})}
    instance = instance_of(0, "vllm-0123456789ab", MANIFEST, units, Load("vllm", 2, 1, 0.031), {})
    rows = rows_of("a", status(instances=[instance], edge={"health": 200}, gates=gates, driver="595.71.05"))
    assert rows == [
        {
            "host": "a",
            "driver": "595.71.05",
            "edge": "in service",
            "instance": 0,
            "engine": "vllm",
            "version": "0.32.0",
            "release": "0123456789ab",
            "model": "Qwen/Qwen3-VL-8B-Instruct@0c351dd0",
            "state": "active",
            "up_since": "2023-11-14 22:13",
            "requests": "2/1",
            "kv_use": "3%",
            "last_gate": "passed 2026-11-22 12:30",
        }
    ]


def test_a_host_that_computes_for_another_one_says_for_which() -> None:
    manifest = {**MANIFEST, "span": {"rank": 1, "nodes": ["a", "b"]}}
    instance = instance_of(0, "vllm-0123456789ab", manifest, [], None, {})
    [row] = rows_of("b", status(instances=[instance], edge={"health": 503}))
    assert row["edge"] == "at a"
    first = instance_of(0, "vllm-0123456789ab", {**MANIFEST, "span": {"rank": 0, "nodes": ["a", "b"]}}, [], None, {})
    [row] = rows_of("a", status(instances=[first], edge={"health": 200}))
    assert row["edge"] == "in service"


def test_a_bare_host_has_a_row() -> None:
    assert rows_of("b", status()) == [
        {"host": "b", "driver": None, "edge": "none", "state": "no instance", "last_gate": None}
    ]


def test_an_edge_that_leads_into_the_pools_has_a_row() -> None:
    edge = {"health": 200, "pools": {"running": 2, "waiting": 0, "limit": 9}}
    [row] = rows_of("b", status(edge=edge))
    assert (row["engine"], row["state"], row["requests"], row["edge"]) == ("edge", "active", "2/0", "in service")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"edge": {"health": 503}}, "health 503"),
        (
            {"edge": {"health": 503, "held": {"since": "2026-11-29T10:00:59Z", "why": "EC2 had stopped it"}}},
            "held since 2026-11-29 10:00",
        ),
        ({"drain": {"state": "drained", "by": "operator"}, "edge": {"health": 503}}, "drained by operator"),
        ({"drain": {"state": "lame_duck", "by": "rollout"}, "edge": {"health": 503}}, "lame_duck by rollout"),
        (
            {"drain": {"state": "drained", "by": "aws", **NOTICE}, "edge": {"health": 503}},
            "drained by aws: spot, terminates 12:03:10 UTC",
        ),
        (
            {"drain": {"state": "drained", "by": "operator", "aws": NOTICE["aws"]}, "edge": {"health": 503}},
            "drained by operator (aws: spot, terminates 12:03:10 UTC)",
        ),
        (
            {"drain": {"aws": {**NOTICE["aws"], "state": "overridden"}}, "edge": {"health": 200}},
            "in service (overrides aws: spot, terminates 12:03:10 UTC)",
        ),
        ({"drain": {"instances": {"engine-0": {"state": "drained", "by": "rollout"}}}}, "none"),
    ],
)
def test_an_edge_out_of_service_says_why(changes: dict[str, t.Any], reason: str) -> None:
    assert rows_of("c", status(**changes))[0]["edge"] == reason


def test_a_drained_instance_says_so_and_its_neighbour_serves() -> None:
    drain = {"instances": {"engine-1": {"state": "drained", "by": "rollout"}}}
    instances = [instance_of(index, None, MANIFEST, [], None, {}) for index in (0, 1)]
    rows = rows_of("e", status(instances=instances, drain=drain, edge={"health": 200}))
    assert [row["edge"] for row in rows] == ["in service", "drained by rollout"]


def test_a_failed_gate_says_why() -> None:
    gates = {"edge": gate_of({"at": "2026-11-22T12:30:59+00:00", "passed": False, "reason": "empty"})}
    assert rows_of("d", status(gates=gates))[0]["last_gate"] == "FAILED (empty) 2026-11-22 12:30"
    assert gate_of([]) is None


@pytest.mark.parametrize(
    ("revision", "short"), [("0c351dd01ed8", "0c351dd0"), ("content-1a2b3c4d5e", "1a2b3c4d"), ("main", "main")]
)
def test_a_revision_is_short_and_says_something(revision: str, short: str) -> None:
    assert short_revision(revision) == short
