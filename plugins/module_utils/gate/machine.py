# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The current speed and load of the machine under a gate."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import typing as t

from ..core.errors import FleetError
from ..edge.haproxy import MASTER_SOCKET, SOCKET, WorkerGone, workers
from ..edge.state import BACKEND_PREFIX

# An engine's step ends with the last of its threads, so the work is shared out and waited for in steps, too.
_THREADS = 8
_STEPS = 12
_STEP = bytes(1024 * 1024)


class Machine:
    """The host of the gate.

    Args:
        socket: its edge's admin socket.
        master_socket: the socket of its edge's master process.
    """

    def __init__(self, socket: str = SOCKET, master_socket: str = MASTER_SOCKET) -> None:
        self._socket = socket
        self._master_socket = master_socket

    def work_ms(self) -> float:
        """Milliseconds that a fixed piece of work takes now: more while others use the processors."""
        threads = min(processors(), _THREADS)
        barrier = threading.Barrier(threads)
        began = time.monotonic()
        workers = [threading.Thread(target=_work, args=(barrier,)) for _number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return round((time.monotonic() - began) * 1000, 1)

    def load(self) -> dict[str, t.Any]:
        """The processors, their load (the mean of a minute), and the requests in the edge."""
        return {
            "load": round(os.getloadavg()[0], 2),
            "processors": processors(),
            "requests": self._requests(),
        }

    def _requests(self) -> int | None:
        """The requests in flight in the edge; None where there is no edge."""
        try:
            serving = workers(self._socket, self._master_socket)
            rows = [row for worker in serving for row in worker.statistics()]
        except (FleetError, OSError, WorkerGone):
            return None
        if not serving:
            return None
        backends = [row for row in rows if row.get("svname") == "BACKEND" and row["pxname"].startswith(BACKEND_PREFIX)]
        return sum(int(row.get("scur") or 0) + int(row.get("qcur") or 0) for row in backends)


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


def _work(barrier: threading.Barrier) -> None:
    for _step in range(_STEPS):
        # Large pieces are hashed without the interpreter's lock.
        hashlib.sha256(_STEP).digest()
        barrier.wait()
