# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Whether the rest of the fleet can carry the present load while some instances are out. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.edge.state import server_index


@dataclasses.dataclass(frozen=True)
class InstanceLoad:
    """A serving instance.

    Attributes:
        index: its identity while its engine changes.
        busy: its running and waiting requests.
        limit: its concurrent requests.
    """

    index: int
    name: str
    busy: int
    limit: int


@dataclasses.dataclass(frozen=True)
class Room:
    """The rest of the fleet while some instances are out.

    Attributes:
        busy: requests in the fleet, running and waiting.
        limit: concurrent requests of the fleet.
        left: concurrent requests of the remaining instances.
        allowed: the share of these that may be used.
        out: serving instances that would be out.
    """

    busy: int
    limit: int
    left: int
    allowed: int
    out: tuple[str, ...]

    @property
    def enough(self) -> bool:
        return not self.out or (self.left > 0 and self.busy <= self.allowed)

    @property
    def is_downtime(self) -> bool:
        """Whether no host would be left to serve."""
        return bool(self.out) and self.left == 0


def serving(status: t.Mapping[str, t.Any] | None) -> list[InstanceLoad]:
    """The instances of a host that clients can reach now.

    Args:
        status: what module fleet_status returned; None for a host that did not answer.
    """
    if not status or (status.get("edge") or {}).get("health") != 200:
        return []
    pools = status["edge"].get("pools")
    if pools:
        # It has no index: no change of an instance takes it out.
        return [InstanceLoad(-1, "edge", pools["running"] + pools["waiting"], pools["limit"])]
    drained = {server_index(name) for name in (status.get("drain") or {}).get("instances") or {}}
    return [
        InstanceLoad(
            instance["index"],
            instance["name"],
            (instance["running"] or 0) + (instance["waiting"] or 0),
            instance["limit"],
        )
        for instance in status.get("instances") or []
        if instance["state"] == "active" and instance["running"] is not None and instance["index"] not in drained
    ]


def room(fleet: t.Mapping[str, list[InstanceLoad]], out: t.Mapping[str, t.Collection[int]], max_share: float) -> Room:
    """The rest of the fleet while one instance of each host in ``out`` is missing.

    Args:
        fleet: the instances that serve, by host.
        out: the indexes of the instances to change, by host; on one host they change one after the other, so only the
            largest is missing at a time.
        max_share: the share of the rest that may be used (0 to 1).
    """
    busy = sum(one.busy for instances in fleet.values() for one in instances)
    limit = sum(one.limit for instances in fleet.values() for one in instances)
    gone: list[tuple[str, InstanceLoad]] = []
    for host, indexes in out.items():
        leaving = [one for one in fleet.get(host, []) if one.index in indexes]
        if leaving:
            gone.append((host, max(leaving, key=lambda one: one.limit)))
    left = limit - sum(one.limit for _host, one in gone)
    return Room(busy, limit, left, int(left * max_share), tuple(f"{one.name} of {host}" for host, one in gone))


def fitting(
    fleet: t.Mapping[str, list[InstanceLoad]],
    out: t.Mapping[str, t.Collection[int]],
    max_share: float,
    allows: t.Callable[[t.Mapping[str, t.Collection[int]]], bool] = lambda _out: True,
) -> list[str]:
    """As many of the hosts in ``out``, in their order, as can be out together; possibly none.

    Args:
        fleet: as for room.
        out: as for room.
        max_share: as for room.
        allows: what else must hold for the hosts that are out.
    """
    chosen: dict[str, t.Collection[int]] = {}
    for host, indexes in out.items():
        if room(fleet, {**chosen, host: indexes}, max_share).enough and allows({**chosen, host: indexes}):
            chosen[host] = indexes
    return list(chosen)
