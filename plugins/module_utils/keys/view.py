# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A key store's content for people and edges: names, hashes and fingerprints, never a key. Pure."""

from __future__ import annotations

import dataclasses

from ansible_collections.inference.fleet.plugins.module_utils.clients import limits as client_limits
from ansible_collections.inference.fleet.plugins.module_utils.core.types import JsonObject
from ansible_collections.inference.fleet.plugins.module_utils.keys import rotation as key_rotation
from ansible_collections.inference.fleet.plugins.module_utils.keys.store import (
    CURRENT,
    ClientKeys,
    Content,
    Key,
)


def client(name: str, whole: ClientKeys, now: str, max_age: int | None) -> JsonObject:
    """One client, for a person and for the edge's limits."""
    return {
        "name": name,
        "fingerprint": whole.current.fingerprint,
        "created": whole.current.created,
        "activated": whole.current.activated,
        "age": key_rotation.age(whole.current, now),
        "due": max_age is not None and key_rotation.is_due(whole, max_age, now),
        "state": _state(whole),
        "expired": key_rotation.expired(whole, now),
        **client_limits.shown(whole.limits),
        "stored_keys": [_key(slot, key) for slot, key in whole.slots()],
    }


def hashes(content: Content) -> list[JsonObject]:
    """Every live key with its client's limits, as an edge gets it."""
    return [
        {"name": name, "sha256": key.sha256, "slot": slot, **client_limits.shown(content.clients[name].limits)}
        for name in sorted(content.clients)
        for slot, key in content.clients[name].live()
    ]


def retired(content: Content) -> list[JsonObject]:
    """Every key that must be dead."""
    revealable = {(name, key.sha256) for name, one in content.clients.items() for _slot, key in one.slots()}
    return [
        {
            "name": key.client,
            "fingerprint": key.fingerprint,
            **{name: value for name, value in dataclasses.asdict(key).items() if name != "client"},
            "revealable": (key.client, key.sha256) in revealable,
        }
        for key in content.retired()
    ]


def rotation(content: Content) -> JsonObject | None:
    """The rotation in progress."""
    if content.rotation is None:
        return None
    return {
        "id": content.rotation.id,
        "step": content.rotation.step,
        "clients": list(content.rotation.clients),
        "by": content.rotation.holder.by,
        "controller": content.rotation.holder.controller,
        "pid": content.rotation.holder.pid,
        "started": content.rotation.started,
        "resumed": content.rotation.resumed,
    }


def listed(content: Content) -> str:
    """The store in a diff."""
    lines = []
    for name, one in sorted(content.clients.items()):
        limits = "".join(f" {option}={value}" for option, value in client_limits.texts(one.limits).items())
        for slot, key in one.slots():
            state = "retired" if key.retired else slot
            end = f" until {key.retire_at}" if key.retire_at and not key.retired else ""
            lines.append(f"{name} {key.fingerprint} {state}{end}{limits if slot == CURRENT else ''}")
    if content.rotation:
        lines.append(f"rotation {content.rotation.id} {content.rotation.step} by {content.rotation.holder.said}")
    return "".join(f"{line}\n" for line in lines)


def actions(before: Content, after: Content, store: str) -> list[str]:
    """The changes from one content to the other."""
    done = [] if before.exists else [f"make {store}"]
    if before.exists and not before.id:
        done.append("give the key store its identity")
    if before.writing:
        done.append("settle a change of the key store that broke off")
    done += _rotation_actions(before, after)
    for name in sorted({*before.clients, *after.clients}):
        old, new = before.clients.get(name), after.clients.get(name)
        if old and new:
            done += _client_actions(name, old, new)
        elif new:
            done.append(f"add {name} {new.current.fingerprint}")
        elif old:
            done += [f"remove {name} {key.fingerprint}" for _slot, key in old.slots()]
    done += [f"remove {name}, whose keys the store has lost" for name in sorted({*before.missing} - {*after.missing})]
    done += [f"finish the removal of {name}" for name in before.leftovers if name not in after.leftovers]
    if before.rotation and after.rotation is None:
        done.append(f"end rotation {before.rotation.id}")
    return done


def _rotation_actions(before: Content, after: Content) -> list[str]:
    old, new = before.rotation, after.rotation
    if new is None or new == old:
        return []
    if old is None or old.id != new.id:
        return [f"begin rotation {new.id}"]
    taken = [] if old.holder == new.holder else [f"continue rotation {new.id}, which {old.holder.said} left"]
    return taken if old.step == new.step else [*taken, f"bring rotation {new.id} to step {new.step}"]


def _client_actions(name: str, old: ClientKeys, new: ClientKeys) -> list[str]:
    done = []
    shown = client_limits.shown(new.limits)
    changed = [option for option, value in client_limits.shown(old.limits).items() if shown[option] != value]
    if changed:
        done.append(f"change {', '.join(changed)} of {name}")
    known = {key.id: key for _slot, key in old.slots()}
    kept = {key.id: (slot, key) for slot, key in new.slots()}
    for identity, (slot, key) in kept.items():
        if identity not in known:
            done.append(f"make {slot} {name} {key.fingerprint}")
        elif slot == CURRENT and identity != old.current.id:
            done.append(f"finish {name} {key.fingerprint}")
        elif key.retired and not known[identity].retired:
            done.append(f"retire {name} {key.fingerprint}")
        elif key.retire_at != known[identity].retire_at:
            done.append(f"keep {name} {key.fingerprint} until {key.retire_at}")
    for identity, gone in known.items():
        if identity not in kept:
            done.append(f"{'forget' if gone.retired else 'withdraw'} {name} {gone.fingerprint}")
    return done


def _state(whole: ClientKeys) -> str:
    """A client's state: the most urgent of its keys' states."""
    if whole.pending:
        return "pending"
    if whole.previous:
        return "retired" if whole.previous.retired else "previous"
    return "current"


def _key(slot: str, key: Key) -> JsonObject:
    public = {name: value for name, value in dataclasses.asdict(key).items() if name not in ("key", "id")}
    return {"slot": slot, "fingerprint": key.fingerprint, "sha256": key.sha256, **public}
