# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What is kept of a hang before the engine is killed: its stacks, what it was doing, and for which clients."""

from __future__ import annotations

import glob
import json
import os
import shutil
import threading
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import systemd, times
from ansible_collections.inference.fleet.plugins.module_utils.core.files import write_atomically
from ansible_collections.inference.fleet.plugins.module_utils.core.modes import make_directories
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy
from ansible_collections.inference.fleet.plugins.module_utils.edge import state as edge_state
from ansible_collections.inference.fleet.plugins.module_utils.edge.drain import Paths
from ansible_collections.inference.fleet.plugins.module_utils.engines.metrics import METRICS_PATH
from ansible_collections.inference.fleet.plugins.module_utils.gpu.host import run
from ansible_collections.inference.fleet.plugins.module_utils.net.http import HttpClient, HttpFailure
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.host import WatchedInstance
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.processes import EngineProcess

#: Directories that are kept.
KEPT = 10
#: Seconds for one step; all steps run at once.
LIMIT = 5.0
_LINES = 200


class Evidence:
    """Collects the evidence of one hang.

    Args:
        directory: of all hangs.
        stacks: a program like py-spy, that prints the stacks of a Python process; empty for none.
        edge: the edge's files.
    """

    def __init__(self, directory: str, stacks: str, edge: Paths) -> None:
        self._directory = directory
        self._stacks = stacks
        self._edge = edge

    def collect(
        self, instance: WatchedInstance, verdict: str, processes: t.Sequence[EngineProcess], quiet_since: float
    ) -> str:
        """Write everything that can be had within LIMIT seconds.

        Args:
            instance: the instance.
            verdict: what was found, for people.
            processes: of its unit.
            quiet_since: Unix time of its last progress.

        Returns:
            The directory.

        Raises:
            OSError: it cannot be made; the disk is full, for example.
        """
        path = os.path.join(self._directory, f"{times.now().replace(':', '')}-{instance.server}")
        make_directories(path)
        steps: dict[str, t.Callable[[], str]] = {
            "requests.json": lambda: self._requests(instance),
            "metrics.txt": lambda: _metrics(instance),
            "journal.txt": lambda: "\n".join(systemd.journal(instance.unit, lines=_LINES)) + "\n",
            "kernel.txt": lambda: _output(
                ["journalctl", "-k", "-q", "--no-pager", "-o", "short-iso", "--since", f"@{quiet_since:.0f}"]
            ),
            "nvidia-smi.txt": lambda: _output(["nvidia-smi", "-q"]),
            "processes.txt": lambda: "\n\n".join(_process(process) for process in processes) + "\n",
        }
        for process in processes:
            steps[f"stack-{process.pid}.txt"] = lambda pid=process.pid: self._stack(pid)  # type: ignore[misc]
        self._write(path, "hang.txt", f"{verdict}\n")
        threads = [
            threading.Thread(target=self._step, args=(path, name, step), daemon=True) for name, step in steps.items()
        ]
        ends = time.monotonic() + LIMIT + 1
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, ends - time.monotonic()))
        self._prune()
        return path

    def _step(self, path: str, name: str, step: t.Callable[[], str]) -> None:
        try:
            text = step()
        # What cannot be had must not keep the engine from its restart.
        except Exception as error:
            text = f"not available: {type(error).__name__}: {error}\n"
        self._write(path, name, text)

    def _write(self, path: str, name: str, text: str) -> None:
        try:
            write_atomically(os.path.join(path, name), text, mode=0o600)
        except OSError:
            return

    def _requests(self, instance: WatchedInstance) -> str:
        found = []
        for worker in haproxy.workers(self._edge.socket, self._edge.master_socket):
            found += worker.requests(edge_state.BACKEND_PREFIX, edge_state.ROUNDS_PREFIX, edge_state.INFLIGHT_TABLE)
        own = [request.as_dict() for request in found if request.server == instance.server]
        return json.dumps(own, indent=1) + "\n"

    def _stack(self, pid: int) -> str:
        if not self._stacks:
            return "no program for stacks is installed (watchdog_stacks)\n"
        # A stopped process cannot be stopped again, so it is read as it runs.
        return _output([self._stacks, "dump", "--nonblocking", "--pid", str(pid)])

    def _prune(self) -> None:
        for old in sorted(glob.glob(os.path.join(glob.escape(self._directory), "*-*")))[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)


def _metrics(instance: WatchedInstance) -> str:
    try:
        return HttpClient(instance.url, timeout=LIMIT).get(METRICS_PATH).text()
    except HttpFailure as failure:
        return f"not available: {failure.said}\n"


def _output(argv: list[str]) -> str:
    answer = run(argv, LIMIT)
    return answer.text if answer.rc == 0 else f"{argv[0]} ended with {answer.rc}\n{answer.text}"


def _process(process: EngineProcess) -> str:
    lines = [f"{process.pid} {process.command}"]
    for name in ("status", "wchan", "stack"):
        try:
            with open(f"/proc/{process.pid}/{name}", encoding="utf-8", errors="replace") as file:
                lines.append(f"-- {name}\n{file.read().strip()}")
        except OSError as error:
            lines.append(f"-- {name}: {error.strerror}")
    return "\n".join(lines)
