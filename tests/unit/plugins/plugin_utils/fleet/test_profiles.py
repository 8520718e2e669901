"""Profiles: every line is a role variable with a reason, and every profile fits its GPU."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES
from ansible_collections.inference.fleet.plugins.module_utils.memory.base import Gpu, read_options
from ansible_collections.inference.fleet.plugins.module_utils.memory.fit import Fit, fit
from ansible_collections.inference.fleet.plugins.module_utils.model.config import Processor, parse_config
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.profiles import PROFILES, profile_settings

from tests.profiles_page import PAGE, written
from tests.unit.plugins.module_utils.model import model_configs as models

ROLES = Path(__file__).parents[5] / "roles"
L40S = Gpu("NVIDIA L40S", 46068, 609)
L4 = Gpu("NVIDIA L4", 23034)


def fits(profile: str, engine: str, gpu: Gpu, **changes: t.Any) -> Fit:
    settings = {name: value for name, value in profile_settings(profile, engine, gpu.name).items() if value is not None}
    memory = ENGINES[engine].memory
    assert memory is not None
    options = read_options(memory, {**settings, **changes}, 1)
    model = parse_config(models.QWEN3_VL_8B)
    return fit(model, models.QWEN3_VL_8B_BYTES, Processor(16777216, 25165824), [gpu], options)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_fits_one_l40s(profile: str, engine: str) -> None:
    found = fits(profile, engine, L40S)
    assert found.verdict == "fits", found.message
    assert found.certain, found.message


@pytest.mark.parametrize("engine", ENGINES)
def test_low_memory_is_what_fits_a_small_gpu(engine: str) -> None:
    assert fits("low_memory", engine, L4).certain
    assert fits("low_memory", engine, L4).fits
    assert not fits("balanced", engine, L4).fits


@pytest.mark.parametrize("engine", ENGINES)
def test_without_its_small_cache_long_context_would_not_fit(engine: str) -> None:
    assert fits("long_context", engine, L40S, kv_cache_dtype="auto").verdict == "too_long"


def test_what_is_for_one_gpu_is_for_that_one_alone() -> None:
    steps = {gpu: profile_settings("long_context", "sglang", gpu)["chunked_prefill_size"] for gpu in ("L40S", "L4", "")}
    assert steps == {"L40S": 2048, "L4": None, "": None}
    assert fits("long_context", "sglang", L40S, chunked_prefill_size=8192).verdict == "too_long"


def test_a_profile_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(FleetError, match=r"engine_profile is 'fast'.*Valid are: balanced, interactive, throughput"):
        profile_settings("fast", "vllm")


@pytest.mark.parametrize("engine", ENGINES)
def test_every_setting_is_the_default_of_its_variable(engine: str) -> None:
    defaults = yaml.safe_load((ROLES / engine / "defaults" / "main.yml").read_text())
    named = {setting.name for settings in ENGINES[engine].profiles.values() for setting in settings}
    for name in named:
        assert f"__{engine}_profile.{name} " in str(defaults[f"{engine}_{name}"]), name
    read = {match for value in defaults.values() for match in re.findall(rf"__{engine}_profile\.(\w+)", str(value))}
    assert read == named
    without = {name for name in read if f"{name} | default(none)" in str(defaults[f"{engine}_{name}"])}
    assert named - without == set(profile_settings("balanced", engine))


def test_every_line_has_its_reason_and_its_source() -> None:
    for engine in ENGINES.values():
        assert set(engine.profiles) == set(PROFILES)
        for settings in engine.profiles.values():
            for setting in settings:
                assert setting.why.endswith("."), setting
                assert setting.source, setting


def test_the_engine_role_names_every_profile() -> None:
    specs = yaml.safe_load((ROLES / "engine" / "meta" / "argument_specs.yml").read_text())
    described = specs["argument_specs"]["main"]["options"]["engine_profile"]["description"]
    assert all(name in described for name in PROFILES)


def test_what_a_search_varies_is_what_profiles_set() -> None:
    for engine in ENGINES.values():
        own = {setting.name for setting in engine.profiles["balanced"]}
        for tunable in engine.tunables:
            assert tunable.name in own, tunable
            assert len(set(tunable.values)) == len(tunable.values) > 1, tunable
            assert tunable.why.endswith("."), tunable
        # Weights and cache of fewer bits change answers.
        lossy = {tunable.name for tunable in engine.tunables if tunable.lossy}
        assert lossy == {"quantization", "kv_cache_dtype"}


def test_the_page_says_what_the_profiles_are() -> None:
    text = PAGE.read_text()
    assert written(text) == text, "run: python -m tests.profiles_page"
