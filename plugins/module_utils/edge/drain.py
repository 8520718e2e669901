# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Draining and undraining a host or an instance: the record first, then HAProxy's servers and map."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import (
    locked,
    read_json,
    read_text,
    sync_directory,
    write_atomically,
)
from ansible_collections.inference.fleet.plugins.module_utils.core.modes import make_directories
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy
from ansible_collections.inference.fleet.plugins.module_utils.edge import state as edge_state
from ansible_collections.inference.fleet.plugins.module_utils.edge.maps import EdgeMap
from ansible_collections.inference.fleet.plugins.module_utils.engines import metrics
from ansible_collections.inference.fleet.plugins.module_utils.net.http import HttpClient, HttpFailure

_MAP_TITLE = "Whether this host is out of service. Written by module edge_drain."
_POLL_SECONDS = 0.5
_METRICS_TIMEOUT = 5.0
_WAITING = "nothing is announced any more, and no instance answers yet"


class Paths(t.NamedTuple):
    """The paths on the host."""

    config: str = edge_state.CONFIG_PATH
    map: str = edge_state.DRAIN_MAP_PATH
    record: str = edge_state.DRAIN_RECORD_PATH
    socket: str = haproxy.SOCKET
    master_socket: str = haproxy.MASTER_SOCKET


class MetricsEndpoint(t.NamedTuple):
    """The address of an instance's counters."""

    name: str
    url: str


@dataclasses.dataclass(frozen=True)
class Busy:
    """The remaining work.

    Attributes:
        requests: in flight or queued at the edge.
        engines: those that report work, or do not report that they have none.
        uncounted: those that have no counters.
    """

    requests: list[haproxy.EdgeRequest]
    engines: list[dict[str, t.Any]]
    uncounted: list[str]

    def __bool__(self) -> bool:
        return bool(self.requests or self.engines)


class EdgeDrain:
    """The drains of one host.

    Args:
        paths: the paths on the host.
        by: who drains: OPERATOR, ROLLOUT or AWS.
        reason: why, for the record.
        check: change nothing, return what would change.
    """

    def __init__(self, paths: Paths, by: str, reason: str, check: bool) -> None:
        self._paths = paths
        self._by = by
        self._reason = reason
        self._check = check
        self.actions: list[str] = []
        self.before = self._read()
        self.after = self.before

    def resolve(self, wanted: str | None) -> str | None:
        """The full name of an instance, from its name or index.

        Raises:
            FleetError: an operator named one that the edge does not have.
        """
        if wanted is None:
            return None
        instances = self._instances()
        found = edge_state.find_instance(instances, wanted)
        if found:
            return found.name
        # A rollout creates instances that the edge does not know yet.
        if self._by == edge_state.ROLLOUT and not wanted.isdigit():
            return wanted
        known = ", ".join(instance.name for instance in instances) or "none"
        raise FleetError(f"This host's edge has no instance {wanted}. It has: {known}.")

    def live(self) -> bool:
        """Whether HAProxy runs."""
        return bool(self._workers())

    def held_by(self, name: str | None) -> str | None:
        """The mark that keeps a rollout from changing the target or the whole host; None where there is none."""
        if self._by != edge_state.ROLLOUT:
            return None
        marks = [*self.after.marks, self.after.of(name)]
        found = {mark.by for mark in marks if mark}
        return next((by for by in (edge_state.OPERATOR, edge_state.AWS) if by in found), None)

    def keep(self) -> None:
        """Make HAProxy and its map match the record."""
        with self._lock():
            self._apply(self._read())

    def set(self, name: str | None, state: str | None) -> None:
        """Set the state of the host (name None) or an instance; None undrains it."""
        with self._lock():
            drains = self._read()
            wanted = edge_state.Mark(state, self._by, self._reason, times.now()) if state else None
            mark = edge_state.decide(drains.of(name), wanted, self._by)
            drains = drains.with_mark(name, mark)
            if name is None and wanted is None and drains.host is None:
                drains = dataclasses.replace(drains, aws=edge_state.undrain(drains.aws, self._by))
            self._apply(drains)

    def announce(self, notices: t.Sequence[str], lame_duck_seconds: float) -> None:
        """Take the next step of the drain for what AWS announces, without waiting. Repeat it until it is drained.

        Each call also makes HAProxy match the record, so that whatever ended the last one changes nothing.

        Args:
            notices: the identities of what AWS announces; the reason says it for people.
            lame_duck_seconds: how long the host is a lame duck.
        """
        with self._lock():
            drains = self._read()
            before = drains.aws
            is_new = before is None or before.state in (edge_state.OVERRIDDEN, edge_state.ENDING)
            out = drains.out
            can_notice = lame_duck_seconds > 0 and not (out and out.state == edge_state.DRAINED)
            after = edge_state.announce(
                before,
                edge_state.NoticeMark(edge_state.LAME_DUCK, self._reason, times.now(), tuple(notices)),
                can_notice=can_notice and (not is_new or self._last_one(None)),
                over=before is not None and _age(before.since) >= lame_duck_seconds,
            )
            if after.mark:
                self._apply(dataclasses.replace(drains, aws=after))

    def withdraw(self) -> bool:
        """End the drain for what AWS announced, once an instance answers; until then the mark says why it stays.

        Returns:
            Whether it has ended.
        """
        with self._lock():
            drains = self._read()
            if drains.aws is None:
                return True
            if drains.aws.mark and not self._answers():
                waiting = dataclasses.replace(drains.aws, reason=_WAITING, notices=())
                self._apply(dataclasses.replace(drains, aws=waiting))
                return False
            # In two steps: a record without the mark, and a map with it, would be a host that nothing puts back.
            self._apply(dataclasses.replace(drains, aws=dataclasses.replace(drains.aws, state=edge_state.ENDING)))
            self._apply(dataclasses.replace(drains, aws=None))
            return True

    def forget_notices(self) -> None:
        """End the drain for what AWS announced: nothing watches any more, so nothing else would end it."""
        with self._lock():
            drains = self._read()
            if drains.aws:
                self._apply(dataclasses.replace(drains, aws=None))

    def in_flight(self) -> Busy:
        """What the host still has to finish."""
        return self._busy(None, self._engines(None))

    def lame_duck(self, name: str | None, seconds: float) -> float:
        """Let /health return 503 while requests are served, for as long as a balancer needs to notice.

        Takes no time where the balancer has nothing to notice: the host is out of service already, or other instances
        serve on.

        Returns:
            The seconds that it took.
        """
        current, out = self.before.of(name), self.before.out
        if seconds <= 0 or self._check or (current and (current.state == edge_state.DRAINED or self.held_by(name))):
            return 0.0
        if out and out.state == edge_state.DRAINED:
            return 0.0
        if not self._last_one(name):
            return 0.0
        if name is None:
            self.set(None, edge_state.LAME_DUCK)
            if current:
                # It was a lame duck before this run: an earlier run was interrupted.
                seconds = max(0.0, seconds - _age(current.since))
        else:
            # Not recorded: it ends with this drain, and any later run corrects the map.
            self._map().make_live([("host", edge_state.LAME_DUCK)])
        time.sleep(seconds)
        return seconds

    def wait(self, name: str | None, engines: list[MetricsEndpoint] | None, seconds: float) -> tuple[Busy, float]:
        """Wait until nothing is in flight, twice in a row.

        Args:
            name: an instance, or None for the whole host.
            engines: whose counters to read as well; None reads those of the edge's configuration.
            seconds: the maximum wait.

        Returns:
            The remaining work, and the seconds that it took.
        """
        asked = self._engines(name) if engines is None else engines
        began = time.monotonic()
        quiet = 0
        while True:
            busy = self._busy(name, asked)
            quiet = 0 if busy else quiet + 1
            elapsed = time.monotonic() - began
            if quiet == 2 or elapsed >= seconds:
                return busy, elapsed
            time.sleep(min(_POLL_SECONDS, seconds - elapsed))

    def _apply(self, drains: edge_state.Drains) -> None:
        self.after = drains
        if drains != self._read():
            self.actions.append(f"record {json.dumps(drains.shown())}")
            if not self._check:
                self._write(drains)
        # Servers first: while one drains, a map that has changed already must not make /health return 200.
        self._set_servers(drains)
        entries = drains.map_entries()
        if self._map().differs(entries):
            self.actions.append(f"set the host to {drains.out.state if drains.out else edge_state.SERVING}")
            if not self._check:
                self._map().make(entries)

    def _set_servers(self, drains: edge_state.Drains) -> None:
        for worker in self._workers():
            with contextlib.suppress(haproxy.WorkerGone):
                for server in worker.servers():
                    draining = server.name in drains.instances
                    if server.backend.startswith(edge_state.BACKEND_PREFIX) and server.draining != draining:
                        self.actions.append(
                            f"set {server.name} to {edge_state.DRAINED if draining else edge_state.SERVING}"
                        )
                        if not self._check:
                            worker.set_draining(server, draining)

    def _answers(self) -> bool:
        """Whether HAProxy has checked an instance of the host, or where there is none a host of its pools, and found it
        up.
        """
        own = {(instance.backend, instance.name) for instance in self._instances()}
        servers = [server for one in self._workers()[:1] for server in one.servers() if server.up]
        if own:
            return any((server.backend, server.name) in own for server in servers)
        return any(server.backend.startswith(edge_state.POOL_PREFIX) for server in servers)

    def _last_one(self, name: str | None) -> bool:
        """Whether the host serves now, and would no longer serve without the target."""
        current = self._workers()[:1]
        if not current:
            return False
        serving = [
            server.name
            for server in current[0].servers()
            if server.backend.startswith(edge_state.BACKEND_PREFIX) and server.up and not server.draining
        ]
        return bool(serving) if name is None else serving == [name]

    def _busy(self, name: str | None, engines: list[MetricsEndpoint]) -> Busy:
        requests = []
        for worker in self._workers():
            with contextlib.suppress(haproxy.WorkerGone):
                requests += worker.requests(
                    edge_state.BACKEND_PREFIX, edge_state.ROUNDS_PREFIX, edge_state.INFLIGHT_TABLE
                )
        if name is not None:
            requests = [request for request in requests if request.server == name]
        working: list[dict[str, t.Any]] = []
        uncounted: list[str] = []
        for engine in engines:
            try:
                load = metrics.load(HttpClient(engine.url, timeout=_METRICS_TIMEOUT).get(metrics.METRICS_PATH).text())
            except HttpFailure as failure:
                # An engine that is not there has no work.
                if failure.kind != "refused":
                    working.append({"instance": engine.name, "problem": f"its counters gave {failure.said}"})
                continue
            if load is None:
                uncounted.append(engine.name)
            elif load.running or load.waiting:
                working.append({"instance": engine.name, "running": load.running, "waiting": load.waiting})
        return Busy(requests, working, uncounted)

    def _engines(self, name: str | None) -> list[MetricsEndpoint]:
        return [
            MetricsEndpoint(instance.name, f"http://{instance.address}:{instance.port}")
            for instance in self._instances()
            if edge_state.server_index(instance.name) is not None and name in (None, instance.name)
        ]

    def _instances(self) -> list[edge_state.EdgeServer]:
        return edge_state.parse_instances(read_text(self._paths.config) or "")

    def _workers(self) -> list[haproxy.Worker]:
        return haproxy.workers(self._paths.socket, self._paths.master_socket)

    def _map(self) -> EdgeMap:
        return EdgeMap(self._paths.map, _MAP_TITLE, self._workers())

    def _read(self) -> edge_state.Drains:
        return edge_state.read_drains(read_json(self._paths.record), self._paths.record)

    def _write(self, drains: edge_state.Drains) -> None:
        document = drains.document()
        try:
            if document:
                write_atomically(self._paths.record, json.dumps(document, indent=2) + "\n")
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._paths.record)
                sync_directory(os.path.dirname(self._paths.record))
        except OSError as error:
            raise FleetError(
                f"{self._paths.record} cannot be written ({error.strerror}); nothing was drained or undrained. "
                "Free the disk or correct the directory's rights, then run again."
            ) from error

    @contextlib.contextmanager
    def _lock(self) -> t.Iterator[None]:
        if self._check:
            yield
            return
        make_directories(os.path.dirname(self._paths.record))
        with locked(f"{self._paths.record}.lock"):
            yield


def _age(moment: str) -> float:
    """Seconds since a moment that times.now() gave, at least; 0 for anything else."""
    try:
        began = times.seconds(moment)
    except ValueError:
        return 0.0
    # The moment is in whole seconds, so up to one of them may not be over yet.
    return max(0.0, time.time() - began - 1)
