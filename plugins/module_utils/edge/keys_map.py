# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The edge's map of keys, in the version that its file and each process can read."""

from __future__ import annotations

import contextlib
import functools

from ansible_collections.inference.fleet.plugins.module_utils.clients import edge_values
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_text
from ansible_collections.inference.fleet.plugins.module_utils.edge.haproxy import Worker, WorkerGone
from ansible_collections.inference.fleet.plugins.module_utils.edge.maps import EdgeMap
from ansible_collections.inference.fleet.plugins.module_utils.edge.state import Entries

_TITLE = "SHA-256 of a client's key, and the client. Written by module edge_keys."


class KeysMap(EdgeMap):
    """The map in which the edge looks up the hash of a key.

    A process states in its description which version its configuration reads. One that an earlier collection configured
    gets the first version until its configuration is replaced, so that it refuses no key meanwhile. The values in and
    out of this class have the latest version.

    Args:
        path: its file.
        workers: the running processes.
        config_path: HAProxy's configuration, which determines the file's version where no process runs.
    """

    def __init__(self, path: str, workers: list[Worker], config_path: str) -> None:
        super().__init__(path, _TITLE, workers)
        self._config_path = config_path

    def entries(self) -> Entries | None:
        found = super().entries()
        return None if found is None else self._latest(found, self._path)

    def live_entries(self) -> list[Entries]:
        return [self._latest(entries, f"A running HAProxy's {self._path}") for entries in super().live_entries()]

    @functools.cached_property
    def file_version(self) -> int:
        """The version of the file, which the running configuration will read next."""
        for worker in self._workers:
            with contextlib.suppress(WorkerGone):
                if worker.map_entries(self._path) is not None:
                    return edge_values.version_read(worker.information())
        config = read_text(self._config_path) or ""
        return edge_values.version_read(config) if self._path in config else edge_values.VERSION

    def _for_file(self, wanted: Entries) -> Entries:
        return _in_version(wanted, self.file_version)

    def _for_worker(self, worker: Worker, wanted: Entries) -> Entries:
        return _in_version(wanted, edge_values.version_read(worker.information()))

    def _latest(self, entries: Entries, where: str) -> Entries:
        for _digest, value in entries:
            edge_values.check_version(value, where)
        return _in_version(entries, edge_values.VERSION)


def _in_version(entries: Entries, version: int) -> Entries:
    return [(digest, edge_values.in_version(value, version)) for digest, value in entries]
