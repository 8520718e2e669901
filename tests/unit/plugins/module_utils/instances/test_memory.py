from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.engines.memory import EngineMemory
from ansible_collections.inference.fleet.plugins.module_utils.instances.memory import record_of, reported

MANIFEST = {
    "engine": "vllm",
    "version": "0.32.0",
    "model": "Qwen/Qwen3-VL-8B-Instruct",
    "model_path": "/models/q",
    "options": {"gpu_memory_utilization": 0.9, "tensor-parallel-size": 2, "kv-cache-dtype": "fp8"},
}
SAID = EngineMemory(kv_cache_gib=20.5, kv_cache_tokens=149000, model_gib=16.4, max_length=32768)


def record(**changes: t.Any) -> dict[str, t.Any]:
    made = record_of(SAID, "vllm-1", {**MANIFEST, **changes}, "NVIDIA L40S", "2026-11-28T01:00:00+00:00")
    assert made is not None
    return made


def test_a_record_holds_the_engines_figures_and_their_circumstances() -> None:
    assert record() == {
        "at": "2026-11-28T01:00:00+00:00",
        "release": "vllm-1",
        "engine": "vllm",
        "version": "0.32.0",
        "model": "Qwen/Qwen3-VL-8B-Instruct",
        "model_path": "/models/q",
        "gpu": "NVIDIA L40S",
        "tensor_parallel_size": 2,
        "fraction": 0.9,
        "kv_cache_dtype": "fp8",
        "quantization": "",
        "memory": {"kv_cache_gib": 20.5, "kv_cache_tokens": 149000, "model_gib": 16.4, "max_length": 32768},
    }


def test_of_an_engine_that_says_nothing_there_is_no_record() -> None:
    assert record_of(EngineMemory(max_length=32768), "vllm-1", MANIFEST, "", "now") is None


def test_the_fit_takes_it_with_its_circumstances() -> None:
    assert reported(record(), "vllm", "/models/q") == {
        "kv_cache_gib": 20.5,
        "kv_cache_tokens": 149000,
        "model_gib": 16.4,
        "fraction": 0.9,
        "kv_cache_dtype": "fp8",
        "quantization": "",
        "tensor_parallel_size": 2,
        "gpu": "NVIDIA L40S",
        "engine_version": "0.32.0",
    }


@pytest.mark.parametrize(
    ("kept", "engine", "path"),
    [
        (record(), "sglang", "/models/q"),
        (record(), "vllm", "/models/other"),
        (None, "vllm", "/models/q"),
        ([], "vllm", "x"),
    ],
)
def test_of_another_engine_or_model_it_says_nothing(kept: t.Any, engine: str, path: str) -> None:
    assert reported(kept, engine, path) == {}


def test_sglang_has_names_of_its_own() -> None:
    made = record(engine="sglang", options={"mem-fraction-static": 0.8, "tp_size": 4, "quantization": "fp8"})
    assert (made["fraction"], made["tensor_parallel_size"], made["quantization"]) == (0.8, 4, "fp8")
