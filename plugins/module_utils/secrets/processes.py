# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Searches the arguments and environments of processes for known keys."""

from __future__ import annotations

import os
import pwd

from ansible_collections.inference.fleet.plugins.module_utils.core.processes import parent
from ansible_collections.inference.fleet.plugins.module_utils.secrets.scan import CHUNK, PROCESS, Search

_PARTS = {"cmdline": "arguments", "environ": "environment"}
_INIT = 1


def own_processes() -> set[int]:
    """This process and its ancestors, except the first process, which serves everybody."""
    found = set()
    pid = os.getpid()
    while pid > 0:
        found.add(pid)
        pid = parent(pid)
    return found - {_INIT}


def search_processes(search: Search, proc: str = "/proc") -> None:
    """Search all processes except own_processes().

    Args:
        search: the keys to look for; collects the findings.
        proc: the path of procfs.
    """
    own = own_processes()
    for name in os.listdir(proc):
        if name.isdigit() and int(name) not in own:
            _search_process(search, os.path.join(proc, name))


def _search_process(search: Search, directory: str) -> None:
    search.searched["processes"] += 1
    for file_name, part in _PARTS.items():
        matcher = search.matcher()
        try:
            with open(os.path.join(directory, file_name), "rb", buffering=0) as file:
                for piece in iter(lambda: file.read(CHUNK), b""):
                    matcher.feed(piece)
        except (FileNotFoundError, ProcessLookupError) as error:
            search.missed(PROCESS, f"pid {os.path.basename(directory)}", error)
            return
        except OSError as error:
            search.missed(PROCESS, _where(directory, part), error)
        if matcher.counts:
            search.found(PROCESS, _where(directory, part), matcher.counts)


def _where(directory: str, part: str) -> str:
    return f"{part} of pid {os.path.basename(directory)} ({_program(directory)}, user {_user(directory)})"


def _program(directory: str) -> str:
    try:
        with open(os.path.join(directory, "comm"), "rb") as file:
            return os.fsdecode(file.read().rstrip(b"\n"))
    except OSError:
        return "ended"


def _user(directory: str) -> str:
    try:
        uid = os.stat(directory).st_uid
    except OSError:
        return "unknown"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
