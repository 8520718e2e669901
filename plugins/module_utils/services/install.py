# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Installing and removing a service of ours on a host: its program, its units, and whether they run."""

from __future__ import annotations

import os
import stat

from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_text, write_atomically
from ansible_collections.inference.fleet.plugins.module_utils.core.modes import make_directories
from ansible_collections.inference.fleet.plugins.module_utils.core.systemd import systemctl, unit_state

_MODE = 0o644


class ServiceFiles:
    """The service's files, and its state in systemd.

    Args:
        unit: the name of the unit that is enabled and started: a service, or the timer of one.
        unit_directory: of systemd.
        program_path: where the program is.
        check: change nothing, return what would change.
        timed: the name of the unit that the timer starts; empty where the unit is a service.
    """

    def __init__(self, unit: str, unit_directory: str, program_path: str, check: bool, timed: str = "") -> None:
        self._name = unit
        self._unit = os.path.join(unit_directory, unit)
        self._timed = os.path.join(unit_directory, timed) if timed else ""
        target = "timers" if timed else "multi-user"
        self._link = os.path.join(unit_directory, f"{target}.target.wants", unit)
        self._program = program_path
        self._check = check
        self.actions: list[str] = []

    def unit_text(self) -> str:
        """The installed unit, or that which the timer starts; empty where there is none."""
        return read_text(self._timed or self._unit) or ""

    def install(self, program: bytes, unit: str, timed: str = "") -> None:
        """Make the service run with this program and this unit; ``timed`` is the unit that a timer starts."""
        changed = [self._write(self._program, program), self._write(self._unit, unit.encode())]
        if self._timed:
            changed.append(self._write(self._timed, timed.encode()))
        if any(changed[1:]):
            self._systemctl("daemon-reload")
        if not os.path.lexists(self._link):
            self.actions.append(f"enable {self._name}")
            self._systemctl("enable", "--quiet", self._name)
        if any(changed) or not self._runs():
            self.restart()

    def restart(self) -> None:
        """Start the service, also where it runs: it keeps its state in files, so nothing is interrupted."""
        self.actions.append(f"start {self._name}")
        self._systemctl("restart", self._name)

    def remove(self) -> None:
        """Stop the service and remove its files."""
        present = [path for path in (self._unit, self._timed, self._program) if path and os.path.lexists(path)]
        if self._unit in present:
            self._systemctl("disable", "--quiet", "--now", self._name)
        for path in present:
            self.actions.append(f"remove {path}")
            if not self._check:
                os.unlink(path)
        if self._unit in present:
            self._systemctl("daemon-reload")

    def _runs(self) -> bool:
        return unit_state(self._name).active in ("active", "activating")

    def _write(self, path: str, content: bytes) -> bool:
        if _content(path) == content and stat.S_IMODE(os.stat(path).st_mode) == _MODE:
            return False
        self.actions.append(f"write {path}")
        if not self._check:
            make_directories(os.path.dirname(path))
            write_atomically(path, content, mode=_MODE)
        return True

    def _systemctl(self, *words: str) -> None:
        if not self._check:
            systemctl(*words)


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
