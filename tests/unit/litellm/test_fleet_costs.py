"""The most that a request can cost."""

from __future__ import annotations

import types
import typing as t

import pytest

from tests.unit.litellm.conftest import load


@pytest.fixture
def costs() -> types.ModuleType:
    return load("fleet_costs")


def tokens(costs: types.ModuleType, generates: bool = True, **request: t.Any) -> tuple[int, int]:
    """Of the prompt, without the template's, and of the answer."""
    both = []
    for price in ([1.0, 0.0], [0.0, 1.0]):
        tariff = costs.parse({"prices": {"m": price}, "output_tokens": 100, "media_tokens": 1000})
        both.append(int(tariff.most(request, ["m"], generates)))
    return both[0] - costs.TEMPLATE_TOKENS, both[1]


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ({}, 100),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 7, "n": 3}, 21),
        ({"max_output_tokens": 7, "best_of": 2, "n": 1}, 14),
        ({"max_tokens": 7, "max_completion_tokens": 9}, 9),
        ({"max_tokens": 7, "prompt": ["a", "b", "c"]}, 21),
        # What LiteLLM would use to override the rest.
        ({"max_tokens": 7, "extra_body": {"max_tokens": 70, "n": 2}}, 140),
        # Nothing in it makes a request cheaper than an empty one.
        ({"max_tokens": -(10**9)}, 100),
        ({"max_tokens": 0}, 100),
        ({"max_tokens": "7"}, 100),
        # Engines parse numbers in texts.
        ({"max_tokens": "700"}, 700),
        ({"max_tokens": 7, "n": " 3 "}, 21),
        ({"max_tokens": 7, "best_of": "3.0"}, 21),
        ({"max_tokens": "many", "n": "nan"}, 100),
        ({"n": "Infinity"}, 100 * 10**9),
        ({"max_tokens": True}, 100),
        ({"max_tokens": float("nan"), "n": float("-inf")}, 100),
        ({"max_tokens": float("inf")}, 10**9),
        ({"max_tokens": 10**400}, 10**9),
    ],
)
def test_an_answer_is_as_long_as_it_may_be(costs: types.ModuleType, request_: dict[str, t.Any], answer: int) -> None:
    assert tokens(costs, **request_)[1] == answer


def test_embeddings_have_no_answer(costs: types.ModuleType) -> None:
    assert tokens(costs, generates=False, max_tokens=7)[1] == 0


def test_a_prompt_has_no_more_tokens_than_bytes(costs: types.ModuleType) -> None:
    text = "Grüße, 世界 \ud800" * 100
    prompt, _ = tokens(costs, messages=[{"role": "user", "content": text}])
    assert len(text.encode(errors="replace")) <= prompt < len(text.encode(errors="replace")) + 50
    assert tokens(costs, prompt=[1, 2, 3])[0] == 3
    schema = {"type": "function", "function": {"name": "f" * 500}}
    assert tokens(costs, tools=[schema])[0] > 500


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10**6}},
        {"type": "image", "source": {"type": "base64", "data": "A" * 10**6}},
        {"type": "input_audio", "input_audio": {"data": "A" * 10**6}},
        {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}},
    ],
)
def test_media_count_by_number_and_not_by_size(costs: types.ModuleType, part: dict[str, t.Any]) -> None:
    prompt, _ = tokens(costs, messages=[{"role": "user", "content": [part, part, {"type": "text", "text": "b" * 500}]}])
    assert 2500 <= prompt < 2800
    hidden, _ = tokens(costs, messages=[{"role": "user", "content": [{"type": "image_url", "text": "b" * 5000}]}])
    assert hidden >= 6000


def test_the_dearest_of_the_models_counts(costs: types.ModuleType) -> None:
    tariff = costs.parse({"prices": {"a": [0, 1], "b": [0, 5], "c": [0, 9]}})
    assert tariff.most({"max_tokens": 2}, ["a", "b"], True) == 10
    assert tariff.most({"max_tokens": 2}, ["unknown"], True) == 18
    assert costs.parse({}).most({"max_tokens": 2}, ["a"], True) == 0
