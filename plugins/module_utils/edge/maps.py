# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""One of HAProxy's maps, in its file and in every running process."""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_text, write_atomically
from ansible_collections.inference.fleet.plugins.module_utils.core.modes import make_directories
from ansible_collections.inference.fleet.plugins.module_utils.edge.haproxy import Worker, WorkerGone
from ansible_collections.inference.fleet.plugins.module_utils.edge.state import Entries, parse_map, render_map

# HAProxy's master reads it as root before the workers drop their rights.
_MODE = 0o640


class EdgeMap:
    """A map of the edge.

    Args:
        path: its file, which is also its name at run time.
        title: the comment in the file.
        workers: the running processes.
        mode: of the file.
    """

    def __init__(self, path: str, title: str, workers: list[Worker], mode: int = _MODE) -> None:
        self._path = path
        self._title = title
        self._workers = workers
        self._mode = mode

    def entries(self) -> Entries | None:
        """The content of the file; None where there is no file."""
        text = read_text(self._path)
        return None if text is None else parse_map(text)

    def live_entries(self) -> list[Entries]:
        """The content in each process that has the map; empty where none has it."""
        found = []
        for worker in self._workers:
            with contextlib.suppress(WorkerGone):
                entries = worker.map_entries(self._path)
                if entries is not None:
                    found.append(entries)
        return found

    def differs(self, wanted: Entries) -> bool:
        """Whether the file or a process differs from ``wanted``."""
        return self._file_differs(wanted) or any(True for _worker in self._differing(wanted))

    def make(self, wanted: Entries) -> None:
        """Write the file, then update each process.

        In this order because a process that starts in between reads the file.

        Raises:
            FleetError: the file cannot be written, or a process refuses.
        """
        if self._file_differs(wanted):
            try:
                make_directories(os.path.dirname(self._path))
                write_atomically(self._path, render_map(self._title, self._for_file(wanted)), mode=self._mode)
            except OSError as error:
                raise FleetError(
                    f"{self._path} cannot be written ({error.strerror}); the running edge was not changed either. "
                    "Free the disk or correct the directory's rights, then run again."
                ) from error
        self.make_live(wanted)

    def make_live(self, wanted: Entries) -> None:
        """Update each process, but not the file."""
        for worker, own in self._differing(wanted):
            with contextlib.suppress(WorkerGone):
                worker.replace_map(self._path, own)

    def _for_file(self, wanted: Entries) -> Entries:
        """The entries in the file's form."""
        return wanted

    def _for_worker(self, _worker: Worker, wanted: Entries) -> Entries:
        """The entries in a process's form."""
        return wanted

    def _differing(self, wanted: Entries) -> t.Iterator[tuple[Worker, Entries]]:
        """The processes whose map differs, each with the wanted content."""
        for worker in self._workers:
            with contextlib.suppress(WorkerGone):
                entries = worker.map_entries(self._path)
                own = self._for_worker(worker, wanted) if entries is not None else []
                if entries is not None and sorted(entries) != sorted(own):
                    yield worker, own

    def _file_differs(self, wanted: Entries) -> bool:
        if read_text(self._path) != render_map(self._title, self._for_file(wanted)):
            return True
        return stat.S_IMODE(os.stat(self._path).st_mode) != self._mode
