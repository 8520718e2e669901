# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The program of inference-notices.service: watches what AWS announces for the instance, and drains its edge in time.

Module edge_notices installs it. It keeps no state of its own: what it has done is in the record of drains, so it may
end at any moment and goes on where it was.
"""

from __future__ import annotations

import argparse
import signal
import threading
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy
from ansible_collections.inference.fleet.plugins.module_utils.edge import state as edge_state
from ansible_collections.inference.fleet.plugins.module_utils.edge.drain import EdgeDrain, Paths
from ansible_collections.inference.fleet.plugins.module_utils.notices import announced, decision
from ansible_collections.inference.fleet.plugins.module_utils.notices.announced import Notice, clock
from ansible_collections.inference.fleet.plugins.module_utils.notices.decision import NoticeSettings, Verdict
from ansible_collections.inference.fleet.plugins.module_utils.notices.metadata import ENDPOINT, Metadata

#: Seconds between two looks. AWS says every five.
INTERVAL = 2.0


class Watcher:
    """Looks, decides and acts, once with each tick.

    Args:
        metadata: of this instance.
        settings: what to drain for.
        lame_duck: seconds that the balancer in front needs to notice.
        paths: of the edge.
        say: prints a line for people.
    """

    def __init__(
        self,
        metadata: Metadata,
        settings: NoticeSettings,
        lame_duck: float,
        paths: Paths,
        say: t.Callable[[str], None],
    ) -> None:
        self._metadata = metadata
        self._settings = settings
        self._lame_duck = lame_duck
        self._paths = paths
        self._print = say
        # The last line of each subject: none is repeated with every look.
        self._said: dict[str, str] = {}
        self._quiet = 0

    def tick(self) -> None:
        """Take one look, and do what follows from it."""
        look = self._metadata.look()
        now = time.time()
        verdict = decision.decide(look, now, self._settings)
        if look.problem and "metadata" not in self._said:
            self._say("metadata", f"Not everything that AWS announces can be read ({look.problem}). What is stays.")
        elif not look.problem and self._said.pop("metadata", ""):
            self._print("What AWS announces can be read again.")
        for notice in verdict.note:
            self._say(notice.id, f"AWS announces: {notice.said}. {self._outlook(notice)}")
        try:
            self._act(verdict, now)
        except (FleetError, OSError) as error:
            self._say("edge", f"The edge cannot be changed; it is tried again with the next look. {error}")
        else:
            self._said.pop("edge", None)

    def _act(self, verdict: Verdict, now: float) -> None:
        edge = EdgeDrain(self._paths, edge_state.AWS, verdict.reason, check=False)
        if verdict.drain:
            seconds = decision.lame_duck_seconds(verdict, self._lame_duck, now)
            edge.announce([notice.id for notice in verdict.drain], seconds)
            self._report(edge, verdict, now)
        elif edge.before.aws and not verdict.unknown:
            self._end(edge)
        elif edge.before.aws and edge.before.aws.state != edge_state.OVERRIDDEN:
            # The last step may have ended between the record and HAProxy.
            edge.keep()

    def _report(self, edge: EdgeDrain, verdict: Verdict, now: float) -> None:
        state = edge.after.aws.state if edge.after.aws else ""
        what = f"AWS announces: {verdict.reason}."
        if state == edge_state.OVERRIDDEN:
            self._say("state", f"{what} An operator has put the host back into service all the same, so it serves.")
        elif state == edge_state.LAME_DUCK:
            self._quiet = 0
            self._say("state", f"{what} The host is a lame duck for {self._lame_duck:.0f} s, then it is drained.")
        else:
            until = "" if verdict.finish_by is None else f" until {clock(verdict.finish_by)}"
            self._say("state", f"{what} The host is drained; requests in flight have time{until}.")
            self._follow(edge, verdict, now)

    def _follow(self, edge: EdgeDrain, verdict: Verdict, now: float) -> None:
        """Say when nothing is in flight, or what still is when time is up."""
        late = verdict.finish_by is not None and now >= verdict.finish_by
        if self._quiet >= 2 or (late and "flight" in self._said):
            return
        busy = edge.in_flight()
        self._quiet = 0 if busy else self._quiet + 1
        if self._quiet >= 2:
            self._said.pop("flight", None)
            self._say("idle", "Nothing is in flight.")
        elif busy and late:
            count = len(busy.requests) or sum(one.get("running", 0) + one.get("waiting", 0) for one in busy.engines)
            self._say("flight", f"Time is up and {count} requests are in flight: they end with the instance.")

    def _end(self, edge: EdgeDrain) -> None:
        was_out = edge.before.aws is not None and edge.before.aws.mark is not None
        for subject in ("idle", "flight"):
            self._said.pop(subject, None)
        if not edge.withdraw():
            self._say("state", "AWS announces nothing any more. The host stays drained until an instance answers.")
            return
        self._said.pop("state", None)
        out = edge.after.out
        if out:
            held = f"it stays {out.state}: {out.by}{f' ({out.reason})' if out.reason else ''}"
        else:
            held = "the host is back in service" if was_out else "the host is in service"
        self._print(f"AWS announces nothing any more, and {held}.")

    def _outlook(self, notice: Notice) -> str:
        """Why nothing is done for a notice yet."""
        if notice.kind == announced.MAINTENANCE and notice.interrupts:
            return f"The host is drained {self._settings.maintenance_lead:.0f} s before."
        if notice.kind == announced.REBALANCE:
            return "That is only noted (edge_on_rebalance)."
        return "That is only noted: it is not known to interrupt the instance."

    def _say(self, subject: str, text: str) -> None:
        if self._said.get(subject) != text:
            self._said[subject] = text
            self._print(text)


def parse(arguments: t.Sequence[str] | None = None) -> argparse.Namespace:
    """The program's options."""
    parser = argparse.ArgumentParser(description="Drain this host's edge in time for what AWS announces.")
    parser.add_argument("--on-rebalance", choices=decision.ON_REBALANCE, default=decision.NOTE)
    parser.add_argument("--maintenance-lead", type=float, default=600.0, metavar="SECONDS")
    parser.add_argument("--lame-duck", type=float, default=15.0, metavar="SECONDS")
    parser.add_argument("--interval", type=float, default=INTERVAL, metavar="SECONDS")
    parser.add_argument("--metadata", default=ENDPOINT, metavar="URL")
    parser.add_argument("--config", default=edge_state.CONFIG_PATH, metavar="FILE")
    parser.add_argument("--map", default=edge_state.DRAIN_MAP_PATH, metavar="FILE")
    parser.add_argument("--record", default=edge_state.DRAIN_RECORD_PATH, metavar="FILE")
    parser.add_argument("--socket", default=haproxy.SOCKET, metavar="FILE")
    parser.add_argument("--master-socket", default=haproxy.MASTER_SOCKET, metavar="FILE")
    return parser.parse_args(arguments)


def main() -> None:
    """Watch until SIGTERM."""
    options = parse()
    settings = NoticeSettings(options.on_rebalance, options.maintenance_lead)
    paths = Paths(options.config, options.map, options.record, options.socket, options.master_socket)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: ended.set())
    watcher = Watcher(Metadata(options.metadata), settings, options.lame_duck, paths, _print)
    _print(
        f"Watching {options.metadata} every {options.interval:g} s: rebalance {settings.on_rebalance}, maintenance "
        f"{settings.maintenance_lead:.0f} s before."
    )
    while not ended.is_set():
        began = time.monotonic()
        watcher.tick()
        ended.wait(max(0.0, began + options.interval - time.monotonic()))


def _print(text: str) -> None:
    print(text, flush=True)
