# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A rollout over its time, as SVG: its hosts, the load, and what clients got. Pure: the record in, markup out.

Positions across are per cent of the width, heights are pixels, so that the same picture fits a telephone and a wall.
"""

from __future__ import annotations

import dataclasses
import math
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.report import words
from ansible_collections.inference.fleet.plugins.plugin_utils.report.html import Html, join, tag
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import steps

Record = dict[str, t.Any]

# A break between two runs that is longer than this part of the rollout is cut short to that part of the width.
_LONG_BREAK = 0.1
_SHORT_CUT = 5.0

_STEPS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 14400, 28800, 86400, 604800)
_TICKS = 7

_ROW = 26
_LOW_ROW = 20
_MANY_HOSTS = 30
_LANE = 12
_LOW_LANE = 7
_MANY_LANES = 100
_NAME = 22
_CHART = 88
_FEW_POINTS = 24

# So many per cent of the width are room for one letter, on a screen.
_LETTER = 0.95


@dataclasses.dataclass(frozen=True)
class _Piece:
    """A span of time that is to scale: Unix time, and per cent of the width."""

    began: float
    ended: float
    left: float
    right: float

    def x(self, at: float) -> float:
        if self.ended <= self.began:
            return self.left
        share = (min(max(at, self.began), self.ended) - self.began) / (self.ended - self.began)
        return self.left + share * (self.right - self.left)


@dataclasses.dataclass(frozen=True)
class Break:
    """A time between two runs in which nobody walked."""

    left: float
    width: float
    seconds: float


class Axis:
    """Where a moment is, in per cent of the width.

    Args:
        spans: when each run began and ended, in order.
    """

    def __init__(self, spans: t.Sequence[tuple[float, float]]) -> None:
        spans = list(spans) or [(0.0, 1.0)]
        self.seconds = max(sum(max(ended - began, 0.0) for began, ended in spans), 1.0)
        groups: list[list[tuple[float, float]]] = []
        for began, ended in spans:
            ended = max(began, ended)
            if groups and began - groups[-1][-1][1] <= _LONG_BREAK * self.seconds:
                groups[-1].append((max(began, groups[-1][-1][1]), ended))
            else:
                groups.append([(began, ended)])
        drawn = [(group[0][0], max(ended for _began, ended in group)) for group in groups]
        scale = (100.0 - _SHORT_CUT * (len(drawn) - 1)) / max(sum(ended - began for began, ended in drawn), 1.0)
        self._pieces: list[_Piece] = []
        left = 0.0
        for began, ended in drawn:
            right = left + (ended - began) * scale
            self._pieces.append(_Piece(began, ended, left, right))
            left = right + _SHORT_CUT
        self.breaks = [
            Break(self.x(ended), max(self.x(began) - self.x(ended), 0.3), began - ended)
            for (_, ended), (began, _) in zip(spans, spans[1:])
        ]

    def x(self, at: float) -> float:
        """Where a moment is; those that are not drawn are at the nearest end."""
        for piece in self._pieces:
            if at <= piece.ended:
                return piece.x(at)
        return self._pieces[-1].right

    def shows(self, at: float) -> bool:
        """Whether a moment is drawn."""
        return any(piece.began <= at <= piece.ended for piece in self._pieces)

    def groups(self, moments: t.Iterable[tuple[float, t.Any]]) -> list[list[tuple[float, t.Any]]]:
        """What happened in each span that is drawn whole, with its place instead of its moment."""
        found: list[list[tuple[float, t.Any]]] = [[] for _ in self._pieces]
        for at, what in moments:
            for piece, group in zip(self._pieces, found):
                if piece.began <= at <= piece.ended:
                    group.append((piece.x(at), what))
                    break
        return [group for group in found if group]

    def ticks(self) -> list[tuple[float, float, float]]:
        """Places that are labelled, with their moment and the seconds since their run began."""
        step = next((step for step in _STEPS if self.seconds / step <= _TICKS), _STEPS[-1])
        ticks: list[tuple[float, float, float]] = []
        for piece in self._pieces:
            # Where a run begins is said, rather than the last round moment before it.
            while len(ticks) > 1 and piece.left - ticks[-1][0] < 7.0:
                ticks.pop()
            for number in range(min(int((piece.ended - piece.began) / step), 200) + 1):
                at = piece.began + number * step
                place = piece.x(at)
                if not ticks or number == 0 or place - ticks[-1][0] >= 7.0:
                    ticks.append((place, at, number * step))
        return ticks


def axis_of(record: Record) -> Axis:
    """The time of all runs."""
    last = record["last"] if record["last"] is not None else 0.0
    return Axis([(run["at"], last if run["ended"] is None else run["ended"]) for run in record["runs"]])


def chart(record: Record, anchors: t.Mapping[str, str]) -> Html:
    """The hosts, the load and the answers under one axis.

    Args:
        record: as fold() gives it.
        anchors: where on the page each host is told about.
    """
    axis = axis_of(record)
    blocks = [_head(record, axis), _hosts(record, axis, anchors), _load(record, axis), _traffic(record, axis)]
    blocks += [_edges(record, axis), _clock(axis)]
    return tag("div", _DEFINITIONS, *blocks, class_="chart")


def legend(record: Record) -> Html:
    """What the colours mean, of those that are there."""
    taken = [
        step
        for host in record["hosts"].values()
        for instance in host["instances"].values()
        for step in instance["steps"]
    ]
    used = {step["step"] for step in taken}
    items = [(f"s-{step.name}", step.label) for step in steps.STEPS if step.name in used]
    if any(step["attempt"] > 1 for step in taken):
        items.append(("again", "second attempt: the last good release is put back"))
    items.append(("turn", "in its turn, nothing of these"))
    if record["pauses"]:
        items.append(("pause", "pause"))
    breaks = axis_of(record).breaks
    if breaks:
        items.append(("gap", f"interrupted ({', '.join(words.duration(one.seconds) for one in breaks)})"))
    return tag("ul", *(tag("li", tag("span", class_=f"sw {kind}"), title) for kind, title in items), class_="legend")


def mark(good: bool | None, word: str) -> Html:
    """A verdict in one letter, and in words for who does not see it; None is neither good nor bad."""
    kind, letter = {True: ("ok", "✓"), False: ("bad", "✕"), None: ("muted", "·")}[good]
    return tag("span", letter, class_=f"ic {kind}", role="img", aria_label=word)


def host_mark(record: Record, name: str) -> Html:
    """How it went with a host."""
    word = words.state(record, name)
    if word == words.IN_TURN:
        return tag("span", "▸", class_="ic run", role="img", aria_label=word)
    return mark(None if word == words.NOT_BEGUN else word == words.DONE, word)


def in_order(record: Record) -> list[str]:
    """The hosts as they had their turns; those that had none come last."""
    hosts = record["hosts"]

    def place(name: str) -> tuple[float, float, list[t.Any]]:
        began, wave = hosts[name]["began"], hosts[name]["wave"]
        return (math.inf if began is None else began, math.inf if wave is None else wave, natural(name))

    return sorted(hosts, key=place)


def short(names: t.Sequence[str]) -> dict[str, str]:
    """Names that fit beside the timeline: without the domain that all have, and without the middle of what is long."""
    domains = {name.partition(".")[2] for name in names}
    domain = domains.pop() if len(domains) == 1 else ""
    # The tail of an address is no domain.
    named = any(letter.isalpha() for letter in domain)
    shown = {name: name[: -len(domain) - 1] if named else name for name in names}
    return {
        name: text if len(text) <= _NAME else f"{text[: _NAME // 2 - 1]}…{text[-_NAME // 2 :]}"
        for name, text in shown.items()
    }


def natural(name: str) -> list[t.Any]:
    """A key that sorts inference-2 before inference-10."""
    parts: list[t.Any] = []
    for letter in name:
        if letter.isdecimal() and parts and isinstance(parts[-1][1], int):
            parts[-1] = (0, parts[-1][1] * 10 + int(letter), "")
        elif letter.isdecimal():
            parts.append((0, int(letter), ""))
        else:
            parts.append((1, 0.5, letter))
    return parts


# Markup

_HATCH_LINE = Html('<path d="M-2 2 L2 -2 M0 8 L8 0 M6 10 L10 6" class="hatch-line"/>')
_DEFINITIONS = tag(
    "svg",
    tag(
        "defs",
        tag("pattern", _HATCH_LINE, id="hatch", width="8", height="8", patternUnits="userSpaceOnUse"),
        tag(
            "pattern",
            Html('<path d="M-2 2 L2 -2 M0 8 L8 0 M6 10 L10 6" class="gap-line"/>'),
            id="gap",
            width="8",
            height="8",
            patternUnits="userSpaceOnUse",
        ),
        tag(
            "pattern",
            Html('<circle cx="3" cy="3" r="1" class="dot"/>'),
            id="dots",
            width="6",
            height="6",
            patternUnits="userSpaceOnUse",
        ),
    ),
    class_="defs",
    aria_hidden="true",
)


def _rect(left: float, width: float, top: float, height: float, kind: str, title: str = "", radius: int = 0) -> Html:
    return tag(
        "rect",
        tag("title", title) if title else None,
        x=_percent(left),
        width=_percent(max(width, 0.15)),
        y=f"{top:g}",
        height=f"{height:g}",
        rx=str(radius) if radius else None,
        class_=kind,
    )


def _label(place: float, top: float, text: t.Any, kind: str = "", anchor: str | None = None) -> Html:
    if anchor is None:
        anchor = "start" if place < 4 else "end" if place > 96 else "middle"
    return tag("text", text, x=_percent(place), y=f"{top:g}", text_anchor=anchor, class_=kind or None)


def _picture(height: float, title: str, *children: Html) -> Html:
    return tag("svg", *children, width="100%", height=f"{height:g}", role="img", aria_label=title, class_="mid")


def _block(left: Html, middle: Html, right: Html, kind: str = "") -> Html:
    return tag(
        "div",
        tag("div", left, class_="left"),
        middle,
        tag("div", right, class_="right"),
        class_=f"block {kind}".strip(),
    )


def _percent(value: float) -> str:
    return f"{value:.2f}%"


def _grid(axis: Axis, height: float) -> Html:
    lines = [
        tag("line", x1=_percent(place), x2=_percent(place), y1="0", y2=f"{height:g}", class_="grid")
        for place, _at, _since in axis.ticks()
    ]
    return join(lines)


def _breaks(axis: Axis, height: float, told: bool = False) -> Html:
    return join(
        _rect(one.left, one.width, 0, height, "gap", f"interrupted for {words.duration(one.seconds)}" if told else "")
        for one in axis.breaks
    )


# The axes


def _ticks(axis: Axis, narrow: int) -> list[tuple[float, float, float, str]]:
    """The axis's ticks; where there is little room, ``narrow`` of them have a label."""
    ticks = axis.ticks()
    every = math.ceil(len(ticks) / narrow)
    return [(*tick, "tick" if number % every == 0 else "tick wide") for number, tick in enumerate(ticks)]


def _since(seconds: float, total: float) -> str:
    """Ticks are round: as few figures as tell them apart."""
    whole = round(seconds)
    if whole == 0:
        return "0"
    if total <= 180:
        return f"{whole} s"
    if total <= 7200:
        return f"{whole // 60} min" if whole % 60 == 0 else f"{whole // 60}:{whole % 60:02d}"
    return f"{whole // 3600} h" if whole % 3600 == 0 else f"{whole // 3600} h {whole % 3600 // 60:02d}"


def _head(record: Record, axis: Axis) -> Html:
    parts = []
    for number, wave in enumerate(record["waves"]):
        left, width = _band(record, axis, wave)
        parts.append(_rect(left, width, 0, 18, f"band band{number % 2}", _wave_title(wave), 3))
        name = tag("tspan", "wave ", class_="wide")
        middle = left + width / 2
        if width >= 6 and wave["number"] is not None:
            parts.append(_label(middle, 13, join([name, str(wave["number"])]), "band-name", "middle"))
        elif width >= 2 and wave["number"] is not None:
            parts.append(_label(middle, 13, str(wave["number"]), "band-name", "middle"))
    for place, _at, since, kind in _ticks(axis, 3):
        parts.append(_label(place, 34, _since(since, axis.seconds), kind))
    title = f"{words.count(len(record['waves']), 'turn')}; time since the start"
    return _block(tag("span", "since the start", class_="muted"), _picture(40, title, *parts), Html(""), "axis")


def _clock(axis: Axis) -> Html:
    form = "%H:%M:%S" if axis.seconds < 3600 else "%H:%M"
    parts = [_label(place, 12, words.moment(at, form), kind) for place, at, _since_start, kind in _ticks(axis, 2)]
    return _block(tag("span", "UTC", class_="muted"), _picture(18, "time of day, UTC", *parts), Html(""), "axis")


def _band(record: Record, axis: Axis, wave: dict[str, t.Any]) -> tuple[float, float]:
    ended = wave["ended"] if wave["ended"] is not None else record["last"]
    left = axis.x(wave["began"])
    return left, axis.x(ended) - left


def _wave_title(wave: dict[str, t.Any]) -> str:
    return f"Wave {wave['number']} of {wave['of']}: {words.named(wave['hosts'])}; {words.duration(wave['seconds'])}"


# The hosts


def _hosts(record: Record, axis: Axis, anchors: t.Mapping[str, str]) -> Html:
    names = in_order(record)
    lanes = {name: _lanes(record["hosts"][name], record["last"]) for name in names}
    many = sum(len(found) for found in lanes.values()) > _MANY_LANES
    row = _ROW if len(names) <= _MANY_HOSTS else _LOW_ROW
    shown = short(names)
    labels, results, bars = [], [], []
    top = 0.0
    for name in names:
        host = record["hosts"][name]
        count = len(lanes[name])
        height = row if count <= 1 else max(row, count * (_LOW_LANE if many else _LANE) + 8)
        size = f"height:{height}px"
        link = tag("a", shown[name], href=f"#{anchors[name]}", title=name)
        labels.append(tag("div", host_mark(record, name), link, class_="row", style=size))
        results.append(tag("div", _result(record, name), class_="row", style=size))
        bars.append(tag("line", x1="0", x2="100%", y1=f"{top + height}", y2=f"{top + height}", class_="rule"))
        bars += _bars(record, axis, name, lanes[name], top, height)
        bars += _failures(axis, host, lanes[name], top, height)
        top += height
    behind: list[Html] = [_grid(axis, top)]
    for number, wave in enumerate(record["waves"]):
        behind.append(_rect(*_band(record, axis, wave), 0, top, f"band band{number % 2}"))
    for pause in record["pauses"]:
        ended = pause["ended"] if pause["ended"] is not None else record["last"]
        left = axis.x(pause["began"])
        title = f"pause of {words.duration(pause['seconds'])}"
        behind.append(_rect(left, axis.x(ended) - left, 0, top, "pause", title))
    title = f"Timeline of {words.count(len(names), 'host')}. The same is told in words under each host below."
    picture = _picture(top, title, *behind, _breaks(axis, top, told=True), *bars)
    return _block(join(labels), picture, join(results), "hosts")


def _result(record: Record, name: str) -> Html:
    word, took = words.state(record, name), record["hosts"][name]["seconds"]
    if word == words.NOT_BEGUN:
        return tag("span", word, class_="muted wide")
    narrow = tag("span", words.NOTHING if took is None else words.elapsed(took), class_="narrow")
    if word == words.DONE:
        return join([tag("span", words.duration(took), class_="wide"), narrow])
    return join([tag("b", word, class_="wide" if word == words.IN_TURN else "bad wide"), narrow])


def _failures(axis: Axis, host: dict[str, t.Any], lanes: list[list[str]], top: float, height: float) -> list[Html]:
    """A mark where a gate failed, and where a try came to a bad end."""
    size = (height - 8) / max(len(lanes), 1)
    marks = []
    for number, lane in enumerate(lanes):
        middle = top + 8 + (number + 0.5) * size
        failed = [gate for name in lane for gate in host["instances"][name]["gates"] if not gate["passed"]]
        marks += [_cross(axis.x(gate["at"]), middle, f"gate failed at {words.clock(gate['at'])}") for gate in failed]
    middle = top + height / 2 + 4
    gates = [gate for gate in host["gates"] if not gate["passed"]]
    marks += [_cross(axis.x(gate["at"]), middle, f"gate failed at {words.clock(gate['at'])}") for gate in gates]
    for one in host["tries"]:
        if one["outcome"] not in (None, "done", "rolled_back", "unrecorded"):
            marks.append(_cross(axis.x(one["ended"]), middle, words.outcome(one["outcome"])))
    return marks


def _cross(place: float, bottom: float, title: str) -> Html:
    return _label(place, bottom, join([tag("title", title), "✕"]), "cross", "middle")


def _lanes(host: dict[str, t.Any], last: float) -> list[list[str]]:
    """Instances in as few lanes as keep apart what happened at the same time."""
    spans: dict[str, list[tuple[float, float]]] = {}
    for name, instance in host["instances"].items():
        for step in instance["steps"]:
            ended = last if step["ended"] is None else step["ended"]
            spans.setdefault(name, []).append((step["began"], ended))
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


def _bars(record: Record, axis: Axis, name: str, lanes: list[list[str]], top: float, height: float) -> list[Html]:
    host = record["hosts"][name]
    size = (height - 8) / max(len(lanes), 1)
    bars = []
    for one in host["tries"]:
        ended = one["ended"] if one["ended"] is not None else record["last"]
        left = axis.x(one["began"])
        title = f"{name}: in its turn for {words.duration(ended - one['began'])}"
        for number in range(max(len(lanes), 1)):
            at = top + 4 + (number + 0.5) * size
            bars.append(_rect(left, axis.x(ended) - left, at - 1.5, 3, "turn", title, 1))
    for number, lane in enumerate(lanes):
        for label in lane:
            for step in host["instances"][label]["steps"]:
                at = top + 4 + number * size
                bars += _step(record, axis, f"{name} {label}", step, at, size - (1.5 if len(lanes) > 1 else 0))
    return bars


def _step(record: Record, axis: Axis, who: str, step: dict[str, t.Any], top: float, height: float) -> list[Html]:
    ended = step["ended"] if step["ended"] is not None else record["last"]
    left = axis.x(step["began"])
    width = axis.x(ended) - left
    name = steps.label(step["step"])
    again = " (second attempt)" if step["attempt"] > 1 else ""
    state = ", broken off" if step["broken"] else ", still going on" if step["ended"] is None else ""
    took = words.duration(ended - step["began"])
    title = f"{who}: {name}{again}, {took} from {words.clock(step['began'])}{state}"
    kind = f"s-{step['step']}" if steps.find(step["step"]) else "s-other"
    parts = [_rect(left, width, top, height, f"step {kind}{' open' if state else ''}", title, 2)]
    if step["attempt"] > 1:
        parts.append(_rect(left, width, top, height, "again", title, 2))
    if height >= 14 and width >= (len(name) + 1.5) * _LETTER and step["attempt"] == 1:
        parts.append(_label(left + width / 2, top + height / 2 + 3.7, name, "in wide", "middle"))
    if step["broken"]:
        parts.append(_cross(left + width, top + height / 2 + 4, title))
    return parts


# The load


def _busy(record: Record) -> list[tuple[float, tuple[float, float]]]:
    """Moments with what ran and waited."""
    points = [(load["at"], (load["running"], load["waiting"])) for load in record["loads"]]
    for wave in record["waves"]:
        running, waiting = (words.number(wave["load"].get(name)) for name in ("running", "waiting"))
        if running is not None and not record["loads"]:
            points.append((wave["began"], (running, waiting or 0.0)))
    return points


def _limits(record: Record) -> list[tuple[float, float]]:
    """Moments with what could have run at once from then on."""
    points: list[tuple[float, float]] = [(load["at"], load["limit"]) for load in record["loads"]]
    looked = [at for at, _limit in points]
    for wave in record["waves"]:
        limit, left = (words.number(wave["load"].get(name)) for name in ("limit", "left"))
        ended = wave["ended"] if wave["ended"] is not None else record["last"]
        if limit is None or left is None or any(wave["began"] < at < ended for at in looked):
            continue
        points.append((wave["began"], left))
        if wave["ended"] is not None:
            points.append((ended, limit))
    return sorted(points, key=lambda point: point[0])


def _dot(place: float, height: float) -> Html:
    return tag("circle", cx=_percent(place), cy=f"{height * _CHART / 100:.1f}", r="2", class_="look")


def _load(record: Record, axis: Axis) -> Html:
    groups, limits = axis.groups(_busy(record)), _limits(record)
    if not groups or not limits:
        return Html("")
    shown = [load for group in groups for _place, load in group]
    busiest = max(running + waiting for running, waiting in shown)
    limit = max(value for _at, value in limits)
    # Against a limit that is far away, a small load would be a line on the ground.
    off_scale = limit > 6 * max(busiest, 1)
    top = max(1.15 * (busiest if off_scale else max(busiest, limit)), 1.0)
    parts = []
    dots = []
    for group in groups:
        both = [(place, running + waiting) for place, (running, waiting) in group]
        parts.append(_area(both, top, "waiting"))
        parts.append(_area([(place, running) for place, (running, _waiting) in group], top, "running"))
        if len(both) <= _FEW_POINTS:
            # A line between two looks is a guess; the looks are not.
            dots += [_dot(place, _y(busy, top)) for place, busy in both]
    if not off_scale:
        parts += [_stairs(group, top) for group in axis.groups(limits)]
    queue = max(waiting for _running, waiting in shown)
    least = min(value for _at, value in limits)
    about = f"At most {busiest:g} requests at once ({queue:g} waiting); the limit was {least:g} to {limit:g}"
    picture = _picture(_CHART, about, _grid(axis, _CHART), _breaks(axis, _CHART), _stretched(parts), *dots)
    keys = tag(
        "span",
        tag("span", tag("span", class_="sw running"), "running"),
        tag("span", tag("span", class_="sw waiting"), "waiting"),
        tag("span", tag("span", class_="sw limit"), "limit of who serves") if not off_scale else None,
        class_="keys",
    )
    left = join([tag("b", "Requests in the fleet"), keys])
    range_ = f"{least:g} to {limit:g}" if least != limit else f"{limit:g}"
    right = join(
        [
            tag("span", f"at most {busiest:g}"),
            tag("span", f"{queue:g} waiting", class_="muted"),
            tag("span", f"limit {range_}{', far above' if off_scale else ''}", class_="muted"),
        ]
    )
    return _block(left, picture, right, "load")


def _stretched(parts: t.Iterable[Html]) -> Html:
    return tag("svg", *parts, viewBox="0 0 1000 100", preserveAspectRatio="none", width="100%", height=f"{_CHART}")


def _y(value: float, top: float) -> float:
    return round(100 - 100 * min(value / top, 1.0), 2)


def _area(points: list[tuple[float, float]], top: float, kind: str) -> Html:
    first, last = points[0][0] * 10, max(points[-1][0] * 10, points[0][0] * 10 + 3)
    line = " ".join(f"L{place * 10:.1f} {_y(value, top)}" for place, value in points)
    ending = f"L{last:.1f} {_y(points[-1][1], top)}"
    return tag("path", d=f"M{first:.1f} 100 {line} {ending} L{last:.1f} 100 Z", class_=f"area {kind}")


def _stairs(points: list[tuple[float, float]], top: float) -> Html:
    path = f"M{points[0][0] * 10:.1f} {_y(points[0][1], top)}"
    for place, value in points[1:]:
        path += f" H{place * 10:.1f} V{_y(value, top)}"
    return tag("path", d=f"{path} h3", class_="limit")


# What clients got


def reports(record: Record) -> list[dict[str, t.Any]]:
    """The traffic driver's reports of all runs."""
    return [*record["traffic_before"], *([record["traffic"]] if record["traffic"] else [])]


def _traffic(record: Record, axis: Axis) -> Html:
    seconds = [
        (at, (words.number(second.get("ok")) or 0.0, words.number(second.get("failed")) or 0.0))
        for report in reports(record)
        for second in words.dicts(report.get("seconds"))
        if (at := words.number(second.get("at"))) is not None and axis.shows(at)
    ]
    if not seconds:
        return Html("")
    bucket = max(max(words.number(report.get("bucket_seconds")) or 1.0, 1.0) for report in reports(record))
    number = max(min(int(axis.seconds / bucket), 240), 10)
    bins: dict[int, list[tuple[float, float]]] = {}
    for at, counts in seconds:
        bins.setdefault(min(int(axis.x(at) / 100 * number), number - 1), []).append(counts)
    # By the second, because several may fall into one place; failures are never averaged away.
    heights = {
        place: (sum(good for good, _bad in found) / len(found) / bucket, sum(bad for _good, bad in found))
        for place, found in bins.items()
    }
    top = max(max(good + bad for good, bad in heights.values()) * 1.1, 1.0)
    width = 1000 / number
    goods, bads, titles = "", "", []
    for place, (good, bad) in sorted(heights.items()):
        left, size = place * width, max(width - 0.6, 0.5)
        # One failure among thousands must be seen all the same.
        foot = max(100 * bad / top, 9.0) if bad else 0.0
        if bad:
            bads += f"M{left:.1f} {100 - foot:.1f}h{size:.1f}v{foot:.1f}h-{size:.1f}z"
            titles.append(_rect(left / 10, width / 10, 0, _CHART, "hover", words.count(bad, "failure")))
        if good:
            rise = min(100 * good / top, 100 - foot)
            goods += f"M{left:.1f} {100 - foot - rise:.1f}h{size:.1f}v{rise:.1f}h-{size:.1f}z"
    good = sum(good for _at, (good, _bad) in seconds)
    bad = sum(bad for _at, (_good, bad) in seconds)
    about = f"{words.grouped(good)} answers and {words.grouped(bad)} failures that the traffic driver saw"
    paths = [tag("path", d=goods, class_="good"), tag("path", d=bads, class_="failed")]
    picture = _picture(_CHART, about, _grid(axis, _CHART), _breaks(axis, _CHART), _stretched(paths), *titles)
    keys = tag(
        "span",
        tag("span", tag("span", class_="sw good"), "answered a second"),
        tag("span", tag("span", class_="sw failed"), "failed"),
        class_="keys",
    )
    right = join(
        [
            tag("b", f"{words.grouped(bad)} failed", class_="bad" if bad else "ok"),
            tag("span", f"{words.grouped(good)} answered", class_="muted"),
        ]
    )
    return _block(join([tag("b", "Traffic driver"), keys]), picture, right, "load")


def _edges(record: Record, axis: Axis) -> Html:
    answers, errors = record["totals"]["answers"], record["totals"]["errors"]
    if not answers:
        return Html("")
    spans: dict[tuple[float, float], list[dict[str, t.Any]]] = {}
    for error in record["errors"]:
        spans.setdefault((error["began"], error["ended"]), []).append(error)
    parts = []
    for (began, ended), found in spans.items():
        left = axis.x(began)
        who = ", ".join(f"{error['host']} {error['errors']}" for error in found)
        title = f"5xx from {words.clock(began)} to {words.clock(ended)}: {who}"
        parts.append(_rect(left, max(axis.x(ended) - left, 0.6), 5, 14, "failed", title, 2))
    about = f"{words.grouped(errors)} of {words.grouped(answers)} answers of the edges were 5xx"
    base = tag("line", x1="0", x2="100%", y1="23.5", y2="23.5", class_="rule")
    picture = _picture(24, about, _grid(axis, 24), _breaks(axis, 24), base, *parts)
    right = join(
        [
            tag("b", f"{words.grouped(errors)} of", class_="bad" if errors else "ok"),
            tag("span", f"{words.grouped(answers)}", class_="muted"),
        ]
    )
    return _block(tag("b", "5xx of the edges"), picture, right, "strip")
