# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What a rollout's page tells of each host, its gates and the traffic. Pure: the record in, markup and words out."""

from __future__ import annotations

import statistics
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.instances.status import short_revision
from ansible_collections.inference.fleet.plugins.plugin_utils.report import chart, words
from ansible_collections.inference.fleet.plugins.plugin_utils.report.html import Html, join, table, tag
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import steps

Record = dict[str, t.Any]

_FIGURES = (
    ("ttft_ms", "time to first token", "ms", 0),
    ("tokens_per_second", "tokens per second", "", 1),
    ("total_ms", "in all", "ms", 0),
)
_ANSWER = 160
_MESSAGE = 2500
_ERRORS = 100

_TITLES = {
    "requests": "Requests",
    "streams": "Streams",
    "longest_gap": "Longest time without an answer",
    "longest_stream_stall": "Longest stall within a stream",
    "latency": "Time to the whole answer",
    "first_token": "Time to first token",
    "error_counts": "Errors by kind",
    "first_answer": "First answer",
    "ended_because": "Why it ended",
}


def trimmed(text: str, limit: int = _MESSAGE) -> str:
    """A text that may have lines, but not without end."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def change(before: dict[str, t.Any] | None, after: dict[str, t.Any] | None) -> str:
    """What becomes of an instance's engine and model, in words; None where there was none."""
    parts = []
    for told in (_software, _model):
        old, new = told(before), told(after)
        if old and new and old != new:
            parts.append(f"{old} → {new}")
        elif new or old:
            parts.append(f"{'' if old else 'new: '}{new or old}")
    return ", ".join(parts) or words.NOTHING


def release_change(before: dict[str, t.Any] | None, after: dict[str, t.Any] | None) -> str:
    """What becomes of an instance's release, in words."""
    old, new = _field(before, "release"), _field(after, "release")
    if old and old == new:
        return f"{new} as before"
    return f"{old} → {new}" if old and new else new or old or words.NOTHING


def _field(of: dict[str, t.Any] | None, name: str) -> str:
    value = (of or {}).get(name)
    return "" if value is None else str(value)


def _software(of: dict[str, t.Any] | None) -> str:
    return " ".join(part for part in (_field(of, "engine"), _field(of, "version")) if part)


def _model(of: dict[str, t.Any] | None) -> str:
    model, revision = _field(of, "model"), _field(of, "revision")
    return f"{model}@{short_revision(revision)}" if model and revision else model


def drains(record: Record) -> list[tuple[str, str, dict[str, t.Any]]]:
    """Every drain, with host and instance; one of a whole host counts once."""
    found = []
    for name in chart.in_order(record):
        seen: list[dict[str, t.Any]] = []
        for label, instance in record["hosts"][name]["instances"].items():
            for drain in instance["drains"]:
                if drain not in seen:
                    seen.append(drain)
                    found.append((name, label, drain))
    return found


def gates(host: dict[str, t.Any]) -> list[dict[str, t.Any]]:
    """All of a host's gates in order."""
    found = [gate for instance in host["instances"].values() for gate in instance["gates"]] + host["gates"]
    return sorted(found, key=lambda gate: gate["at"])


def speed(record: Record) -> tuple[str, str] | None:
    """The middle of what the gates measured, and what it was before."""
    seen = [gate for host in record["hosts"].values() for gate in gates(host) if gate["passed"] and gate["figures"]]
    # Figures through the edge say how busy the fleet was.
    passed = [gate for gate in seen if gate["judged"]] or seen
    first, rate = _middle(passed, "figures", "ttft_ms"), _middle(passed, "figures", "tokens_per_second")
    if first is None:
        return None
    parts = [] if rate is None else [f"{rate:.1f} tokens/s"]
    old_first, old_rate = _middle(passed, "good", "ttft_ms"), _middle(passed, "good", "tokens_per_second")
    if old_first is not None:
        before = f"{old_first:.0f} ms" + (f" and {old_rate:.1f} tokens/s" if old_rate is not None else "")
        parts.append(f"before: {before}")
    parts.append(f"the middle of {words.count(len(passed), 'gate')}")
    return f"{first:.0f} ms", "; ".join(parts)


def _middle(found: list[dict[str, t.Any]], of: str, name: str) -> float | None:
    values = [words.number(_figures(gate.get(of)).get(name)) for gate in found]
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _figures(value: t.Any) -> dict[str, t.Any]:
    """Figures, also where they stand in a record of good ones."""
    if not isinstance(value, dict):
        return {}
    inner = value.get("figures")
    return inner if isinstance(inner, dict) else value


# A host


def host(record: Record, name: str, anchor: str) -> Html:
    """All that is known of a host, folded up unless something went wrong on it."""
    of = record["hosts"][name]
    seen = gates(of)
    word = words.state(record, name)
    quiet = {words.DONE: None, words.NOT_BEGUN: "muted", words.IN_TURN: None}
    took = words.duration(of["seconds"]) if of["seconds"] is not None else ""
    if took and of["expected_seconds"] is not None:
        took += f" (expected {words.duration(of['expected_seconds'])})"
    last = [words.figures(gate["figures"]) for gate in seen if gate["figures"]][-1:]
    summary = tag(
        "summary",
        tag("span", chart.host_mark(record, name), tag("span", name, class_="name")),
        tag("span", word, class_=quiet.get(word, "bad")),
        tag("span", f"wave {of['wave']}", class_="muted") if of["wave"] is not None else None,
        tag("span", took, class_="muted") if took else None,
        tag("span", *last, class_="muted wide") if last and last[0] else None,
    )
    parts: list[t.Any] = []
    if of["message"]:
        parts.append(tag("p", trimmed(of["message"]), class_="said"))
    parts += [_gate(gate) for gate in seen]
    parts += _drained(of)
    parts += _steps(of)
    parts += _progress(of)
    if not parts:
        parts.append(tag("p", "Nothing was done on it.", class_="muted"))
    opened = "" if quiet.get(word, "bad") == "bad" else None
    return tag("details", summary, tag("div", *parts, class_="inside"), id=anchor, open=opened)


def _gate(gate: dict[str, t.Any]) -> Html:
    verdict = "passed" if gate["passed"] else "failed"
    again = ", second attempt" if gate["attempt"] > 1 else ""
    title = f"Gate on {gate['target']}{again}: {verdict} at {words.clock(gate['at'])}"
    parts: list[t.Any] = [tag("h3", chart.mark(gate["passed"], verdict), title)]
    if gate["message"] and not gate["passed"]:
        parts.append(tag("p", trimmed(gate["message"]), class_="said"))
    parts.append(_measured(gate))
    rows = [
        [
            str(check.get("name", "")),
            chart.mark(bool(check.get("passed")), "passed" if check.get("passed") else "failed"),
            words.duration(words.number(check.get("seconds"))),
            tag("p", _came_back(check), class_="said"),
        ]
        for check in gate["checks"]
    ]
    parts.append(table(["Check", "Passed", "Took", "What came back"], rows, (2,)))
    return join(parts)


def _measured(gate: dict[str, t.Any]) -> Html:
    now, before = _figures(gate["figures"]), _figures(gate.get("good"))
    rows = []
    for name, title, unit, places in _FIGURES:
        value, old = words.number(now.get(name)), words.number(before.get(name))
        if value is None:
            continue
        told = [title, _figure(old, unit, places), _figure(value, unit, places)]
        rows.append([*told, words.NOTHING if not old else f"{(value - old) / old * 100:+.0f} %"])
    return table(["Figure", "Last good", "Now", "Change"], rows, (1, 2, 3))


def _figure(value: float | None, unit: str, places: int) -> str:
    return words.NOTHING if value is None else f"{value:.{places}f} {unit}".strip()


def _came_back(check: dict[str, t.Any]) -> str:
    """What a check learned; of one that failed also what was asked and what to try."""
    if not check.get("passed"):
        told = [f"asked {words.line(check['asked'], 400)}"] if check.get("asked") else []
        told.append(words.line(check.get("got") or check.get("reason") or "nothing is known", 600))
        if check.get("try"):
            told.append(f"Try: {words.line(check['try'], 400)}")
        return "\n".join(told)
    tries = check.get("attempts")
    again = f"{len(tries)} attempts; " if isinstance(tries, list) else ""
    return again + (_evidence(check.get("evidence")) or words.NOTHING)


def _evidence(found: t.Any) -> str:
    if not isinstance(found, dict):
        return ""
    told = []
    if found.get("answer") is not None:
        told.append(f"“{words.line(found['answer'], _ANSWER)}”")
    told += [
        f"{square.get('colour')}: “{words.line(square.get('answer', ''), 60)}”"
        for square in words.dicts(found.get("squares"))
    ]
    if isinstance(found.get("models"), list):
        told.append(words.named([words.line(model, 80) for model in found["models"]], 3))
    if found.get("status") is not None:
        told.append(f"status {words.line(found['status'], 20)}")
    if found.get("finish_reason") is not None:
        told.append(f"finished by {words.line(found['finish_reason'], 20)}")
    tokens = words.number(found.get("completion_tokens"))
    if tokens is not None:
        told.append(words.count(tokens, "token"))
    measured = words.figures(found)
    return ", ".join([*told, measured] if measured else told)


def _drained(of: dict[str, t.Any]) -> list[Html]:
    items = []
    for label, instance in of["instances"].items():
        for drain in instance["drains"]:
            left = "nothing was in flight"
            if not drain["idle"]:
                left = f"{words.count(len(drain['requests']), 'request')} still in flight at the limit"
            duck = (
                f" after a lame duck of {words.duration(drain['lame_duck_seconds'])}"
                if drain["lame_duck_seconds"]
                else ""
            )
            items.append(tag("li", f"{label}: {left}, waited {words.duration(drain['waited'])}{duck}"))
    return [tag("h3", "Drains"), tag("ul", *items, class_="list")] if items else []


def _steps(of: dict[str, t.Any]) -> list[Html]:
    rows = []
    for label, instance in of["instances"].items():
        for step in instance["steps"]:
            name = steps.label(step["step"]) + (" (second attempt)" if step["attempt"] > 1 else "")
            took = words.duration(step["seconds"]) if step["seconds"] is not None else "goes on"
            rows.append([label, name, words.clock(step["began"]), took + (", broken off" if step["broken"] else "")])
    return [tag("h3", "Steps"), table(["Instance", "Step", "Began (UTC)", "Took"], rows, (3,))] if rows else []


def _progress(of: dict[str, t.Any]) -> list[Html]:
    items = []
    for label, instance in of["instances"].items():
        for told in instance["progress"]:
            at = "" if told["seconds"] is None else f"+{told['seconds']:.0f} s "
            items.append(tag("li", f"{label} {at}{said(told)}"))
    if not items:
        return []
    shown = [*items[:40], tag("li", f"and {len(items) - 40} more in the journal")] if len(items) > 40 else items
    return [tag("h3", "What the engine was doing while it started"), tag("ul", *shown, class_="list muted")]


def said(progress: dict[str, t.Any]) -> str:
    """What an engine is doing, in a few words."""
    told = words.line(progress["text"] or progress["phase"].replace("_", " "), 120)
    percent = words.number(progress["percent"])
    return told if percent is None or "%" in told else f"{told} ({percent:.0f} %)"


# The traffic driver's report


def driven(record: Record) -> tuple[int, int]:
    """Requests and streams that failed, and those that were sent; of all runs."""
    failed = sent = 0
    for report in chart.reports(record):
        requests, streams = _dict(report.get("requests")), _dict(report.get("streams"))
        failed += _whole(requests, "failed") + _whole(streams, "failed") + _whole(streams, "cut")
        sent += _whole(requests, "sent") + _whole(streams, "begun")
    return failed, sent


def report_line(report: dict[str, t.Any]) -> str:
    """A traffic driver's report in one line."""
    requests, streams = _dict(report.get("requests")), _dict(report.get("streams"))
    told = [
        f"{words.count(_whole(requests, 'sent'), 'request')}, {words.grouped(_whole(requests, 'failed'))} failed",
        f"{words.count(_whole(streams, 'begun'), 'stream')}, {words.grouped(_whole(streams, 'failed'))} failed and "
        f"{words.grouped(_whole(streams, 'cut'))} cut",
    ]
    gap = words.number(_dict(report.get("longest_gap")).get("seconds"))
    if gap is not None:
        told.append(f"longest time without an answer {words.duration(gap)}")
    return "; ".join(told)


def report_rows(report: dict[str, t.Any]) -> Html:
    """A traffic driver's report at length: every figure that it has, and its errors."""
    rows = []
    for name, value in report.items():
        if name in ("seconds", "errors", "bucket_seconds") or value is None or value == {}:
            continue
        title = _TITLES.get(name, words.line(name, 60).replace("_", " "))
        rows.append([title, _said(name, value)])
    errors = [
        [
            words.clock(words.number(error.get("at"))),
            words.line(error.get("kind", ""), 60),
            tag("p", words.line(error.get("what", ""), 300), class_="said"),
            words.duration(words.number(error.get("seconds"))),
        ]
        for error in words.dicts(report.get("errors"))[:_ERRORS]
    ]
    parts = [table(["Figure", "Value"], rows)]
    if errors:
        parts += [tag("h3", "Errors"), table(["At (UTC)", "Kind", "What", "After"], errors, (3,))]
    return join(parts)


def _said(name: str, value: t.Any) -> str:
    """A value of a report: a moment, a duration, a count, or several with their names."""
    if isinstance(value, dict):
        named = ((words.line(key, 60).replace("_", " "), _said(key, item)) for key, item in value.items())
        return ", ".join(said_ if key == "seconds" else f"{key} {said_}" for key, said_ in named) or "none"
    number = words.number(value)
    if number is None:
        return words.NOTHING if value is None else words.line(value, 200)
    if name in ("at", "began", "ended", "written"):
        return words.moment(number)
    return words.grouped(number) if isinstance(value, int) else words.duration(number)


def _dict(value: t.Any) -> dict[str, t.Any]:
    return value if isinstance(value, dict) else {}


def _whole(of: dict[str, t.Any], name: str) -> int:
    return int(words.number(of.get(name)) or 0)
