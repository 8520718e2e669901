# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A rollout's timeline: the positions of its hosts' bars, of the load and of the clients' results. Pure.

Positions are per cent of the width and of the height, from the left and from the top.
"""

from __future__ import annotations

import dataclasses
import math
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.report import traffic, words
from ansible_collections.inference.fleet.plugins.plugin_utils.report.hosts import HostView
from ansible_collections.inference.fleet.plugins.plugin_utils.report.record import RolloutRecord
from ansible_collections.inference.fleet.plugins.plugin_utils.report.values import as_dicts, as_number
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import steps

Counts = tuple[float, float]
T = t.TypeVar("T")
Look = tuple[float, T]

# A longer break between two runs is shortened to this share of the width.
_LONG_BREAK = 0.1
_SHORT_CUT = 5.0

_STEPS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 14400, 28800, 86400, 604800)
_TICKS = 7

_NAME = 22
_COLUMNS = 240
_FEW_LOOKS = 24


class Bar(t.NamedTuple):
    """A bar, or a mark without width; ``kind`` is its class, ``title`` its tooltip, ``label`` its text."""

    left: float
    width: float
    kind: str
    title: str = ""
    label: str = ""


class Tick(t.NamedTuple):
    """A tick of the axis, with the time since its run began and the time of day."""

    place: float
    since: str
    clock: str


class HostRow(t.NamedTuple):
    """A host: its bars, in as many lanes as it has simultaneous steps, and its marks over all of them."""

    host: HostView
    short: str
    lanes: list[list[Bar]]
    marks: list[Bar]


class Column(t.NamedTuple):
    """Two stacked heights, from a moment on."""

    left: float
    width: float
    lower: float
    upper: float


class LoadChart(t.NamedTuple):
    """Running and waiting requests at each look, and the limit: no ``path`` if that is far higher."""

    looks: list[Bar]
    columns: list[Column]
    path: str
    busiest: float
    queue: float
    least: float
    most: float


class TrafficChart(t.NamedTuple):
    """Failures and answers that the traffic driver saw."""

    columns: list[Column]
    failures: list[Bar]
    answered: float
    failed: float


@dataclasses.dataclass(frozen=True)
class Timeline:
    """The whole picture."""

    used: set[str]
    again: bool
    ticks: list[Tick]
    breaks: list[Bar]
    bands: list[Bar]
    pauses: list[Bar]
    rows: list[HostRow]
    load: LoadChart | None
    traffic: TrafficChart | None
    edges: list[Bar]


class Axis:
    """Where a moment is, in per cent of the width.

    Args:
        spans: when each run began and ended, in order.
    """

    def __init__(self, spans: t.Iterable[tuple[float, float]]) -> None:
        self.spans = [(began, max(began, ended)) for began, ended in spans] or [(0.0, 1.0)]
        self.seconds = max(sum(ended - began for began, ended in self.spans), 1.0)
        # Drawn whole: runs in close succession, with the time between them.
        self._drawn: list[list[float]] = []
        for began, ended in self.spans:
            if self._drawn and began - self._drawn[-1][1] <= _LONG_BREAK * self.seconds:
                self._drawn[-1][1] = max(ended, self._drawn[-1][1])
            else:
                self._drawn.append([began, ended])
        whole = max(sum(ended - began for began, ended in self._drawn), 1.0)
        self._scale = (100.0 - _SHORT_CUT * (len(self._drawn) - 1)) / whole
        self.breaks = [(ended, began) for (_, ended), (began, _) in zip(self.spans, self.spans[1:])]

    def x(self, at: float) -> float:
        """The position of a moment; one that is not drawn is at the nearest end."""
        left = 0.0
        for began, ended in self._drawn:
            if at <= ended or [began, ended] == self._drawn[-1]:
                return left + (min(max(at, began), ended) - began) * self._scale
            left += (ended - began) * self._scale + _SHORT_CUT
        return left

    def bar(self, began: float, ended: float, kind: str, title: str, label: str = "") -> Bar:
        """A bar from one moment to another."""
        left = self.x(began)
        return Bar(round(left, 2), round(max(self.x(ended) - left, 0.15), 2), kind, title, label)

    def cross(self, at: float, title: str) -> Bar:
        """The mark of a failure."""
        return Bar(round(self.x(at), 2), 0.0, "cross", title, "✕")

    def ticks(self) -> list[tuple[float, float, float]]:
        """The ticks, with their moment and the seconds since their run began."""
        step = next((step for step in _STEPS if self.seconds / step <= _TICKS), _STEPS[-1])
        ticks: list[tuple[float, float, float]] = []
        for began, ended in self._drawn:
            # The beginning of a run has a label, rather than the last round moment before it.
            while len(ticks) > 1 and self.x(began) - ticks[-1][0] < 7.0:
                ticks.pop()
            for number in range(min(int((ended - began) / step), 200) + 1):
                at = began + number * step
                if not ticks or number == 0 or self.x(at) - ticks[-1][0] >= 7.0:
                    ticks.append((self.x(at), at, number * step))
        return ticks

    def columns(self, looks: t.Iterable[Look[T]], hold: float = math.inf) -> list[tuple[float, float, list[T]]]:
        """The steps from each look to the next: left, width, values; several values where there are many looks.

        Args:
            looks: moments with what was seen.
            hold: seconds for which a look is valid.
        """
        ordered = sorted(looks, key=lambda look: look[0])
        size = max(math.ceil(len(ordered) / _COLUMNS), 1)
        columns = []
        for began, ended in self.spans:
            run = [look for look in ordered if began <= look[0] <= ended]
            for first in range(0, len(run), size):
                part, after = run[first : first + size], run[first + size : first + size + 1]
                until = min(part[-1][0] + hold, after[0][0] if after else ended)
                left = self.x(part[0][0])
                columns.append((round(left, 2), round(max(self.x(until) - left, 0.2), 2), [seen for _at, seen in part]))
        return columns


def draw_timeline(record: RolloutRecord, hosts: t.Sequence[HostView]) -> Timeline:
    """The picture of a record that fold() made.

    Args:
        record: as fold() gives it.
        hosts: its hosts, in the order in which they are shown.
    """
    last = 0.0 if record["last"] is None else record["last"]
    axis = Axis([(run["at"], _find_end(run, last)) for run in record["runs"]])
    form = "%H:%M:%S" if axis.seconds < 3600 else "%H:%M"
    shown = shorten([host.name for host in hosts])
    taken = [step for host in hosts for one in host.record["instances"].values() for step in one["steps"]]
    return Timeline(
        used={step["step"] for step in taken},
        again=any(step["attempt"] > 1 for step in taken),
        ticks=[Tick(round(x, 2), words.elapsed(since), words.moment(at, form)) for x, at, since in axis.ticks()],
        breaks=[
            axis.bar(began, ended, "gap", f"interrupted for {words.duration(ended - began)}")
            for began, ended in axis.breaks
        ],
        bands=[
            axis.bar(
                wave["began"], _find_end(wave, last), f"band band{number % 2}", _describe_wave(wave), _label_wave(wave)
            )
            for number, wave in enumerate(record["waves"])
        ],
        pauses=[
            axis.bar(pause["began"], _find_end(pause, last), "pause", f"pause of {words.duration(pause['seconds'])}")
            for pause in record["pauses"]
        ],
        rows=[
            HostRow(host, shown[host.name], _draw_lanes(host, axis, last), _mark_failures(host, axis)) for host in hosts
        ],
        load=_draw_load(record, axis, last),
        traffic=_draw_traffic(record, axis),
        edges=_draw_edges(record, axis),
    )


def _find_end(span: dict[str, t.Any], last: float) -> float:
    return last if span["ended"] is None else float(span["ended"])


def _describe_wave(wave: dict[str, t.Any]) -> str:
    return f"Wave {wave['number']} of {wave['of']}: {words.named(wave['hosts'])}; {words.duration(wave['seconds'])}"


def _label_wave(wave: dict[str, t.Any]) -> str:
    return "" if wave["number"] is None else str(wave["number"])


# The hosts


def shorten(names: t.Sequence[str]) -> dict[str, str]:
    """Names that fit beside the timeline: without the common domain, and long ones without their middle."""
    domains = {name.partition(".")[2] for name in names}
    domain = domains.pop() if len(domains) == 1 else ""
    # The tail of an address is not a domain.
    named = any(letter.isalpha() for letter in domain)
    shown = {name: name[: -len(domain) - 1] if named else name for name in names}
    return {
        name: text if len(text) <= _NAME else f"{text[: _NAME // 2 - 1]}…{text[-_NAME // 2 :]}"
        for name, text in shown.items()
    }


def share_lanes(instances: dict[str, t.Any], last: float) -> list[list[str]]:
    """Instances in as few lanes as separate their simultaneous steps."""
    spans = {
        name: [(step["began"], _find_end(step, last)) for step in instance["steps"]]
        for name, instance in instances.items()
        if instance["steps"]
    }
    lanes: list[list[str]] = []
    for name in sorted(spans, key=lambda name: spans[name][0]):
        for lane in lanes:
            taken = [span for other in lane for span in spans[other]]
            if all(began >= end or ended <= begin for began, ended in spans[name] for begin, end in taken):
                lane.append(name)
                break
        else:
            lanes.append([name])
    return lanes


def _draw_lanes(host: HostView, axis: Axis, last: float) -> list[list[Bar]]:
    """The bars of a host: its turns in every lane, and each instance's steps and failed gates in one."""
    turns = [(one["began"], _find_end(one, last)) for one in host.record["tries"]]
    lanes = []
    for names in share_lanes(host.record["instances"], last) or [[]]:
        bars = [
            axis.bar(began, ended, "turn", f"{host.name}: in its turn for {words.duration(ended - began)}")
            for began, ended in turns
        ]
        for name in names:
            instance = host.record["instances"][name]
            for step in instance["steps"]:
                bars += _draw_step(axis, f"{host.name} {name}", step, last)
            bars += _mark_gates(axis, instance["gates"])
        lanes.append(bars)
    return lanes


def _draw_step(axis: Axis, who: str, step: dict[str, t.Any], last: float) -> list[Bar]:
    ended = _find_end(step, last)
    name, again = steps.label(step["step"]), step["attempt"] > 1
    state = ", broken off" if step["broken"] else ", still going on" if step["ended"] is None else ""
    took = f"{words.duration(ended - step['began'])} from {words.clock(step['began'])}"
    title = f"{who}: {name}{' (second attempt)' if again else ''}, {took}{state}"
    kind = f"step s-{step['step'] if steps.find(step['step']) else 'other'}"
    kind += f"{' again' if again else ''}{' open' if state else ''}"
    bar = axis.bar(step["began"], ended, kind, title, "" if again else name)
    return [bar, axis.cross(ended, title)] if step["broken"] else [bar]


def _mark_gates(axis: Axis, gates: t.Iterable[dict[str, t.Any]]) -> list[Bar]:
    failed = [gate["at"] for gate in gates if not gate["passed"]]
    return [axis.cross(at, f"gate failed at {words.clock(at)}") for at in failed]


def _mark_failures(host: HostView, axis: Axis) -> list[Bar]:
    """Where a gate of the whole host failed, and where a try failed."""
    bad = [one for one in host.record["tries"] if one["outcome"] not in (None, "done", "rolled_back", "unrecorded")]
    crosses = [axis.cross(one["ended"], words.outcome(one["outcome"])) for one in bad]
    return [*_mark_gates(axis, host.record["gates"]), *crosses]


# The load, and what clients got


def _list_load(record: RolloutRecord) -> list[tuple[float, Counts]]:
    """Moments with what ran and waited."""
    points = [(load["at"], (load["running"], load["waiting"])) for load in record["loads"]]
    for wave in record["waves"]:
        running, waiting = (as_number(wave["load"].get(name)) for name in ("running", "waiting"))
        if running is not None and not record["loads"]:
            points.append((wave["began"], (running, waiting or 0.0)))
    return points


def list_limits(record: RolloutRecord, last: float) -> list[tuple[float, float]]:
    """Moments with the limit of concurrent requests from then on."""
    points: list[tuple[float, float]] = [(load["at"], load["limit"]) for load in record["loads"]]
    looked = [at for at, _limit in points]
    for wave in record["waves"]:
        limit, left = (as_number(wave["load"].get(name)) for name in ("limit", "left"))
        ended = _find_end(wave, last)
        if limit is None or left is None or any(wave["began"] < at < ended for at in looked):
            continue
        points.append((wave["began"], left))
        if wave["ended"] is not None:
            points.append((ended, limit))
    return sorted(points, key=lambda point: point[0])


def _draw_load(record: RolloutRecord, axis: Axis, last: float) -> LoadChart | None:
    # Of several looks in one column the most requests, and the lowest limit.
    seen = [(left, width, *map(max, zip(*found))) for left, width, found in axis.columns(_list_load(record))]
    allowed = [(left, width, min(found)) for left, width, found in axis.columns(list_limits(record, last))]
    if not seen or not allowed:
        return None
    busiest = max(running + waiting for _left, _width, running, waiting in seen)
    least, most = min(limit for *_, limit in allowed), max(limit for *_, limit in allowed)
    # Against a much higher limit, a small load would be a line at the bottom.
    far = most > 6 * max(busiest, 1)
    top = max(1.15 * (busiest if far else max(busiest, most)), 1.0)
    columns = [Column(left, width, *_scale(top, running, waiting)) for left, width, running, waiting in seen]
    queue = max(waiting for *_, waiting in seen)
    # Between looks the load is a guess; where they are few, they are marked.
    looks = [Bar(one.left, 0, "look") for one in columns if len(columns) <= _FEW_LOOKS]
    return LoadChart(looks, columns, "" if far else _draw_stairs(allowed, top), busiest, queue, least, most)


def _draw_stairs(allowed: list[tuple[float, float, float]], top: float) -> str:
    """An SVG path, interrupted where nothing is known."""
    path, reached = "", -1.0
    for left, width, limit in allowed:
        y = 100 - _scale(top, limit)[0]
        path += f"V{y:g}" if left - reached < 0.05 else f"M{left:g} {y:g}"
        reached = left + width
        path += f"H{reached:g}"
    return path


def _scale(top: float, *values: float) -> list[float]:
    return [round(100 * value / top, 1) for value in values]


def _draw_traffic(record: RolloutRecord, axis: Axis) -> TrafficChart | None:
    reports = traffic.list_reports(record)
    bucket = max([1.0, *(as_number(report.get("bucket_seconds")) or 1.0 for report in reports)])
    seconds = [
        (at, (as_number(second.get("ok")) or 0.0, as_number(second.get("failed")) or 0.0))
        for report in reports
        for second in as_dicts(report.get("seconds"))
        if (at := as_number(second.get("at"))) is not None
    ]
    found = axis.columns(seconds, bucket)
    if not found:
        return None
    # By the second, because several may fall into one column; failures are never averaged away.
    heights = [
        (left, width, sum(bad for _good, bad in seen), sum(good for good, _bad in seen) / len(seen) / bucket)
        for left, width, seen in found
    ]
    top = max(1.1 * max(bad + good for *_, bad, good in heights), 1.0)
    columns = []
    for left, width, bad, good in heights:
        lower, upper = _scale(top, bad, good)
        # One failure among thousands must be visible.
        lower = max(lower, 9.0) if bad else 0.0
        columns.append(Column(left, width, lower, min(upper, 100 - lower)))
    failures = [Bar(left, width, "hover", words.count(bad, "failure")) for left, width, bad, _good in heights if bad]
    good, bad = (sum(counts) for counts in zip(*(counts for *_, seen in found for counts in seen)))
    return TrafficChart(columns, failures, good, bad)


def _draw_edges(record: RolloutRecord, axis: Axis) -> list[Bar]:
    spans: dict[tuple[float, float], list[str]] = {}
    for error in record["errors"]:
        spans.setdefault((error["began"], error["ended"]), []).append(f"{error['host']} {error['errors']}")
    return [
        axis.bar(*span, "failed", f"5xx from {words.clock(span[0])} to {words.clock(span[1])}: {', '.join(who)}")
        for span, who in spans.items()
    ]
