# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Hosts as target groups see them, from the inventory, and which of their ports may get requests. Pure."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.edge.state import server_index
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import (
    HEALTH,
    VARIABLE,
    BalancedHost,
    Membership,
    WantedGroup,
    choose_mode,
    read_groups,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.health import BalancerLook

HostStatus = t.Optional[t.Mapping[str, t.Any]]


def groups_to_register(role: str, own: t.Mapping[str, t.Any]) -> tuple[WantedGroup, ...]:
    """The target groups in which a host is registered by our runs: none where its balancers go by health.

    Args:
        role: the host's tier.
        own: its variables.

    Raises:
        FleetError: a variable is invalid.
    """
    wanted = read_groups(own.get(VARIABLE))
    return () if choose_mode(str(own.get("balancer_mode") or ""), wanted, role) == HEALTH else wanted


def balanced_host(
    name: str,
    role: str,
    own: t.Mapping[str, t.Any],
    wanted: tuple[WantedGroup, ...],
    work_out: t.Callable[[], t.Mapping[str, t.Any]],
    find_region: t.Callable[[], str],
) -> BalancedHost:
    """A host by its variables. Of one that is in no target group nothing more is asked.

    Args:
        name: the host's.
        role: its tier.
        own: its variables.
        wanted: its target groups.
        work_out: what it runs, as ``HostFacts.as_dict`` gives it.
        find_region: the region of a host without fleet_region.

    Raises:
        FleetError: a variable is invalid.
    """
    if not any(one.role == role for one in wanted):
        return BalancedHost(name, role, (), "", "", "", "", 0, ())
    facts = work_out()
    if "edge_services" not in facts or "edge_port" not in facts:
        raise FleetError(f"{name}: {facts.get('problem') or 'what it runs is not known.'}")
    return BalancedHost(
        name=name,
        role=role,
        wanted=wanted,
        region=str(own.get("fleet_region") or find_region()),
        instance_id=str(own.get("aws_instance_id") or ""),
        address=str(own.get("fleet_address") or own.get("ansible_host") or name),
        vpc=str(own.get("aws_vpc_id") or ""),
        port=int(facts["edge_port"]),
        ports=tuple(int(one["port"]) for one in facts["edge_services"] if one.get("answers", True)),
    )


def leaving(
    look: BalancerLook,
    host: str,
    status: HostStatus,
    instances: t.Iterable[t.Mapping[str, t.Any]],
    out: t.Collection[int],
) -> list[Membership]:
    """The memberships of a host whose port loses its last serving instance while some are changed one by one.

    Args:
        look: what the groups say.
        host: its name.
        status: what module fleet_status returned; None for a host that did not answer.
        instances: those of the host, with index and port.
        out: the indexes of those to change.
    """
    if not look.of([host]):
        return []
    serving = _serving(status)
    behind: dict[int, set[int]] = {}
    for instance in instances:
        behind.setdefault(int(instance["port"] or 0), set()).add(int(instance["index"]))
    found = []
    for one in look.of([host]):
        own = behind.get(one.target.port, set())
        if any(not serving & (own - {index}) for index in own & set(out)):
            found.append(one)
    return found


def proven(
    look: BalancerLook, host: str, status: HostStatus, instances: t.Sequence[t.Mapping[str, t.Any]]
) -> list[Membership]:
    """The memberships of a host that may get requests: something serves on the port, the last gate there passed, and
    nothing there is drained.

    Args:
        look: what the groups say.
        host: its name.
        status: what module fleet_status returned; None for a host that did not answer.
        instances: those of the host, with index, name and port.
    """
    if not status or "instances" not in status or (status.get("drain") or {}).get("state"):
        return []
    serving = _serving(status)
    memberships = look.of([host])
    healthy = (status.get("edge") or {}).get("health") == 200
    alone = len({one.target.port for one in memberships}) == 1
    found = []
    for one in memberships:
        behind = [item for item in instances if int(item["port"] or 0) == one.target.port]
        if not serving & {int(item["index"]) for item in behind} or (alone and not healthy):
            continue
        names = ["edge", f"edge-{one.target.port}", *(str(item["name"]) for item in behind)]
        if _passed(status.get("gates") or {}, names):
            found.append(one)
    return found


def _serving(status: HostStatus) -> set[int]:
    """The indexes of the instances that serve and are not drained."""
    drained = {server_index(name) for name in ((status or {}).get("drain") or {}).get("instances") or {}}
    return {
        int(one["index"])
        for one in (status or {}).get("instances") or ()
        if one.get("state") == "active" and one.get("running") is not None and one["index"] not in drained
    }


def _passed(gates: t.Mapping[str, t.Any], names: t.Sequence[str]) -> bool:
    """Whether the newest of the gates of these names passed; without any, nothing is proven."""
    known = [gates[name] for name in names if gates.get(name)]
    newest = max(known, key=lambda gate: str(gate.get("at") or ""), default=None)
    return bool(newest and newest.get("passed"))
