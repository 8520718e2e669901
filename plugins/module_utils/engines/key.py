# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The key that a host's edge sends to its engines, and its rotation without a refused request. Pure.

An engine reads its keys at start. So that instances can be restarted one after the other, each starts with the current
key and the next one, and the edge switches when every running instance knows the next one.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.keys import new_key

#: In the file that systemd reads; the edge sends the first one.
CURRENT, NEXT, KNOWN_BY = "ENGINE_API_KEY", "ENGINE_API_KEY_NEXT", "ENGINE_API_KEY_NEXT_KNOWN_BY"


@dataclasses.dataclass(frozen=True)
class EngineKeys:
    """The keys of a host.

    Attributes:
        current: what the edge sends.
        next: what it will send; empty for none.
        known_by: indexes of the instances that were started with the next one.
    """

    current: str = dataclasses.field(repr=False)
    next: str = dataclasses.field(default="", repr=False)
    known_by: frozenset[int] = frozenset()


def parse(text: str) -> EngineKeys | None:
    """The keys in the file; None where it has no valid ones."""
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
    """The keys for the start of a stopped instance.

    Args:
        keys: the current ones.
        instance: its index.
        others: indexes of the host's running instances.
        takes_several: whether the engine accepts more than one key. One that accepts only one gets a new one only while
            no other instance runs, because the edge sends all instances the same key.
        new: generates a key.
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
