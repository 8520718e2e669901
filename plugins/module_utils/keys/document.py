# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The parts of a key store as JSON, and back. Pure.

Everything that is read is validated; errors are TypeError, KeyError or ValueError without the values, which may be
keys.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.clients import limits as client_limits
from ansible_collections.inference.fleet.plugins.module_utils.clients import schema
from ansible_collections.inference.fleet.plugins.module_utils.core import keys as api_keys
from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.core.types import JsonObject
from ansible_collections.inference.fleet.plugins.module_utils.keys import origin
from ansible_collections.inference.fleet.plugins.module_utils.keys.holder import RotationHolder
from ansible_collections.inference.fleet.plugins.module_utils.keys.store import (
    CURRENT,
    PENDING,
    PREVIOUS,
    ClientKeys,
    Content,
    Ended,
    Key,
    RetiredKey,
    Rotation,
)

_T = t.TypeVar("_T")

_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "tuple[str, ...]": (list, tuple),
}
_MOMENTS = ("created", "activated", "retire_at", "retired", "started", "resumed", "at")


def version(*contents: Content) -> int:
    """The version of a store for these contents: the first one with all limits in use."""
    return client_limits.version(*(one.limits for content in contents for one in content.clients.values()))


def unknown_version(found: t.Any) -> str:
    """Why this code cannot read a store of this version, as the end of a sentence; empty where it can.

    Raises:
        TypeError: it is not a version.
    """
    # In Python a bool is an int, too.
    if type(found) is not int:
        raise TypeError
    latest = client_limits.latest_version()
    if 1 <= found <= latest:
        return ""
    known = f"version {latest}{' and earlier ones' if latest > 1 else ''}"
    return (
        f"has version {found}; this collection knows {known}. Nothing was changed. Use the collection that wrote it, "
        "or a later one."
    )


def content(document: JsonObject) -> Content:
    """The content that document_of() wrote."""
    _has_only(document, ("version", "id", "generation", "clients", "rotation", "ended", "removed"))
    clients = {api_keys.check_client_name(name): _client(item) for name, item in _object(document["clients"]).items()}
    return Content(clients, **shared(document))


def shared(document: JsonObject) -> dict[str, t.Any]:
    """The parts that belong to no single client: identity, generation, rotations, keys of removed clients."""
    rotation = document.get("rotation")
    return {
        "id": _id(document.get("id", "")),
        "generation": _generation(document.get("generation", 0)),
        "rotation": None if rotation is None else _rotation(rotation),
        "ended": tuple(_read(Ended, item) for item in _list(document.get("ended", []))),
        "removed": tuple(retired_key(item) for item in _list(document.get("removed", []))),
    }


def document_of(whole: Content) -> JsonObject:
    """A content as JSON values."""
    clients = {name: _client_document(whole.clients[name]) for name in sorted(whole.clients)}
    return {"clients": clients, **shared_document(whole)}


def shared_document(whole: Content) -> JsonObject:
    """The parts that belong to no single client, as JSON values."""
    return {
        "id": whole.id,
        "generation": whole.generation,
        "rotation": None if whole.rotation is None else dataclasses.asdict(whole.rotation),
        "ended": [dataclasses.asdict(item) for item in whole.ended],
        "removed": [dataclasses.asdict(item) for item in whole.removed],
    }


def key(item: t.Any) -> Key:
    """A key whose text is in the store."""
    found = _read(Key, item)
    if not found.key or not found.created:
        raise ValueError
    return found


def retired_key(item: t.Any) -> RetiredKey:
    return _read(RetiredKey, item)


def _client_document(client: ClientKeys) -> JsonObject:
    document = dataclasses.asdict(client)
    del document["limits"]
    return {**client_limits.document(client.limits), **document}


def _client(item: t.Any) -> ClientKeys:
    options = [row.name for row in schema.LIMITS]
    _has_only(_object(item), (CURRENT, PENDING, PREVIOUS, "retired", *options))
    keys = {slot: item.get(slot) for slot in (PENDING, PREVIOUS)}
    return ClientKeys(
        current=key(item[CURRENT]),
        **{slot: None if one is None else key(one) for slot, one in keys.items()},
        limits=client_limits.read({name: item[name] for name in options if name in item}),
        retired=tuple(retired_key(one) for one in _list(item.get("retired", []))),
    )


def _rotation(item: t.Any) -> Rotation:
    return _read(Rotation, item, holder=_read(RotationHolder, _object(item)["holder"]))


def _read(kind: type[_T], item: t.Any, **parts: t.Any) -> _T:
    """An object of a dataclass from a JSON object of which all but ``parts`` are plain values."""
    fields = {field.name: str(field.type) for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    _has_only(_object(item), fields)
    values = {name: value for name, value in item.items() if name not in parts}
    for name, value in values.items():
        # In Python a bool is an int, too.
        if not isinstance(value, _KINDS[fields[name]]) or isinstance(value, bool) != (fields[name] == "bool"):
            raise TypeError
        if name in _MOMENTS and value:
            _check_moment(str(value))
        if isinstance(value, list):
            if not all(isinstance(one, str) for one in value):
                raise TypeError
            values[name] = tuple(value)
    return kind(**values, **parts)


def _id(value: t.Any) -> str:
    if value and not origin.is_id(value):
        raise ValueError
    return str(value)


def _generation(value: t.Any) -> int:
    # In Python a bool is an int, too.
    if type(value) is not int or value < 0:
        raise ValueError
    return value


def _check_moment(value: str) -> None:
    try:
        times.seconds(value)
    except ValueError:
        # The error's own text repeats the value.
        raise ValueError from None


def _object(value: t.Any) -> JsonObject:
    if not isinstance(value, dict):
        raise TypeError
    return value


def _list(value: t.Any) -> list[t.Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _has_only(item: t.Any, names: t.Iterable[str]) -> None:
    if set(item) - set(names):
        raise KeyError
