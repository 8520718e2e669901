# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Searches streams of bytes for keys that are known by their hash, and collects the findings. Pure."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import keys as api_keys
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

#: How much of a stream is in memory at a time.
CHUNK = 1024 * 1024

LIVE, RETIRED = "live", "retired"

#: The kinds of places.
FILE, FILE_NAME, PROCESS, JOURNAL = "file", "file name", "process", "journal"

#: The prefix of every key.
KEY_PREFIX = b"sk-"

# 256 bits in base64url, without the padding.
_RANDOM = 43
_LENGTH = len(KEY_PREFIX) + _RANDOM
_FORM = rf"{KEY_PREFIX.decode()}[A-Za-z0-9_-]{{{_RANDOM}}}"
_KEY = re.compile(_FORM.encode())
_KEYS_IN_TEXT = re.compile(rf"{_FORM}[A-Za-z0-9_-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class KnownKey(t.NamedTuple):
    """A key to look for.

    Attributes:
        name: the client.
        sha256: the key's hash.
        state: LIVE or RETIRED.
        revealable: whether the key store still has the text of a retired key.
    """

    name: str
    sha256: str
    state: str
    revealable: bool = False

    @property
    def kept(self) -> bool:
        """Whether its text is in the key store, by design."""
        return self.state == LIVE or self.revealable


def known_keys(items: t.Iterable[t.Mapping[str, t.Any]]) -> list[KnownKey]:
    """The module's keys, validated.

    Args:
        items: dictionaries with ``name``, ``sha256``, ``state`` and ``revealable``.

    Raises:
        FleetError: an invalid hash, or no key at all.
    """
    keys = []
    for item in items:
        name = api_keys.check_client_name(item["name"])
        if not _SHA256.fullmatch(item["sha256"]):
            # Not repeated: a user may have given the key itself.
            raise FleetError(
                f"The sha256 given for client {name} is not 64 lower case hexadecimal digits. Give the hash that "
                "module api_key returns in hashes and retired, never the key."
            )
        keys.append(KnownKey(name, item["sha256"], item["state"], item["revealable"]))
    if not keys:
        raise FleetError(
            "There is no key to look for, so the search would prove nothing. Name the right key store "
            "(fleet_key_store), or make keys with playbooks/keys.yml."
        )
    return keys


def printable(name: str) -> str:
    """A printable form of a name from any source: no control characters, no broken text and no key."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    shown = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    return _KEYS_IN_TEXT.sub("sk-…", shown)


class Matcher:
    """Counts the known keys in one stream.

    The end of a key cannot be seen: the following text may use its alphabet. So at each ``sk-`` exactly a key's length
        is hashed.
    """

    def __init__(self, by_hash: t.Mapping[str, KnownKey]) -> None:
        self._by_hash = by_hash
        self._end = b""
        self.counts: collections.Counter[KnownKey] = collections.Counter()

    def feed(self, piece: bytes) -> None:
        """Examine the stream's next chunk, of any size."""
        window = self._end + piece
        at = window.find(KEY_PREFIX)
        while at >= 0:
            candidate = _KEY.match(window, at)
            if candidate:
                key = self._by_hash.get(hashlib.sha256(candidate[0]).hexdigest())
                if key:
                    self.counts[key] += 1
            at = window.find(KEY_PREFIX, at + 1)
        # One byte less than a key: a key that begins here was incomplete so far, so nothing is counted twice.
        self._end = window[1 - _LENGTH :]


@dataclasses.dataclass(frozen=True)
class Finding:
    """A key at a place.

    Attributes:
        kind: FILE, FILE_NAME, PROCESS or JOURNAL.
        where: the place.
        fingerprint: of the key.
        client: whose key it is.
        state: LIVE or RETIRED.
        count: how often it occurs there.
        mode: the file's permission bits; empty for other places.
        readable_by_others: whether others than its owner may read the file.
    """

    kind: str
    where: str
    fingerprint: str
    client: str
    state: str
    count: int
    mode: str = ""
    readable_by_others: bool = False


@dataclasses.dataclass(frozen=True)
class Unread:
    """A place that was not, or not completely, searched.

    Attributes:
        kind: as in Finding.
        where: the place.
        reason: why.
        gone: whether it ended or was removed meanwhile, so that nothing is there any more.
    """

    kind: str
    where: str
    reason: str
    gone: bool = False


class Search:
    """The keys to look for, and the findings so far.

    Attributes:
        unread: the places that could not be read.
        left_out: the places that do not exist or are not searched, each with ``where`` and ``reason``.
        searched: how much was read: ``files``, ``bytes``, ``processes``, ``journal_bytes``.
    """

    def __init__(self, keys: t.Iterable[KnownKey]) -> None:
        # A key that is both counts as live, the worse of the two.
        self._by_hash = {key.sha256: key for key in sorted(keys, key=lambda key: key.state == LIVE)}
        self._findings: dict[tuple[str, str, str], Finding] = {}
        self.unread: list[Unread] = []
        self.left_out: list[dict[str, str]] = []
        self.searched = {"files": 0, "bytes": 0, "processes": 0, "journal_bytes": 0}

    def matcher(self) -> Matcher:
        """A matcher for one stream."""
        return Matcher(self._by_hash)

    def found(self, kind: str, where: str, counts: t.Mapping[KnownKey, int], mode: int | None = None) -> None:
        """Record a matcher's counts at a place."""
        for key, count in counts.items():
            # Two of the given paths may lead to one place.
            self._findings[kind, where, key.sha256] = Finding(
                kind,
                printable(where),
                api_keys.hash_fingerprint(key.sha256),
                key.name,
                key.state,
                count,
                "" if mode is None else f"{mode:04o}",
                mode is not None and readable_by_others(mode),
            )

    def missed(self, kind: str, where: str, reason: Exception | str) -> None:
        """Record a place that could not be read."""
        gone = isinstance(reason, (FileNotFoundError, ProcessLookupError))
        text = (reason.strerror if isinstance(reason, OSError) else None) or str(reason)
        self.unread.append(Unread(kind, printable(where), printable(text), gone))

    def leave_out(self, where: str, reason: str) -> None:
        """Record a place that is not searched."""
        self.left_out.append({"where": printable(where), "reason": reason})

    def findings(self) -> list[Finding]:
        """The findings, in a stable order."""
        return sorted(self._findings.values(), key=lambda one: (one.kind, one.where, one.client, one.fingerprint))


def readable_by_others(mode: int) -> bool:
    """Whether others than the owner may read a file of this mode."""
    return bool(mode & 0o044)
