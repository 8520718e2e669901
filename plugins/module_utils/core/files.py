# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Files that survive a crash at any byte, and locks that end with their process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError


def write_atomically(path: str, content: str | bytes, mode: int = 0o644) -> None:
    """Replace ``path`` with ``content`` so that a reader sees the old or the new file, even after a power cut.

    Args:
        path: absolute path; its directory must exist.
        content: text is written as UTF-8.
        mode: permission bits of the new file. An existing file's owner is kept.
    """
    data = content.encode() if isinstance(content, str) else content
    directory = os.path.dirname(path)
    handle, temporary = tempfile.mkstemp(dir=directory, prefix=f".{os.path.basename(path)}.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            with contextlib.suppress(FileNotFoundError):
                before = os.stat(path)
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_directory(directory)


def sync_directory(directory: str) -> None:
    """Make a rename in ``directory`` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_text(path: str) -> str | None:
    """The content of ``path``, or None where there is no such file."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_json(path: str) -> t.Any:
    """The JSON document in ``path``, or None where there is no such file.

    Raises:
        FleetError: the file exists but is not JSON.
    """
    try:
        text = read_text(path)
        return None if text is None else json.loads(text)
    # A file that is not text is not JSON either.
    except ValueError as error:
        raise FleetError(
            f"{path} is not valid JSON ({error}). Restore it from a backup, or move it away to start with an empty one."
        ) from error


@contextlib.contextmanager
def locked(path: str, timeout: float = 30.0) -> t.Iterator[None]:
    """Hold an exclusive lock on ``path`` (created if missing); the kernel releases it when the process ends.

    Args:
        path: the lock file.
        timeout: seconds to wait for another holder.

    Raises:
        FleetError: another process held the lock for the whole time, or the file cannot be created.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FleetError(
            f"The lock {path} cannot be taken ({error.strerror}). Nothing was changed. Correct the directory's rights; "
            "a file system that became read-only has an error in the kernel's log (journalctl -k)."
        ) from error
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise FleetError(
                        f"Another process has held the lock {path} for {timeout:.0f} s. Wait for it, then run again."
                    ) from error
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)
