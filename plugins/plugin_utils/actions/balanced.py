# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts behind balancers, for actions that look at their target groups and change nothing."""

from __future__ import annotations

import functools
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.target_groups import region_of_shell
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import (
    ROLES,
    VARIABLE,
    BalancedHost,
    WantedGroup,
    read_groups,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.facts import Fleet


def balanced_hosts(fleet: Fleet) -> list[BalancedHost]:
    """All hosts of the inventory whose role has target groups, also in mode health.

    Raises:
        FleetError: a variable is invalid.
    """
    own_region = functools.cache(region_of_shell)
    found = []
    for role in ROLES:
        for name in fleet.groups.get(role, ()):
            wanted = read_groups(fleet.variables[name].get(VARIABLE))
            if any(one.role == role for one in wanted):
                found.append(_host(fleet, name, role, wanted, own_region))
    return found


def _host(
    fleet: Fleet, name: str, role: str, wanted: tuple[WantedGroup, ...], own_region: t.Callable[[], str]
) -> BalancedHost:
    own = fleet.variables[name]
    facts = fleet.work_out(name)
    if facts.plan is None or facts.edge_port is None:
        raise FleetError(f"{name}: {facts.problem}")
    return BalancedHost(
        name=name,
        role=role,
        wanted=wanted,
        region=str(own.get("fleet_region") or own_region()),
        instance_id=str(own.get("aws_instance_id") or ""),
        address=str(own.get("fleet_address") or own.get("ansible_host") or name),
        vpc=str(own.get("aws_vpc_id") or ""),
        port=facts.edge_port,
        ports=tuple(int(one["port"]) for one in facts.plan.edge_services if one.get("answers", True)),
    )


def endpoint_of(fleet: Fleet, hosts: t.Sequence[BalancedHost]) -> str:
    """The stand-in for AWS that hosts are in; empty for AWS."""
    return str(fleet.variables[hosts[0].name].get("fleet_aws_endpoint") or "") if hosts else ""
