# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Reads everything that the roles put on a host."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import grp
import hashlib
import os
import pwd
import stat
import subprocess
import typing as t

from ..core.errors import FleetError
from ..edge.haproxy import WorkerGone, workers
from .receipt import Findings

_CHUNK = 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Places:
    """What to read. Paths may have wildcards, so that new files are found, too.

    Attributes:
        contents: small files, and trees of them, whose content counts.
        sizes: large files, and trees of them, whose size and modification time count.
        modes: files and directories whose kind, owner and mode count.
        units: systemd's.
        maps: HAProxy's, by the names of their files.
        packages: names of packages that must be installed.
    """

    contents: list[str] = dataclasses.field(default_factory=list)
    sizes: list[str] = dataclasses.field(default_factory=list)
    modes: list[str] = dataclasses.field(default_factory=list)
    units: list[str] = dataclasses.field(default_factory=list)
    maps: list[str] = dataclasses.field(default_factory=list)
    packages: list[str] = dataclasses.field(default_factory=list)


def look(places: Places, socket: str, master_socket: str) -> Findings:
    """The present state.

    Args:
        places: what to read.
        socket: the admin socket of the host's HAProxy.
        master_socket: the socket of its master process.

    Raises:
        FleetError: systemd or the package database does not answer.
    """
    files: dict[str, str] = {}
    for patterns, walk, describe in (
        (places.modes, _itself, _mode),
        (places.sizes, _walk, _size),
        (places.contents, _walk, _content),
    ):
        for pattern in patterns:
            for path in sorted(glob.glob(pattern)):
                for one in walk(path):
                    with contextlib.suppress(FileNotFoundError):
                        files[one] = _described(describe, one)
    return {
        "file": files,
        "unit": _units(places.units),
        "package": _packages(places.packages),
        "edge": _edge(places.maps, socket, master_socket),
    }


def _described(describe: t.Callable[[str], str], path: str) -> str:
    try:
        return describe(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        # A file that cannot be read differs from one that could be; why it cannot is for the role that needs it.
        return f"unreadable: {error.strerror}"


def _itself(path: str) -> t.Iterator[str]:
    yield path


def _walk(path: str) -> t.Iterator[str]:
    """A file, or everything in a directory and the directory itself."""
    yield path
    if os.path.isdir(path) and not os.path.islink(path):
        for directory, folders, files in os.walk(path):
            # Python's own, whatever has run.
            folders[:] = [name for name in folders if name != "__pycache__"]
            for name in folders + files:
                yield os.path.join(directory, name)


def _mode(path: str) -> str:
    status = os.lstat(path)
    owner, group = _user(status.st_uid), _group(status.st_gid)
    return f"{_kind(status.st_mode)} {stat.S_IMODE(status.st_mode):04o} {owner}:{group}"


def _size(path: str) -> str:
    # Models may be links into a store of blobs: the targets count.
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        return _mode(path)
    return f"{_mode(path)} {status.st_size} {status.st_mtime_ns}"


def _content(path: str) -> str:
    status = os.lstat(path)
    described = _mode(path)
    if stat.S_ISLNK(status.st_mode):
        return f"{described} {os.readlink(path)}"
    if stat.S_ISREG(status.st_mode):
        return f"{described} sha256:{_digest(path)}"
    return described


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while True:
            chunk = file.read(_CHUNK)
            if not chunk:
                return digest.hexdigest()
            digest.update(chunk)


def _kind(mode: int) -> str:
    for is_kind, name in ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"), (stat.S_ISLNK, "link")):
        if is_kind(mode):
            return name
    return "special"


def _user(number: int) -> str:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(number).pw_name
    return str(number)


def _group(number: int) -> str:
    with contextlib.suppress(KeyError):
        return grp.getgrgid(number).gr_name
    return str(number)


def _units(names: list[str]) -> dict[str, str]:
    if not names:
        return {}
    words = ["systemctl", "show", "--property", "ActiveState,UnitFileState,NeedDaemonReload", *names]
    sections = _output(words).strip().split("\n\n")
    found = {}
    for name, section in zip(names, sections):
        values = dict(line.split("=", 1) for line in section.splitlines() if "=" in line)
        state = f"{values.get('ActiveState') or 'unknown'} {values.get('UnitFileState') or 'absent'}"
        found[name] = state + (" unread" if values.get("NeedDaemonReload") == "yes" else "")
    return found


def _packages(names: list[str]) -> dict[str, str]:
    if not names:
        return {}
    installed = _output(["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\\n"])
    states = dict(line.split(" ", 1) for line in installed.splitlines() if " " in line)
    return {name: states.get(name, "absent") for name in names}


def _edge(maps: list[str], socket: str, master_socket: str) -> dict[str, str]:
    """The maps in the memory of HAProxy's processes, except those that only finish their requests."""
    if not maps:
        return {}
    serving = workers(socket, master_socket)[:1]
    found = {"process": "runs" if serving else "absent"}
    for worker in serving:
        with contextlib.suppress(WorkerGone):
            for path in maps:
                entries = worker.map_entries(path)
                text = "absent" if entries is None else "\n".join(" ".join(entry) for entry in sorted(entries))
                found[path] = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
            for server in worker.servers():
                found[f"{server.backend}/{server.name}"] = "drained" if server.draining else "serving"
    return found


def _output(words: list[str]) -> str:
    try:
        environment = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30, env=environment)
    except (OSError, subprocess.SubprocessError) as error:
        raise FleetError(f"{words[0]} does not answer on this host ({error}). Look at it there, as root.") from error
    return done.stdout
