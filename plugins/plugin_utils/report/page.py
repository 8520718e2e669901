# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A rollout's page: what happened, for a person, in one self-contained file. Pure: the record in, HTML out."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.report import hosts, traffic, words
from ansible_collections.inference.fleet.plugins.plugin_utils.report.record import RolloutRecord
from ansible_collections.inference.fleet.plugins.plugin_utils.report.template import render
from ansible_collections.inference.fleet.plugins.plugin_utils.report.timeline import draw_timeline
from ansible_collections.inference.fleet.plugins.plugin_utils.report.values import as_dicts, as_text
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import steps
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.evidence import FINE, WORSE


def render_page(record: RolloutRecord) -> str:
    """The page of a record that fold() made."""
    shown = hosts.sort_hosts(record)
    drains = [drain for _host, _name, drain in hosts.find_drains(shown)]
    failed, sent = traffic.count_requests(record)
    return render(
        "rollout.html.j2",
        record=record,
        totals=record["totals"],
        verb=record["verb"] or "rollout",
        hosts=shown,
        steps=steps.STEPS,
        timeline=draw_timeline(record, shown),
        changes=count_changes(record),
        others=words.others(record),
        drains=drains,
        busy_drains=[drain for drain in drains if not drain["idle"]],
        longest_drain=max((drain["waited"] or 0.0 for drain in drains), default=0.0),
        in_flight=hosts.list_in_flight(shown),
        failed=failed,
        sent=sent,
        reports=[
            (traffic.summarize(of), traffic.list_figures(of), traffic.list_errors(of))
            for of in traffic.list_reports(record)
        ],
        speed=hosts.measure_speed(shown),
        evidence=list_evidence(record),
        compare_figures=hosts.compare_figures,
        list_checks=hosts.list_checks,
        plan=hosts.list_plan(shown),
        runs=_list_runs(record),
    )


def count_changes(record: RolloutRecord) -> list[str]:
    """The changes of instances, before and after, with their number."""
    counted: dict[str, int] = {}
    for host in record["hosts"].values():
        for instance in host["instances"].values():
            if instance["from"] or instance["to"]:
                text = hosts.describe_change(instance["from"], instance["to"])
                if _same(instance):
                    text += f", {hosts.describe_release(instance['from'], instance['to'])}"
                counted[text] = counted.get(text, 0) + 1
    return [f"{text} ({words.count(count, 'instance')})" for text, count in counted.items()]


class WaveEvidence(t.NamedTuple):
    """A wave's hosts against untouched ones: a verdict's class, the wave, a sentence, and rows of figures."""

    kind: str
    wave: str
    text: str
    figures: list[list[t.Any]]


def list_evidence(record: RolloutRecord) -> list[WaveEvidence]:
    """The comparisons of waves with untouched hosts."""
    found = []
    for seen in record["evidence"]:
        wave = words.NOTHING if seen["wave"] is None else str(seen["wave"])
        for one in seen["comparisons"]:
            rows = [
                [
                    *(words.line(figure.get(name, "")) for name in ("name", "wave", "untouched", "allowed")),
                    figure.get("verdict") == FINE,
                ]
                for figure in as_dicts(one.get("figures"))
            ]
            kind = {FINE: "ok", WORSE: "bad"}.get(as_text(one.get("verdict")), "muted")
            found.append(WaveEvidence(kind, wave, words.line(one.get("text", ""), 1000), rows))
    return found


def _same(instance: dict[str, t.Any]) -> bool:
    """Whether engine and model stay the same."""
    before, after = instance["from"] or {}, instance["to"] or {}
    return all(before.get(name) == after.get(name) for name in ("engine", "version", "model", "revision"))


def _list_runs(record: RolloutRecord) -> list[list[str]]:
    """Who ran the rollout, where and when, and how many hosts were planned."""
    return [
        [
            str(number),
            run["who"],
            run["controller"],
            words.NOTHING if run["pid"] is None else str(run["pid"]),
            words.moment(run["at"]),
            "goes on" if run["ended"] is None else words.moment(run["ended"]),
            str(sum(len(wave) for wave in run["waves"])),
        ]
        for number, run in enumerate(record["runs"], 1)
    ]
