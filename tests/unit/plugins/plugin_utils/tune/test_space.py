"""What a search varies: the engine's own list, from the baseline's value outwards."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.engines.base import Tunable
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.profiles import PROFILES, profile_settings
from ansible_collections.inference.fleet.plugins.plugin_utils.tune import space as spaces
from ansible_collections.inference.fleet.plugins.plugin_utils.tune.space import described, probes, search_space


def option(tunable: Tunable, current: t.Any, monkeypatch: pytest.MonkeyPatch) -> tuple[tuple[t.Any, ...], ...]:
    monkeypatch.setitem(ENGINES, "vllm", ENGINES["vllm"].__class__(**{**vars(ENGINES["vllm"]), "tunables": (tunable,)}))
    found = search_space("vllm", {tunable.name: current}, lossy=True)
    return (found[0].lower, found[0].higher) if found else ()


@pytest.mark.parametrize(
    ("values", "own", "current", "expected"),
    [
        ((32, 64, 128), None, 64, ((32,), (128,))),
        # Between two of them, and the engine's own.
        ((32, 64, 128), None, 100, ((64, 32), (128,))),
        ((32, 64, 128), 64.0, None, ((32,), (128,))),
        # Where the engine's own is not known, any may be more.
        ((32, 64), None, None, ((), (32, 64))),
        (("fcfs", "lpm"), None, "lpm", (("fcfs",), ())),
        ((None, "fp8"), None, None, ((), ("fp8",))),
        ((None, "fp8"), None, "awq", ((), (None, "fp8"))),
        ((32,), None, 32, ()),
    ],
)
def test_values_are_tried_from_the_baselines_outwards(
    values: tuple[t.Any, ...],
    own: float | None,
    current: t.Any,
    expected: tuple[t.Any, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert option(Tunable("max_num_seqs", values, "More.", own), current, monkeypatch) == expected


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("profile", PROFILES)
def test_what_changes_answers_varies_only_where_it_is_asked_for(engine: str, profile: str) -> None:
    baseline = profile_settings(profile, engine, "L40S")
    careful = {one.name for one in search_space(engine, baseline, lossy=False)}
    free = {one.name for one in search_space(engine, baseline, lossy=True)}
    assert free - careful == {"quantization", "kv_cache_dtype"}
    assert careful
    for one in search_space(engine, baseline, lossy=True):
        assert baseline[one.name] not in one.lower + one.higher
        assert one.values[len(one.lower)] == baseline[one.name]


def test_a_variable_that_is_set_takes_its_setting_out_of_the_space() -> None:
    baseline = profile_settings("balanced", "vllm")
    space = search_space("vllm", baseline, lossy=False)
    asked = probes(space)
    assert asked[0] == {}
    assert [list(one) for one in asked[1:]] == [[one.name] for one in space]
    options = [{"max-num-seqs": 32, **({"x": 1} if "max_num_batched_tokens" in one else {})} for one in asked]
    without = spaces.without_effect(space, options)
    assert without == [one.name for one in space if one.name != "max_num_batched_tokens"]
    assert [one.name for one in search_space("vllm", baseline, False, without)] == ["max_num_batched_tokens"]


def test_changes_are_said_by_the_variables_that_set_them() -> None:
    assert described("vllm", {}) == "as it is"
    assert described("vllm", {"max_num_seqs": 64, "quantization": None}) == (
        "vllm_max_num_seqs 64, vllm_quantization the engine's own"
    )
