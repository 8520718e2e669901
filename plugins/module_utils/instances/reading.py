# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Reading ahead what the start of a release reads: while the instance serves, instead of while it does not."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import page_cache
from ansible_collections.inference.fleet.plugins.module_utils.instances.releases import Releases

#: What a program maps and imports. A runtime also has sources, headers and archives, which no start reads.
_LIBRARIES = (".so",)
_BYTECODE = (".pyc",)


@dataclasses.dataclass(frozen=True)
class FileToRead:
    """A file that a start reads, its size, and how much of it is in memory."""

    path: str
    size: int
    present: int

    @property
    def missing(self) -> int:
        return self.size - self.present


@dataclasses.dataclass
class ReadAhead:
    """What became of the files, in bytes.

    Attributes:
        present: was in memory before.
        read: was read.
        left: was not, for lack of memory or time.
        seconds: that it took.
    """

    present: int = 0
    read: int = 0
    left: int = 0
    seconds: float = 0.0


def files_of(releases: Releases, index: int, name: str) -> list[FileToRead]:
    """What a start of a release reads: its bytecode, its weights and, where the runtime is another one, its libraries.

    Of the libraries of the runtime that runs already, what is not in memory is what no start needs.

    Args:
        releases: the host's.
        index: of the instance.
        name: of the release.
    """
    manifest = releases.manifest(name)
    current = releases.manifest(releases.linked(index, "current"))
    runtime = os.path.join(releases.path(name), "runtime")
    same = manifest.get("runtime") == current.get("runtime")
    weights = [path for path in (manifest.get("model_path"), manifest.get("draft_path")) if path]
    paths = [*_below(runtime, _BYTECODE), *(path for place in weights for path in _below(str(place)))]
    if not same:
        paths += _below(runtime, _LIBRARIES)
    return _looked_at(paths)


def _below(directory: str, kinds: tuple[str, ...] = ()) -> list[str]:
    """The files below a directory, those of some kinds only, each at the same place with every call."""
    found = []
    for place, directories, files in os.walk(directory):
        directories.sort()
        for file in sorted(files):
            # As in libtorch.so.2.
            if not kinds or file.endswith(kinds) or any(f"{kind}." in file for kind in kinds):
                found.append(os.path.join(place, file))
    return found


def _looked_at(paths: t.Iterable[str]) -> list[FileToRead]:
    """Each file once, whatever its links; files that are gone or cannot be read are left out."""
    found = {}
    for path in paths:
        with contextlib.suppress(OSError):
            status = os.stat(path)
            if (status.st_dev, status.st_ino) not in found:
                found[status.st_dev, status.st_ino] = FileToRead(path, status.st_size, page_cache.bytes_in_memory(path))
    return list(found.values())


def choose(files: t.Sequence[FileToRead], available: int, reserve: int) -> list[FileToRead]:
    """The files to read: those that are not in memory, and for which there is room.

    Memory that files of the start have already counts as available, and must stay theirs.

    Args:
        files: in the order in which they matter.
        available: bytes that programs can get.
        reserve: bytes of them that nothing is read into.
    """
    room = available - reserve - sum(file.present for file in files)
    chosen = []
    for file in files:
        if 0 < file.missing <= room:
            room -= file.missing
            chosen.append(file)
    return chosen


def read_ahead(
    files: t.Sequence[FileToRead], available: int, reserve: int, seconds: float, dry_run: bool = False
) -> ReadAhead:
    """Read what is not in memory, as far as memory and time go.

    Args:
        files: see ``choose``.
        available: see ``choose``.
        reserve: see ``choose``.
        seconds: that it may take.
        dry_run: read nothing.
    """
    began = time.monotonic()
    result = ReadAhead(present=sum(file.present for file in files))
    for file in [] if dry_run else choose(files, available, reserve):
        with contextlib.suppress(OSError):
            # Of a part of a file, that much is new at least.
            result.read += max(0, page_cache.read_file(file.path, began + seconds) - file.present)
    result.left = sum(file.missing for file in files) - result.read
    result.seconds = time.monotonic() - began
    return result
