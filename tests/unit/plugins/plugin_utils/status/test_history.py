from __future__ import annotations

import math
import re
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES
from ansible_collections.inference.fleet.plugins.plugin_utils.status import history

SPAN = history.ChartSpan(0.0, 1000.0, 10.0)
RUNNING = history.Query("load", "running", "")
TOKENS = history.Query("tokens", "vLLM", "")


def answer(*values: tuple[float, str]) -> dict[str, t.Any]:
    result = [{"metric": {}, "values": [list(one) for one in values]}] if values else []
    return {"status": "success", "data": {"resultType": "matrix", "result": result}}


@pytest.mark.parametrize(("seconds", "step"), [(60, 15), (3600, 30), (21600, 180), (7 * 86400, 5040)])
def test_a_line_has_at_most_some_points(seconds: float, step: float) -> None:
    assert history.span_of(1000.0, seconds) == history.ChartSpan(1000.0 - seconds, 1000.0, step)
    assert seconds / step <= 120


def test_rates_are_of_no_less_than_a_step() -> None:
    windows = {
        match
        for query in history.list_queries(history.span_of(0, 7 * 86400))
        for match in re.findall(r"\[(\w+)\]", query.expression)
    }
    assert windows == {"5040s"}


def test_every_engine_with_counters_has_its_lines() -> None:
    labels = [(query.chart, query.label) for query in history.list_queries(SPAN)]
    assert len(labels) == len(set(labels))
    assert {chart for chart, _label in labels} == set(history.CHARTS)
    for engine in ENGINES.values():
        assert ("tokens", engine.title) in labels
        assert ("first_token", f"{engine.title} p95") in labels


def test_an_answer_is_its_points_and_numbers_only() -> None:
    document = answer((1.0, "2.5"), (2.0, "NaN"), (3.0, "+Inf"), (4.0, "0"))
    assert history.parse_answer(document) == [(1.0, 2.5), (4.0, 0.0)]
    assert history.parse_answer(answer()) == []


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"status": "error", "errorType": "bad_data", "error": "parse error"}, "it refuses a question: parse error"),
        ({"status": "success", "data": {"resultType": "vector", "result": []}}, "another format"),
        ({"status": "success"}, "another format"),
        ({"status": "success", "data": {"resultType": "matrix", "result": [{"values": [1]}]}}, "another format"),
        ({"status": "success", "data": {"resultType": "matrix", "result": [{"values": [[1, "x"]]}]}}, "another format"),
        ([], "another format"),
        ("up", "another format"),
        (None, "another format"),
    ],
)
def test_anything_else_is_refused(document: t.Any, said: str) -> None:
    with pytest.raises(FleetError, match=said):
        history.parse_answer(document)


def test_a_line_is_interrupted_where_points_are_missing() -> None:
    points = [(0.0, 5.0), (10.0, 10.0), (500.0, 5.0), (510.0, 10.0)]
    (chart,) = history.draw_charts({RUNNING: points}, SPAN)
    # The axis ends a tenth above the greatest value, which is 11.
    assert chart.lines[0].path == "M0.00 54.55h0.3L1.00 9.09M50.00 54.55h0.3L51.00 9.09"
    assert (chart.top, chart.lines[0].most) == ("11", "10")


def test_a_line_that_ended_has_no_value_now() -> None:
    (chart,) = history.draw_charts({RUNNING: [(0.0, 5.0)]}, SPAN)
    assert chart.lines[0].last == "none now"
    (chart,) = history.draw_charts({RUNNING: [(990.0, 5.0)]}, SPAN)
    assert chart.lines[0].last == "5"


def test_zeros_have_an_axis_and_lines_without_points_are_left_out() -> None:
    charts = history.draw_charts({RUNNING: [(0.0, 0.0)], TOKENS: []}, SPAN)
    assert [(chart.title, chart.top) for chart in charts] == [("Requests in the engines", "4")]
    assert not any(math.isnan(float(number)) for number in re.findall(r"[\d.]+", charts[0].lines[0].path))


def test_ticks_have_the_day_where_a_day_is_not_enough() -> None:
    assert history.list_ticks(history.ChartSpan(0, 21600, 60)) == ["00:00", "03:00", "06:00"]
    assert history.list_ticks(history.ChartSpan(0, 4 * 86400, 60)) == ["1 Jan 00:00", "3 Jan 00:00", "5 Jan 00:00"]
