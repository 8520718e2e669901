# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""API keys: generated, hashed, and shown as a fingerprint. Pure."""

from __future__ import annotations

import collections
import hashlib
import re
import secrets
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

#: A client may hold this many live keys: the current one, and the next or the previous one during a rotation.
KEYS_PER_CLIENT = 2

CLIENT_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+=-]{0,127}")
_PASTED = re.compile(r"(?<![A-Za-z0-9])sk-")
_LIKE_A_KEY = re.compile(r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{20,}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class KeyHash(t.NamedTuple):
    """What an edge knows of a key: its client and its hash. Neither is secret."""

    name: str
    sha256: str


def new_key() -> str:
    """A key with 256 random bits."""
    return f"sk-{secrets.token_urlsafe(32)}"


def sha256(key: str) -> str:
    """The hash of a key, by which the edge looks it up."""
    return hashlib.sha256(key.encode()).hexdigest()


def fingerprint(key: str) -> str:
    """Stands for a key wherever a person or a log sees it."""
    return hash_fingerprint(sha256(key))


def hash_fingerprint(digest: str) -> str:
    """The fingerprint of a key that is known by its hash."""
    return f"sk-…{digest[:8]}"


def shown(value: t.Any) -> str:
    """A user's value, for a message; a key in it, which they may have pasted, is left out."""
    return "(not shown: it looks like a key)" if _PASTED.search(str(value)) else repr(value)


def redacted(text: str) -> str:
    """A text without the keys in it."""
    return _LIKE_A_KEY.sub("sk-…", text)


def is_client_name(name: t.Any) -> bool:
    return isinstance(name, str) and bool(CLIENT_NAME.fullmatch(name)) and not name.startswith("sk-")


def check_client_name(name: t.Any) -> str:
    """The validated name.

    Raises:
        FleetError: it is not a valid client name.
    """
    if not is_client_name(name):
        raise FleetError(
            f"{shown(name)} cannot be a client's name. Use 1 to 63 lower case letters, digits, dots, dashes and "
            "underscores, the first one a letter or digit."
        )
    return str(name)


def check_model_names(names: t.Iterable[t.Any], client: str) -> tuple[str, ...]:
    """The models that a client may use: validated, unique, sorted.

    Raises:
        FleetError: one is not a valid model name.
    """
    for name in names:
        if not isinstance(name, str) or not _MODEL_NAME.fullmatch(name) or name.startswith("sk-"):
            raise FleetError(
                f"{shown(name)} cannot be the name of a model of client {client}. Give it as requests name it, for "
                "example Qwen/Qwen3-VL-8B-Instruct."
            )
    return tuple(sorted(set(names)))


def check_client_names(names: t.Iterable[t.Any]) -> list[str]:
    """The validated names.

    Raises:
        FleetError: one is not a valid client name, or is repeated.
    """
    checked = [check_client_name(name) for name in names]
    twice = sorted(name for name, count in collections.Counter(checked).items() if count > 1)
    if twice:
        raise FleetError(f"The client name {', '.join(twice)} is given twice. Remove one of them from fleet_clients.")
    return checked


def check_hashes(items: t.Iterable[t.Mapping[str, t.Any]]) -> list[KeyHash]:
    """Hashes as an edge gets them, sorted.

    Args:
        items: dictionaries with ``name`` and ``sha256``.

    Raises:
        FleetError: an invalid hash, one that two clients share, or a client with too many keys.
    """
    owner: dict[str, str] = {}
    count: dict[str, int] = {}
    for item in items:
        name = check_client_name(item["name"])
        digest = str(item["sha256"])
        if not _SHA256.fullmatch(digest):
            # Not repeated: a user may have given the key itself.
            raise FleetError(
                f"The sha256 given for client {name} is not 64 lower case hexadecimal digits. Give the hash that "
                "module api_key returns in hashes, never the key."
            )
        if owner.get(digest, name) != name:
            raise FleetError(
                f"The clients {owner[digest]} and {name} have the same key {hash_fingerprint(digest)}. "
                "Each needs a key of its own."
            )
        if digest not in owner:
            owner[digest] = name
            count[name] = count.get(name, 0) + 1
            if count[name] > KEYS_PER_CLIENT:
                raise FleetError(
                    f"Client {name} has more than {KEYS_PER_CLIENT} keys. Retire one of them before adding another."
                )
    return sorted(KeyHash(name, digest) for digest, name in owner.items())
