# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A record's hosts with their gates and drains, as rows and words. Pure."""

from __future__ import annotations

import math
import statistics
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.instances.status import short_revision
from ansible_collections.inference.fleet.plugins.plugin_utils.report import words
from ansible_collections.inference.fleet.plugins.plugin_utils.report.record import RolloutRecord
from ansible_collections.inference.fleet.plugins.plugin_utils.report.values import as_dicts, as_number
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import steps

_FIGURES = (
    ("ttft_ms", "time to first token", "ms", 0),
    ("tokens_per_second", "tokens per second", "", 1),
    ("total_ms", "in all", "ms", 0),
)
_ANSWER = 160

_KINDS = {words.DONE: "ok", words.NOT_BEGUN: "muted", words.IN_TURN: "run"}


class HostView(t.NamedTuple):
    """A host of a record.

    Attributes:
        name: the inventory's.
        anchor: of its description on a page.
        state: in words.
        record: its part of fold()'s result.
    """

    name: str
    anchor: str
    state: str
    record: dict[str, t.Any]

    @property
    def kind(self) -> str:
        """Its class: ``ok``, ``bad``, ``run`` or ``muted``."""
        return _KINDS.get(self.state, "bad")

    @property
    def failure(self) -> str:
        """How its turn failed; empty where it did not, or has not ended."""
        outcome = self.record["outcome"]
        if outcome in (None, "done"):
            return ""
        return outcome if outcome in words.OUTCOMES else "failed"

    @property
    def reasons(self) -> list[str]:
        """The reason for its change."""
        return sorted({instance["reason"] for instance in self.record["instances"].values() if instance["reason"]})

    @property
    def reached(self) -> list[str]:
        """The last step of each instance."""
        found = [(label, instance["steps"]) for label, instance in self.record["instances"].items()]
        return [f"{label} in its step {steps.label(taken[-1]['step'])}" for label, taken in found if taken]

    @property
    def gates(self) -> list[dict[str, t.Any]]:
        """All of its gates in order."""
        found = [gate for instance in self.record["instances"].values() for gate in instance["gates"]]
        return sorted(found + self.record["gates"], key=lambda gate: gate["at"])

    @property
    def drains(self) -> list[tuple[str, dict[str, t.Any]]]:
        """Its drains, with their instance."""
        found = self.record["instances"].items()
        return [(label, drain) for label, instance in found for drain in instance["drains"]]

    @property
    def steps(self) -> list[list[str]]:
        """The steps, their start and duration."""
        rows = []
        for label, instance in self.record["instances"].items():
            for step in instance["steps"]:
                name = steps.label(step["step"]) + (" (second attempt)" if step["attempt"] > 1 else "")
                took = "goes on" if step["seconds"] is None else words.duration(step["seconds"])
                broken = ", broken off" if step["broken"] else ""
                rows.append([label, name, words.clock(step["began"]), took + broken])
        return rows

    @property
    def progress(self) -> list[str]:
        """The progress of its engines at start."""
        lines = []
        for label, instance in self.record["instances"].items():
            for one in instance["progress"]:
                at = "" if one["seconds"] is None else f"+{one['seconds']:.0f} s "
                lines.append(f"{label} {at}{describe_progress(one)}")
        return lines


class Speed(t.NamedTuple):
    """The median of the gates' figures, and the previous one."""

    first: float
    rate: float | None
    old_first: float | None
    old_rate: float | None
    gates: int


def sort_hosts(record: RolloutRecord) -> list[HostView]:
    """The hosts in the order of their turns; those without one come last."""

    def place(name: str) -> tuple[float, float, list[t.Any]]:
        began, wave = record["hosts"][name]["began"], record["hosts"][name]["wave"]
        return (math.inf if began is None else began, math.inf if wave is None else wave, words.split_numbers(name))

    return [
        HostView(name, f"h{number}", words.state(record, name), record["hosts"][name])
        for number, name in enumerate(sorted(record["hosts"], key=place), 1)
    ]


def describe_change(before: dict[str, t.Any] | None, after: dict[str, t.Any] | None) -> str:
    """The change of an instance's engine and model, in words; None where there was none."""
    parts = []
    for name in (_software, _model):
        old, new = name(before), name(after)
        if old and new and old != new:
            parts.append(f"{old} → {new}")
        elif new or old:
            parts.append(f"{'' if old else 'new: '}{new or old}")
    return ", ".join(parts) or words.NOTHING


def describe_release(before: dict[str, t.Any] | None, after: dict[str, t.Any] | None) -> str:
    """The change of an instance's release, in words."""
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


def find_drains(hosts: t.Iterable[HostView]) -> list[tuple[str, str, dict[str, t.Any]]]:
    """Every drain, with host and instance; one of a whole host counts once."""
    found = []
    for host in hosts:
        seen: list[dict[str, t.Any]] = []
        for label, drain in host.drains:
            if drain not in seen:
                seen.append(drain)
                found.append((host.name, label, drain))
    return found


def list_in_flight(hosts: t.Iterable[HostView]) -> list[list[str]]:
    """The requests in flight when a drain reached its limit: host, instance, client, age, time waited."""
    rows = []
    for host, name, drain in find_drains(hosts):
        if drain["idle"]:
            continue
        limit = words.duration(drain["waited"])
        for request in drain["requests"]:
            who, at = request.get("client") or "unknown", request.get("instance") or name
            rows.append([host, at, who, words.duration(as_number(request.get("seconds"))), limit])
        for engine in drain["engines"]:
            busy = f"{engine.get('running', '?')} running, {engine.get('waiting', '?')} waiting, by its own counters"
            rows.append([host, engine.get("instance") or name, engine.get("problem") or busy, words.NOTHING, limit])
    return rows


def list_plan(hosts: t.Iterable[HostView]) -> list[list[t.Any]]:
    """Each instance: its host and wave, the change of it and of its release, the reason, and its host's duration."""
    rows: list[list[t.Any]] = []
    for host in hosts:
        of = host.record
        whole = [host.name, words.NOTHING if of["wave"] is None else str(of["wave"])]
        times = [words.duration(of["expected_seconds"]), words.duration(of["seconds"])]
        for label, one in of["instances"].items():
            becomes = (describe_change(one["from"], one["to"]), describe_release(one["from"], one["to"]))
            rows.append([*whole, label, becomes, one["reason"] or words.NOTHING, *times])
            # The host's values are in its first row.
            whole, times = ["", ""], ["", ""]
    return rows


def measure_speed(hosts: t.Iterable[HostView]) -> Speed | None:
    """The gates' figures; nothing where there are none."""
    seen = [gate for host in hosts for gate in host.gates if gate["passed"] and gate["figures"]]
    # Figures through the edge show how busy the fleet was.
    passed = [gate for gate in seen if gate["judged"]] or seen
    first = _middle(passed, "figures", "ttft_ms")
    if first is None:
        return None
    return Speed(
        first,
        _middle(passed, "figures", "tokens_per_second"),
        _middle(passed, "good", "ttft_ms"),
        _middle(passed, "good", "tokens_per_second"),
        len(passed),
    )


def _middle(found: list[dict[str, t.Any]], of: str, name: str) -> float | None:
    values = [as_number(_figures(gate.get(of)).get(name)) for gate in found]
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _figures(value: t.Any) -> dict[str, t.Any]:
    """Figures, also from a record of good ones."""
    if not isinstance(value, dict):
        return {}
    inner = value.get("figures")
    return inner if isinstance(inner, dict) else value


# A gate


def compare_figures(gate: dict[str, t.Any]) -> list[list[str]]:
    """A gate's figures beside those of the last good one."""
    now, before = _figures(gate["figures"]), _figures(gate.get("good"))
    rows = []
    for name, title, unit, places in _FIGURES:
        value, old = as_number(now.get(name)), as_number(before.get(name))
        if value is not None:
            change_ = f"{(value - old) / old * 100:+.0f} %" if old else words.NOTHING
            rows.append([title, _figure(old, unit, places), _figure(value, unit, places), change_])
    return rows


def _figure(value: float | None, unit: str, places: int) -> str:
    return words.NOTHING if value is None else f"{value:.{places}f} {unit}".strip()


def list_checks(gate: dict[str, t.Any]) -> list[list[t.Any]]:
    """A gate's checks: name, whether it passed, duration, and the answer."""
    return [
        [
            str(check.get("name", "")),
            bool(check.get("passed")),
            words.duration(as_number(check.get("seconds"))),
            _came_back(check),
        ]
        for check in gate["checks"]
    ]


def _came_back(check: dict[str, t.Any]) -> str:
    """The evidence of a check; of a failed one also the request and what to try."""
    if not check.get("passed"):
        parts = [f"asked {words.line(check['asked'], 400)}"] if check.get("asked") else []
        parts.append(words.line(check.get("got") or check.get("reason") or "nothing is known", 600))
        if check.get("try"):
            parts.append(f"Try: {words.line(check['try'], 400)}")
        return "\n".join(parts)
    tries = check.get("attempts")
    again = f"{len(tries)} attempts; " if isinstance(tries, list) else ""
    return again + (_evidence(check.get("evidence")) or words.NOTHING)


def _evidence(found: t.Any) -> str:
    if not isinstance(found, dict):
        return ""
    parts = []
    if found.get("answer") is not None:
        parts.append(f"\u201c{words.line(found['answer'], _ANSWER)}\u201d")
    parts += [
        f"{square.get('colour')}: \u201c{words.line(square.get('answer', ''), 60)}\u201d"
        for square in as_dicts(found.get("squares"))
    ]
    if isinstance(found.get("models"), list):
        parts.append(words.named([words.line(model, 80) for model in found["models"]], 3))
    if found.get("status") is not None:
        parts.append(f"status {words.line(found['status'], 20)}")
    if found.get("finish_reason") is not None:
        parts.append(f"finished by {words.line(found['finish_reason'], 20)}")
    tokens = as_number(found.get("completion_tokens"))
    if tokens is not None:
        parts.append(words.count(tokens, "token"))
    measured = words.figures(found)
    return ", ".join([*parts, measured] if measured else parts)


def describe_progress(progress: dict[str, t.Any]) -> str:
    """What an engine is doing, in a few words."""
    text = words.line(progress["text"] or progress["phase"].replace("_", " "), 120)
    percent = as_number(progress["percent"])
    return text if percent is None or "%" in text else f"{text} ({percent:.0f} %)"
