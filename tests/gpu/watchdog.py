"""The watchdog on a machine without systemd: the product's program in its unit, what it says, and what it may see."""

from __future__ import annotations

import contextlib
import re
import threading
import time
import typing as t
from pathlib import Path

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.paths import STATE_DIRECTORY
from ansible_collections.inference.fleet.plugins.module_utils.edge.drain import Paths
from ansible_collections.inference.fleet.plugins.module_utils.watchdog import engine
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.host import WatchedInstance
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.judge import EngineLook, HangJudge, HangLimits
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.unit import UNIT

from tests.gpu import units
from tests.gpu.hosts import CommandError, Host

HANGS = Path(STATE_DIRECTORY, "hangs")
_METRICS = Path(STATE_DIRECTORY, "metrics/watchdog.prom")
_SAMPLE = re.compile(r"^fleet_watchdog_(\w+)\{[^}]*\} (\S+)$", re.MULTILINE)
#: Seconds between two looks of this test; the watchdog's are two seconds apart.
_INTERVAL = 0.5


class Watchdog:
    """The watchdog of this machine.

    Args:
        host: this machine.
        limits: options of module engine_watchdog.
    """

    def __init__(self, host: Host, **limits: t.Any) -> None:
        self._host = host
        self._limits = limits
        self._lines = 0

    def install(self, mode: str) -> None:
        """Have the module install it, which starts it.

        Raises:
            CommandError: the module failed.
        """
        done = self._host.module("engine_watchdog", mode=mode, **self._limits)
        if done.get("failed"):
            raise CommandError(done["msg"])
        # Its journal begins with each start.
        self._lines = 0

    def said(self, since: float = 0.0) -> list[str]:
        """What it has said since the last call, each line after its seconds since a Unix time."""
        lines = units.journal_of(UNIT)
        new, self._lines = lines[self._lines :], len(lines)
        return [f"{at - since:.1f} {text}" if since else text for at, text in new]


def metrics() -> dict[str, float]:
    """Its metrics of the first instance, without their prefix."""
    with contextlib.suppress(FileNotFoundError):
        return {name: float(value) for name, value in _SAMPLE.findall(_METRICS.read_text(encoding="utf-8"))}
    return {}


class Stillness(threading.Thread):
    """Looks at an instance as its watchdog does, more often, and keeps the longest time without progress.

    Args:
        instance: as the watchdog finds it.
    """

    def __init__(self, instance: WatchedInstance) -> None:
        super().__init__(daemon=True)
        self._instance = instance
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._judge: HangJudge | None = None
        self._heard_at = 0.0
        self._found: dict[str, t.Any] = {}
        self.finished = 0
        self.running = 0

    def __enter__(self) -> Stillness:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        self.join()

    def begin(self) -> None:
        """A new start serves."""
        with self._lock:
            self._heard_at = time.monotonic()
            self._judge = HangJudge(HangLimits(idle=0, interval=_INTERVAL), self._heard_at)
            self._found = {}
        self._look()

    def rest(self) -> None:
        """Judge nothing until the next start."""
        with self._lock:
            self._judge = None

    def take(self) -> dict[str, t.Any]:
        """What was seen since the last call."""
        with self._lock:
            found, self._found = self._found, {}
        return {name: sorted(value) if isinstance(value, set) else round(value, 2) for name, value in found.items()}

    def run(self) -> None:
        while not self._ended.wait(_INTERVAL):
            self._look()

    def _look(self) -> None:
        began = time.monotonic()
        reading = engine.read_counters(self._instance)
        at = time.monotonic()
        at_edge = 0
        with contextlib.suppress(FleetError, OSError):
            at_edge = engine.requests_at(self._instance, Paths())
        with self._lock:
            if self._judge is None:
                return
            self._heard_at = at if reading.heard else self._heard_at
            working = reading.running > 0 or at_edge > 0
            look = EngineLook(at, began, reading.heard, reading.progress, working, reading.finished)
            verdict = self._judge.see(look)
            self.finished = max(reading.finished, self.finished if not reading.heard else 0)
            self.running = reading.running
            self._keep("longest_without_progress_s", verdict.quiet if working and reading.heard else 0.0)
            self._keep("longest_without_http_s", at - self._heard_at)
            self._keep("slowest_metrics_s", at - began)
            self._keep("most_running", reading.running)
            self._found.setdefault("verdicts", set()).add(int(metrics().get("verdict", -1)))

    def _keep(self, name: str, value: float) -> None:
        self._found[name] = max(self._found.get(name, 0.0), value)
