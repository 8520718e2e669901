# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Adding, changing and removing clients in the key store. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.clients.limits import Limits
from ansible_collections.inference.fleet.plugins.module_utils.keys.store import (
    RETIRED_OF_REMOVED,
    ClientKeys,
    Content,
    bounded,
    new_key,
    retire,
)


def present(content: Content, wanted: t.Mapping[str, Limits], exclusive: bool, now: str) -> Content:
    """The content in which each wanted client has a key and its limits.

    Args:
        content: the content before.
        wanted: the clients.
        exclusive: whether the others are removed.
        now: the moment, in UTC.
    """
    clients = {
        name: dataclasses.replace(content.clients[name], limits=limits)
        if name in content.clients
        else ClientKeys(new_key(now), limits=limits)
        for name, limits in wanted.items()
    }
    others = [name for name in (*content.clients, *content.missing) if name not in wanted] if exclusive else []
    return absent(content.with_clients(clients), others, now)


def absent(content: Content, names: t.Iterable[str], now: str) -> Content:
    """The content without these clients. It remembers that their keys must be dead."""
    names = [name for name in names if name in content.clients or name in content.missing]
    if not names:
        return content
    going = {name: content.clients[name] for name in names if name in content.clients}
    removed = list(content.removed)
    for name, client in going.items():
        removed += [*client.retired, *(retire(name, key, now) for _slot, key in client.slots())]
    rotation = content.rotation
    if rotation:
        rotation = dataclasses.replace(rotation, clients=tuple(name for name in rotation.clients if name not in names))
    return dataclasses.replace(
        content,
        clients={name: client for name, client in content.clients.items() if name not in names},
        missing={name: why for name, why in content.missing.items() if name not in names},
        rotation=rotation,
        removed=bounded(removed, RETIRED_OF_REMOVED, now),
    )
