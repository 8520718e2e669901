# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The identity of a process: a pid is reused, a pid with its start time is not (until the next boot)."""

from __future__ import annotations

import os
import time


def start_ticks(pid: int) -> int | None:
    """Clock ticks from boot to the start of ``pid``; None when it has ended (a zombie has)."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] not in "ZX" else None


def parent(pid: int) -> int:
    """The parent of ``pid``; 0 when there is none, or ``pid`` has ended."""
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def started_at(pid: int) -> float | None:
    """Unix time of the start of ``pid``, to some hundredths of a second; None when it has ended."""
    ticks = start_ticks(pid)
    if ticks is None:
        return None
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return booted + ticks / os.sysconf("SC_CLK_TCK")


def runs(pid: int, ticks: int | None) -> bool:
    """Whether the process that start_ticks() described still runs."""
    return ticks is not None and start_ticks(pid) == ticks


def _stat(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat from the third one on; none when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            stat = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return []
    # The second field, the name, may contain spaces and brackets: count from the last bracket.
    return stat.rpartition(")")[2].split()
