"""Hosts, statuses and journals as the rollout's tests need them."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.rollout.claim import Claim
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.plan import HostState

NOW = 1_800_000_000.0


def status(
    *busy: int, limit: int = 10, health: int | None = 200, drain: dict[str, t.Any] | None = None, active: bool = True
) -> dict[str, t.Any]:
    """What module fleet_status returns for a host with an instance for each of ``busy``, its requests."""
    instances = [
        {
            "index": index,
            "name": f"vllm-{index}",
            "state": "active" if active else "inactive",
            "running": running if active else None,
            "waiting": 0 if active else None,
            "limit": limit,
        }
        for index, running in enumerate(busy)
    ]
    return {"instances": instances, "edge": {"health": health, "responses": None}, "drain": drain, "rollout": None}


def staged(
    pending: str = "its release changes", *, index: int = 0, good: str = "vllm-old", problem: str = "", **more: str
) -> dict[str, t.Any]:
    """What module engine_release returns for an instance."""
    release = more.get("release", "vllm-new")
    return {
        "index": index,
        "release": release,
        "current": "vllm-old",
        "running": more.get("running", "vllm-old"),
        "good": good,
        "pending": pending,
        "problem": problem,
        "described": {release: {"version": "2"}, "vllm-old": {"version": "1"}},
    }


def facts(
    *items: dict[str, t.Any], host_status: dict[str, t.Any] | None = None, claim: Claim | None = None
) -> HostState:
    names = {item["index"]: f"vllm-{item['index']}" for item in items}
    return HostState(list(items), names, host_status if host_status is not None else status(0), claim)


def claim(**changes: t.Any) -> Claim:
    usual: dict[str, t.Any] = {
        "id": "r1",
        "verb": "rolling_restart",
        "who": "anna@laptop",
        "controller": "laptop:/records",
        "since": "2027-01-15T07:00:00Z",
    }
    return Claim(**{**usual, **changes})


def begin(*waves: list[str], instances: t.Sequence[str] = ("vllm-0",)) -> dict[str, t.Any]:
    """The first event of a journal."""
    hosts = {
        host: {"wave": number, "instances": [{"name": name, "index": index} for index, name in enumerate(instances)]}
        for number, wave in enumerate(waves, 1)
        for host in wave
    }
    return {"event": "begin", "waves": list(waves), "hosts": hosts}


def done(host: str) -> dict[str, t.Any]:
    return {"event": "outcome", "host": host, "outcome": "done", "message": "well"}


def self_tested() -> dict[str, t.Any]:
    return {"event": "self_test", "host": "a", "passed": True}
