# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Searches files, their names, and directory trees for known keys."""

from __future__ import annotations

import collections
import errno
import fnmatch
import gzip
import io
import os
import re
import stat
import typing as t
import zlib

from ansible_collections.inference.fleet.plugins.module_utils.secrets.scan import (
    CHUNK,
    FILE,
    FILE_NAME,
    KnownKey,
    Search,
    readable_by_others,
)

_MOUNTINFO = "/proc/self/mountinfo"
_GZIP = b"\x1f\x8b"
# The kernel's virtual file systems: not files, and some of them never end.
_KERNEL = ("/proc", "/sys", "/dev")
_KERNEL_TYPES = {"binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs"}
_KERNEL_TYPES |= {"mqueue", "nsfs", "proc", "pstore", "rpc_pipefs", "securityfs", "selinuxfs", "sysfs", "tracefs"}
# Another machine's, or another program's: of any size and speed, and it may never answer.
_REMOTE_TYPES = {"9p", "afs", "autofs", "beegfs", "ceph", "cifs", "fuse", "gpfs", "lustre", "nfs", "nfs4", "smb3"}
_FUSE = "fuse."
_OCTAL = re.compile(r"\\([0-7]{3})")


def closed_mounts(mountinfo: str) -> dict[str, str]:
    """Mount points that a search does not enter: mount point to type.

    Args:
        mountinfo: the text of /proc/<pid>/mountinfo.
    """
    types: dict[str, str] = {}
    for line in mountinfo.splitlines():
        head, _dash, tail = line.partition(" - ")
        # The last one mounted at a point covers the others.
        types[_OCTAL.sub(lambda code: chr(int(code[1], 8)), head.split()[4])] = tail.split()[0]
    closed = _KERNEL_TYPES | _REMOTE_TYPES
    return {point: name for point, name in types.items() if name in closed or name.startswith(_FUSE)}


class FileSearch:
    """Looks for keys in files of any size. Links in a tree are not followed, and the kernel's trees are left out.

    Args:
        search: the keys to look for; collects the findings.
        exclude: patterns of what is left out, directories with their content. One with a slash must match the whole
            path, one without it the name.
        allowed: files that may hold keys of the key store, as long as only the owner may read them.
        mounts: from closed_mounts(); by default this machine's.
    """

    def __init__(
        self,
        search: Search,
        exclude: t.Iterable[str] = (),
        allowed: t.Iterable[str] = (),
        mounts: t.Mapping[str, str] | None = None,
    ) -> None:
        self._search = search
        patterns = [pattern.rstrip("/") for pattern in exclude if pattern.rstrip("/")]
        self._excluded_name = _any_of(pattern for pattern in patterns if "/" not in pattern)
        self._excluded_path = _any_of(pattern for pattern in patterns if "/" in pattern)
        self._allowed = {os.path.realpath(path) for path in allowed}
        self._mounts = closed_mounts(_mountinfo()) if mounts is None else mounts

    def run(self, paths: t.Iterable[str]) -> None:
        """Search the files, and everything below the directories.

        Args:
            paths: absolute paths. A link is followed, and a network file system searched, if it is named here.
        """
        roots = list(dict.fromkeys(os.path.abspath(path) for path in paths))
        for root in roots:
            if not self._excluded(root):
                self._root(root, roots)

    def _root(self, root: str, roots: t.Collection[str]) -> None:
        real = os.path.realpath(root)
        if any(real == tree or real.startswith(f"{tree}/") for tree in _KERNEL):
            self._search.leave_out(root, "the kernel's, not files")
            return
        try:
            mode = os.stat(real).st_mode
        except (FileNotFoundError, NotADirectoryError):
            self._search.leave_out(root, "there is no such file or directory")
        except OSError as error:
            self._search.missed(FILE, root, error)
        else:
            if stat.S_ISDIR(mode):
                self._tree(root, real, set(roots))
            elif stat.S_ISREG(mode):
                self._file(root, real)
            else:
                self._search.leave_out(root, "neither a file nor a directory")

    def _tree(self, root: str, real: str, roots: t.Collection[str]) -> None:
        directories = [(root, real)]
        while directories:
            directory, real_directory = directories.pop()
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        # Paths that are named are searched by themselves.
                        if entry.path in roots or self._excluded(entry.path):
                            continue
                        self._name(directory, entry.name)
                        real_path = os.path.join(real_directory, entry.name)
                        if real_path in _KERNEL:
                            continue
                        if real_path in self._mounts:
                            self._search.leave_out(entry.path, f"file system {self._mounts[real_path]} is not entered")
                        elif entry.is_dir(follow_symlinks=False):
                            directories.append((entry.path, real_path))
                        elif entry.is_file(follow_symlinks=False):
                            self._file(entry.path, real_path)
            except OSError as error:
                self._search.missed(FILE, directory, error)

    def _excluded(self, path: str) -> bool:
        return bool(
            (self._excluded_name and self._excluded_name.match(os.path.basename(path)))
            or (self._excluded_path and self._excluded_path.match(path))
        )

    def _name(self, directory: str, name: str) -> None:
        matcher = self._search.matcher()
        matcher.feed(os.fsencode(name))
        if matcher.counts:
            self._search.found(FILE_NAME, os.path.join(directory, name), matcher.counts)

    def _file(self, path: str, real: str) -> None:
        try:
            with open(real, "rb", buffering=0, opener=_open) as file:
                status = os.fstat(file.fileno())
                if stat.S_ISREG(status.st_mode):
                    self._search.searched["files"] += 1
                    self._content(path, real, file, status)
        except OSError as error:
            self._search.missed(FILE, path, error)

    def _content(self, path: str, real: str, file: io.FileIO, status: os.stat_result) -> None:
        counts: t.Counter[KnownKey] = collections.Counter()
        try:
            if not self._feed_gzip(path, file, counts):
                self._feed(_stored(file, status), counts)
        finally:
            # Including findings before the disk failed.
            mode = stat.S_IMODE(status.st_mode)
            if real in self._allowed and not readable_by_others(mode):
                counts = collections.Counter({key: count for key, count in counts.items() if not key.kept})
            self._search.found(FILE, path, counts, mode)

    def _feed_gzip(self, path: str, file: io.FileIO, counts: t.Counter[KnownKey]) -> bool:
        """Whether the file is gzip data from beginning to end, and so has been searched."""
        compressed = file.read(len(_GZIP)) == _GZIP
        file.seek(0)
        if compressed:
            try:
                self._feed(_uncompressed(file), counts)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                # Truncated, or it only begins as such a file does.
                self._search.missed(FILE, path, f"damaged gzip data ({error})")
                file.seek(0)
                return False
        return compressed

    def _feed(self, pieces: t.Iterable[bytes], counts: t.Counter[KnownKey]) -> None:
        matcher = self._search.matcher()
        try:
            for piece in pieces:
                self._search.searched["bytes"] += len(piece)
                matcher.feed(piece)
        finally:
            # The larger of both: damaged data is read twice.
            counts |= matcher.counts


def _mountinfo() -> str:
    try:
        with open(_MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        # A controller need not run Linux.
        return ""


def _any_of(patterns: t.Iterable[str]) -> re.Pattern[str] | None:
    joined = "|".join(fnmatch.translate(pattern) for pattern in patterns)
    return re.compile(joined) if joined else None


def _open(path: str, flags: int) -> int:
    """Open a file that was a plain one when it was listed: by now it may be a link or a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _uncompressed(file: io.FileIO) -> t.Iterator[bytes]:
    with gzip.GzipFile(fileobj=file, mode="rb") as stream:
        yield from iter(lambda: stream.read(CHUNK), b"")


def _stored(file: io.FileIO, status: os.stat_result) -> t.Iterator[bytes]:
    """A file's bytes. Holes are skipped: lastlog may have a nominal size of many GB."""
    sparse = status.st_blocks * 512 < status.st_size
    while not sparse or _to_data(file):
        piece = file.read(CHUNK)
        if not piece:
            return
        yield piece


def _to_data(file: io.FileIO) -> bool:
    """Seek to the next data; return whether there is any."""
    try:
        file.seek(file.tell(), os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return False
        # A file system that does not report holes: read them, too.
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    return True
