from __future__ import annotations

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark import scenarios
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark.scenarios import (
    BenchmarkSettings,
    plan,
    read_settings,
)

ALL = [kind.name for kind in scenarios.SCENARIOS]


def names(settings: BenchmarkSettings, context: int, pictures: bool = True, live: bool = False) -> list[str]:
    return [one.name for one in plan(settings, context, pictures, live).scenarios]


def test_by_default_everything_that_fits_is_measured() -> None:
    assert ALL == ["at_1", "at_8", "at_32", "at_64", "picture", "conversation", "document", "long"]
    assert names(BenchmarkSettings(), 262144) == ALL
    made = plan(BenchmarkSettings(), 8192, True, False)
    assert [one.name for one in made.scenarios] == [name for name in ALL if name != "document"]
    assert made.left_out == {"document": "it needs 10459 tokens, and the context is 8192"}
    assert made.problems == []


def test_the_long_one_is_as_long_as_the_context_and_no_longer_than_asked() -> None:
    settings = BenchmarkSettings(scenarios=("long",))
    for context, most in ((262144, 131072), (32768, 32768), (0, 131072)):
        [load] = plan(settings, context, True, False).scenarios
        assert most * 0.97 < load.prompt_tokens + load.output_tokens < most
        assert scenarios.needed_tokens(load) <= most
    assert "has no room for a prompt" in plan(settings, 200, True, False).problems[0]


def test_one_that_is_named_and_does_not_fit_is_refused() -> None:
    made = plan(BenchmarkSettings(scenarios=("at_1", "document")), 4096, True, False)
    assert made.problems == ["document cannot be measured: it needs 10459 tokens, and the context is 4096."]
    assert "no pictures" in plan(BenchmarkSettings(scenarios=("picture",)), 0, False, False).problems[0]


def test_a_text_model_has_no_picture() -> None:
    assert "picture" not in names(BenchmarkSettings(), 262144, pictures=False)


def test_where_nothing_fits_that_is_said() -> None:
    assert "no scenario fits" in plan(BenchmarkSettings(), 100, True, False).problems[0]


def test_beside_clients_the_bound_counts() -> None:
    assert "at_64" not in names(BenchmarkSettings(live_concurrency=8), 262144, live=True)
    assert "at_8" in names(BenchmarkSettings(live_concurrency=8), 262144, live=True)
    refused = plan(BenchmarkSettings(scenarios=("at_64",), live_concurrency=8), 262144, True, True)
    assert "64 at once are more than benchmark_live_concurrency (8)" in refused.problems[0]


def test_any_number_at_once_may_be_named() -> None:
    [load] = plan(BenchmarkSettings(scenarios=("at_3",), requests=2), 0, True, False).scenarios
    assert (load.concurrency, load.requests, load.warmup) == (3, 6, 3)
    assert scenarios.title("at_3") == "3 at once"


def test_a_document_and_a_conversation_are_as_asked() -> None:
    loads = {one.name: one for one in plan(BenchmarkSettings(), 262144, True, False).scenarios}
    assert (loads["document"].requests, loads["document"].warmup) == (5, 0)
    assert loads["document"].document_tokens == 10000
    assert (loads["conversation"].turns, loads["conversation"].requests) == (10, 1)


def test_settings_come_from_text_as_well() -> None:
    made = read_settings({"scenarios": "at_1, document", "repeats": "2", "requests": 1, "picture": "64x64"})
    assert made.scenarios == ("at_1", "document")
    assert (made.repeats, made.requests, made.picture) == (2, 1, "64x64")
    assert read_settings({}) == BenchmarkSettings()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"scenarios": ["at_0"]}, "at_0: the number of requests at once starts at 1"),
        ({"scenarios": ["documnet"]}, "'documnet'. Valid are at_1, at_8, .*long, and at_N"),
        ({"live_concurrency": 0}, "benchmark_live_concurrency is 0; it must be a whole number from 1"),
        ({"requests": "0"}, "benchmark_requests is '0'"),
        ({"repeats": 1.5}, "benchmark_repeats is 1.5"),
        ({"repeats": True}, "benchmark_repeats is True"),
        ({"turns": 1}, "benchmark_turns is 1; it must be a whole number from 2"),
        ({"picture": "large"}, "benchmark_picture is 'large'"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_valid(given: dict[str, object], said: str) -> None:
    with pytest.raises(FleetError, match=said):
        read_settings(given)


def test_everything_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(FleetError) as caught:
        read_settings({"scenarios": ["x"], "repeats": 0, "picture": ""})
    assert all(word in caught.value.message for word in ("'x'", "benchmark_repeats", "benchmark_picture"))
