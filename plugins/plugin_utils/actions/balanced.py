# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts behind balancers, for actions that look at their target groups and change nothing."""

from __future__ import annotations

import functools
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.aws.target_groups import region_of_shell
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import (
    ROLES,
    VARIABLE,
    BalancedHost,
    read_groups,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.hosts import balanced_host
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
                work_out = functools.partial(_facts_of, fleet, name)
                found.append(balanced_host(name, role, fleet.variables[name], wanted, work_out, own_region))
    return found


def _facts_of(fleet: Fleet, name: str) -> dict[str, t.Any]:
    return fleet.work_out(name).as_dict()


def endpoint_of(fleet: Fleet, hosts: t.Sequence[BalancedHost]) -> str:
    """The stand-in for AWS that hosts are in; empty for AWS."""
    return str(fleet.variables[hosts[0].name].get("fleet_aws_endpoint") or "") if hosts else ""
