from __future__ import annotations

import dataclasses
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.benchmark.client import MeasuredRequest, Scenario
from ansible_collections.inference.fleet.plugins.module_utils.benchmark.figures import (
    MORE_IS_BETTER,
    figures,
    percentile,
)

LOAD = Scenario("at_2", 2, 4, 1, 1024, 100)


def request(began: float, **changes: t.Any) -> MeasuredRequest:
    usual = MeasuredRequest(f"c{began}", 0, began, began + 2, 0.2, 0.02, 1030, 100)
    return dataclasses.replace(usual, **changes)


def test_rates_are_over_the_whole_time() -> None:
    found = figures([request(10), request(10.5), request(12), request(12.5, ended=15.0)], LOAD)
    assert found["tokens_per_second"] == pytest.approx(400 / 5)
    assert found["requests_per_second"] == pytest.approx(4 / 5)
    assert found["first_token"] == 0.2
    assert found["between_tokens_p95"] == 0.02
    assert found["seconds"] == 2
    assert set(found) <= set(MORE_IS_BETTER)


def test_a_failed_request_makes_no_tokens_and_takes_its_time() -> None:
    found = figures([request(0), request(0, ended=8.0, problem="500: no", first_token=9.0)], LOAD)
    assert found["tokens_per_second"] == pytest.approx(100 / 8)
    assert found["first_token"] == 0.2


def test_without_an_answer_there_are_no_figures() -> None:
    assert figures([], LOAD) == {}
    assert figures([request(0, problem="500: no")], LOAD) == {}


def test_a_conversation_takes_what_its_answers_take() -> None:
    load = dataclasses.replace(LOAD, turns=3)
    whole = [request(float(turn * 3), conversation="a", turn=turn) for turn in range(3)]
    assert figures(whole, load)["seconds"] == 6
    # One that was broken off does not count.
    broken = request(20.0, conversation="b")
    assert figures([*whole, broken], load)["seconds"] == 6


def test_the_first_question_about_a_document_is_apart() -> None:
    load = dataclasses.replace(LOAD, document_tokens=10000)
    asked = [request(0.0, first_token=1.5), *(request(float(n * 3), first_token=0.1 * n) for n in (1, 2, 3))]
    found = figures(asked, load)
    assert found["first_asked"] == 1.5
    assert found["asked_again"] == pytest.approx(0.2)
    assert "first_asked" not in figures(asked, LOAD)


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([3, 1, 2], 0.95) == 3
    assert percentile(list(range(100)), 0.95) == 95
    assert percentile([7], 0.5) == 7
