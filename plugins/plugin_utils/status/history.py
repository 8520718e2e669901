# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The last hours of a fleet: what to ask Prometheus, and the answers as small charts. Pure.

Engines' latencies and tokens come from the engines, requests and errors from the edges of the front tier, whose targets
have the label ``tier="front"``.
"""

from __future__ import annotations

import math
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.engines.base import Engine
from ansible_collections.inference.fleet.plugins.module_utils.engines.metrics import SHARED_RANKS
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.promql import FRONT, buckets
from ansible_collections.inference.fleet.plugins.plugin_utils.report import words

Point = tuple[float, float]

OTHER_FORMAT = "it answers in another format than Prometheus' API"
#: The points of a line, at most.
_POINTS = 120
#: Rates are of at least this many seconds: a scrape may be missing, and some counters move in jumps.
_LEAST_WINDOW = 300
_TICKS = 3
#: Without the series of single priorities.
_TOTAL = '{priority=""}'


class Query(t.NamedTuple):
    """A line of a chart, and the expression that it is made from."""

    chart: str
    label: str
    expression: str


class ChartKind(t.NamedTuple):
    """A chart.

    Attributes:
        title: as people read it.
        say: a value of it in words.
        least: the least height of its axis, so that noise does not look like a peak.
    """

    title: str
    say: t.Callable[[float], str]
    least: float


class HistoryLine(t.NamedTuple):
    """A line: its class, its label, an SVG path in per cent, and its last and greatest value in words."""

    kind: str
    label: str
    path: str
    last: str
    most: str


class HistoryChart(t.NamedTuple):
    """A chart with at least one line."""

    title: str
    top: str
    lines: list[HistoryLine]


class ChartSpan(t.NamedTuple):
    """The time that charts show, in Unix seconds, and the seconds between two points."""

    start: float
    end: float
    step: float


class History(t.NamedTuple):
    """What a Prometheus answered.

    Attributes:
        source: its address, without credentials.
        span: the time that was asked for.
        found: the points of each line.
        problem: why something is missing, in a sentence; empty for nothing.
    """

    source: str
    span: ChartSpan
    found: dict[Query, list[Point]]
    problem: str


def _number(value: float) -> str:
    return words.grouped(value) if value >= 100 else f"{value:.3g}"


def _percent(value: float) -> str:
    return f"{value * 100:.3g} %"


def _rate(value: float) -> str:
    return f"{_number(value)}/s"


CHARTS: dict[str, ChartKind] = {
    "load": ChartKind("Requests in the engines", _number, 4),
    "requests": ChartKind("Requests answered", _rate, 1),
    "errors": ChartKind("Share of errors (5xx, cut streams)", _percent, 0.01),
    "first_token": ChartKind("Time to first token", words.duration, 0.1),
    "tokens": ChartKind("Tokens of answers", _rate, 10),
}


def span_of(now: float, seconds: float) -> ChartSpan:
    """The last ``seconds``, with a point each minute or less often."""
    step = max(math.ceil(seconds / _POINTS / 15) * 15, 15)
    return ChartSpan(now - seconds, now, step)


def list_queries(span: ChartSpan) -> list[Query]:
    """What to ask, chart by chart."""
    window = f"{max(int(span.step), _LEAST_WINDOW)}s"
    counted = [(engine, engine.counters) for engine in ENGINES.values() if engine.counters]
    answers = f"haproxy_backend_http_responses_total{{{FRONT}}}"
    failed = f'haproxy_backend_http_responses_total{{{FRONT},code="5xx"}}'
    cut = f"haproxy_backend_server_aborts_total{{{FRONT}}}"
    parts = [f"(sum(rate({one}[{window}])) or vector(0))" for one in (failed, cut)]
    return [
        Query("load", "running", _sum_gauges(names.running for _engine, names in counted)),
        Query("load", "waiting", _sum_gauges(names.waiting for _engine, names in counted)),
        Query("requests", "all", f"sum(rate({answers}[{window}]))"),
        Query("errors", "share", f"({' + '.join(parts)}) / (sum(rate({answers}[{window}])) > 0)"),
        *(one for engine, _names in counted for one in _of_engine(engine, window)),
    ]


def _sum_gauges(names: t.Iterable[str]) -> str:
    """The sum of all engines' gauges. Ranks of one instance repeat its value, and so do priorities."""
    ranks = ", ".join(sorted(SHARED_RANKS))
    each = [f"max without ({ranks}) ({name}{_TOTAL})" for name in names]
    return f"sum({' or '.join(each)})"


def _of_engine(engine: Engine, window: str) -> t.Iterator[Query]:
    # By engine: their histograms have different bounds, and one over both would be wrong.
    if names := engine.exposition:
        own = f"sum by (le) (rate({buckets(names.first_token)}[{window}]))"
        for share in (0.5, 0.95):
            expression = f"histogram_quantile({share}, {own})"
            yield Query("first_token", f"{engine.title} p{share * 100:.0f}", expression)
        yield Query("tokens", engine.title, f"sum(rate({names.generated_now}[{window}]))")


def read_data(document: t.Any) -> t.Any:
    """The data in an answer of Prometheus.

    Raises:
        FleetError: it is an error of Prometheus, or no answer of its API.
    """
    if isinstance(document, dict) and document.get("status") == "error":
        raise FleetError(f"it refuses a question: {words.line(document.get('error', ''), 200)}")
    if not isinstance(document, dict) or document.get("status") != "success" or "data" not in document:
        raise FleetError(OTHER_FORMAT)
    return document["data"]


def read_result(document: t.Any, kind: str) -> t.Any:
    """The series in the answer to a query; raises like read_data().

    Args:
        document: the answer.
        kind: ``vector`` or ``matrix``.
    """
    data = read_data(document)
    if not isinstance(data, dict) or data.get("resultType") != kind or "result" not in data:
        raise FleetError(OTHER_FORMAT)
    return data["result"]


def parse_answer(document: t.Any) -> list[Point]:
    """The points of the one line in an answer of Prometheus' ``query_range``; none where it has no such series.

    Raises:
        FleetError: it is an error of Prometheus, or no such answer.
    """
    try:
        series = read_result(document, "matrix")
        points = [(float(at), float(value)) for at, value in series[0]["values"]] if series else []
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise FleetError(OTHER_FORMAT) from error
    return [(at, value) for at, value in points if math.isfinite(at) and math.isfinite(value)]


def draw_charts(found: t.Mapping[Query, t.Sequence[Point]], span: ChartSpan) -> list[HistoryChart]:
    """The charts of those lines that have points, in the order of CHARTS."""
    charts = []
    for name, kind in CHARTS.items():
        lines = {query: points for query, points in found.items() if query.chart == name and points}
        if not lines:
            continue
        most = max(value for points in lines.values() for _at, value in points)
        top = max(most * 1.1, kind.least)
        drawn = [
            HistoryLine(
                f"l{number}",
                query.label,
                _draw(points, span, top),
                # The last point may be hours old.
                kind.say(points[-1][1]) if span.end - points[-1][0] <= 2 * span.step else "none now",
                kind.say(max(value for _at, value in points)),
            )
            for number, (query, points) in enumerate(lines.items())
        ]
        charts.append(HistoryChart(kind.title, kind.say(top), drawn))
    return charts


def list_ticks(span: ChartSpan) -> list[str]:
    """The times of day at the left, in the middle and at the right."""
    form = "%H:%M" if span.end - span.start <= 86400 else "%-d %b %H:%M"
    return [
        words.moment(span.start + number * (span.end - span.start) / (_TICKS - 1), form) for number in range(_TICKS)
    ]


def _draw(points: t.Sequence[Point], span: ChartSpan, top: float) -> str:
    """A path, interrupted where points are missing; a lone point is a short dash."""
    path, before = "", -math.inf
    for at, value in points:
        x = 100 * (at - span.start) / (span.end - span.start)
        y = 100 - 100 * value / top
        joined = at - before <= 1.5 * span.step
        path += f"{'L' if joined else 'M'}{x:.2f} {y:.2f}" + ("" if joined else "h0.3")
        before = at
    return path
