# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The key store, and its generation, from which a host or a database has its keys. Pure.

A store has an identity, and a generation that grows with each change of what it returns to edges. A host records both,
so that it can refuse keys of an older generation or of another store.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import typing as t

from ..core.errors import FleetError
from ..core.keys import hash_fingerprint
from ..core.types import JsonObject

#: What a host takes, each with its own generation: the clients' keys, and the key that a gateway sends to hosts.
KEYS, UPSTREAM = "keys", "upstream"

_ID = re.compile(r"[0-9a-f]{32}")
_SHORT = 8
_ANY = ("true", "yes", "1")
_NO = ("", "false", "no", "0")


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a run has read from a key store.

    Attributes:
        store: the store's identity; empty where it has none yet.
        generation: the generation that was read.
        name: where the store is, for a message.
        settled: whether it was read as a whole, not while another run was changing it.
        retired: hashes of keys that the store remembers as dead.
    """

    store: str
    generation: int
    name: str
    settled: bool = True
    retired: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        return f"store {short(self.store)} ({self.name})"


@dataclasses.dataclass(frozen=True)
class Part:
    """What was last taken: the generation, and a digest of the content."""

    generation: int
    digest: str


@dataclasses.dataclass(frozen=True)
class Taken:
    """What a host or a database has taken, and from which store."""

    store: str
    name: str
    parts: t.Mapping[str, Part]

    @property
    def generation(self) -> int:
        """The latest known generation of the store."""
        return max((part.generation for part in self.parts.values()), default=0)

    @property
    def said(self) -> str:
        return f"store {short(self.store)} ({self.name})"

    def document(self) -> JsonObject:
        parts = {name: dataclasses.asdict(part) for name, part in sorted(self.parts.items())}
        return {"store": self.store, "name": self.name, "parts": parts}


def short(store: str) -> str:
    """An identity in a message."""
    return f"{store[:_SHORT]}…" if store else "without an identity"


def is_id(store: t.Any) -> bool:
    return isinstance(store, str) and bool(_ID.fullmatch(store))


def digest(items: t.Any) -> str:
    """The digest of a part's content. Empty values count as absent: a later version may have more of them."""
    return hashlib.sha256(json.dumps(_without_empty(items), sort_keys=True).encode()).hexdigest()


def keys_digest(items: t.Iterable[t.Mapping[str, t.Any]]) -> str:
    """The digest of hashes as module api_key returns them. A key's part in a rotation does not matter to an edge."""
    rows = [{name: value for name, value in item.items() if name != "slot"} for item in items]
    return digest(sorted(rows, key=lambda row: (row["name"], row["sha256"])))


def read(item: t.Any) -> Origin:
    """The origin that module api_key returned.

    Raises:
        FleetError: it is invalid.
    """
    try:
        origin = Origin(
            str(item["id"]),
            int(item["generation"]),
            str(item["name"]),
            bool(item.get("settled", True)),
            tuple(str(one) for one in item.get("retired") or ()),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FleetError(
            f"origin is not what module api_key returns as store ({type(error).__name__}). Keys are taken only with "
            "the store and the generation that they come from."
        ) from None
    if not is_id(origin.store):
        raise FleetError(
            f"The {origin.name.removeprefix('the ')} has no identity yet, so it cannot be known whether its keys are "
            "this host's. Run playbooks/keys.yml, which gives it one."
        )
    return origin


def parse(document: t.Any, path: str) -> Taken | None:
    """What Taken.document() wrote; None where nothing was taken yet.

    Raises:
        FleetError: it is invalid.
    """
    if document is None:
        return None
    try:
        parts = {
            str(name): Part(int(part["generation"]), str(part["digest"])) for name, part in document["parts"].items()
        }
        if not is_id(document["store"]):
            raise ValueError
        return Taken(document["store"], str(document["name"]), parts)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FleetError(
            f"{path} is not a record of the key store that this host belongs to ({type(error).__name__}). Remove it, "
            "then run playbooks/keys.yml: the host is adopted if the store knows all of its keys."
        ) from None


def check(taken: Taken | None, origin: Origin, parts: t.Mapping[str, str], adopt: str, here: str = "This host") -> None:
    """Check that the run's keys may replace the existing ones.

    Args:
        taken: what was last taken.
        origin: what the run has read.
        parts: the digests of the run's keys.
        adopt: the identity of the store to give up, or ``true`` for any.
        here: the host or database, for a message.

    Raises:
        FleetError: they may not.
    """
    if not origin.settled:
        raise FleetError(
            f"Another run was changing the {origin.name.removeprefix('the ')} while this one read it, or broke off "
            "in a change. Nothing was changed here. Wait for the other run, then run this again; if there is none, "
            "playbooks/keys.yml settles the store."
        )
    if taken is None or adopts(adopt, taken.store):
        return
    if taken.store != origin.store:
        raise FleetError(
            f"{here} belongs to key {taken.said}, generation {taken.generation}; this run's is "
            f"{origin.said}, generation {origin.generation}. Nothing was changed: its keys would lock out everybody "
            "who has one of the other's. Run it with the other store (fleet_key_store), or restore that. "
            f"To give it up on purpose: -e key_store_adopt={taken.store}"
        )
    if origin.generation < taken.generation:
        raise FleetError(
            f"{here} has generation {taken.generation} of key {taken.said}; this run brought generation "
            f"{origin.generation}. Keys were changed or rotated meanwhile, and the older ones would bring dead keys "
            "back. Nothing was changed; run it again. If that does not help, the store was restored from an older "
            f"copy: restore the latest one, or go on with it on purpose: -e key_store_adopt={taken.store}"
        )
    for name, brought in parts.items():
        part = taken.parts.get(name)
        if part and part.generation == origin.generation and part.digest != brought:
            raise FleetError(
                f"{here} has other keys as generation {part.generation} of key {taken.said} than this run "
                f"brought from {origin.name}. A generation has one content, so there are two copies of the store, or "
                "one was edited. Nothing was changed. Find out which copy is right and remove the other; to go on "
                f"with this one: -e key_store_adopt={taken.store}"
            )


def check_unclaimed(
    hashes: t.Collection[str], live: t.Collection[str], origin: Origin, adopt: str, here: str = "This host"
) -> None:
    """Check that keys without a recorded origin are this store's.

    Args:
        hashes: the existing keys.
        live: the run's keys.
        origin: what the run has read.
        adopt: ``true`` to adopt the host anyway.
        here: the host or database, for a message.

    Raises:
        FleetError: the store does not know all of them.
    """
    unknown = sorted(set(hashes) - set(live) - set(origin.retired))
    if unknown and not adopts(adopt, ""):
        raise FleetError(
            f"{here} takes keys that {origin.said} does not know: "
            f"{', '.join(hash_fingerprint(one) for one in unknown[:5])}{' …' if len(unknown) > 5 else ''}. They are of "
            "another store, or of a copy of this one. Nothing was changed: clients that have one of them would be "
            "locked out. Run it with that store (fleet_key_store), or restore it. To give those keys up on purpose: -e "
            "key_store_adopt=true"
        )


def adopts(adopt: str, store: str) -> bool:
    """Whether the operator gives up the keys of this store."""
    wanted = adopt.strip().lower()
    if wanted in _NO:
        return False
    return wanted in _ANY or (len(wanted) >= _SHORT and store.startswith(wanted.rstrip("…")))


def take(taken: Taken | None, origin: Origin, parts: t.Mapping[str, str]) -> Taken:
    """The record after a run has brought these parts."""
    kept = dict(taken.parts) if taken and taken.store == origin.store else {}
    # A part that is ahead belongs to a history that was given up.
    kept = {name: part for name, part in kept.items() if part.generation <= origin.generation}
    kept.update({name: Part(origin.generation, brought) for name, brought in parts.items()})
    if taken and taken.store == origin.store and kept == taken.parts:
        # One store may have a name for each controller.
        return taken
    return Taken(origin.store, origin.name, kept)


def _without_empty(value: t.Any) -> t.Any:
    if isinstance(value, t.Mapping):
        return {key: _without_empty(item) for key, item in value.items() if item not in (None, "", [], ())}
    if isinstance(value, (list, tuple)):
        return [_without_empty(item) for item in value]
    return value
