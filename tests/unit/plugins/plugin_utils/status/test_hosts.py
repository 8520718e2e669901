from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.status.hosts import (
    HostReading,
    OutRow,
    StatusHost,
    show_beyond,
    show_host,
)

from tests.unit.plugins.plugin_utils.status.status_fleet import CLAIM, drained, gate, gpu, instance, lost, status


def show(read: dict[str, t.Any], **more: t.Any) -> StatusHost:
    return show_host(HostReading("gpu-1", "inference", read, **more), 1)


def test_a_host_that_serves_is_in_service_with_its_figures() -> None:
    host = show(status(), gpu=gpu())
    assert (host.kind, host.state, host.serves, host.trouble) == ("ok", "in service", True, [])
    assert (host.runs, host.load, host.kv) == ("vllm 0.32.0", "5/1", "34 %")
    assert host.gpu == "ok, 1 x NVIDIA L40S"
    (row,) = host.instances
    assert row.cells[1:5] == ["vllm", "0.32.0", "1f0c9a2e", "Qwen/Qwen3-VL-8B-Instruct@0c351dd0"]
    assert row.requests == "5/1 of 256"
    assert host.gate is not None
    assert (host.gate.first_token, host.gate.rate) == ("45 ms", "61.3")


@pytest.mark.parametrize(
    ("read", "kind", "state", "said"),
    [
        (lost(), "bad", "unreachable", "No route to host"),
        ({}, "bad", "unreachable", "it does not answer"),
        ({"failed": True, "msg": "python3: not found"}, "bad", "not read", "python3: not found"),
        (
            status(edge={"health": None, "responses": None, "held": None}),
            "bad",
            "edge does not answer",
            "nothing drained it",
        ),
        (
            status(edge={"health": 503, "responses": None, "held": None}),
            "bad",
            "health 503",
            "health 503, and nothing drained it",
        ),
        (
            status(instances=[instance(), instance(1, state="failed", running=None)]),
            "bad",
            "vllm-1 failed",
            "journalctl -u vllm@1",
        ),
        (
            status(gates={"edge": gate(False, message="said London")}),
            "bad",
            "in service",
            "the last gate on edge failed at 2026-09-20 10:06: said London",
        ),
        (
            status(edge={"health": 503, "responses": None, "held": {"since": "2026-09-21T09:00:00Z", "why": "away"}}),
            "bad",
            "held",
            "held: away: its keys may be old. site.yml confirms them",
        ),
        (status(problems=["drain.json is not JSON."]), "warn", "in service", "drain.json is not JSON."),
    ],
)
def test_what_needs_attention_is_said(read: dict[str, t.Any], kind: str, state: str, said: str) -> None:
    host = show(read)
    assert (host.kind, host.state) == (kind, state)
    assert said in " ".join(host.trouble)


@pytest.mark.parametrize(("by", "kind"), [("operator", "warn"), ("aws", "warn"), ("rollout", "run"), ("me", "warn")])
def test_a_drain_is_listed_with_its_owner_and_is_no_trouble(by: str, kind: str) -> None:
    host = show(drained(by))
    assert (host.kind, host.state, host.serves, host.trouble) == (kind, f"drained by {by}", False, [])
    assert host.out == [OutRow(kind, "gpu-1", "", "drained", by, "memory test", "2026-09-21 12:00")]


def test_several_owners_and_single_instances_are_all_listed() -> None:
    marks = [
        {"state": "drained", "by": by, "reason": by, "since": "2026-09-21T12:00:00Z"} for by in ("operator", "aws")
    ]
    drain = {**marks[0], "marks": marks, "instances": {"engine-1": {**marks[0], "by": "rollout"}}, "aws": marks[1]}
    assert [(row.what, row.by) for row in show(status(drain=drain)).out] == [
        ("", "operator"),
        ("", "aws"),
        ("engine-1", "rollout"),
    ]


def test_what_aws_announces_is_listed_while_the_host_serves() -> None:
    notice = {"state": "overridden", "reason": "system-reboot", "since": "2026-09-21T12:00:00Z", "notices": ["x"]}
    host = show(status(drain={"aws": notice}))
    assert [(row.state, row.by, row.reason) for row in host.out] == [("overridden", "aws", "system-reboot")]
    assert host.serves


def test_an_instance_that_is_down_on_a_drained_host_is_no_trouble() -> None:
    assert show({**drained("rollout"), "instances": [instance(state="inactive", running=None)]}).trouble == []


def test_the_inner_node_of_an_instance_over_hosts_serves_through_the_first() -> None:
    read = status(
        instances=[instance(rank=1, nodes=["gpu-0", "gpu-1"])],
        edge={"health": 503, "responses": None, "held": None},
    )
    assert (show(read).kind, show(read).state) == ("ok", "in service")


def test_a_gateway_without_instances_serves_with_what_is_in_its_pools() -> None:
    edge = {"health": 200, "responses": None, "held": None, "pools": {"running": 4, "waiting": 0, "limit": 9}}
    host = show(status(instances=[], edge=edge))
    assert (host.kind, host.state, host.serves, host.load, host.trouble) == ("ok", "in service", True, "4/0", [])


def test_a_bare_host_is_neither_good_nor_bad() -> None:
    read = status(instances=[], edge={"health": None, "responses": None, "held": None}, gates={})
    assert (show(read).kind, show(read).state) == ("muted", "nothing installed")


@pytest.mark.parametrize(
    ("read", "kind", "said"),
    [
        (gpu("degraded", "xid: 63 on GPU 0"), "warn", "GPUs degraded, 1 x NVIDIA L40S: xid: 63 on GPU 0"),
        (gpu("failed", "gpu_count: found 3"), "bad", "GPUs failed, 1 x NVIDIA L40S: gpu_count: found 3"),
        ({"failed": True, "msg": "nvidia-smi hangs"}, "warn", "GPUs not read: nvidia-smi hangs"),
    ],
)
def test_the_verdict_on_gpus_counts(read: dict[str, t.Any], kind: str, said: str) -> None:
    host = show(status(), gpu=read)
    assert (host.kind, host.trouble) == (kind, [said])


def test_a_host_that_needs_no_gpu_is_not_judged() -> None:
    host = show(status(), gpu={"verdict": "ok", "gpu_summary": "not needed (cpu)", "report": []})
    assert (host.kind, host.gpu, host.gpu_kind) == ("ok", "ok, not needed (cpu)", "muted")


def test_a_claim_is_shown_until_its_rollout_has_finished() -> None:
    assert (
        "site 20260921T130000Z-site of anna since 2026-09-21 13:00, 0 instances of 1"
        in show(status(rollout=CLAIM)).claim
    )
    assert show(status(rollout={**CLAIM, "finished": True})).claim == ""


def test_the_failed_gate_is_the_one_in_the_line_then_the_last() -> None:
    gates = {"a": gate(at="2026-09-20T10:00:00Z"), "b": gate(at="2026-09-21T10:00:00Z")}
    last = show(status(gates=gates)).gate
    failed = show(status(gates={**gates, "c": gate(False, at="2026-09-01T10:00:00Z")})).gate
    assert last is not None
    assert failed is not None
    assert (last.target, failed.target) == ("b", "c")


@pytest.mark.parametrize(
    "read",
    [
        status(instances="x", edge=[], drain="y", rollout=3, gates=[], problems={}),
        status(instances=[instance(running="x", kv_usage="y", index=None, since=5, limit="z")], gates={"a": "b"}),
        status(drain={"state": "drained", "marks": "x", "instances": {"engine-0": None}}),
    ],
)
def test_anything_else_is_shown_as_far_as_it_goes(read: dict[str, t.Any]) -> None:
    assert show(read).name == "gpu-1"


def test_hosts_that_were_not_asked_have_their_state_only() -> None:
    host = show_beyond("gpu-9", "stopped", 7)
    assert (host.name, host.anchor, host.state, host.kind, host.trouble) == ("gpu-9", "host-7", "stopped", "muted", [])
