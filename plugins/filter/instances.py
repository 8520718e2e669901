# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about a host's instances; the logic is in module_utils/instances/plan.py."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.gpu.hardware import expected_hardware
from ansible_collections.inference.fleet.plugins.module_utils.instances.plan import (
    edge_services,
    edge_targets,
    wanted_ports,
)


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
            "gpu_name": gpu_name,
            "wanted_ports": wanted_ports,
        }
