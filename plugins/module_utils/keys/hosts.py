# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Whether a fleet's hosts accept the keys of the store that a run is about to use, before any change. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

from ..core.errors import FleetError
from . import origin as _origin
from .store import Content


@dataclasses.dataclass(frozen=True)
class HostKeys:
    """What module edge_keys returned for a host.

    Attributes:
        taken: the origin of its keys; None where it has none, or does not record it.
        unclaimed: the hashes of keys whose origin it did not record.
    """

    taken: _origin.Taken | None
    unclaimed: tuple[str, ...]


def shown(brought: _origin.Origin) -> dict[str, t.Any]:
    """An origin as module api_key returns it."""
    return {
        "id": brought.store,
        "generation": brought.generation,
        "name": brought.name,
        "settled": brought.settled,
        "retired": list(brought.retired),
    }


def known(results: t.Mapping[str, t.Any]) -> dict[str, HostKeys]:
    """The reachable hosts."""
    found = {}
    for name, result in results.items():
        if isinstance(result, t.Mapping) and "unclaimed" in result:
            taken = _origin.parse(result.get("taken") or None, f"What module edge_keys returned of {name}")
            found[name] = HostKeys(taken, tuple(result["unclaimed"]))
    return found


def check(hosts: t.Mapping[str, HostKeys], brought: _origin.Origin, content: Content, adopt: str) -> None:
    """Check that the hosts' keys are the store's, and that the store is not older than they are.

    Raises:
        FleetError: they are not.
    """
    live = content.live_hashes()
    for name, host in sorted(hosts.items()):
        if not content.exists:
            _check_new(name, host, brought, adopt)
        elif host.taken:
            _origin.check(host.taken, dataclasses.replace(brought, settled=True), {}, adopt, name)
        else:
            _origin.check_unclaimed(host.unclaimed, live, brought, adopt, name)


def latest(hosts: t.Mapping[str, HostKeys], store: str) -> int:
    """The latest generation of a store on any of the hosts."""
    return max(
        (host.taken.generation for host in hosts.values() if host.taken and host.taken.store == store), default=0
    )


def _check_new(name: str, host: HostKeys, brought: _origin.Origin, adopt: str) -> None:
    """A new store gives every client a new key, so hosts with keys would lock all clients out."""
    if host.taken and not _origin.adopts(adopt, host.taken.store):
        what, given_up = f"keys of key {host.taken.said}, generation {host.taken.generation}", host.taken.store
    elif not host.taken and host.unclaimed and not _origin.adopts(adopt, ""):
        what, given_up = f"{len(host.unclaimed)} keys", "true"
    else:
        return
    raise FleetError(
        f"{name} has {what}, and {brought.name} has not been made yet. Nothing was changed: a new store would give "
        "every client a new key, and lock out all who hold the present ones. Set fleet_key_store to the store of this "
        "fleet, restore it from a backup, or run this where it is. To give those keys up on purpose: -e "
        f"key_store_adopt={given_up}"
    )
