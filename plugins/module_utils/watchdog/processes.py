# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The processes of a unit: which one is the engine's core, and their end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.processes import parent, runs, start_ticks

_POLL = 0.1


class EngineProcess(t.NamedTuple):
    """A process.

    Attributes:
        pid: its number.
        ticks: when it started, which tells it from a later one with the same number.
        command: its command line.
    """

    pid: int
    ticks: int | None
    command: str

    @property
    def runs(self) -> bool:
        return runs(self.pid, self.ticks)

    @property
    def state(self) -> str:
        """The kernel's letter for its state; empty when it has ended."""
        try:
            with open(f"/proc/{self.pid}/stat", encoding="utf-8", errors="replace") as file:
                return file.read().rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            return ""


def processes_of(main_pid: int, proc: str = "/proc") -> list[EngineProcess]:
    """The main process of a unit, and all of its descendants."""
    found = [main_pid]
    parents = {int(name): parent(int(name)) for name in os.listdir(proc) if name.isdigit()}
    for pid in found:
        found += [child for child, above in parents.items() if above == pid and child not in found]
    return [EngineProcess(pid, start_ticks(pid), _command(pid)) for pid in found]


def cores(processes: t.Sequence[EngineProcess], pattern: str) -> list[EngineProcess]:
    """Those that are the engine's core."""
    return [process for process in processes if re.search(pattern, process.command)]


def kill(processes: t.Sequence[EngineProcess]) -> None:
    """SIGKILL, to those that still are what they were."""
    for process in processes:
        if process.runs:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def kill_unit(unit: str) -> None:
    """SIGKILL to every process of a unit."""
    subprocess.run(["systemctl", "kill", "--signal=SIGKILL", unit], check=False, capture_output=True, timeout=30)


def wait_until_gone(
    processes: t.Sequence[EngineProcess], seconds: float, beat: t.Callable[[], None]
) -> list[EngineProcess]:
    """Those that still run when the time is over.

    Args:
        processes: to wait for.
        seconds: at most.
        beat: called while it waits.
    """
    ends = time.monotonic() + seconds
    while True:
        left = [process for process in processes if process.runs]
        if not left or time.monotonic() >= ends:
            return left
        beat()
        time.sleep(_POLL)


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""
