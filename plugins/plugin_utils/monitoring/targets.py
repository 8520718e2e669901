# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What Prometheus scrapes, from the inventory: one list for each job, in the form of file_sd. Pure.

Everything goes through a host's edge, with the key of the client ``monitoring``: no host opens a port for it.
"""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.types import JsonObjects
from ansible_collections.inference.fleet.plugins.module_utils.edge.state import server_name

#: The jobs that every host has, with their paths at the edge. Instances have one each: /metrics/NAME.
PATHS = {"edge": "/metrics", "node": "/metrics/node", "dcgm": "/metrics/dcgm"}
JOBS = ("edge", "engine", "node", "dcgm")
_RING = "ring_"


def targets(
    facts: t.Mapping[str, t.Mapping[str, t.Any]],
    groups: t.Mapping[str, t.Sequence[str]],
    dcgm: bool = False,
) -> dict[str, JsonObjects]:
    """The targets of each job, in the order of the hosts' names.

    Args:
        facts: of the hosts, as module fleet_facts returns them.
        groups: the inventory's groups.
        dcgm: whether inference hosts have NVIDIA's exporter behind their edges.
    """
    found: dict[str, JsonObjects] = {job: [] for job in JOBS}
    has_gateways = bool(groups.get("gateway"))
    for host in sorted(facts):
        one = facts[host]
        if not one.get("edge_services"):
            # Its problem is in the facts; site.yml fails for it where it needs them.
            continue
        labels = _labels(host, one, groups, has_gateways)
        for job, path in PATHS.items():
            if job != "dcgm" or (dcgm and not one["is_gateway"]):
                found[job].append(_target(one, _main_port(one), path, labels))
        for instance in one["instances"]:
            if instance["serves"] and instance["port"]:
                server = server_name(instance["index"])
                more = {"engine": str(instance["engine"]), "server": server}
                found["engine"].append(_target(one, instance["port"], f"/metrics/{server}", {**labels, **more}))
    return found


def _labels(
    host: str, facts: t.Mapping[str, t.Any], groups: t.Mapping[str, t.Sequence[str]], has_gateways: bool
) -> dict[str, str]:
    is_front = facts["is_gateway"] or not has_gateways
    rings = (name.removeprefix(_RING) for name in sorted(groups) if name.startswith(_RING) and host in groups[name])
    labels = {"host": host, "kind": facts["tier"], "tier": "front" if is_front else "back", "ring": next(rings, "")}
    return {name: value for name, value in labels.items() if value}


def _main_port(facts: t.Mapping[str, t.Any]) -> int:
    ports = [service["port"] for service in facts["edge_services"]]
    return facts["edge_port"] if facts["edge_port"] in ports else min(ports)


def _target(facts: t.Mapping[str, t.Any], port: int, path: str, labels: t.Mapping[str, str]) -> dict[str, t.Any]:
    scheme = str(facts["edge_url"]).partition("://")[0]
    return {
        "targets": [f"{facts['address']}:{port}"],
        "labels": {**labels, "__scheme__": scheme, "__metrics_path__": path},
    }
