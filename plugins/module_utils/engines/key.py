# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The key that the edge of a host shows to its engines, and how it is replaced without a refused request. Pure.

An engine reads its keys when it starts. So that instances can be restarted one after the other, each of them starts
with the current key and the next one, and the edge changes over when every running instance knows the next one.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.keys import new_key

#: In the file that systemd reads; the first one is what the edge shows.
CURRENT, NEXT, KNOWN_BY = "ENGINE_API_KEY", "ENGINE_API_KEY_NEXT", "ENGINE_API_KEY_NEXT_KNOWN_BY"


@dataclasses.dataclass(frozen=True)
class EngineKeys:
    """The keys of a host.

    Attributes:
        current: what the edge shows.
        next: what it will show; empty for none.
        known_by: indexes of the instances that were started with the next one.
    """

    current: str = dataclasses.field(repr=False)
    next: str = dataclasses.field(default="", repr=False)
    known_by: frozenset[int] = frozenset()


def parse(text: str) -> EngineKeys | None:
    """The keys in the file; None where it has none that can be used."""
    values = dict(line.split("=", 1) for line in text.split() if "=" in line)
    current, following = values.get(CURRENT, ""), values.get(NEXT, "")
    if not _usable(current):
        return None
    if not _usable(following):
        return EngineKeys(current)
    known = frozenset(int(index) for index in values.get(KNOWN_BY, "").split(",") if index.isdigit())
    return EngineKeys(current, following, known)


def render(keys: EngineKeys) -> str:
    """The file."""
    lines = [f"{CURRENT}={keys.current}"]
    if keys.next:
        lines += [f"{NEXT}={keys.next}", f"{KNOWN_BY}={','.join(map(str, sorted(keys.known_by)))}"]
    return "".join(f"{line}\n" for line in lines)


def renewed(
    keys: EngineKeys, instance: int, others: t.Collection[int], takes_several: bool, new: t.Callable[[], str] = new_key
) -> EngineKeys:
    """The keys with which a stopped instance may start.

    Args:
        keys: what there is.
        instance: its index.
        others: indexes of the host's instances that run.
        takes_several: whether the engine takes more than one key. One that takes one only gets a new one while no other
            instance runs, because the edge shows all instances the same.
        new: makes a key.
    """
    if others and not takes_several:
        return keys
    following = keys.next or new()
    known_by = keys.known_by | {instance}
    if set(others) <= known_by:
        return EngineKeys(following)
    return EngineKeys(keys.current, following, known_by)


def _usable(key: str) -> bool:
    return key.startswith("sk-") and len(key) > 40
