# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The key store in a file on the controller."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shlex
import stat
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import locked, read_text, write_atomically
from ansible_collections.inference.fleet.plugins.module_utils.keys import document as key_document
from ansible_collections.inference.fleet.plugins.module_utils.keys.store import Content

_MODE = 0o600


class FileKeyStore:
    """A JSON file that only its owner can read.

    It is replaced as a whole, so a reader, a crash or a power cut sees the old or the new content. A copy of it is kept
    beside it with ``.bak``. It is made after, not before, a change: restoring it loses no rotation, unless the
    very last writer was killed between the two.

    Args:
        path: the file. Its directory is created for the owner alone.
    """

    def __init__(self, path: str) -> None:
        # A link stays one: its target is replaced.
        self._path = os.path.realpath(path)
        self._copy = f"{self._path}.bak"
        self.name = f"the key store {path}"

    @contextlib.contextmanager
    def locked(self, make: bool) -> t.Iterator[None]:
        if not make and not os.path.isdir(os.path.dirname(self._path)):
            yield
            return
        self._make_directory()
        with self._errors("locked"):
            lock = contextlib.ExitStack()
            lock.enter_context(locked(f"{self._path}.lock"))
        with lock:
            yield

    def load(self) -> Content:
        with self._errors("read"):
            status = self._status()
            if status is None:
                self._refuse_to_replace_lost_store()
                return Content(exists=False)
            self._check(status)
            text = self._read()
        return self._parse(text)

    def save(self, before: Content, after: Content) -> None:
        text = json.dumps({"version": key_document.version(after), **key_document.document_of(after)}, indent=2) + "\n"
        with self._errors("written"):
            self._remove_leftovers()
            write_atomically(self._path, text, mode=_MODE)
        try:
            write_atomically(self._copy, text, mode=_MODE)
        except OSError as error:
            raise FleetError(
                f"The key store {self._path} was written, but not its copy {self._copy} ({error.strerror}). Correct "
                "that, then run again."
            ) from error

    def _status(self) -> os.stat_result | None:
        try:
            return os.stat(self._path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _check(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise FleetError(f"The key store {self._path} is not a file. Name another one.")
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            raise FleetError(
                f"Others than its owner may use the key store {self._path} (mode {mode:04o}). Run: chmod 600 "
                f"{shlex.quote(self._path)} - and rotate its keys if somebody else has used this machine."
            )

    def _read(self) -> str | None:
        try:
            return read_text(self._path)
        except UnicodeDecodeError:
            return None

    def _parse(self, text: str | None) -> Content:
        try:
            document = json.loads(text or "")
            unknown = key_document.unknown_version(document["version"])
            content = None if unknown else key_document.content(document)
        except (AttributeError, FleetError, KeyError, TypeError, ValueError, RecursionError) as error:
            # Without the error's own text, which may quote the file.
            raise FleetError(
                f"The key store {self._path} is damaged ({type(error).__name__}). Nothing was changed. {self._advice()}"
            ) from None
        if content is None:
            raise FleetError(f"The key store {self._path} {unknown}")
        return content

    def _advice(self) -> str:
        if not os.path.exists(self._copy):
            return "Restore it from a backup, or move it away and make new keys with playbooks/keys.yml."
        return (
            f"Its last good copy is {self._copy}. Run: cp -p {shlex.quote(self._copy)} {shlex.quote(self._path)} - "
            "then run again."
        )

    def _refuse_to_replace_lost_store(self) -> None:
        """A new store would give every client a new key, and every edge would refuse the old ones."""
        if os.path.exists(self._copy):
            raise FleetError(
                f"The key store {self._path} is missing, but its last good copy {self._copy} is there. Run: cp -p "
                f"{shlex.quote(self._copy)} {shlex.quote(self._path)} - or move the copy away too, to start with an "
                "empty store."
            )

    def _make_directory(self) -> None:
        directory = os.path.dirname(self._path)
        with self._errors("made"):
            if not os.path.isdir(directory):
                os.makedirs(directory, mode=0o700)
            mode = stat.S_IMODE(os.stat(directory).st_mode)
        if mode & 0o022:
            raise FleetError(
                f"Others may write to {directory} (mode {mode:04o}) and so replace the key store. "
                f"Run: chmod 700 {shlex.quote(directory)}"
            )

    def _remove_leftovers(self) -> None:
        """Remove the temporary files of killed writers: they hold keys. The lock keeps others out."""
        directory, name = os.path.split(self._path)
        for leftover in glob.glob(os.path.join(glob.escape(directory), f".{glob.escape(name)}.*")):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(leftover)

    @contextlib.contextmanager
    def _errors(self, doing: str) -> t.Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FleetError(
                f"The key store {self._path} cannot be {doing} ({error.strerror}: {error.filename or self._path}). "
                "Nothing was changed. Free the disk, correct the rights, or set fleet_key_store to a file in a "
                "directory of your own."
            ) from error
