# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What the watchdog asks an engine, and the edge about it."""

from __future__ import annotations

import threading
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_text
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy
from ansible_collections.inference.fleet.plugins.module_utils.edge import state as edge_state
from ansible_collections.inference.fleet.plugins.module_utils.edge.drain import Paths
from ansible_collections.inference.fleet.plugins.module_utils.engines.base import Vitals
from ansible_collections.inference.fleet.plugins.module_utils.engines.metrics import METRICS_PATH
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES
from ansible_collections.inference.fleet.plugins.module_utils.gate.chat import CHAT_PATH
from ansible_collections.inference.fleet.plugins.module_utils.gate.record import key_in
from ansible_collections.inference.fleet.plugins.module_utils.net.http import HttpClient, HttpFailure
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.host import WatchedInstance

#: Seconds for one answer of an engine's metrics or health.
TIMEOUT = 5.0
#: Seconds for the question of one token; the judge has made up its mind long before.
_QUESTION_TIMEOUT = 120.0


class EngineReading(t.NamedTuple):
    """An engine's counters.

    Attributes:
        heard: whether its HTTP server answered, with whatever.
        progress: see judge.EngineLook.
        running: requests by its own count.
        finished: requests since it started.
    """

    heard: bool
    progress: t.Hashable = None
    running: int = 0
    finished: int = 0


class TokenQuestion:
    """A completion of one token, asked in the background: a core that hangs never answers it."""

    def __init__(self, instance: WatchedInstance, key_path: str) -> None:
        self._instance = instance
        self._key_path = key_path
        self._thread: threading.Thread | None = None
        self._answered = threading.Event()

    @property
    def waits(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def take_answer(self) -> bool:
        """Whether it was answered since the last call."""
        answered = self._answered.is_set()
        self._answered.clear()
        return answered

    def ask(self) -> None:
        """Ask, unless a question waits for its answer already: they would pile up at the engine."""
        if not self.waits:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        document = {
            "model": self._instance.model,
            "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 1,
            "temperature": 0,
        }
        try:
            key = key_in(read_text(self._key_path) or "", self._key_path)
            client = HttpClient(self._instance.url, key, timeout=_QUESTION_TIMEOUT)
            # A refusal comes from the HTTP server and says nothing of the core.
            if client.post(CHAT_PATH, document).status == 200:
                self._answered.set()
        except (HttpFailure, FleetError, OSError):
            return


def read_counters(instance: WatchedInstance, timeout: float = TIMEOUT) -> EngineReading:
    """The engine's counters."""
    engine = ENGINES[instance.engine]
    try:
        reply = HttpClient(instance.url, timeout=timeout).get(METRICS_PATH)
    except HttpFailure:
        return EngineReading(heard=False)
    if reply.status != 200 or engine.vitals is None or engine.counters is None:
        return EngineReading(heard=True)
    waits = (engine.counters.running, engine.counters.waiting)
    return parse_counters(reply.text(), engine.vitals, waits)


def parse_counters(text: str, vitals: Vitals, waits: tuple[str, ...]) -> EngineReading:
    """The counters in an exposition. Pure.

    Args:
        text: the exposition.
        vitals: of the engine.
        waits: the names of the gauges of requests in flight.
    """
    names = (*(name for _how, name in vitals.progress), *waits)
    progress = tuple(line for line in text.splitlines() if line.startswith(names))
    finished = _sum(text, (vitals.finished,))
    return EngineReading(True, progress or None, int(_sum(text, waits)), int(finished))


def requests_at(instance: WatchedInstance, edge: Paths) -> int:
    """The requests that the edge has sent to the instance and that are not over; 0 where there is no edge."""
    count = 0
    for worker in haproxy.workers(edge.socket, edge.master_socket):
        try:
            rows = worker.statistics()
        except haproxy.WorkerGone:
            continue
        for row in rows:
            if row["pxname"].startswith(edge_state.BACKEND_PREFIX) and row.get("svname") == instance.server:
                count += int(row.get("scur") or 0)
    return count


def _sum(text: str, names: tuple[str, ...]) -> float:
    """The sum of all samples of some metrics; zero or not is what counts, so ranks may be counted twice."""
    total = 0.0
    for line in text.splitlines():
        if not line.startswith(names) or line.partition(" ")[0].partition("{")[0] not in names:
            continue
        try:
            total += float(line.rpartition(" ")[2])
        except ValueError:
            continue
    return total
