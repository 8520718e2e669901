# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about a host's instances; the logic is in module_utils/_instances.py."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.gpu.hardware import expected_hardware
from ansible_collections.inference.fleet.plugins.module_utils.instances.plan import (
    edge_services,
    edge_targets,
    plan_instances,
    wanted_ports,
)
from ansible_collections.inference.fleet.plugins.module_utils.instances.span import Nodes, known_nodes
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.present import instance_now


def instances(
    wanted: list[dict[str, t.Any]] | None,
    engine: str,
    gpu_count: int = 0,
    gpus_per_instance: int = 1,
    edge_port: int = 8000,
    served_name: str = "",
    host: str = "",
    nodes: dict[str, dict[str, t.Any]] | None = None,
    node_network: str = "",
) -> list[dict[str, t.Any]]:
    """See instances.yml."""
    try:
        planned = plan_instances(
            wanted,
            engine=engine,
            gpu_count=int(gpu_count),
            gpus_per_instance=int(gpus_per_instance),
            edge_port=int(edge_port),
            served_name=served_name,
            nodes=Nodes(host, nodes or {}, node_network),
        )
    except FleetError as error:
        raise AnsibleFilterError(error.message) from error
    return [instance.as_dict() for instance in planned]


def gpu_count(instance_type: str, count: int | None = None) -> int:
    """See gpu_count.yml."""
    known = expected_hardware(instance_type, int(count) if count else None).count
    if known is None:
        raise AnsibleFilterError(
            f"How many GPUs the instance type {instance_type!r} has is not known. Set fleet_gpu_count for the host, or "
            "fleet_accelerator: cpu when it has none."
        )
    return known


def gpu_name(instance_type: str) -> str:
    """See gpu_name.yml."""
    return expected_hardware(instance_type).name or ""


def targets(services: list[dict[str, t.Any]], scheme: str = "http", main_port: int = 8000) -> list[dict[str, t.Any]]:
    """See edge_targets.yml."""
    return edge_targets(services, scheme, int(main_port))


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {
            "edge_services": edge_services,
            "edge_targets": targets,
            "gpu_count": gpu_count,
            "gpu_name": gpu_name,
            "instance_now": instance_now,
            "instances": instances,
            "known_nodes": known_nodes,
            "wanted_ports": wanted_ports,
        }
