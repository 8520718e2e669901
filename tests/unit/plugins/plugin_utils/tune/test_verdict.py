"""Goals, limits, and which of two trials is better."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.benchmark.figures import MORE_IS_BETTER
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark.compare import BETTER, NONE, WORSE
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark.scenarios import find
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.profiles import PROFILES
from ansible_collections.inference.fleet.plugins.plugin_utils.tune.verdict import (
    FAILED,
    GOALS,
    LIMITED,
    JudgedTrial,
    Trial,
    TuningLimit,
    choose_goal,
    compare,
    judge,
    read_limits,
)

from tests.unit.plugins.plugin_utils.tune.searches import repeats

GOAL = GOALS["interactive"]
LIMIT = TuningLimit("tune_max_itl", "between_tokens_p95", 0.05)


def trial(*values: float, between: float = 0.02, **changes: t.Any) -> Trial:
    figures = [{"first_token_p95": value, "between_tokens_p95": between} for value in values]
    return Trial(1, {"max_num_seqs": 64}, **{"measured": {**repeats({}), "repeats": figures}, **changes})


def judged(*values: float, between: float = 0.02) -> JudgedTrial:
    return judge(trial(*values, between=between), GOAL, [LIMIT])


def test_every_goal_is_a_profile_a_scenario_and_a_figure() -> None:
    for name, goal in GOALS.items():
        assert name in PROFILES
        assert find(goal.scenario)
        assert goal.figure in MORE_IS_BETTER
    assert all(figure in MORE_IS_BETTER and not MORE_IS_BETTER[figure] for figure, _title in LIMITED.values())
    assert GOAL.said == "least first token p95"
    assert GOALS["throughput"].said == "most tokens/s"


def test_a_goal_may_have_another_load() -> None:
    assert choose_goal("throughput").scenario == "at_64"
    assert choose_goal("throughput", 8).scenario == "at_8"
    assert choose_goal("long_context", 8).scenario == "long"
    with pytest.raises(FleetError, match=r"tune_for is 'speed'. Valid are interactive, throughput, balanced, long_con"):
        choose_goal("speed")


def test_limits_are_seconds_above_zero() -> None:
    found = read_limits({"tune_max_ttft": "0.5", "tune_max_itl": ""})
    assert found == [TuningLimit("tune_max_ttft", "first_token_p95", 0.5)]
    assert read_limits({}) == []
    with pytest.raises(FleetError) as raised:
        read_limits({"tune_max_ttft": 0, "tune_max_itl": "fast"})
    assert "tune_max_ttft is 0; first token p95 has a limit in seconds above 0" in raised.value.message
    assert "tune_max_itl is 'fast'; between tokens p95" in raised.value.message
    for wrong in (-1, "nan", "inf"):
        with pytest.raises(FleetError):
            read_limits({"tune_max_itl": wrong})


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ((0.40, 0.41, 0.42), (0.20, 0.21, 0.22), BETTER),
        ((0.20, 0.21, 0.22), (0.40, 0.41, 0.42), WORSE),
        ((0.40, 0.41, 0.42), (0.38, 0.39, 0.41), NONE),
        # Apart, and by less than what the repeats differ by themselves.
        ((0.40, 0.45, 0.50), (0.37, 0.38, 0.39), NONE),
        # One repeat shows no spread.
        ((0.40,), (0.10,), NONE),
    ],
)
def test_a_difference_counts_where_it_is_more_than_the_spread(
    before: tuple[float, ...], after: tuple[float, ...], verdict: str
) -> None:
    assert compare(judged(*before), judged(*after), GOAL) == verdict


def test_limits_come_before_the_goal() -> None:
    slow, fast = judged(0.4, 0.4), judged(0.1, 0.1, between=0.06)
    assert slow.may_win
    assert not fast.may_win
    assert fast.broken == ("between tokens p95 0.06 s, above tune_max_itl 0.05",)
    assert compare(slow, fast, GOAL) == WORSE
    assert compare(fast, slow, GOAL) == BETTER
    assert compare(fast, judged(0.4, 0.4, between=0.055), GOAL) == BETTER
    assert compare(fast, judged(0.4, 0.4, between=0.09), GOAL) == WORSE
    assert compare(judged(0.1, 0.15, between=0.06), judged(0.1, 0.15, between=0.06), GOAL) == NONE


def test_every_repeat_has_to_keep_a_limit() -> None:
    figures = [{"first_token_p95": 0.1, "between_tokens_p95": value} for value in (0.03, 0.03, 0.051)]
    found = judge(Trial(1, {}, measured={**repeats({}), "repeats": figures}), GOAL, [LIMIT])
    assert not found.may_win
    assert found.excess
    assert found.excess.high == pytest.approx(1.02)


def test_a_limit_on_what_was_not_measured_is_not_kept() -> None:
    found = judge(Trial(1, {}, measured=repeats({"first_token_p95": 0.1})), GOAL, [LIMIT])
    assert not found.may_win
    assert found.problem == "between tokens p95 was not measured, so its limit cannot be seen to hold"


def test_what_failed_is_neither_better_nor_worse() -> None:
    gate = judge(Trial(1, {}, "gate", "the answer is London"), GOAL, [])
    measured = {**repeats({"first_token_p95": 0.1}), "failed": 3, "problem": "503"}
    refused = judge(Trial(1, {}, measured=measured), GOAL, [])
    empty = judge(trial(), GOAL, [])
    assert [one.problem for one in (gate, refused, empty)] == [
        "the answer is London",
        "3 of 128 requests failed (503)",
        "nothing was measured (no reason given)",
    ]
    good = judged(0.4, 0.4)
    for one in (gate, refused, empty):
        assert not one.may_win
        assert compare(good, one, GOAL) == FAILED
    assert compare(refused, good, GOAL) == BETTER
