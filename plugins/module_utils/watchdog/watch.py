# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The program of inference-watchdog.service: finds engines that hang, and restarts them.

Module engine_watchdog installs it. What it must remember is in a file, so it may end at any moment. While it is gone
HAProxy keeps its last answer, and nothing else changes.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import write_atomically
from ansible_collections.inference.fleet.plugins.module_utils.core.modes import make_directories
from ansible_collections.inference.fleet.plugins.module_utils.core.paths import ENGINE_ROOT, STATE_DIRECTORY
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy
from ansible_collections.inference.fleet.plugins.module_utils.edge import state as edge_state
from ansible_collections.inference.fleet.plugins.module_utils.edge.drain import Paths
from ansible_collections.inference.fleet.plugins.module_utils.rollout import claim
from ansible_collections.inference.fleet.plugins.module_utils.watchdog import agent, exposition
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.decision import ACT, OBSERVE, Damping
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.evidence import Evidence
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.history import HistoryFile
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.host import WatchedHost, WatchedInstance
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.instance import Watch, WatchSettings
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.judge import HangLimits
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.notify import notify

#: Where node exporter reads metrics of ours.
METRICS_DIRECTORY = f"{STATE_DIRECTORY}/metrics"
_METRICS = "watchdog.prom"
#: Seconds between two writes of the metrics where nothing changed.
_METRICS_SECONDS = 15.0
# A step of one instance (its evidence, a kill, a gate) may take longer than a look; systemd must see a hang of the
# watchdog itself.
_BEAT_SECONDS = 400.0


class Watchman:
    """The loop over all instances, each in a thread of its own: one that does not answer holds up no other.

    Args:
        host: its files.
        history: what is remembered.
        settings: how to work.
        evidence: collects it.
        metrics_path: the text file of metrics.
        say: prints a line for people.
    """

    def __init__(
        self,
        host: WatchedHost,
        history: HistoryFile,
        settings: WatchSettings,
        evidence: Evidence,
        metrics_path: str,
        say: t.Callable[[str], None],
    ) -> None:
        self._host = host
        self._history = history
        self._settings = settings
        self._evidence = evidence
        self._metrics_path = metrics_path
        self._print = say
        self._watches: dict[WatchedInstance, Watch] = {}
        self._beats: dict[WatchedInstance, float] = {}
        self._ended = threading.Event()
        self._metrics = ""
        self._metrics_at = 0.0
        self._problem = ""

    def answer(self, server: str) -> str:
        """For HAProxy's agent check of a server; one that is not known is up."""
        for instance, watch in list(self._watches.items()):
            if instance.server == server:
                return watch.answer()
        index = edge_state.server_index(server)
        remembered = self._history.of(index).phase if index is not None and self._settings.mode == ACT else ""
        return agent.down(remembered) if remembered else agent.UP

    def run(self) -> None:
        """Watch until ``stop``."""
        while not self._ended.is_set():
            self._refresh()
            self._write_metrics()
            now = time.monotonic()
            late = [instance.server for instance, beat in self._beats.items() if now - beat > _BEAT_SECONDS]
            if not late:
                notify(f"WATCHDOG=1\nSTATUS=Watching {len(self._watches)} instances, mode {self._settings.mode}")
            self._ended.wait(self._settings.limits.interval)

    def stop(self) -> None:
        self._ended.set()

    def _refresh(self) -> None:
        """Watch the instances that there are now."""
        try:
            wanted = self._host.instances()
        except (FleetError, OSError, ValueError) as error:
            self._say_problem(f"The host's instances cannot be read: {error}")
            return
        for instance in [one for one in self._watches if one not in wanted]:
            del self._watches[instance]
            self._beats.pop(instance, None)
        for instance in wanted:
            if instance not in self._watches:
                self._begin(instance)

    def _begin(self, instance: WatchedInstance) -> None:
        self._beats[instance] = time.monotonic()

        def beat() -> None:
            if instance in self._beats:
                self._beats[instance] = time.monotonic()

        settings = self._settings
        watch = Watch(instance, self._host, self._history, settings, self._evidence, self._print, beat)
        self._watches[instance] = watch
        threading.Thread(target=self._watch, args=(instance, watch, beat), daemon=True).start()

    def _watch(self, instance: WatchedInstance, watch: Watch, beat: t.Callable[[], None]) -> None:
        while not self._ended.is_set() and self._watches.get(instance) is watch:
            began = time.monotonic()
            beat()
            try:
                watch.tick()
            except (FleetError, OSError, ValueError) as error:
                self._say_problem(f"{instance.server} is not judged: {error}")
            self._ended.wait(max(0.0, began + self._settings.limits.interval - time.monotonic()))

    def _write_metrics(self) -> None:
        instances = {one.number: (watch.state, watch.history) for one, watch in self._watches.items()}
        now = time.time()
        state = exposition.render(self._settings.mode, instances, 0)
        if state == self._metrics and time.monotonic() - self._metrics_at < _METRICS_SECONDS:
            return
        self._metrics, self._metrics_at = state, time.monotonic()
        try:
            write_atomically(self._metrics_path, exposition.render(self._settings.mode, instances, now))
        except OSError as error:
            self._say_problem(f"{self._metrics_path} cannot be written: {error.strerror}")
        if self._history.problem:
            self._say_problem(self._history.problem)

    def _say_problem(self, text: str) -> None:
        if text != self._problem:
            self._problem = text
            self._print(text)


def parse(arguments: t.Sequence[str] | None = None) -> argparse.Namespace:
    """The program's options."""
    limits, damping = HangLimits(), Damping()
    parser = argparse.ArgumentParser(description="Find engines that hang, and restart them.")
    parser.add_argument("--mode", choices=(ACT, OBSERVE), default=ACT)
    parser.add_argument("--quiet", type=float, default=limits.quiet, metavar="SECONDS")
    parser.add_argument("--confirm", type=float, default=limits.confirm, metavar="SECONDS")
    parser.add_argument("--silent", type=float, default=limits.silent, metavar="SECONDS")
    parser.add_argument("--idle", type=float, default=limits.idle, metavar="SECONDS")
    parser.add_argument("--interval", type=float, default=limits.interval, metavar="SECONDS")
    parser.add_argument("--pause", type=float, default=damping.pause, metavar="SECONDS")
    parser.add_argument("--most", type=int, default=damping.most, metavar="RESTARTS")
    parser.add_argument("--window", type=float, default=damping.window, metavar="SECONDS")
    parser.add_argument("--port", type=int, default=agent.PORT)
    parser.add_argument("--root", default=ENGINE_ROOT, metavar="DIRECTORY")
    parser.add_argument("--state", default=STATE_DIRECTORY, metavar="DIRECTORY")
    parser.add_argument("--stacks", default="", metavar="FILE")
    parser.add_argument("--config", default=edge_state.CONFIG_PATH, metavar="FILE")
    parser.add_argument("--record", default=edge_state.DRAIN_RECORD_PATH, metavar="FILE")
    parser.add_argument("--claim", default=claim.PATH, metavar="FILE")
    parser.add_argument("--socket", default=haproxy.SOCKET, metavar="FILE")
    parser.add_argument("--master-socket", default=haproxy.MASTER_SOCKET, metavar="FILE")
    parser.add_argument("--key", default=WatchSettings.key_path, metavar="FILE")
    return parser.parse_args(arguments)


def main() -> None:
    """Watch until SIGTERM; a sentence says why it cannot."""
    try:
        _run(parse())
    except FleetError as error:
        raise SystemExit(f"The watchdog cannot start: {error}") from error


def _run(options: argparse.Namespace) -> None:
    os.umask(0o022)
    state = options.state
    make_directories(os.path.join(state, "metrics"))
    edge = Paths(options.config, edge_state.DRAIN_MAP_PATH, options.record, options.socket, options.master_socket)
    host = WatchedHost(options.root, edge, options.claim)
    settings = WatchSettings(
        mode=options.mode,
        limits=HangLimits(
            options.quiet, options.confirm, silent=options.silent, idle=options.idle, interval=options.interval
        ),
        damping=Damping(options.pause, options.most, options.window),
        key_path=options.key,
        gate_directory=os.path.join(state, "gate"),
    )
    evidence = Evidence(os.path.join(state, "hangs"), options.stacks, edge)
    history = HistoryFile(os.path.join(state, "watchdog.json"))
    watchman = Watchman(host, history, settings, evidence, os.path.join(state, "metrics", _METRICS), _print)
    answers = agent.Agent(options.port, watchman.answer)
    answers.start()
    signal.signal(signal.SIGTERM, lambda _number, _frame: watchman.stop())
    notify("READY=1")
    _print(
        f"Watching, mode {settings.mode}: a question after {options.quiet:g} s without progress, a hang "
        f"{options.confirm:g} s later."
    )
    watchman.run()
    answers.stop()


def _print(text: str) -> None:
    print(text, flush=True)
