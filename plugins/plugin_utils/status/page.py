# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A fleet's status page: one self-contained file. Pure: readings in, HTML out."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.prices import hourly
from ansible_collections.inference.fleet.plugins.plugin_utils.report import words
from ansible_collections.inference.fleet.plugins.plugin_utils.report.template import render
from ansible_collections.inference.fleet.plugins.plugin_utils.status import history, hosts
from ansible_collections.inference.fleet.plugins.plugin_utils.status.history import History
from ansible_collections.inference.fleet.plugins.plugin_utils.status.keys import ShownKeys, show_keys

INFERENCE = "inference"
GATEWAY = "gateway"

#: Of the template: where a server writes how old the page is. No value can contain it, because values are escaped.
AGE_MARK = "<!--age-->"


@dataclasses.dataclass(frozen=True)
class FleetReading:
    """All that a page is made from.

    Attributes:
        at: when it was read, Unix time.
        hosts: of the run.
        beyond: the hosts of the fleet that the run did not ask, with their state.
        keys: the clients' keys that need attention.
        rollouts: a line for each unfinished rollout.
        notes: what a reader of the figures has to know, such as where prices are from.
        history: what a Prometheus answered; None where none is asked.
        trouble: what needs attention and is no host's, in sentences.
        maker: who made the page, and what it is good for, in sentences.
        renewed: after how many seconds a served page loads itself again; 0 for a file.
    """

    at: float
    hosts: list[hosts.HostReading]
    beyond: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    keys: ShownKeys = dataclasses.field(default_factory=lambda: show_keys({}, 0))
    rollouts: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    history: History | None = None
    trouble: list[str] = dataclasses.field(default_factory=list)
    maker: str = "Made by playbooks/status.yml. It shows this moment, and changes nothing."
    renewed: int = 0


class RenderedStatus(t.NamedTuple):
    """A page, and its title: the fleet in one line."""

    text: str
    title: str


def render_status(fleet: FleetReading) -> RenderedStatus:
    """The page of what was read."""
    ordered = sorted(fleet.hosts, key=lambda one: words.split_numbers(one.host))
    shown = [hosts.show_host(reading, number) for number, reading in enumerate(ordered, 1)]
    later = enumerate(sorted(fleet.beyond, key=lambda one: words.split_numbers(one[0])), len(shown) + 1)
    beyond = [hosts.show_beyond(host, state, number) for number, (host, state) in later]
    serving = sum(host.serves for host in shown)
    kinds = {kind: sum(host.kind == kind for host in shown) for kind in hosts.KINDS}
    state = f"{serving} of {words.count(len(shown), 'host')} in service"
    if fleet.trouble and not shown:
        state = f"nothing is known of {words.count(len(beyond), 'host') if beyond else 'the hosts'}"
    found = fleet.history
    # What passes a gateway is counted by an inference host again.
    front = [host for host in shown if host.tier == GATEWAY] or shown
    engines = [host for host in shown if host.tier != GATEWAY] or shown
    text = render(
        "status.html.j2",
        at=fleet.at,
        state=state,
        kind=hosts.BAD if fleet.trouble else next((kind for kind in hosts.KINDS if kinds[kind]), hosts.MUTED),
        hosts=shown,
        beyond=beyond,
        serving=serving,
        states=_count_states([host for host in shown if not host.serves]),
        troubled=[host for host in shown if host.trouble],
        trouble_of_fleet=fleet.trouble,
        out=[row for host in shown for row in host.out],
        instances=[one for host in shown for one in host.instances],
        running=_sum(host.running for host in engines),
        waiting=_sum(host.waiting for host in engines),
        answers=_sum(sum(host.responses.values()) for host in front if host.responses),
        errors=_sum(host.responses.get("5xx", 0) for host in front if host.responses),
        gates=[gate for host in shown for gate in host.gates],
        gpus=_count_gpus(shown),
        total=hourly.total(one.cost for one in ordered if one.cost),
        keys=fleet.keys,
        rollouts=fleet.rollouts,
        notes=fleet.notes,
        maker=fleet.maker,
        renewed=fleet.renewed,
        history=found,
        charts=history.draw_charts(found.found, found.span) if found else [],
        ticks=history.list_ticks(found.span) if found else [],
    )
    return RenderedStatus(text, f"{state}, {words.moment(fleet.at)}")


def _sum(values: t.Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _count_states(shown: list[hosts.StatusHost]) -> list[str]:
    counted: dict[str, int] = {}
    for host in shown:
        counted[host.state] = counted.get(host.state, 0) + 1
    return [f"{count} {state}" for state, count in counted.items()]


def _count_gpus(shown: list[hosts.StatusHost]) -> dict[str, int]:
    """The hosts whose GPUs were judged, by the kind of the verdict."""
    judged = [host.gpu_kind for host in shown if host.gpu_kind != hosts.MUTED]
    return {kind: judged.count(kind) for kind in (hosts.OK, hosts.WARN, hosts.BAD)} if judged else {}
