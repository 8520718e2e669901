# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The key store: which client has which keys. It is the truth; the edges only hold hashes of it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import stat
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils import _keys
from ansible_collections.inference.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils._files import locked, read_text, write_atomically

_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        key: the secret.
        created: when it was made, in UTC.
        id: tells a step that is repeated from a new one.
    """

    key: str = dataclasses.field(repr=False)
    created: str
    id: str

    @property
    def fingerprint(self) -> str:
        return _keys.fingerprint(self.key)


@dataclasses.dataclass(frozen=True)
class Client:
    """A client's keys, by their part in a rotation: at most two of them at a time."""

    current: Key
    pending: Key | None = None
    previous: Key | None = None

    def live(self) -> list[Key]:
        """The keys that every edge has to accept."""
        return [key for key in (self.current, self.pending, self.previous) if key]


Clients = dict[str, Client]
#: What is to be saved: clients that are new or different, and None for those that go.
Changes = t.Mapping[str, t.Optional[Client]]


class KeyStore(t.Protocol):
    """Where the keys are kept. Whatever the means, a change is there whole or not at all."""

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keep other writers out, so that what is saved follows from what was loaded."""

    def load(self) -> Clients:
        """Every client; none where the store has not been made yet."""

    def save(self, changes: Changes) -> None:
        """Store the changes, and nothing else."""


class FileKeyStore:
    """A JSON file that only its owner can read.

    Args:
        path: the file. Its directory is made for the owner alone; the former content is kept beside it with ``.bak``.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    @contextlib.contextmanager
    def locked(self) -> t.Iterator[None]:
        self._make_directory()
        with _store_errors(self._path, "locked"), locked(f"{self._path}.lock"):
            yield

    def load(self) -> Clients:
        with _store_errors(self._path, "read"):
            text = read_text(self._path)
            if text is None:
                return {}
            self._check_rights(os.stat(self._path))
        return _parse(text, self._path)

    def save(self, changes: Changes) -> None:
        with _store_errors(self._path, "written"):
            before = read_text(self._path)
            clients: dict[str, Client | None] = {**self.load(), **changes}
            kept = {name: client for name, client in clients.items() if client}
            if before is not None:
                write_atomically(f"{self._path}.bak", before, mode=0o600)
            write_atomically(self._path, _render(kept), mode=0o600)

    def _make_directory(self) -> None:
        directory = os.path.dirname(self._path)
        with _store_errors(self._path, "made"):
            if not os.path.isdir(directory):
                os.makedirs(directory, mode=0o700)
            mode = stat.S_IMODE(os.stat(directory).st_mode)
        if mode & 0o022:
            raise FleetError(
                f"Others may write to {directory} (mode {mode:04o}) and so replace the key store. "
                f"Run: chmod 700 {directory}"
            )

    def _check_rights(self, status: os.stat_result) -> None:
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            raise FleetError(
                f"The key store {self._path} can be read by others (mode {mode:04o}). Run: chmod 600 {self._path} - "
                "and rotate its keys if somebody else has used this machine."
            )


def new_key() -> Key:
    """A key that is made now."""
    secret = _keys.new_key()
    return Key(secret, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), _keys.sha256(secret)[:16])


@contextlib.contextmanager
def _store_errors(path: str, doing: str) -> t.Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FleetError(
            f"The key store {path} cannot be {doing} ({error.strerror}: {error.filename or path}). Nothing was "
            "changed. Set fleet_key_store to a file in a directory of your own, or correct the directory's rights."
        ) from error


def _parse(text: str, path: str) -> Clients:
    try:
        document = json.loads(text)
        version = document["version"]
        if version == _VERSION:
            return {
                _keys.check_client_name(name): Client(**{part: _key(item[part]) for part in item})
                for name, item in document["clients"].items()
            }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # The error's own words are left out: they may quote what stands in the file.
        raise FleetError(
            f"The key store {path} is damaged ({type(error).__name__}). Nothing was changed. {_last_good(path)}"
        ) from None
    raise FleetError(f"The key store {path} has version {version}; this collection knows {_VERSION}. Upgrade it.")


def _key(item: t.Mapping[str, str] | None) -> t.Any:
    if item is None:
        return None
    if not all(isinstance(item[part], str) for part in ("key", "created", "id")):
        raise TypeError
    return Key(item["key"], item["created"], item["id"])


def _last_good(path: str) -> str:
    backup = f"{path}.bak"
    if read_text(backup) is None:
        return "Restore it from a backup, or move it away and make new keys with playbooks/keys.yml."
    return f"The copy from before the last change is {backup}: look at it, then move it to {path}."


def _render(clients: Clients) -> str:
    document = {name: dataclasses.asdict(clients[name]) for name in sorted(clients)}
    return json.dumps({"version": _VERSION, "clients": document}, indent=2) + "\n"
