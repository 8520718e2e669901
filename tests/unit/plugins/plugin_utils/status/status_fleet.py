"""Readings of hosts, as the modules give them."""

from __future__ import annotations

import typing as t

NOW = 1790000000.0  # 2026-09-21 14:13:20 UTC
FIGURES = {"ttft_ms": 45.2, "tokens_per_second": 61.34, "total_ms": 900}
CLAIM = {
    "id": "20260921T130000Z-site",
    "verb": "site",
    "who": "anna",
    "controller": "control:/records",
    "since": "2026-09-21T13:00:00Z",
    "held": True,
    "finished": False,
    "targets": {"vllm-0": "r2"},
    "done": {},
}


def instance(index: int | None = 0, **changes: t.Any) -> dict[str, t.Any]:
    return {
        "index": index,
        "name": f"vllm-{index}",
        "engine": "vllm",
        "version": "0.32.0",
        "release": "vllm-0.32.0-1f0c9a2e",
        "created": "2026-09-20T10:00:00Z",
        "model": "Qwen/Qwen3-VL-8B-Instruct",
        "revision": "0c351dd01ed87e9c1b53cbc748cba10e6187ff3b",
        "served_name": None,
        "nodes": [],
        "rank": 0,
        "state": "active",
        "sub_state": "running",
        "since": "2026-09-20T10:05:00Z",
        "running": 5,
        "waiting": 1,
        "kv_usage": 0.34,
        "limit": 256,
        **changes,
    }


def gate(passed: bool = True, **changes: t.Any) -> dict[str, t.Any]:
    return {
        "at": "2026-09-20T10:06:00Z",
        "passed": passed,
        "reason": None if passed else "slow",
        "message": "",
        "figures": FIGURES,
        **changes,
    }


def status(**changes: t.Any) -> dict[str, t.Any]:
    """The result of module fleet_status on a host that serves."""
    return {
        "changed": False,
        "instances": [instance()],
        "edge": {"health": 200, "responses": {"2xx": 12345, "4xx": 12, "5xx": 0}, "held": None},
        "drain": None,
        "rollout": None,
        "gates": {"vllm-0": gate(), "edge": gate()},
        "driver": "595.71.05",
        "problems": [],
        "rows": [],
        **changes,
    }


def drained(by: str = "operator", **changes: t.Any) -> dict[str, t.Any]:
    mark = {"state": "drained", "by": by, "reason": "memory test", "since": "2026-09-21T12:00:00Z", **changes}
    return status(
        drain={**mark, "marks": [mark]}, edge={"health": 503, "responses": {"2xx": 7, "4xx": 0, "5xx": 3}, "held": None}
    )


def lost(
    message: str = "Data could not be sent: ssh: connect to host gpu-7 port 22: No route to host",
) -> dict[str, t.Any]:
    return {"unreachable": True, "changed": False, "msg": message}


def gpu(verdict: str = "ok", *report: str) -> dict[str, t.Any]:
    return {
        "verdict": verdict,
        "gpus": [{"index": 0}],
        "gpu_summary": "1 x NVIDIA L40S",
        "report": list(report),
        "gravest": (*report, "")[0],
    }


def client(name: str, **changes: t.Any) -> dict[str, t.Any]:
    """A client as module api_key gives it."""
    return {
        "name": name,
        "fingerprint": "sk-…1f0c9a2e",
        "created": "2026-09-01T00:00:00Z",
        "activated": "2026-09-01T00:00:00Z",
        "age": 1770000,
        "due": False,
        "state": "current",
        "expired": False,
        "expires": "",
        "models": [],
        "stored_keys": [],
        **changes,
    }
