# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A fleet's status page: one self-contained file. Pure: readings in, HTML out."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.prices import hourly
from ansible_collections.inference.fleet.plugins.plugin_utils.report import words
from ansible_collections.inference.fleet.plugins.plugin_utils.report.hosts import split_numbers
from ansible_collections.inference.fleet.plugins.plugin_utils.report.template import render
from ansible_collections.inference.fleet.plugins.plugin_utils.status import history, hosts, keys
from ansible_collections.inference.fleet.plugins.plugin_utils.status.prometheus import History

INFERENCE = "inference"
GATEWAY = "gateway"


@dataclasses.dataclass(frozen=True)
class FleetReading:
    """All that a page is made from.

    Attributes:
        at: when it was read, Unix time.
        hosts: of the run.
        beyond: the hosts of the fleet that the run did not ask, with their state.
        store: the result of module api_key, or the failure.
        rollouts: a line for each unfinished rollout.
        notes: what a reader of the figures has to know, such as where prices are from.
        history: what a Prometheus answered; None where none is asked.
    """

    at: float
    hosts: list[hosts.HostReading]
    beyond: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    store: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    rollouts: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    history: History | None = None


class RenderedStatus(t.NamedTuple):
    """A page, and its title: the fleet in one line."""

    text: str
    title: str


def render_status(fleet: FleetReading) -> RenderedStatus:
    """The page of what was read."""
    ordered = sorted(fleet.hosts, key=lambda one: split_numbers(one.host))
    shown = [hosts.show_host(reading, number) for number, reading in enumerate(ordered, 1)]
    later = enumerate(sorted(fleet.beyond, key=lambda one: split_numbers(one[0])), len(shown) + 1)
    beyond = [hosts.show_beyond(host, state, number) for number, (host, state) in later]
    serving = sum(host.serves for host in shown)
    kinds = {kind: sum(host.kind == kind for host in shown) for kind in hosts.KINDS}
    state = f"{serving} of {words.count(len(shown), 'host')} in service"
    found = fleet.history
    # What passes a gateway is counted by an inference host again.
    front = [host for host in shown if host.tier == GATEWAY] or shown
    engines = [host for host in shown if host.tier != GATEWAY] or shown
    text = render(
        "status.html.j2",
        at=fleet.at,
        state=state,
        kind=next((kind for kind in hosts.KINDS if kinds[kind]), hosts.MUTED),
        hosts=shown,
        beyond=beyond,
        serving=serving,
        states=_count_states([host for host in shown if not host.serves]),
        troubled=[host for host in shown if host.trouble],
        out=[row for host in shown for row in host.out],
        instances=[one for host in shown for one in host.instances],
        running=_sum(host.running for host in engines),
        waiting=_sum(host.waiting for host in engines),
        answers=_sum(sum(host.responses.values()) for host in front if host.responses),
        errors=_sum(host.responses.get("5xx", 0) for host in front if host.responses),
        gates=[gate for host in shown for gate in host.gates],
        gpus=_count_gpus(shown),
        total=hourly.total(one.cost for one in ordered if one.cost),
        keys=keys.show_keys(fleet.store, fleet.at),
        rotation=keys.describe_rotation(fleet.store),
        rollouts=fleet.rollouts,
        notes=fleet.notes,
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
