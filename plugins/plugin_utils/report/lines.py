# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A rollout as lines on a terminal, one for each event of interest. Pure: events in, lines out."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.report import hosts, traffic, words
from ansible_collections.inference.fleet.plugins.plugin_utils.report.record import ends
from ansible_collections.inference.fleet.plugins.plugin_utils.report.values import as_dict, as_dicts, as_list, as_number
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import steps
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.evidence import FINE, WORSE

#: The kinds of lines, with the names of Ansible's colours.
PLAIN = ""
GOOD = "OK"
NEWS = "HIGHLIGHT"
DETAIL = "SKIP"
WARNING = "WARN"
BAD = "ERROR"
GONE = "UNREACHABLE"

#: Seconds without news after which a line says so; the interval doubles up to the second figure.
QUIET = 15.0
_QUIETEST = 60.0

# An engine that counts files would fill the screen.
_SAME_PHASE = 10.0

_LONGEST = 500


class ReportLine(t.NamedTuple):
    """A line, and its kind."""

    text: str
    kind: str = PLAIN


@dataclasses.dataclass
class _Going:
    """A running step.

    Attributes:
        step: its name.
        began: Unix time.
        quiet_at: when its silence is reported.
        wait: the interval until then, in seconds.
        phase: the last one with a line, and when.
        seen: the last progress.
    """

    step: str
    began: float
    quiet_at: float
    wait: float = QUIET
    phase: str = ""
    phase_at: float = 0.0
    seen: tuple[t.Any, ...] = ()


class Reporter:
    """Turns one run of a rollout into lines; each begins with the time since the start of the run."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._turns: dict[str, float] = {}
        self._expected: dict[str, float] = {}
        self._going: dict[tuple[str, str], _Going] = {}

    def take(self, event: dict[str, t.Any], now: float) -> list[ReportLine]:
        """The lines of an event, possibly none.

        Args:
            event: of the journal.
            now: Unix time at which it was read.
        """
        at = as_number(event.get("at"))
        at = now if at is None else at
        if self._began is None:
            self._began = at
        handler = getattr(self, f"_on_{event.get('event')}", None)
        lines: list[ReportLine] = handler(event, at, now) if handler else []
        return [self._line(text, kind, at) for text, kind in lines]

    def quiet(self, now: float) -> list[ReportLine]:
        """Lines about silent steps."""
        lines = []
        for (host, instance), going in self._going.items():
            if now < going.quiet_at:
                continue
            step = steps.find(going.step)
            reports = bool(step and step.reports)
            silent = f"quiet for {going.wait:.0f} s" if reports else "goes on"
            expected = self._expected.get(host)
            if reports and expected:
                silent += f"; the whole host took {words.duration(expected)} last time"
            since = now - going.began
            text = f"{_who(host, instance)}  {steps.label(going.step)}  +{since:.0f} s  {silent}"
            lines.append(self._line(text, DETAIL, now))
            going.wait = min(going.wait * 2, _QUIETEST)
            going.quiet_at = now + going.wait
        return lines

    def _line(self, text: str, kind: str, at: float) -> ReportLine:
        since = words.elapsed(at - (self._began or at))
        return ReportLine(f"rollout {since:>7}  {_shown(text)}", kind)

    def _on_begin(self, event: dict[str, t.Any], at: float, now: float) -> list[ReportLine]:
        return self._planned(event, f"{_text(event, 'verb') or 'rollout'} of")

    def _on_resume(self, event: dict[str, t.Any], at: float, now: float) -> list[ReportLine]:
        self._going.clear()
        done = len(as_list(event.get("done")))
        before = f", {words.count(done, 'host')} done before" if done else ""
        return self._planned(event, "goes on with", before)

    def _planned(self, event: dict[str, t.Any], verb: str, after: str = "") -> list[ReportLine]:
        waves = as_list(event.get("waves"))
        planned = as_dict(event.get("hosts"))
        for host, plan in planned.items():
            expected = as_number(plan.get("expected_seconds")) if isinstance(plan, dict) else None
            if expected is not None:
                self._expected[host] = expected
        many = f"{words.count(len(planned), 'host')} in {words.count(len(waves), 'wave')}"
        lines = [ReportLine(f"{verb} {many}{self._takes(waves)}{after}", NEWS)]
        lines += [
            ReportLine(f"left out: {host}: {words.line(why)}", WARNING)
            for host, why in as_dict(event.get("left_out")).items()
        ]
        return lines + [ReportLine(words.line(warning), WARNING) for warning in as_list(event.get("warnings"))]

    def _takes(self, waves: list[t.Any]) -> str:
        """The duration of all waves, if each host takes as long as last time."""
        total = 0.0
        for wave in waves:
            known = [self._expected.get(str(host)) for host in (wave if isinstance(wave, list) else [])]
            if not known or None in known:
                return ""
            total += max(seconds for seconds in known if seconds is not None)
        return f", about {words.duration(total)}" if total else ""

    def _on_turn(self, event: dict[str, t.Any], at: float, now: float) -> list[ReportLine]:
        names = [words.line(name) for name in as_list(event.get("hosts"))]
        self._turns.update(dict.fromkeys(names, at))
        load = {name: as_number(value) for name, value in as_dict(event.get("load")).items()}
        running, limit, left = load.get("running"), load.get("limit"), load.get("left")
        note = ""
        if running is not None and limit:
            busy = running + (load.get("waiting") or 0)
            note = f"{words.grouped(busy)} of {words.grouped(limit)} requests in flight"
            if left is not None:
                note += f", {words.grouped(left)} left while {'it is' if len(names) == 1 else 'they are'} out"
            note = f" ({note})"
        return [ReportLine(f"wave {event.get('wave')} of {event.get('waves')}: {words.named(names)}{note}", NEWS)]

    def _on_step(self, event: dict[str, t.Any], at: float, now: float) -> list[ReportLine]:
        host, instance, step = _text(event, "host"), _text(event, "instance"), _text(event, "step")
        self._turns.setdefault(host, at)
        for (other_host, other), going in list(self._going.items()):
            if other_host == host and ends(other, going.step, instance, step):
                del self._going[other_host, other]
        self._going[host, instance] = _Going(step, at, now + QUIET)
        again = event.get("attempt") not in (None, 1)
        text = f"{_who(host, instance)}  {steps.label(step)}"
        return [ReportLine(f"{text} (second attempt)", WARNING) if again else ReportLine(text)]

    def _on_progress(self, event: dict[str, t.Any], at: float, now: float) -> list[ReportLine]:
        host, instance = _text(event, "host"), _text(event, "instance")
        going = self._going.get((host, instance))
        seen = tuple(event.get(name) for name in ("text", "phase", "percent"))
        if going is None or seen == going.seen:
            return []
        going.seen, going.wait, going.quiet_at = seen, QUIET, now + QUIET
        phase = _text(event, "phase")
        if phase == going.phase and at - going.phase_at < _SAME_PHASE:
            return []
        going.phase, going.phase_at = phase, at
        seconds = as_number(event.get("seconds"))
        since = at - going.began if seconds is None else seconds
        said = hosts.describe_progress({"text": _text(event, "text"), "phase": phase, "percent": event.get("percent")})
        return [ReportLine(f"{_who(host, instance)}  {steps.label(going.step)}  +{since:.0f} s  {said}", DETAIL)]

    def _on_drained(self, event: dict[str, t.Any], at: float, now: float) -> list[ReportLine]:
        who = _who(_text(event, "host"), _text(event, "instance"))
        took = words.duration(as_number(event.get("waited")))
        if event.get("idle") is True:
            return [ReportLine(f"{who}  drained, nothing in flight ({took})")]
        requests = as_dicts(event.get("requests"))
        oldest = sorted(requests, key=lambda request: -(as_number(request.get("seconds")) or 0.0))
        names = [
            f"{request.get('client') or 'unknown'} for {words.duration(as_number(request.get('seconds')))}"
            for request in oldest
        ]
        still = f"{words.count(len(requests), 'request')} still in flight" if requests else "its engine still at work"
        return [
            ReportLine(f"{who}  drained for {took}, {still}{': ' if names else ''}{words.named(names, 3)}", WARNING)
        ]

    def _on_gate(self, event: dict[str, t.Any], at: float, now: float) -> list[ReportLine]:
        who = _who(_text(event, "host"), _text(event, "target"))
        if event.get("passed") is True:
            figures = words.figures(event.get("figures"))
            return [ReportLine(f"{who}  gate passed{f' ({figures})' if figures else ''}", GOOD)]
        return [ReportLine(f"{who}  gate failed: {_text(event, 'message') or 'it says nothing more'}", BAD)]

    def _on_outcome(self, event: dict[str, t.Any], at: float, now: float) -> list[ReportLine]:
        host, outcome = _text(event, "host"), _text(event, "outcome")
        self._over(host)
        began = self._turns.pop(host, None)
        if outcome == "done":
            return [ReportLine(f"{host} done{'' if began is None else f' in {words.duration(at - began)}'}", GOOD)]
        after = "" if began is None else f" after {words.duration(at - began)}"
        said = _text(event, "message")
        for name in (f"{host}: ", f"{host} "):
            said = said[len(name) :] if said.startswith(name) else said
        text = f"{host} {words.outcome(outcome)}{after}{f': {said}' if said else ''}"
        return [ReportLine(text, GONE if outcome == "unreachable" else BAD)]

    def _on_decision(self, event: dict[str, t.Any], at: float, now: float) -> list[ReportLine]:
        return [ReportLine(_text(event, "text"), WARNING)]

    def _on_self_test(self, event: dict[str, t.Any], at: float, now: float) -> list[ReportLine]:
        if event.get("passed") is True:
            return [ReportLine(f"the gate proved on {_text(event, 'host')} that it can fail", GOOD)]
        return [ReportLine(f"the gate did not prove that it can fail: {_text(event, 'message')}", BAD)]

    def _on_pause(self, event: dict[str, t.Any], at: float, now: float) -> list[ReportLine]:
        seconds = words.duration(as_number(event.get("seconds")))
        return [ReportLine(f"watching wave {event.get('wave')} for {seconds} before the next", DETAIL)]

    def _on_evidence(self, event: dict[str, t.Any], at: float, now: float) -> list[ReportLine]:
        kind = {WORSE: BAD, FINE: GOOD}.get(_text(event, "verdict"), WARNING)
        return [ReportLine(f"wave {event.get('wave')}: {words.line(event.get('text'), _LONGEST)}", kind)]

    def _over(self, host: str) -> None:
        for key in [key for key in self._going if key[0] == host]:
            del self._going[key]


def summary(record: dict[str, t.Any], page: str) -> list[ReportLine]:
    """The last lines: the outcome, and where to read more."""
    totals, outcome = record["totals"], record["outcome"]
    how = "in" if outcome == "finished" else "after"
    done = f"{totals['done']} of {words.count(totals['hosts'], 'host')} done"
    parts = [done, *words.others(record)]
    failed, sent = traffic.count_requests(record)
    if sent:
        parts.append(f"{words.grouped(failed)} of {words.grouped(sent)} watched requests failed")
    text = f"rollout {outcome} {how} {words.duration(totals['working_seconds'])}: {', '.join(parts)}"
    kind = BAD if outcome != "finished" else WARNING if failed or totals["failed"] else GOOD
    again = (
        [ReportLine("rollout goes on from here when the same command is run again")] if outcome == "broken off" else []
    )
    return [ReportLine(_shown(text), kind), *again, ReportLine(f"rollout page: {words.safe(page)}")]


def _who(host: str, instance: str) -> str:
    return f"{host} {instance}".strip()


def _shown(text: str) -> str:
    shown = words.safe(text)
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def _text(event: dict[str, t.Any], name: str) -> str:
    value = event.get(name)
    return "" if value is None else words.line(value)
