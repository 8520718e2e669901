# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The content of a key store: the clients' keys, and the rotation in progress.

The store is the source of truth; the edges only hold hashes of it. Pure.
"""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t
import uuid

from ansible_collections.inference.fleet.plugins.module_utils.clients.limits import Limits
from ansible_collections.inference.fleet.plugins.module_utils.core import keys as api_keys
from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.keys.holder import RotationHolder

CURRENT, PENDING, PREVIOUS = "current", "pending", "previous"

#: How many retired keys are remembered: of each client, of all removed clients, and for how many seconds.
RETIRED_PER_CLIENT = 10
RETIRED_OF_REMOVED = 100
RETIRED_SECONDS = 400 * 86400

#: How many rotations are remembered, so that the name of an ended one is not used again.
_ENDED = 20


@dataclasses.dataclass(frozen=True)
class Key:
    """One key whose text is in the store. Moments are in UTC, empty where they have not come.

    Attributes:
        key: the secret.
        created: when it was made.
        id: distinguishes a repeated step from a new one; also the secret's version in Secrets Manager.
        rotation: the rotation that made it; empty for a client's first key.
        activated: when it became the current one.
        retire_at: of a previous key, when its overlap is over.
        retired: of a previous key, since when it is dead. Its text stays until it was proven dead.
        compromised: whether it was retired because it may have leaked.
    """

    key: str = dataclasses.field(repr=False)
    created: str
    id: str
    rotation: str = ""
    activated: str = ""
    retire_at: str = ""
    retired: str = ""
    compromised: bool = False

    @property
    def sha256(self) -> str:
        return api_keys.sha256(self.key)

    @property
    def fingerprint(self) -> str:
        return api_keys.fingerprint(self.key)


@dataclasses.dataclass(frozen=True)
class RetiredKey:
    """What is kept of a dead key.

    Attributes:
        client: whose it was.
        sha256: its hash.
        created: when it was made.
        retired: since when it is dead.
        activated: when it became the current one; empty where it never did.
        compromised: whether it was retired because it may have leaked.
        proven: whether every edge has proven that it refuses it.
    """

    client: str
    sha256: str
    created: str
    retired: str
    activated: str = ""
    compromised: bool = False
    proven: bool = False

    @property
    def fingerprint(self) -> str:
        return api_keys.hash_fingerprint(self.sha256)


@dataclasses.dataclass(frozen=True)
class ClientKeys:
    """A client's keys, by their part in a rotation. At most two of them are live."""

    current: Key
    pending: Key | None = None
    previous: Key | None = None
    limits: Limits = dataclasses.field(default_factory=Limits)
    retired: tuple[RetiredKey, ...] = ()

    def slots(self) -> list[tuple[str, Key]]:
        """The keys whose text is in the store, dead ones too, with their part."""
        slots = ((CURRENT, self.current), (PENDING, self.pending), (PREVIOUS, self.previous))
        return [(slot, key) for slot, key in slots if key]

    def live(self) -> list[tuple[str, Key]]:
        """The keys that every edge must accept."""
        return [(slot, key) for slot, key in self.slots() if not key.retired]


@dataclasses.dataclass(frozen=True)
class Rotation:
    """The rotation in progress, which is also the lock against a second one.

    Attributes:
        id: its name.
        step: one of the STEP constants.
        holder: the process that runs it.
        started: when it began.
        resumed: when this holder began or continued it.
        clients: whose keys it changes.
    """

    id: str
    step: str
    holder: RotationHolder
    started: str
    resumed: str
    clients: tuple[str, ...] = ()

    #: Only previous keys were retired so far / there are pending keys / they became the current ones / they were
    #: withdrawn.
    STEP_RETIRED: t.ClassVar[str] = "retired"
    STEP_PENDING: t.ClassVar[str] = "pending"
    STEP_FINISHED: t.ClassVar[str] = "finished"
    STEP_WITHDRAWN: t.ClassVar[str] = "withdrawn"


@dataclasses.dataclass(frozen=True)
class Ended:
    """A rotation that is over: completed, or withdrawn."""

    id: str
    step: str
    at: str


@dataclasses.dataclass(frozen=True)
class Content:
    """Everything in a store.

    Attributes:
        clients: by name.
        rotation: the one in progress.
        ended: the last finished ones, oldest first.
        removed: keys of removed clients.
        missing: clients whose keys the store has lost, each with a sentence that says why and what to do.
        leftovers: what an interrupted removal still has to remove.
        exists: whether the store has been made yet.
        id: the store's identity, random and permanent; empty in a store of an earlier version.
        generation: how often the edges' data (live keys and clients' limits) has changed.
        writing: whether a change was in progress when this was read, or was interrupted.
    """

    clients: dict[str, ClientKeys] = dataclasses.field(default_factory=dict)
    rotation: Rotation | None = None
    ended: tuple[Ended, ...] = ()
    removed: tuple[RetiredKey, ...] = ()
    missing: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    leftovers: tuple[str, ...] = ()
    exists: bool = True
    id: str = ""
    generation: int = 0
    writing: bool = False

    def live_hashes(self) -> set[str]:
        return {key.sha256 for client in self.clients.values() for _slot, key in client.live()}

    def retired(self) -> list[RetiredKey]:
        """Every key that must be dead, including those whose text is still in the store; the latest last."""
        found = [*self.removed]
        for name, client in self.clients.items():
            found += client.retired
            found += [retire(name, key) for _slot, key in client.slots() if key.retired]
        live = self.live_hashes()
        dead = {key.sha256: key for key in found if key.sha256 not in live}
        return sorted(dead.values(), key=lambda key: (key.retired, key.client, key.sha256))

    def with_clients(self, clients: t.Mapping[str, ClientKeys]) -> Content:
        return dataclasses.replace(self, clients={**self.clients, **clients})

    def with_ended(self, rotation: Rotation, now: str) -> Content:
        """The content once the rotation is over."""
        ended = [one for one in self.ended if one.id != rotation.id] + [Ended(rotation.id, rotation.step, now)]
        return dataclasses.replace(self, rotation=None, ended=tuple(ended[-_ENDED:]))


def settled(before: Content, after: Content, edges_change: bool, at_least: int = 0) -> Content:
    """The content to save: with an identity, and of a new generation where the edges' data changes.

    Args:
        before: the loaded content.
        after: the wanted content.
        edges_change: whether the edges' data changes.
        at_least: the latest generation known on a host; the new one is higher.
    """
    if not after.exists:
        return after
    generation = before.generation
    # It is unknown how much of an interrupted change edges have seen.
    if edges_change or before.writing or at_least > generation:
        generation = max(generation, at_least) + 1
    return dataclasses.replace(after, id=before.id or uuid.uuid4().hex, generation=generation, writing=False)


class StoreChanged(FleetError):
    """Another writer changed the store between load and save; the caller must start again from the new content."""


class KeyStore(t.Protocol):
    """The storage of the keys.

    Whatever the backend: after a crash between any two steps of save(), load() returns a content from which a repeat
    ends where the first attempt would have, and which still has every key that an edge has received.

    Attributes:
        name: the store in a message, for example ``the key store /home/ops/keys.json``.
    """

    name: str

    def locked(self, make: bool) -> contextlib.AbstractContextManager[None]:
        """Lock out other writers, so that the saved content follows from the loaded one.

        Args:
            make: whether to create the store's place if it is missing.
        """

    def load(self) -> Content:
        """The content of the store."""

    def save(self, before: Content, after: Content) -> None:
        """Store the differences between ``after`` and ``before``, which load() returned.

        Raises:
            StoreChanged: there is no lock, and another writer was faster.
        """


def new_key(now: str) -> Key:
    """A client's first key."""
    return Key(api_keys.new_key(), now, uuid.uuid4().hex, activated=now)


def pending_key(name: str, rotation: str, now: str) -> Key:
    """A new key of a rotation. Its id depends on the rotation, in which a client gets one key."""
    return Key(api_keys.new_key(), now, api_keys.sha256(f"{rotation}/{name}")[:32], rotation)


def retire(name: str, key: Key, now: str = "", proven: bool = False) -> RetiredKey:
    """What is kept of a key.

    Args:
        name: the client.
        key: the key; it may be retired already.
        now: since when it is dead, if it is not retired yet.
        proven: whether every edge has proven that it refuses it.
    """
    retired = key.retired or now
    return RetiredKey(name, key.sha256, key.created, retired, key.activated, key.compromised, proven)


def bounded(keys: t.Iterable[RetiredKey], limit: int, now: str) -> tuple[RetiredKey, ...]:
    """The keys that are still worth remembering: the latest ones, without duplicates."""
    oldest = times.moment(times.seconds(now) - RETIRED_SECONDS)
    by_hash = {key.sha256: key for key in keys if key.retired >= oldest}
    return tuple(sorted(by_hash.values(), key=lambda key: (key.retired, key.sha256))[-limit:])


def remember(client: ClientKeys, keys: t.Iterable[RetiredKey], now: str) -> ClientKeys:
    """The client with more keys in its list of retired ones."""
    return dataclasses.replace(client, retired=bounded([*client.retired, *keys], RETIRED_PER_CLIENT, now))
