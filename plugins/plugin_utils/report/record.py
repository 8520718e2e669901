# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A rollout's record, made from its journal. Pure: events in, the record out.

The journal may end anywhere and continue after a resume; missing information is None and never a guess.
"""

from __future__ import annotations

import math
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.report.values import (
    as_dict,
    as_dicts,
    as_integer,
    as_list,
    as_number,
    as_text,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import steps
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.journal import Event
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.outcome import UNREGISTERED

#: What fold() makes.
RolloutRecord = dict[str, t.Any]

# The instance name of a gate through the edge, and of a step of the whole host.
_EDGE = "edge"

_OF_A_HOST = ("step", "progress", "drained", "gate", "outcome")


def fold(events: t.Iterable[Event], alive: bool = True) -> RolloutRecord:
    """The record of a rollout.

    Args:
        events: from the journal's parse().
        alive: whether the walking process still runs. A journal without ``end`` is of a rollout that is running, or
            that was interrupted.

    Returns:
        Moments are Unix time, durations seconds, both float; None is "not known" or "not yet". ::

            id, verb, who, controller                       as the journal's first line has them
            variables     {rollout_...: as given}
            began, ended|None, last                         ``last`` is the moment of the newest event
            outcome       "running" | "finished" | "stopped" | "broken off"
            message       the end's; for one that was broken off, what is known
            runs          [{at, who, controller, pid, ended|None, waves[[host]], done[host]}]     begin, and each resume
            waves         [{run, number, of, hosts[host], began, ended|None, seconds|None, out_seconds,
                            load{running, waiting, limit, left}}]                                 a batch each
            hosts         {name: {wave|None, outcome|None, message, expected_seconds|None, began, ended, seconds,
                           tries[{run, began, ended, outcome, message}], gates[gate],            gates through the edge
                           instances{name: {reason, from|None, to|None,
                               steps[{step, attempt, began, ended|None, seconds|None, broken, run}],
                               drained|None, drains[drain], gates[gate],
                               progress[{at, phase, text, percent|None, seconds|None}]}}}}
            left_out      {host: reason}
            warnings      [text]
            loads         [{at, hosts, serving, running, waiting, limit}]    over all hosts; limit: of those that serve
            errors        [{host, began, ended, errors, answers}]    5xx between two looks at a host's edge, where any
            decisions     [{at, text}]
            self_test     {at, host, passed, message} | None
            pauses        [{wave, began, seconds, ended|None}]
            evidence      [{at, wave, verdict, text, comparisons[{kind, hosts, untouched, verdict, text, requests,
                            figures[{name, wave, untouched, allowed, verdict}]}]}]     a wave against untouched hosts
            traffic       the traffic driver's last report | None
            traffic_before   [those of the runs before]
            totals        {seconds, working_seconds, interrupted_seconds, hosts, done, failed, open, out_seconds,
                           cut, answers, errors}

        A host's ``seconds`` are those of its tries together; a try begins with the host's turn and ends with its
        outcome. ``outcome`` None is a host that was not begun, or whose try has not ended. A step that is ``broken``
        was going on when its run ended; its ``ended`` is the last that is known. A gate is {at, target, attempt,
        passed, message, figures, checks, ...}, a drain {at, attempt, idle, requests, engines, waited,
        lame_duck_seconds}; ``drained`` is the newest drain.

        Of the totals, ``out_seconds`` is the sum over the waves of what its slowest host took to stop, start and pass
        the gate: what the rollout would take if nothing else took time. ``failed`` are hosts with any outcome but done,
        ``open`` those without one, ``cut`` requests in flight when a drain reached its limit.
    """
    folder = _Folder()
    for event in events:
        folder.take(event)
    return folder.record(alive)


class _Folder:
    """The state after the events so far."""

    def __init__(self) -> None:
        self._head: dict[str, t.Any] = {"id": "", "verb": "", "who": "", "controller": "", "variables": {}}
        self._began: float | None = None
        self._ended: float | None = None
        self._last: float | None = None
        self._outcome: str | None = None
        self._message = ""
        self._runs: list[dict[str, t.Any]] = []
        self._waves: list[dict[str, t.Any]] = []
        self._hosts: dict[str, dict[str, t.Any]] = {}
        self._left_out: dict[str, str] = {}
        self._warnings: list[str] = []
        self._loads: list[dict[str, t.Any]] = []
        self._counters: dict[str, tuple[float, dict[str, float]]] = {}
        self._errors: list[dict[str, t.Any]] = []
        self._answers = 0
        self._decisions: list[dict[str, t.Any]] = []
        self._self_test: dict[str, t.Any] | None = None
        self._pauses: list[dict[str, t.Any]] = []
        self._evidence: list[dict[str, t.Any]] = []
        self._traffic: list[dict[str, t.Any]] = []

    def take(self, event: Event) -> None:
        """Process one event; an unknown one only moves the clock."""
        kind = event.get("event")
        if kind == "resume":
            # Before the clock moves: a running step is not known to have continued.
            self._break_off()
        at = as_number(event.get("at"))
        if at is None:
            at = self._last if self._last is not None else 0.0
        self._last = at if self._last is None else max(at, self._last)
        handler = getattr(self, f"_on_{kind}", None)
        if handler is not None and (event.get("host") or kind not in _OF_A_HOST):
            handler(event, at)

    def record(self, alive: bool) -> dict[str, t.Any]:
        """The record as of the last event."""
        outcome = self._outcome or ("running" if alive else "broken off")
        message = self._message
        if outcome == "broken off":
            self._break_off()
            message = self._last_words()
        return {
            **self._head,
            "began": self._began,
            "ended": self._ended,
            "last": self._last,
            "outcome": outcome,
            "message": message,
            "runs": self._runs,
            "waves": self._finished_waves(),
            "hosts": self._hosts,
            "left_out": self._left_out,
            "warnings": self._warnings,
            "loads": self._loads,
            "errors": self._errors,
            "decisions": self._decisions,
            "self_test": self._self_test,
            "pauses": self._pauses,
            "evidence": self._evidence,
            "traffic": self._traffic[-1] if self._traffic else None,
            "traffic_before": self._traffic[:-1],
            "totals": self._totals(),
        }

    # Events

    def _on_begin(self, event: Event, at: float) -> None:
        for name in ("id", "verb", "who", "controller"):
            self._head[name] = as_text(event.get(name))
        self._head["variables"] = as_dict(event.get("variables"))
        if self._began is None:
            self._began = at
        self._start_run(event, at)

    def _on_resume(self, event: Event, at: float) -> None:
        self._outcome = self._ended = None
        self._message = ""
        self._start_run(event, at)
        for name in self._runs[-1]["done"]:
            host = self._host(name)
            if host["outcome"] is None:
                # It was done, but the previous run was killed before it could record that.
                host.update(outcome="done", message="The run that took over found it done.")
                host["ended"] = host["ended"] if host["ended"] is not None else at
            elif host["outcome"] == UNREGISTERED:
                host.update(outcome="done", message="The run that took over put it back into its target groups.")

    def _on_turn(self, event: Event, at: float) -> None:
        self._close_batch(at)
        names = _names(event.get("hosts"))
        number = as_integer(event.get("wave"))
        self._waves.append(
            {
                "run": len(self._runs),
                "number": number,
                "of": as_integer(event.get("waves")),
                "hosts": names,
                "began": at,
                "ended": None,
                "seconds": None,
                "out_seconds": 0.0,
                "load": as_dict(event.get("load")),
            }
        )
        for name in names:
            host = self._host(name)
            if number is not None:
                host["wave"] = number
            self._begin_try(host, at)

    def _on_load(self, event: Event, at: float) -> None:
        hosts = {name: as_dict(load) for name, load in as_dict(event.get("hosts")).items()}
        serving = [load for load in hosts.values() if load.get("health") == 200]
        self._loads.append(
            {
                "at": at,
                "hosts": len(hosts),
                "serving": len(serving),
                "running": _sum(load.get("running") for load in hosts.values()),
                "waiting": _sum(load.get("waiting") for load in hosts.values()),
                "limit": _sum(load.get("limit") for load in serving),
            }
        )
        for name, load in hosts.items():
            self._count(name, as_dict(load.get("responses")), at)

    def _on_step(self, event: Event, at: float) -> None:
        host = self._host(event.get("host"))
        step = as_text(event.get("step"))
        self._begin_try(host, at)
        targets = self._targets(host, event.get("instance"))
        for name, instance in host["instances"].items():
            if not instance["steps"] or any(instance is target for target in targets):
                continue
            if ends(name, instance["steps"][-1]["step"], as_text(event.get("instance")), step):
                _close(instance["steps"][-1], at)
        for instance in targets:
            if instance["steps"]:
                _close(instance["steps"][-1], at)
            attempt = as_integer(event.get("attempt")) or 1
            begun = {"step": step, "attempt": attempt, "began": at, "ended": None, "seconds": None}
            instance["steps"].append({**begun, "broken": False, "run": len(self._runs)})

    def _on_progress(self, event: Event, at: float) -> None:
        seen = {
            "at": at,
            "phase": as_text(event.get("phase")),
            "text": as_text(event.get("text")),
            "percent": as_number(event.get("percent")),
            "seconds": as_number(event.get("seconds")),
        }
        for instance in self._targets(self._host(event.get("host")), event.get("instance")):
            instance["progress"].append(seen)

    def _on_drained(self, event: Event, at: float) -> None:
        for instance in self._targets(self._host(event.get("host")), event.get("instance")):
            drain = {
                "at": at,
                "attempt": _attempt([instance]),
                "idle": bool(event.get("idle")),
                "requests": as_dicts(event.get("requests")),
                "engines": as_dicts(event.get("engines")),
                "waited": as_number(event.get("waited")),
                "lame_duck_seconds": as_number(event.get("lame_duck_seconds")),
            }
            instance["drains"].append(drain)
            instance["drained"] = drain

    def _on_gate(self, event: Event, at: float) -> None:
        host = self._host(event.get("host"))
        target = as_text(event.get("target")) or _EDGE
        instance = host["instances"].get(target)
        known = [instance] if instance else list(host["instances"].values())
        (instance or host)["gates"].append(
            {
                **{name: value for name, value in event.items() if name not in ("event", "host")},
                "at": at,
                "target": target,
                "attempt": _attempt(known),
                "passed": event.get("passed") is True,
                "message": as_text(event.get("message")),
                "figures": as_dict(event.get("figures")) or None,
                "judged": event.get("judged") is True,
                "checks": as_dicts(event.get("checks")),
            }
        )

    def _on_outcome(self, event: Event, at: float) -> None:
        host = self._host(event.get("host"))
        self._settle(host, as_text(event.get("outcome")) or None, as_text(event.get("message")), at)
        current = self._waves[-1] if self._waves else None
        if current and current["ended"] is None and all(self._hosts[name]["outcome"] for name in current["hosts"]):
            _close(current, at)

    def _on_decision(self, event: Event, at: float) -> None:
        self._decisions.append({"at": at, "text": as_text(event.get("text"))})

    def _on_self_test(self, event: Event, at: float) -> None:
        seen = {"host": as_text(event.get("host")), "message": as_text(event.get("message"))}
        self._self_test = {"at": at, **seen, "passed": event.get("passed") is True}

    def _on_pause(self, event: Event, at: float) -> None:
        self._close_batch(at)
        seconds = max(as_number(event.get("seconds")) or 0.0, 0.0)
        self._pauses.append({"wave": as_integer(event.get("wave")), "began": at, "seconds": seconds, "ended": None})

    def _on_evidence(self, event: Event, at: float) -> None:
        self._close_batch(at)
        self._evidence.append(
            {
                "at": at,
                "wave": as_integer(event.get("wave")),
                "verdict": as_text(event.get("verdict")),
                "text": as_text(event.get("text")),
                "comparisons": as_dicts(event.get("comparisons")),
            }
        )

    def _on_traffic(self, event: Event, at: float) -> None:
        report = as_dict(event.get("report"))
        if report:
            self._traffic.append(report)

    def _on_end(self, event: Event, at: float) -> None:
        self._outcome = "finished" if event.get("outcome") == "finished" else "stopped"
        self._message = as_text(event.get("message"))
        self._ended = at
        self._break_off()

    def _on_broken_line(self, event: Event, at: float) -> None:
        self._warn(
            f"Line {event.get('line')} of the journal cannot be read: the process that wrote it was ended. "
            "What it said is missing here."
        )

    # What events have in common

    def _start_run(self, event: Event, at: float) -> None:
        waves = [_names(wave) for wave in as_list(event.get("waves"))]
        run = {
            "at": at,
            "who": as_text(event.get("who")) or self._head["who"],
            "controller": as_text(event.get("controller")) or self._head["controller"],
            "pid": as_integer(event.get("pid")),
            "ended": None,
            "waves": waves,
            "done": _names(event.get("done")),
        }
        self._runs.append(run)
        for number, wave in enumerate(waves, 1):
            for name in wave:
                self._host(name)["wave"] = number
        for name, planned in as_dict(event.get("hosts")).items():
            self._plan(self._host(name), as_dict(planned))
        self._left_out = {name: as_text(reason) for name, reason in as_dict(event.get("left_out")).items()}
        for warning in as_list(event.get("warnings")):
            self._warn(as_text(warning))

    def _plan(self, host: dict[str, t.Any], planned: dict[str, t.Any]) -> None:
        wave = as_integer(planned.get("wave"))
        if wave is not None:
            host["wave"] = wave
        expected = as_number(planned.get("expected_seconds"))
        if expected is not None:
            host["expected_seconds"] = expected
        for item in as_dicts(planned.get("instances")):
            instance = self._instance(host, as_text(item.get("name")))
            # A resume finds the previous run's changes done already: the first state counts.
            instance["reason"] = instance["reason"] or as_text(item.get("reason"))
            instance["from"] = instance["from"] or as_dict(item.get("from")) or None
            instance["to"] = as_dict(item.get("to")) or instance["to"]

    def _begin_try(self, host: dict[str, t.Any], at: float) -> None:
        tries = host["tries"]
        if tries and tries[-1]["ended"] is None:
            return
        tries.append({"run": len(self._runs), "began": at, "ended": None, "outcome": None, "message": ""})
        host["outcome"], host["message"], host["ended"] = None, "", None
        if host["began"] is None:
            host["began"] = at

    def _settle(self, host: dict[str, t.Any], outcome: str | None, message: str, at: float) -> None:
        tries = host["tries"]
        if tries and tries[-1]["run"] == len(self._runs):
            if tries[-1]["ended"] is None:
                tries[-1]["ended"] = max(at, tries[-1]["began"])
            tries[-1].update(outcome=outcome, message=message)
            host["seconds"] = _seconds(tries)
            at = tries[-1]["ended"]
        host.update(outcome=outcome, message=message, ended=at)
        for instance in host["instances"].values():
            if instance["steps"]:
                _close(instance["steps"][-1], at)

    def _break_off(self) -> None:
        """The run is over: running steps ended, at the latest, at their last event."""
        at = self._last if self._last is not None else 0.0
        for host in self._hosts.values():
            for instance in host["instances"].values():
                if instance["steps"] and instance["steps"][-1]["ended"] is None:
                    _close(instance["steps"][-1], at)
                    instance["steps"][-1]["broken"] = True
            if host["tries"] and host["tries"][-1]["ended"] is None:
                host["tries"][-1]["ended"] = host["ended"] = at
                host["seconds"] = _seconds(host["tries"])
        self._close_batch(at)
        if self._runs and self._runs[-1]["ended"] is None:
            self._runs[-1]["ended"] = at

    def _close_batch(self, at: float) -> None:
        """A pause and a batch end with the next one, at the latest."""
        for batch in self._waves[-1:]:
            _close(batch, at)
        for pause in self._pauses[-1:]:
            if pause["ended"] is None:
                pause["ended"] = min(pause["began"] + pause["seconds"], max(at, pause["began"]))

    def _count(self, name: str, responses: dict[str, t.Any], at: float) -> None:
        counters = {kind: count for kind, count in ((kind, as_number(responses[kind])) for kind in responses) if count}
        if not responses:
            # The edge did not answer.
            return
        since, before = self._counters.get(name, (None, {}))
        self._counters[name] = (at, counters)
        if since is None:
            return
        restarted = any(counters.get(kind, 0.0) < count for kind, count in before.items())
        gained = {kind: count - (0.0 if restarted else before.get(kind, 0.0)) for kind, count in counters.items()}
        answers = int(sum(gained.values()))
        errors = int(gained.get("5xx", 0.0))
        self._answers += answers
        if errors:
            self._errors.append({"host": name, "began": since, "ended": at, "errors": errors, "answers": answers})

    def _host(self, name: t.Any) -> dict[str, t.Any]:
        """A host by name, planned or not."""
        return self._hosts.setdefault(
            as_text(name),
            {
                "wave": None,
                "outcome": None,
                "message": "",
                "expected_seconds": None,
                "began": None,
                "ended": None,
                "seconds": None,
                "tries": [],
                "gates": [],
                "instances": {},
            },
        )

    def _instance(self, host: dict[str, t.Any], name: str) -> dict[str, t.Any]:
        instances: dict[str, dict[str, t.Any]] = host["instances"]
        return instances.setdefault(
            name,
            {
                "reason": "",
                "from": None,
                "to": None,
                "steps": [],
                "drained": None,
                "drains": [],
                "gates": [],
                "progress": [],
            },
        )

    def _targets(self, host: dict[str, t.Any], name: t.Any) -> list[dict[str, t.Any]]:
        """The instances of an event: the one that it names, or all of the host."""
        instances: dict[str, dict[str, t.Any]] = host["instances"]
        if name in (None, "", _EDGE) and instances:
            return list(instances.values())
        return [self._instance(host, as_text(name) or _EDGE)]

    def _warn(self, text: str) -> None:
        if text and text not in self._warnings:
            self._warnings.append(text)

    # The end

    def _last_words(self) -> str:
        run = self._runs[-1] if self._runs else {"pid": None, "controller": ""}
        process = f"process {run['pid']}" if run["pid"] is not None else "its process"
        where = f" on {run['controller']}" if run["controller"] else ""
        return f"It was broken off: {process}{where} ended before the rollout did."

    def _finished_waves(self) -> list[dict[str, t.Any]]:
        for wave in self._waves:
            ended = wave["ended"] if wave["ended"] is not None else self._last
            wave["out_seconds"] = max((self._out(name, wave["began"], ended) for name in wave["hosts"]), default=0.0)
        return self._waves

    def _out(self, name: str, began: float, ended: float | None) -> float:
        """Seconds for which at least one of a host's instances was stopped, started or at its gate."""
        spans = [
            (step["began"], step["ended"])
            for instance in self._hosts[name]["instances"].values()
            for step in instance["steps"]
            if steps.is_out(step["step"]) and step["ended"] is not None
            if step["began"] >= began and (ended is None or step["began"] <= ended)
        ]
        return covered(spans)

    def _totals(self) -> dict[str, t.Any]:
        until = self._ended if self._ended is not None else self._last
        total = max(until - self._began, 0.0) if until is not None and self._began is not None else None
        ends = [run["ended"] if run["ended"] is not None else self._last for run in self._runs]
        working = sum(max((end or 0.0) - run["at"], 0.0) for run, end in zip(self._runs, ends))
        outcomes = [host["outcome"] for host in self._hosts.values()]
        return {
            "seconds": total,
            "working_seconds": working,
            "interrupted_seconds": max((total or 0.0) - working, 0.0),
            "hosts": len(outcomes),
            "done": outcomes.count("done"),
            "failed": sum(outcome not in (None, "done") for outcome in outcomes),
            "open": outcomes.count(None),
            "out_seconds": sum(wave["out_seconds"] for wave in self._waves),
            "cut": sum(_cut(host) for host in self._hosts.values()),
            "answers": self._answers,
            "errors": sum(error["errors"] for error in self._errors),
        }


def ends(instance: str, step: str, other: str, other_step: str) -> bool:
    """Whether an instance's step ends with that of another one on its host.

    It does when the turn passes to the other one, and when both are in the same place, before and after a change of
    engine. A step of the whole host ends with any other, and any other with one of those.
    """
    if steps.is_of_balancer(step) or steps.is_of_balancer(other_step):
        return True
    index = instance.rpartition("-")[2]
    same_place = instance != other and index.isdecimal() and index == other.rpartition("-")[2]
    return same_place or (other_step == steps.of_instances()[0].name and steps.follows_change(step))


def covered(spans: t.Iterable[tuple[float, float]]) -> float:
    """The seconds that spans cover together; overlaps count once."""
    total, reached = 0.0, -math.inf
    for began, ended in sorted(spans):
        total += max(ended - max(began, reached), 0.0)
        reached = max(reached, ended)
    return total


def _close(span: dict[str, t.Any], at: float) -> None:
    """End what has not ended."""
    if span["ended"] is None:
        span["ended"] = max(at, span["began"])
        span["seconds"] = span["ended"] - span["began"]


def _seconds(tries: list[dict[str, t.Any]]) -> float:
    return sum(max(attempt["ended"] - attempt["began"], 0.0) for attempt in tries if attempt["ended"] is not None)


def _cut(host: dict[str, t.Any]) -> int:
    """Requests in flight at a drain's limit; a drain of the whole host is one of each instance, and counts once."""
    drains: list[dict[str, t.Any]] = []
    for instance in host["instances"].values():
        drains += [drain for drain in instance["drains"] if not drain["idle"] and drain not in drains]
    return sum(len(drain["requests"]) for drain in drains)


def _attempt(instances: list[dict[str, t.Any]]) -> int:
    """The current attempt of a host or an instance."""
    return max((instance["steps"][-1]["attempt"] for instance in instances if instance["steps"]), default=1)


def _sum(values: t.Iterable[t.Any]) -> int:
    return int(sum(number for number in map(as_number, values) if number is not None))


def _names(value: t.Any) -> list[str]:
    return [as_text(name) for name in as_list(value)]
