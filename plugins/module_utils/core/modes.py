# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Directories and trees that the engines' user can read, whatever root's umask on the host."""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t

READABLE = 0o755


def make_directories(path: str, mode: int = READABLE) -> None:
    """Create a directory with exactly ``mode``, and missing parents that everybody can enter.

    Python's own function applies the mode to the last one only, less the umask. A directory that an earlier run created
    with a stricter mode is widened.
    """
    parent = os.path.dirname(path.rstrip("/"))
    if not os.path.isdir(path):
        if parent and not os.path.isdir(parent):
            make_directories(parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, mode)
    now = stat.S_IMODE(os.stat(path).st_mode)
    if now | mode != now:
        os.chmod(path, now | mode)


@contextlib.contextmanager
def readable_by_all() -> t.Iterator[None]:
    """Let programs that run in here create files that everybody can read."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


def open_tree(path: str) -> int:
    """Give everybody the owner's permissions on each file below ``path``, except writing; return how many changed.

    A package manager's cache keeps the modes of a stricter umask, and its files are linked into new trees.
    """
    opened = int(_open(path))
    for directory, folders, files in os.walk(path):
        opened += sum(_open(os.path.join(directory, name)) for name in folders + files)
    return opened


def is_open(path: str) -> bool:
    """Whether everybody can read and enter a directory."""
    return stat.S_IMODE(os.stat(path).st_mode) & 0o055 == 0o055


def _open(path: str) -> bool:
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return False
    now = stat.S_IMODE(status.st_mode)
    shared = now & 0o500
    wanted = now | shared >> 3 | shared >> 6
    if wanted != now:
        os.chmod(path, wanted)
    return wanted != now
