# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Which hosts of the fleet a run does not reach, and why. Pure."""

from __future__ import annotations

import typing as t

ROLES = ("inference", "gateway", "gateway_store", "monitoring")
#: The groups of hosts that no playbook changes.
NO_MEMBERS = ("not_running", "joining", "leaving")
_BEYOND_LIMIT = "beyond --limit"


def hosts_beyond(
    groups: t.Mapping[str, t.Sequence[str]],
    hostvars: t.Mapping[str, t.Mapping[str, t.Any]],
    reached: t.Collection[str],
    tiers: t.Sequence[str] = ("inference", "gateway"),
) -> list[dict[str, str]]:
    """The hosts of ``tiers``, of every state, that are not among ``reached``: name and state, by name.

    Args:
        groups: the inventory's.
        hostvars: the inventory's; ``fleet_role`` and ``fleet_state`` are read, where a host has them.
        reached: the hosts of the run, those that did not answer included.
        tiers: the groups of the run.
    """
    states = {host: _BEYOND_LIMIT for tier in tiers for host in groups.get(tier, [])}
    for group in NO_MEMBERS:
        for host in groups.get(group, []):
            # Without a role, as in a handwritten inventory, it may be of any tier.
            if hostvars[host].get("fleet_role") in (None, *tiers):
                states.setdefault(host, str(hostvars[host].get("fleet_state", group.replace("_", " "))))
    states |= unknown_roles(groups, hostvars)
    return [{"host": host, "state": state} for host, state in sorted(states.items()) if host not in reached]


def unknown_roles(
    groups: t.Mapping[str, t.Sequence[str]], hostvars: t.Mapping[str, t.Mapping[str, t.Any]]
) -> dict[str, str]:
    """The hosts that are in no tier because their role is misspelt, each with a sentence's part that says so."""
    roles = {host: hostvars[host].get("fleet_role") for host in groups.get("all", [])}
    return {
        host: f"its tag inference:role is {str(role)!r}, valid are {', '.join(ROLES)}"
        for host, role in roles.items()
        if role is not None and role not in ROLES
    }
