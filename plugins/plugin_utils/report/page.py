# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A rollout's page: what happened, for a person, in one file that needs nothing else. Pure: the record in, HTML out."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.report import chart, hosts, words
from ansible_collections.inference.fleet.plugins.plugin_utils.report.html import Html, join, table, tag
from ansible_collections.inference.fleet.plugins.plugin_utils.report.style import stylesheet
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import steps

Record = dict[str, t.Any]

# The page asks nobody for anything, and what a host's message brings along cannot make it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_OUTCOMES = {
    "finished": ("ok", "✓ finished"),
    "running": ("warn", "▸ running"),
    "stopped": ("bad", "✕ stopped"),
    "broken off": ("bad", "✕ broken off"),
}

_ADVICE = {
    "drained": "{hosts}: out of service. The last good release did not pass the gate either, or could not be put back. "
    "Look there first (the message above, then the engine's journal); until it is mended the fleet is smaller by it.",
    "stopped": "{hosts}: out of service, and there was no good release to go back to. The message "
    "names what has to be mended; until then the fleet is smaller by it.",
    "unreachable": "{hosts}: see whether the host runs and SSH reaches it. It may be out of service, in the step that "
    "the timeline shows; the next run finds that out.",
    "failed": "{hosts}: see the message, and playbooks/status.yml for what the host serves now.",
    "unrecorded": "{hosts}: nothing is urgent, the new release serves. What the message names could not be written: "
    "most often the disk is full.",
    "rolled_back": "{hosts}: nothing is urgent, the last good release is back and in service. What has to be mended is "
    "what the gate's message names.",
}

# From this many on, a table is folded up.
_MANY = 12


def page(record: Record) -> str:
    """The page of a record that fold() made."""
    anchors = {name: f"h{number}" for number, name in enumerate(chart.in_order(record), 1)}
    sections = [
        _trouble(record, anchors),
        _tiles(record),
        _timeline(record, anchors),
        _in_flight(record),
        _traffic(record),
        _hosts(record, anchors),
        _notes(record),
        _plan(record),
        _runs(record),
    ]
    word = _OUTCOMES[record["outcome"]][1][2:]
    title = f"{_verb(record)} {word}: {record['totals']['done']} of {words.count(record['totals']['hosts'], 'host')}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        tag("title", title),
        tag("style", Html(stylesheet())),
    )
    body = tag("body", _head(record), tag("main", *sections), _foot(record))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def changes(record: Record) -> list[str]:
    """What becomes of the instances, before and after, and of how many."""
    counted: dict[str, int] = {}
    for host in record["hosts"].values():
        for instance in host["instances"].values():
            if instance["from"] or instance["to"]:
                text = hosts.change(instance["from"], instance["to"])
                if _same(instance):
                    text += f", {hosts.release_change(instance['from'], instance['to'])}"
                counted[text] = counted.get(text, 0) + 1
    return [f"{text} ({words.count(count, 'instance')})" for text, count in counted.items()]


def _same(instance: dict[str, t.Any]) -> bool:
    """Whether engine and model stay what they are."""
    before, after = instance["from"] or {}, instance["to"] or {}
    return all(before.get(name) == after.get(name) for name in ("engine", "version", "model", "revision"))


def _verb(record: Record) -> str:
    return record["verb"] or "rollout"


def _section(title: str, *children: t.Any, kind: str = "card") -> Html:
    return tag("section", tag("h2", title), tag("div", *children, class_=kind))


# The head


def _head(record: Record) -> Html:
    kind, pill = _OUTCOMES[record["outcome"]]
    totals = record["totals"]
    when = words.moment(record["began"])
    if record["ended"] is not None:
        same_day = words.moment(record["began"], "%F") == words.moment(record["ended"], "%F")
        when += f" to {words.clock(record['ended']) if same_day else words.moment(record['ended'])}"
    elif record["outcome"] == "broken off":
        when += f", last heard of {words.moment(record['last'])}"
    facts = [f"by {record['who']}" if record["who"] else "", when, f"took {words.duration(totals['seconds'])}"]
    if record["outcome"] == "running":
        facts[-1] = f"for {words.duration(totals['seconds'])} so far"
    shown = changes(record)
    more = len(shown) - 6
    return tag(
        "header",
        tag("h1", tag("span", _verb(record)), tag("span", pill, class_=f"pill {kind}")),
        tag("p", " · ".join(fact for fact in facts if fact), class_="facts"),
        tag(
            "ul",
            *(tag("li", text) for text in shown[:6]),
            tag("li", f"and {more} more, see the plan", class_="muted") if more > 0 else None,
            class_="changes",
        )
        if shown
        else None,
    )


def _tiles(record: Record) -> Html:
    totals = record["totals"]
    tiles = [_tile("Hosts done", f"{totals['done']} of {totals['hosts']}", _others(record))]
    of = []
    if totals["out_seconds"]:
        of.append(f"{words.duration(totals['out_seconds'])} of it: stop, start and gate of each turn's slowest host")
    if len(record["runs"]) > 1:
        between = words.duration(totals["interrupted_seconds"])
        of.append(f"{words.count(len(record['runs']), 'run')}, {between} between them")
    tiles.append(_tile("Time", words.duration(totals["working_seconds"]), "; ".join(of)))
    tiles.append(_clients(record))
    tiles.append(_drains(record))
    speed = hosts.speed(record)
    if speed:
        tiles.append(_tile("Time to first token", *speed))
    return tag("div", *tiles, class_="tiles")


def _tile(what: str, value: str, of: str, kind: str | None = None) -> Html:
    return tag(
        "div",
        tag("span", what, class_="what"),
        tag("b", value, class_=kind),
        tag("span", of, class_="of"),
        class_="tile card",
    )


def _others(record: Record) -> str:
    turns = len(record["waves"])
    return ", ".join([words.count(turns, "turn") if turns else "no turn was begun", *words.others(record)])


def _clients(record: Record) -> Html:
    totals, report = record["totals"], record["traffic"]
    edges = f"{words.grouped(totals['errors'])} of {words.grouped(totals['answers'])} answers of the edges were 5xx"
    if report:
        failed, sent = hosts.driven(record)
        of = f"of {words.grouped(sent)} requests and streams of the traffic driver"
        of += f"; {edges}" if totals["answers"] else ""
        return _tile("Clients' requests", f"{words.grouped(failed)} failed", of, "bad" if failed else "ok")
    if totals["answers"]:
        value = f"{words.grouped(totals['errors'])} times 5xx"
        return _tile("Clients' requests", value, edges, "bad" if totals["errors"] else "ok")
    return _tile("Clients' requests", words.NOTHING, "nothing counted what they got")


def _drains(record: Record) -> Html:
    drains = [drain for _host, _name, drain in hosts.drains(record)]
    if not drains:
        return _tile("Requests cut by a drain", words.NOTHING, "nothing was drained")
    busy = [drain for drain in drains if not drain["idle"]]
    waited = max((drain["waited"] or 0.0 for drain in drains), default=0.0)
    many = words.count(len(drains), "drain")
    how = f"{len(busy)} of {many} reached the limit" if busy else f"{many} ended with nothing in flight"
    of = f"{how}; the longest took {words.duration(waited)}"
    cut = record["totals"]["cut"]
    value = words.grouped(cut) if cut or not busy else "unknown"
    return _tile("Requests cut by a drain", value, of, "bad" if busy else "ok")


# What went wrong


def _trouble(record: Record, anchors: t.Mapping[str, str]) -> Html:
    bad = [name for name in chart.in_order(record) if record["hosts"][name]["outcome"] not in (None, "done")]
    broken = [name for name in chart.in_order(record) if words.state(record, name) == words.BROKEN_OFF]
    ended_badly = record["outcome"] in ("stopped", "broken off")
    if not (bad or broken or ended_badly):
        return _noticed(record)
    items = [_failure(record, name, anchors[name]) for name in bad]
    items += [_broken(record, name, anchors[name]) for name in broken]
    untouched = [name for name in chart.in_order(record) if words.state(record, name) == words.NOT_BEGUN]
    first = [_ADVICE[kind].format(hosts=words.named(names)) for kind, names in _by_outcome(record, bad)]
    if broken:
        first.append(
            f"{words.named(broken)}: broken off half-way, and perhaps out of service until the rollout goes on. "
            "playbooks/status.yml shows what it serves now."
        )
    if ended_badly or broken:
        begin = "Then run" if first else "Run"
        first.append(f"{begin} the same command again: it goes on where this ended, and leaves alone what is done.")
    said = None
    if ended_badly and record["message"]:
        said = tag("p", record["message"], class_="said")
        if items:
            # The hosts' own messages are in it again.
            said = tag("details", tag("summary", "The rollout's last words"), said)
    rest = f"Not touched: {words.named(untouched, 12)}." if ended_badly and untouched else None
    return tag(
        "section",
        tag("h2", "What went wrong"),
        tag("ul", *items) if items else None,
        said,
        tag("p", rest) if rest else None,
        tag(
            "div",
            tag("b", "What to do first"),
            tag("ol", *(tag("li", text) for text in first), class_="list"),
            class_="first",
        )
        if first
        else None,
        class_="card trouble",
    )


def _by_outcome(record: Record, names: list[str]) -> list[tuple[str, list[str]]]:
    """Hosts that failed, by how, what is most urgent first."""
    found: dict[str, list[str]] = {kind: [] for kind in _ADVICE}
    for name in names:
        outcome = record["hosts"][name]["outcome"]
        found[outcome if outcome in found else "failed"].append(name)
    return [(kind, failed) for kind, failed in found.items() if failed]


def _failure(record: Record, name: str, anchor: str) -> Html:
    host = record["hosts"][name]
    reasons = sorted({instance["reason"] for instance in host["instances"].values() if instance["reason"]})
    return tag(
        "li",
        chart.host_mark(record, name),
        tag("a", name, href=f"#{anchor}"),
        " ",
        tag("b", words.outcome(host["outcome"])),
        tag("span", f" after {words.duration(host['seconds'])}", class_="muted")
        if host["seconds"] is not None
        else None,
        tag("p", hosts.trimmed(host["message"]), class_="said"),
        tag("p", f"It was touched because {'; '.join(reasons)}.", class_="muted") if reasons else None,
    )


def _broken(record: Record, name: str, anchor: str) -> Html:
    reached = [
        f"{label} in its step {steps.label(instance['steps'][-1]['step'])}"
        for label, instance in record["hosts"][name]["instances"].items()
        if instance["steps"]
    ]
    where = words.named(reached) if reached else "before its first step"
    return tag(
        "li",
        chart.host_mark(record, name),
        tag("a", name, href=f"#{anchor}"),
        " ",
        tag("b", "broken off"),
        f": {where}",
    )


def _noticed(record: Record) -> Html:
    """What clients may have noticed of a rollout that went well otherwise."""
    totals = record["totals"]
    failed, sent = hosts.driven(record)
    items = []
    if failed:
        items.append(
            f"{words.grouped(failed)} of {words.grouped(sent)} requests and streams of the traffic driver failed."
        )
    if totals["errors"]:
        items.append(
            f"The edges answered {words.count(totals['errors'], 'request')} with 5xx. A balancer that notices a drain "
            "late sends requests to a host that refuses them: see edge_lame_duck."
        )
    if totals["cut"]:
        items.append(f"{words.count(totals['cut'], 'request')} in flight when a drain reached its limit, and cut off.")
    if not items:
        return Html("")
    listed = tag("ul", *(tag("li", text) for text in items), class_="list")
    return tag("section", tag("h2", "What clients may have noticed"), listed, class_="card trouble mild")


# The picture, and what belongs to it


def _timeline(record: Record, anchors: t.Mapping[str, str]) -> Html:
    if not record["waves"]:
        return Html("")
    note = tag("p", "Each bar says more under the pointer.", class_="note wide")
    return _section("Timeline", chart.legend(record), chart.chart(record, anchors), note)


def _in_flight(record: Record) -> Html:
    rows: list[list[t.Any]] = []
    for host, name, drain in hosts.drains(record):
        if drain["idle"]:
            continue
        limit = words.duration(drain["waited"])
        for request in drain["requests"]:
            who, at = request.get("client") or "unknown", request.get("instance") or name
            rows.append([host, at, who, words.duration(words.number(request.get("seconds"))), limit])
        for engine in drain["engines"]:
            busy = f"{engine.get('running', '?')} running, {engine.get('waiting', '?')} waiting, by its own counters"
            rows.append([host, engine.get("instance") or name, engine.get("problem") or busy, words.NOTHING, limit])
    if not rows:
        return Html("")
    head = ["Host", "Instance", "Client", "Age", "Waited"]
    return _section("In flight when a drain reached its limit", table(head, rows, (3, 4)))


def _traffic(record: Record) -> Html:
    parts: list[Html] = []
    for report in chart.reports(record):
        rows = hosts.report_rows(report)
        parts.append(
            tag("details", tag("summary", tag("span", hosts.report_line(report))), tag("div", rows, class_="inside"))
        )
    return _section("What the traffic driver saw", *parts) if parts else Html("")


def _hosts(record: Record, anchors: t.Mapping[str, str]) -> Html:
    if not record["hosts"]:
        return Html("")
    return _section("Hosts, and what their gates saw", *(hosts.host(record, name, anchors[name]) for name in anchors))


def _notes(record: Record) -> Html:
    items = [
        tag("li", tag("span", f"{words.clock(decision['at'])} ", class_="muted"), decision["text"])
        for decision in record["decisions"]
    ]
    parts = [tag("h3", "Decisions"), tag("ul", *items, class_="list")] if items else []
    if record["warnings"]:
        parts.append(tag("h3", "Warnings"))
        parts.append(tag("ul", *(tag("li", text) for text in record["warnings"]), class_="list"))
    if record["left_out"]:
        parts.append(tag("h3", "Left out"))
        parts.append(table(["Host", "Why"], [[name, why] for name, why in record["left_out"].items()]))
    test = record["self_test"]
    if test:
        verdict = "The gate proved that it can fail" if test["passed"] else "The gate did not prove that it can fail"
        parts.append(tag("h3", "Self-test of the gate"))
        text = f"{verdict}, on {test['host']} at {words.clock(test['at'])}. "
        parts.append(tag("p", chart.mark(test["passed"], "passed" if test["passed"] else "failed"), text))
        parts.append(tag("p", hosts.trimmed(test["message"]), class_="said muted"))
    return _section("Decisions, warnings, and who was left out", *parts) if parts else Html("")


def _plan(record: Record) -> Html:
    rows: list[list[t.Any]] = []
    for name in chart.in_order(record):
        host = record["hosts"][name]
        for number, (label, instance) in enumerate(host["instances"].items()):
            first = number == 0
            expected = words.duration(host["expected_seconds"]) if first else ""
            release = hosts.release_change(instance["from"], instance["to"])
            rows.append(
                [
                    name if first else "",
                    (words.NOTHING if host["wave"] is None else str(host["wave"])) if first else "",
                    label,
                    join([hosts.change(instance["from"], instance["to"]), tag("small", release)]),
                    instance["reason"] or words.NOTHING,
                    expected,
                    words.duration(host["seconds"]) if first else "",
                ]
            )
    if not rows:
        return Html("")
    plan = table(["Host", "Wave", "Instance", "Change", "Why", "Expected", "Took"], rows, (1, 5, 6))
    if len(rows) <= _MANY:
        return _section("The plan", plan)
    many = words.count(len(rows), "instance")
    return _section("The plan", tag("details", tag("summary", many), tag("div", plan, class_="inside")))


def _runs(record: Record) -> Html:
    rows = []
    for number, run in enumerate(record["runs"], 1):
        ended = words.moment(run["ended"]) if run["ended"] is not None else "goes on"
        planned = sum(len(wave) for wave in run["waves"])
        process = words.NOTHING if run["pid"] is None else str(run["pid"])
        rows.append([str(number), run["who"], run["controller"], process, words.moment(run["at"]), ended, str(planned)])
    head = ["Run", "By", "Controller", "Process", "Began", "Ended, or last heard of", "Hosts planned"]
    parts = [table(head, rows, (6,))]
    if record["variables"]:
        given = [[tag("code", name), tag("code", str(value))] for name, value in record["variables"].items()]
        parts += [tag("h3", "Variables"), table(["Name", "Value"], given)]
    return _section("Who ran it, and where", *parts) if rows else Html("")


def _foot(record: Record) -> Html:
    of = f"As of {words.moment(record['last'])}. Rollout {record['id'] or 'without a name'}. "
    return tag("footer", of, "Made from journal.jsonl beside this page; record.json has the same for programs.")
