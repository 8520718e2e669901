from __future__ import annotations

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.gate.chat import Completion
from ansible_collections.inference.fleet.plugins.module_utils.gate.freshness import Freshness, cached_by, with_nonce
from ansible_collections.inference.fleet.plugins.module_utils.gate.golden import CheckFailure

NOW = 1_795_900_000.0


@pytest.mark.parametrize(
    ("headers", "cached"),
    [
        ({"x-litellm-cache-key": "0123"}, True),
        ({"x-litellm-model-id": "1"}, False),
        ({"age": "12"}, True),
        ({"age": "0"}, False),
        ({"x-cache": "HIT from proxy"}, True),
        ({"x-cache": "MISS"}, False),
        ({"cf-cache-status": "HIT"}, True),
        ({"cache-control": "no-cache"}, False),
    ],
)
def test_caches_that_say_so_are_known(headers: dict[str, str], cached: bool) -> None:
    assert (cached_by(headers) is not None) is cached


@pytest.mark.parametrize("created", [None, NOW, NOW + 5, NOW - 59])
def test_clocks_may_differ_by_a_minute(created: float | None) -> None:
    Freshness().judge(Completion(created=created), NOW)


def test_what_was_made_before_its_question_is_refused() -> None:
    with pytest.raises(CheckFailure, match="an answer made 61 s before its question") as caught:
        Freshness().judge(Completion(created=NOW - 61), NOW)
    assert caught.value.reason == "stale"


def test_an_answer_belongs_to_one_question() -> None:
    freshness = Freshness()
    freshness.judge(Completion(id="a"), NOW)
    freshness.judge(Completion(id="b"), NOW)
    freshness.judge(Completion(), NOW)
    freshness.judge(Completion(), NOW)
    with pytest.raises(CheckFailure, match="the answer a to an earlier question"):
        freshness.judge(Completion(id="a"), NOW)


def test_no_two_prompts_are_the_same() -> None:
    assert len({with_nonce("Hello") for _number in range(100)}) == 100
