from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.gate.chat import Completion
from ansible_collections.inference.fleet.plugins.module_utils.gate.golden import (
    CheckFailure,
    figures_of,
    has_collapsed,
    is_golden,
    judge,
    rgb_of,
)

USAGE = {"prompt_tokens": 12, "completion_tokens": 2}


def answer(text: str = "Paris", finish: str | None = "stop", usage: t.Any = USAGE) -> Completion:
    return Completion(text, finish, usage)


@pytest.mark.parametrize("text", ["Paris", "paris.", "  **Paris**!\n", "PARIS", "Paris 🙂"])
def test_case_punctuation_and_space_do_not_matter(text: str) -> None:
    assert is_golden(text, ["Paris"])


@pytest.mark.parametrize("text", ["London", "Not Paris", "Paris London", "Pari", "parisparis", ""])
def test_another_answer_is_wrong(text: str) -> None:
    assert not is_golden(text, ["Paris"])


def test_any_of_several_answers_is_right_in_any_script() -> None:
    assert is_golden("红色。", ["red", "红色"])


def test_a_regex_is_searched_regardless_of_case() -> None:
    assert is_golden("It is PARIS, of course", [], "paris")
    assert is_golden("Paris", ["Lyon"], "^paris$")
    assert not is_golden("London", [], "paris")


def test_without_a_golden_answer_every_answer_is_right() -> None:
    assert is_golden("anything", [])


@pytest.mark.parametrize(
    "text",
    [
        "!!!!",
        "!!!!!!!!!!!!!!!!!!!!",
        "The answer is!!!!!!!!!!!!!!!!!!!!!",
        "the the the the the ",
        "Yes, of course. I am sorry. I am sorry. I am sorry. I am sorry. I am sorry.",
        "aaaaaaaaaaaaaaaaaaaa",
        "0000000000000000",
        "\ufffd\ufffd\ufffda",
        "。。。。。。",
    ],
)
def test_a_collapsed_answer_is_seen(text: str) -> None:
    assert has_collapsed(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Paris",
        "Paris!!!",
        "Wait...",
        "1000000",
        "Hmmmm",
        "one, two, three, four, five, six, seven, eight, nine, ten.",
        "0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9",
        "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream.",
        "naïve \ufffd text",
    ],
)
def test_an_honest_answer_is_no_collapse(text: str) -> None:
    assert not has_collapsed(text)


@pytest.mark.parametrize(
    ("given", "reason", "shown"),
    [
        (answer(finish="abort"), "finish_reason", "abort"),
        (answer(finish=None), "finish_reason", "None"),
        (answer(""), "empty", "empty"),
        (answer(" \n"), "empty", "empty"),
        (answer("!!!!!!!!"), "repetition", "!!!!!!!!"),
        (answer("London"), "wrong_answer", '"London" with finish_reason stop; expected "Paris"'),
        (answer(usage=None), "no_usage", "without usage"),
        (answer(usage={"prompt_tokens": 0, "completion_tokens": 1}), "no_usage", "prompt_tokens"),
        (answer(usage={"prompt_tokens": 3}), "no_usage", "completion_tokens"),
        (answer(usage={"prompt_tokens": 3, "completion_tokens": True}), "no_usage", "True"),
    ],
)
def test_each_fault_of_an_answer_is_refused_by_name(given: Completion, reason: str, shown: str) -> None:
    with pytest.raises(CheckFailure) as caught:
        judge(given, ["Paris"])
    assert caught.value.reason == reason
    assert shown in caught.value.got
    assert not caught.value.transient


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_a_right_answer_is_accepted(finish: str) -> None:
    judge(answer(finish=finish), ["Paris"])


def test_figures_are_the_first_token_and_the_rate_after_it() -> None:
    measured = Completion("x", "length", {"completion_tokens": 65}, first=0.1, last=1.1, total=1.2)
    assert figures_of(measured) == {
        "ttft_ms": 100.0,
        "tokens_per_second": 64.0,
        "total_ms": 1200.0,
        "completion_tokens": 65,
    }


def test_few_tokens_make_no_rate() -> None:
    measured = Completion("x", "stop", {"completion_tokens": 7}, first=0.1, last=0.2, total=0.2)
    assert figures_of(measured)["tokens_per_second"] is None


def test_a_buffered_stream_is_as_fast_as_all_of_it() -> None:
    measured = Completion("x", "length", {"completion_tokens": 64}, first=2.0, last=2.0, total=2.0)
    assert figures_of(measured)["tokens_per_second"] == 32.0


def test_colours_have_names_and_codes() -> None:
    assert rgb_of("blue") == (0, 0, 255)
    assert rgb_of("#0a0B0c") == (10, 11, 12)
    with pytest.raises(FleetError, match=r"'mauve'\. Valid are: red, green"):
        rgb_of("mauve")
