from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.gate.speed import best_of, slack, slowdown

GOOD = {"ttft_ms": 400.0, "tokens_per_second": 60.0, "work_ms": 50.0}


def taken(ttft: float, rate: float, work: float = 50.0) -> dict[str, t.Any]:
    return {"ttft_ms": ttft, "tokens_per_second": rate, "total_ms": ttft * 2, "work_ms": work}


@pytest.mark.parametrize(
    ("ttft", "rate", "complaints"),
    [
        (400.0, 60.0, []),
        (799.0, 30.1, []),
        (801.0, 60.0, ["first token after 801 ms, 2.0 times the last good 400 ms (allowed: 2.0 times)"]),
        (400.0, 29.0, ["29.0 tokens/s, 2.1 times slower than the last good 60.0 (allowed: 2.0 times)"]),
        (100.0, 600.0, []),
    ],
)
def test_slower_than_the_limit_is_reported_with_both_figures(ttft: float, rate: float, complaints: list[str]) -> None:
    assert slowdown([taken(ttft, rate)], GOOD, 2.0, 200.0) == complaints


def test_both_figures_may_be_slow() -> None:
    assert len(slowdown([taken(4000.0, 1.0)], GOOD, 2.0, 200.0)) == 2


def test_tokens_that_barely_come_are_slow() -> None:
    assert len(slowdown([taken(400.0, 0.0)], GOOD, 2.0, 200.0)) == 1


def test_milliseconds_are_not_slow_whatever_the_ratio() -> None:
    good = {"ttft_ms": 20.0, "tokens_per_second": 60.0}
    assert slowdown([taken(200.0, 60.0)], good, 2.0, 200.0) == []
    assert slowdown([taken(221.0, 60.0)], good, 2.0, 200.0) != []


@pytest.mark.parametrize("good", [{}, {"ttft_ms": "fast", "tokens_per_second": 0}])
def test_what_was_never_measured_is_not_compared(good: dict[str, t.Any]) -> None:
    assert slowdown([taken(900.0, 1.0)], good, 2.0, 0.0) == []


def test_the_best_measurement_of_each_figure_counts() -> None:
    assert slowdown([taken(4000.0, 60.0), taken(400.0, 1.0)], GOOD, 2.0, 200.0) == []
    slow = slowdown([taken(4000.0, 1.0), taken(2000.0, 2.0)], GOOD, 2.0, 200.0)
    assert slow == [
        "first token after 2000 ms, 5.0 times the last good 400 ms (allowed: 2.0 times)",
        "2.0 tokens/s, 30.0 times slower than the last good 60.0 (allowed: 2.0 times)",
    ]
    best = best_of([taken(4000.0, 1.0, 90.0), taken(2000.0, 2.0, 60.0)])
    assert best == taken(2000.0, 2.0, 60.0)


def test_a_slow_machine_makes_no_slow_release() -> None:
    assert slowdown([taken(4000.0, 6.0, work=250.0)], GOOD, 2.0, 200.0) == []


def test_a_slow_release_is_found_on_a_slow_machine() -> None:
    assert len(slowdown([taken(5000.0, 5.0, work=250.0)], GOOD, 2.0, 200.0)) == 2


@pytest.mark.parametrize(
    ("work", "good_work", "times"), [(50.0, 50.0, 1.0), (250.0, 50.0, 5.0), (25.0, 50.0, 1.0), (50.0, None, 1.0)]
)
def test_a_faster_machine_demands_no_more(work: float, good_work: float | None, times: float) -> None:
    assert slack(taken(1.0, 1.0, work), {**GOOD, "work_ms": good_work}) == times
