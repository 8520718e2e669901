# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""How a host's status is assembled and shown. Pure: data in, data out."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.edge.state import AWS, announced, server_name
from ansible_collections.inference.fleet.plugins.module_utils.engines.metrics import Load
from ansible_collections.inference.fleet.plugins.module_utils.engines.options import request_limit
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import KINDS

UNIT_PROPERTIES = ("Id", "LoadState", "ActiveState", "SubState", "ActiveEnterTimestampMonotonic")

_UNIT = re.compile(r"^(\w+)@(\d+)\.service$")


@dataclasses.dataclass(frozen=True)
class Unit:
    """One engine unit that systemd knows; ``since`` is Unix time, None while it is not active."""

    engine: str
    index: int
    active: str
    sub: str
    since: float | None


def parse_units(shown: str, monotonic: float, now: float) -> list[Unit]:
    """The engine units in the output of ``systemctl show``.

    Args:
        shown: properties as name=value, a blank line between units.
        monotonic: the monotonic clock, in which systemd notes when a unit became active.
        now: Unix time of the same moment.
    """
    units: dict[str, Unit] = {}
    for block in shown.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        match = _UNIT.match(values.get("Id", ""))
        if not match or match[1] not in KINDS or values.get("LoadState") != "loaded":
            continue
        entered = values.get("ActiveEnterTimestampMonotonic", "0")
        active = values.get("ActiveState", "unknown")
        since = now - (monotonic - int(entered) / 1e6) if active == "active" and entered.isdigit() else None
        units[match[0]] = Unit(match[1], int(match[2]), active, values.get("SubState", ""), since)
    return list(units.values())


def instance_of(
    index: int,
    release: str | None,
    manifest: dict[str, t.Any],
    units: list[Unit],
    load: Load | None,
    edge_limits: t.Mapping[str, int],
) -> dict[str, t.Any]:
    """The status of one instance; None where there is none."""
    own = [unit for unit in units if unit.index == index]
    engine = manifest.get("engine")
    # The unit of the current release; without one, the running unit.
    chosen = [unit for unit in own if unit.engine == engine] or sorted(own, key=lambda unit: unit.active != "active")
    unit = chosen[0] if chosen else None
    engine = engine or (unit.engine if unit else None)
    name = f"{engine}-{index}" if engine else str(index)
    return {
        "index": index,
        "name": name,
        "engine": engine,
        "version": manifest.get("version"),
        "release": release,
        "created": manifest.get("created"),
        "model": manifest.get("model"),
        "revision": manifest.get("revision"),
        "served_name": manifest.get("served_name"),
        "nodes": (manifest.get("span") or {}).get("nodes", []),
        "rank": (manifest.get("span") or {}).get("rank", 0),
        "state": unit.active if unit else "absent",
        "sub_state": unit.sub if unit else None,
        "since": times.moment(unit.since) if unit and unit.since is not None else None,
        "running": load.running if load else None,
        "waiting": load.waiting if load else None,
        "kv_usage": load.kv_usage if load else None,
        "limit": request_limit(engine, manifest.get("options") or {}, edge_limits.get(server_name(index))),
    }


def short_revision(revision: str) -> str:
    """A short revision: a commit's first digits; those of a copy follow the word ``content``."""
    return revision.rpartition("content-")[2][:8]


def gate_of(record: t.Any) -> dict[str, t.Any] | None:
    """The part of a gate's record that a status shows; the evidence stays in the file."""
    if not isinstance(record, dict):
        return None
    return {name: record.get(name) for name in ("at", "passed", "reason", "message", "figures")}


def rows_of(host: str, status: dict[str, t.Any]) -> list[dict[str, t.Any]]:
    """A host's lines in the fleet's table, one for each instance; a host without any still has a line."""
    common = {"host": host, "driver": status["driver"]}
    if not status["instances"]:
        gate = _gate(status["gates"].get("edge"))
        pools = status["edge"].get("pools")
        shown = {"engine": "edge", "state": "active"} if pools else {"state": "no instance"}
        requests = {"requests": f"{pools['running']}/{pools['waiting']}"} if pools else {}
        return [{**common, "edge": _edge(status), **shown, **requests, "last_gate": gate}]
    return [
        {**common, "edge": _edge_of(status, instance), **_row(instance, status["gates"])}
        for instance in status["instances"]
    ]


def _row(instance: dict[str, t.Any], gates: dict[str, t.Any]) -> dict[str, t.Any]:
    release = instance["release"]
    busy = None if instance["running"] is None else f"{instance['running']}/{instance['waiting']}"
    model = instance["served_name"] or instance["model"]
    return {
        "instance": instance["index"],
        "engine": instance["engine"],
        "version": instance["version"],
        "release": release.rpartition("-")[2] if release else None,
        "model": f"{model}@{short_revision(instance['revision'])}" if model and instance["revision"] else model,
        "state": instance["state"],
        "up_since": None if instance["since"] is None else times.minute(instance["since"]),
        "requests": busy,
        "kv_use": None if instance["kv_usage"] is None else f"{instance['kv_usage'] * 100:.0f}%",
        "last_gate": _gate(gates.get(instance["name"]) or gates.get("edge")),
    }


def _edge_of(status: dict[str, t.Any], instance: dict[str, t.Any]) -> str:
    if instance["rank"]:
        return f"at {instance['nodes'][0]}"
    return _edge(status, server_name(instance["index"]))


def _edge(status: dict[str, t.Any], server: str = "") -> str:
    """Whether clients reach the host, and who drained it or the instance, or since when it is held."""
    held = status["edge"].get("held")
    if held:
        return f"held since {times.minute(held['since'])}"
    drain = status["drain"] or {}
    notice = announced(drain)
    for mark in (drain, (drain.get("instances") or {}).get(server) or {}):
        if mark.get("by") == AWS:
            return f"{mark['state']} by aws: {mark.get('reason', '')}"
        if mark.get("state"):
            return f"{mark['state']} by {mark.get('by', 'somebody')}" + (f" (aws: {notice})" if notice else "")
    health = status["edge"]["health"]
    shown = "in service" if health == 200 else f"health {health}" if health else "none"
    return shown + (f" (overrides aws: {notice})" if notice else "")


def _gate(gate: dict[str, t.Any] | None) -> str | None:
    if gate is None:
        return None
    verdict = "passed" if gate["passed"] else f"FAILED ({gate['reason']})"
    return f"{verdict} {times.minute(str(gate['at'] or ''))}".strip()
