"""Hosts from what a Prometheus has of them."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.status import answers as asked
from ansible_collections.inference.fleet.plugins.plugin_utils.status import metrics
from ansible_collections.inference.fleet.plugins.plugin_utils.status.hosts import StatusHost, show_host

from tests.project import ROOT
from tests.unit.plugins.plugin_utils.status.status_fleet import NOW

EDGE = {"job": "edge", "host": "gpu-1"}
ENGINE = {"job": "engine", "host": "gpu-1", "server": "engine-0", "engine": "vllm"}
NODE = {"job": "node", "host": "gpu-1"}
UP = [asked.ScrapeTarget(labels, True, "") for labels in (EDGE, ENGINE, NODE)]
RELEASE = {
    "server": "engine-0",
    "engine": "vllm",
    "version": "0.32.0",
    "release": "vllm-0.32.0-1f0c9a2e",
    "model": "Qwen/Qwen3-VL-8B-Instruct",
}


def fact(metric: str, value: float = 1, /, **labels: str) -> asked.FoundSample:
    return asked.FoundSample({"__name__": metric, "host": "gpu-1", **labels}, value)


def sample(value: float, /, **labels: str) -> asked.FoundSample:
    return asked.FoundSample({"host": "gpu-1", **labels}, value)


def answers(*facts: asked.FoundSample, **more: list[asked.FoundSample]) -> dict[str, list[asked.FoundSample]]:
    """A host that serves, with further facts."""
    return {
        asked.FACTS_ANSWER: [fact("fleet_release_info", **RELEASE), *facts],
        asked.SERVERS: [sample(1, server="engine-0", state="UP")],
        asked.ANSWERS: [sample(100, code="2xx"), sample(3, code="5xx"), sample(9, code="other")],
        asked.RUNNING: [sample(5, server="engine-0")],
        asked.WAITING: [sample(1, server="engine-0")],
        asked.KV_USAGE: [sample(0.34, server="engine-0")],
        asked.STARTED: [sample(NOW - 3600, server="engine-0")],
        asked.UNITS: [sample(1, name="vllm@0.service", state="active")],
        **more,
    }


def shown(found: dict[str, list[asked.FoundSample]], targets: t.Sequence[asked.ScrapeTarget] = UP) -> StatusHost:
    fleet = metrics.read_fleet({"gpu-1": "inference"}, targets, found, NOW)
    return show_host(fleet.hosts[0], 1)


def test_a_host_that_serves() -> None:
    host = shown(answers())
    assert (host.kind, host.state, host.serves, host.trouble) == ("ok", "in service", True, [])
    assert (host.runs, host.load, host.kv) == ("vllm 0.32.0", "5/1", "34 %")
    assert host.responses == {"2xx": 100, "5xx": 3}
    assert host.instances[0].release == "1f0c9a2e"
    assert host.instances[0].since == "2026-09-21 13:13"
    assert host.gpu == ""


def test_a_host_that_cannot_be_read_says_why() -> None:
    refused = [asked.ScrapeTarget(EDGE, False, "connection refused")]
    host = shown(answers(), refused)
    assert (host.kind, host.state) == ("bad", "unreachable")
    assert host.trouble == ["unreachable: Prometheus cannot read its edge: connection refused"]
    assert "it has not asked it yet" in shown(answers(), []).trouble[0]


@pytest.mark.parametrize(
    ("server", "unit", "state"),
    [
        ("UP", "active", "active"),
        ("DRAIN", "active", "active"),
        ("DOWN", "active", "down"),
        ("DOWN", "failed", "failed"),
        ("DOWN", "", "down"),
        ("UP", "", "active"),
        ("", "active", "active"),
        ("", "", "not seen"),
    ],
)
def test_an_instance_is_what_its_unit_and_its_edge_say(server: str, unit: str, state: str) -> None:
    servers = [sample(1, server="engine-0", state=server)] if server else []
    units = [sample(1, name="vllm@0.service", state=unit)] if unit else []
    assert shown(answers(servers=servers, units=units)).instances[0].state == state


def test_a_node_of_an_instance_that_spans_hosts_serves_through_the_first() -> None:
    targets = [one for one in UP if one.labels["job"] != "engine"]
    host = shown(answers(servers=[], running=[], waiting=[], kv_usage=[], started=[]), targets)
    assert (host.serves, host.trouble) == (True, [])


def test_a_drain_names_its_owner() -> None:
    drain = fact("fleet_drain_since_timestamp_seconds", NOW - 7200, target="host", by="operator")
    host = shown(answers(drain))
    assert (host.serves, host.state) == (False, "drained by operator")
    assert (host.out[0].since, host.out[0].reason) == (
        "2026-09-21 12:13",
        "not in the metrics; playbooks/status.yml shows it",
    )
    one = fact("fleet_drain_since_timestamp_seconds", NOW, target="vllm-0", by="rollout")
    assert shown(answers(one)).out[0].what == "vllm-0"


def test_a_claim_and_gates() -> None:
    facts = [
        fact("fleet_rollout_claim_timestamp_seconds", NOW - 600, id="20260921T130000Z-site", verb="site"),
        fact("fleet_gate_passed", 1, name="vllm-0"),
        fact("fleet_gate_timestamp_seconds", NOW - 60, name="vllm-0"),
        fact("fleet_gate_passed", 0, name="edge"),
        fact("fleet_gate_timestamp_seconds", NOW - 30, name="edge"),
    ]
    host = shown(answers(*facts))
    assert host.claim == "site 20260921T130000Z-site since 2026-09-21 14:03"
    assert [(gate.target, gate.passed, gate.at) for gate in host.gates] == [
        ("edge", False, "2026-09-21 14:12"),
        ("vllm-0", True, "2026-09-21 14:12"),
    ]
    assert "/var/lib/inference/gate/edge.json" in host.trouble[0]


@pytest.mark.parametrize(
    ("facts", "kind", "gpu", "report"),
    [
        ([("fleet_gpu_count", 1, {}), ("fleet_gpu_verdict", 0, {"gpu": "0"})], "ok", "ok, 1 GPU", []),
        ([], "warn", "not read", ["nvidia-smi says nothing: journalctl -u inference-facts on the host"]),
        ([("fleet_gpu_count", 0, {})], "bad", "failed, 0 GPUs", ["0 of 1 GPU answer"]),
        (
            [
                ("fleet_gpu_count", 1, {}),
                ("fleet_gpu_verdict", 2, {"gpu": "0"}),
                ("fleet_gpu_xid_last_timestamp_seconds", NOW, {"gpu": "0", "xid": "79"}),
            ],
            "bad",
            "failed, 1 GPU",
            ["GPU 0 is failed (XID 79 at 2026-09-21 14:13); playbooks/verify_gpu.yml says why"],
        ),
    ],
)
def test_gpus(facts: list[tuple[str, float, dict[str, str]]], kind: str, gpu: str, report: list[str]) -> None:
    found = [fact(name, value, **labels) for name, value, labels in [("fleet_gpu_expected", 1, {}), *facts]]
    host = shown(answers(*found))
    assert (host.gpu_kind, host.gpu, host.gpu_report) == (kind, gpu, report)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ([fact("fleet_last_look_timestamp_seconds", NOW - 600)], "its facts are 10m old"),
        ([fact("fleet_look_problems", 1, what="gpus"), fact("fleet_look_problems", 0, what="log")], "not read gpus:"),
        (
            [
                fact("fleet_disk_available_bytes", 4e9, what="weights"),
                fact("fleet_disk_size_bytes", 1e11, what="weights"),
            ],
            "the disk with its weights has 4 % free (4.0 GB)",
        ),
        (
            [fact("fleet_certificate_expires_timestamp_seconds", NOW + 86400, file="/e.pem")],
            "the certificate /e.pem expires in 1d",
        ),
        ([fact("fleet_certificate_expires_timestamp_seconds", NOW - 1, file="/e.pem")], "/e.pem has expired"),
        ([fact("fleet_watchdog_gave_up", 1, server="engine-0")], "the watchdog has given engine-0 up"),
    ],
)
def test_what_needs_attention_is_a_sentence(facts: list[asked.FoundSample], said: str) -> None:
    host = shown(answers(*facts))
    assert host.kind == "warn"
    assert [said in text for text in host.trouble] == [True]


def test_what_is_well_is_no_trouble() -> None:
    facts = [
        fact("fleet_last_look_timestamp_seconds", NOW - 40),
        fact("fleet_look_problems", 0, what="gpus"),
        fact("fleet_disk_available_bytes", 5e10, what="weights"),
        fact("fleet_disk_size_bytes", 1e11, what="weights"),
        fact("fleet_certificate_expires_timestamp_seconds", NOW + 90 * 86400, file="/e.pem"),
        fact("fleet_watchdog_gave_up", 0, server="engine-0"),
    ]
    assert shown(answers(*facts)).trouble == []


def test_figures_that_cannot_be_read_are_named() -> None:
    targets = [UP[0], asked.ScrapeTarget(ENGINE, False, "401"), asked.ScrapeTarget(NODE, False, "503")]
    host = shown(answers(), targets)
    assert "the metrics of vllm-0 cannot be read: 401" in host.trouble
    assert any("its node exporter cannot be read: 503" in text for text in host.trouble)


def test_what_is_no_hosts() -> None:
    found = answers(
        asked.FoundSample({"__name__": "fleet_probe_success", "host": "watch-1", "target": "http://gw-1:4000"}, 0),
        asked.FoundSample({"__name__": "fleet_price_dollars_per_hour", "host": "watch-1", "of": "gpu-1"}, 1.5),
        fact("fleet_client_expires_timestamp_seconds", NOW + 200, client="team-a"),
        fact("fleet_client_expires_timestamp_seconds", NOW + 100, client="team-a"),
        alerts=[
            asked.FoundSample({"alertname": "CapacityHalf", "severity": "page", "kind": "inference"}, 1),
            asked.FoundSample({"alertname": "GateOld", "severity": "ticket", "host": "gpu-1"}, 1),
        ],
    )
    fleet = metrics.read_fleet({"gpu-1": "inference"}, UP, found, NOW)
    assert fleet.expiries == {"team-a": NOW + 100}
    assert fleet.hosts[0].cost is not None
    assert fleet.hosts[0].cost.usd == 1.5
    assert [text.partition(":")[0] for text in fleet.trouble] == ["http", "the alert CapacityHalf inference pages"]
    assert fleet.notes == ["Alerts that are tickets: GateOld gpu-1."]


def test_without_prices_no_host_has_an_unknown_one() -> None:
    assert metrics.read_fleet({"gpu-1": "inference"}, UP, answers(), NOW).hosts[0].cost is None


def test_facts_that_are_asked_are_facts_that_hosts_write() -> None:
    written = (ROOT / "tests/unit/fixtures/metrics/fleet.txt").read_text().splitlines()
    assert set(asked.FACTS) - set(written) == set()


@pytest.mark.parametrize("document", [None, {}, {"status": "success"}, {"status": "success", "data": {"result": [1]}}])
def test_another_format_is_named(document: t.Any) -> None:
    with pytest.raises(FleetError, match="another format than Prometheus' API"):
        asked.parse_vector(document)


def test_an_error_of_prometheus_is_named() -> None:
    with pytest.raises(FleetError, match="it refuses a question: bad_data"):
        asked.parse_targets({"status": "error", "error": "bad_data"})
