"""A search finds a planted best setting within its budget, and never picks what may not win."""

from __future__ import annotations

import dataclasses
import itertools
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.tune.search import (
    TuningBudget,
    find_winner,
    key_of,
    replay,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.tune.space import Changes, SearchOption
from ansible_collections.inference.fleet.plugins.plugin_utils.tune.verdict import GOALS, Trial, TuningLimit, judge

from tests.unit.plugins.plugin_utils.tune.searches import SimulatedEngine, repeats, search

THROUGHPUT, INTERACTIVE = GOALS["throughput"], GOALS["interactive"]
STEPS = SearchOption("steps", None, (1024,), (4096, 8192, 16384), "Larger steps.")
REQUESTS = SearchOption("requests", 256, (128, 64, 32), (512,), "More share a step.")
POLICY = SearchOption("policy", "lpm", ("fcfs",), (), "Order.")
SPACE = (STEPS, REQUESTS, POLICY)


def rate(best: t.Mapping[str, t.Any], base: float = 1000) -> t.Callable[[Changes], dict[str, float]]:
    """Tokens a second that fall by a tenth with every step away from the best values."""

    def speed(changes: Changes) -> dict[str, float]:
        away = 0
        for option in SPACE:
            there = option.values.index(best.get(option.name, option.current))
            away += abs(option.values.index(changes.get(option.name, option.current)) - there)
        value = base * 0.9**away
        return {"tokens_per_second": value, "first_token_p95": 400 / value, "between_tokens_p95": 20 / value}

    return speed


@pytest.mark.parametrize(("steps", "requests"), [*itertools.product(STEPS.values, REQUESTS.values)])
def test_the_planted_best_is_found_wherever_it_is(steps: t.Any, requests: t.Any) -> None:
    best = {"steps": steps, "requests": requests}
    engine = SimulatedEngine(rate(best))
    judged = search(engine, SPACE, THROUGHPUT)
    winner = find_winner(SPACE, judged, THROUGHPUT)
    expected = {name: value for name, value in best.items() if value not in (None, 256)}
    assert (winner.trial.changes if winner else {}) == expected
    assert engine.seconds <= 3600
    assert len(engine.tried) == len({key_of(one) for one in engine.tried}), "nothing is tried twice"
    assert len(engine.tried) < 20


def test_less_is_better_where_the_goal_says_so() -> None:
    winner = find_winner(SPACE, search(SimulatedEngine(rate({"requests": 64})), SPACE, INTERACTIVE), INTERACTIVE)
    assert winner
    assert winner.trial.changes == {"requests": 64}


def test_a_faster_setting_whose_gate_fails_is_never_picked_and_does_not_end_the_direction() -> None:
    plain = rate({"steps": 8192})
    engine = SimulatedEngine(lambda one: "the answer is wrong" if one.get("steps") == 4096 else plain(one))
    winner = find_winner(SPACE, search(engine, SPACE, THROUGHPUT), THROUGHPUT)
    assert winner
    assert winner.trial.changes == {"steps": 8192}
    engine = SimulatedEngine(lambda one: "the answer is wrong" if one.get("steps") == 8192 else plain(one))
    judged = search(engine, SPACE, THROUGHPUT)
    winner = find_winner(SPACE, judged, THROUGHPUT)
    assert winner
    assert winner.trial.changes["steps"] == 4096
    assert any(one.trial.changes.get("steps") == 8192 and one.problem for one in judged)


def test_where_every_gate_fails_nothing_wins() -> None:
    judged = search(SimulatedEngine(lambda one: "it ended" if one else {"tokens_per_second": 1}), SPACE, THROUGHPUT)
    assert len(judged) == 1 + sum(len(option.lower) + len(option.higher) for option in SPACE)
    assert find_winner(SPACE, judged, THROUGHPUT) is None


def test_what_breaks_a_limit_never_wins() -> None:
    """The faster, the longer between tokens."""

    def speed(changes: Changes) -> dict[str, float]:
        step = STEPS.values.index(changes.get("steps"))
        return {"tokens_per_second": 1000 * 1.2**step, "between_tokens_p95": 0.02 * 1.5**step}

    limit = TuningLimit("tune_max_itl", "between_tokens_p95", 0.05)
    judged = search(SimulatedEngine(speed), (STEPS,), THROUGHPUT, [limit])
    winner = find_winner((STEPS,), judged, THROUGHPUT)
    assert winner
    assert winner.trial.changes == {"steps": 4096}
    assert [one.trial.changes for one in judged if one.broken] == [{"steps": 8192}]
    free = find_winner((STEPS,), search(SimulatedEngine(speed), (STEPS,), THROUGHPUT), THROUGHPUT)
    assert free
    assert free.trial.changes == {"steps": 16384}


def test_where_the_baseline_breaks_a_limit_the_search_goes_towards_it() -> None:
    def speed(changes: Changes) -> dict[str, float]:
        place = REQUESTS.values.index(changes.get("requests", 256))
        return {"tokens_per_second": 1000 * 1.1**place, "between_tokens_p95": 0.02 * 1.5**place}

    limit = TuningLimit("tune_max_itl", "between_tokens_p95", 0.031)
    judged = search(SimulatedEngine(speed), (REQUESTS,), THROUGHPUT, [limit])
    assert judged[0].broken
    winner = find_winner((REQUESTS,), judged, THROUGHPUT)
    assert winner
    assert winner.trial.changes == {"requests": 64}
    nothing = TuningLimit("tune_max_itl", "between_tokens_p95", 0.001)
    judged = search(SimulatedEngine(speed), (REQUESTS,), THROUGHPUT, [nothing])
    assert replay((REQUESTS,), judged, THROUGHPUT).best == {"requests": 32}
    assert find_winner((REQUESTS,), judged, THROUGHPUT) is None


class NoisyEngine(SimulatedEngine):
    """Every setting gives the same, up to what the repeats of one differ by themselves."""

    def run(self, number: int, changes: Changes) -> Trial:
        trial = super().run(number, changes)
        # The ranges of two trials overlap, as those of one engine do.
        low, high = (950, 1050) if number % 2 else (960, 1060)
        figures = [{"tokens_per_second": value} for value in (low, 1000 + number, high)]
        return dataclasses.replace(trial, measured={**trial.measured, "repeats": figures})


def test_a_difference_inside_the_spread_wins_nothing() -> None:
    judged = search(NoisyEngine(lambda _changes: {"tokens_per_second": 1000}), SPACE, THROUGHPUT)
    assert len(judged) == 1 + sum(len(option.lower) + len(option.higher) for option in SPACE)
    assert find_winner(SPACE, judged, THROUGHPUT) is None


def test_a_trial_that_does_not_fit_the_budget_is_not_begun() -> None:
    for minutes in (4, 5, 8, 11, 20):
        engine = SimulatedEngine(rate({"steps": 16384, "requests": 64}))
        search(engine, SPACE, THROUGHPUT, minutes=minutes)
        # The way back is a start with its gate.
        assert engine.seconds + 60 <= minutes * 60
        assert len(engine.tried) >= 2
    short = TuningBudget(239, 60, 60)
    assert short.least == 240
    baseline = judge(SimulatedEngine(rate({})).run(0, {}), THROUGHPUT, [])
    assert not short.holds_another(60, [baseline])
    assert TuningBudget(240, 60, 60).holds_another(60, [baseline])


def test_a_slow_trial_makes_the_next_one_expected_as_slow() -> None:
    budget = TuningBudget(1000, 60, 60)
    slow = Trial(1, {"steps": 4096}, measured=repeats({"tokens_per_second": 1}), seconds=300, measuring_seconds=100)
    assert budget.expected([judge(slow, THROUGHPUT, [])]) == (200, 100)
    assert budget.way_back(300, [judge(slow, THROUGHPUT, [])]) == 200
    # What was no trial is expected again on the way back.
    assert budget.way_back(400, [judge(slow, THROUGHPUT, [])]) == 300
    assert budget.holds_another(400, [judge(slow, THROUGHPUT, [])])
    assert not budget.holds_another(401, [judge(slow, THROUGHPUT, [])])


def test_what_is_best_so_far_wins_when_the_time_is_over() -> None:
    engine = SimulatedEngine(rate({"steps": 16384}))
    judged = search(engine, SPACE, THROUGHPUT, minutes=6)
    winner = find_winner(SPACE, judged, THROUGHPUT)
    assert winner
    assert winner.trial.changes == judged[-1].trial.changes
    assert replay(SPACE, judged, THROUGHPUT).further is not None
    assert find_winner(SPACE, [], THROUGHPUT) is None
