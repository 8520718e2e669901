from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES
from ansible_collections.inference.fleet.plugins.module_utils.memory.base import (
    AUTO,
    MemoryOptions,
    NotModelled,
    kv_number_bytes,
    parse_length,
    parse_version,
)
from ansible_collections.inference.fleet.plugins.module_utils.memory.base import read_options as read


def read_options(engine: str, given: dict[str, t.Any], parallel: int, version: str = "") -> MemoryOptions:
    memory = ENGINES[engine].memory
    assert memory is not None
    return read(memory, given, parallel, version)


def vllm(**options: t.Any) -> MemoryOptions:
    return read_options("vllm", options, 1)


def sglang(**options: t.Any) -> MemoryOptions:
    return read_options("sglang", options, 1)


def test_nothing_set_is_the_engine_s_default() -> None:
    options = vllm()
    assert (options.fraction, options.length, options.kv_dtype, options.block) == (0.92, None, "auto", 16)
    assert (options.images, options.videos, options.graphs, options.version) == (999, 999, True, ())
    options = sglang()
    assert (options.fraction, options.length, options.block, options.version) == (None, None, 1, ())


def test_both_spellings_and_values_of_the_command_line_are_taken() -> None:
    options = read_options(
        "vllm",
        {
            "max-model-len": "65536",
            "gpu_memory_utilization": "0.9",
            "enforce_eager": "true",
            "max_num_seqs": 64,
            "limit-mm-per-prompt": '{"image": 4, "video": {"count": 1, "num_frames": 8}}',
            "mm_processor_kwargs": {"max_pixels": 1003520},
            "kv_cache_dtype": None,
        },
        2,
        "0.32.0+cu130",
    )
    assert (options.length, options.fraction, options.graphs, options.requests) == (65536, 0.9, False, 64)
    assert (options.images, options.videos, options.image_pixels) == (4, 1, 1003520)
    assert (options.tensor_parallel, options.version, options.kv_dtype) == (2, (0, 32, 0), "auto")


def test_graphs_can_be_off_in_two_ways() -> None:
    assert not vllm(compilation_config={"cudagraph_mode": "NONE"}).graphs
    assert vllm(compilation_config={"cudagraph_mode": "PIECEWISE"}).graphs
    assert not sglang(disable_cuda_graph=True).graphs


def test_media_can_be_off_in_two_ways() -> None:
    assert vllm().media
    assert not vllm(limit_mm_per_prompt={"image": 0, "video": 0}).media
    assert not vllm(language_model_only=True).media
    assert not vllm(mm_encoder_tp_mode="data").split_encoder


def test_sglang_without_chunks_has_long_steps() -> None:
    assert sglang(chunked_prefill_size=2048).batched_tokens == 2048
    assert sglang(chunked_prefill_size=-1).batched_tokens == 16384


@pytest.mark.parametrize(
    ("given", "length"),
    [
        (None, None),
        ("", None),
        (32768, 32768),
        ("8k", 8000),
        ("8K", 8192),
        ("25.6k", 25600),
        ("1M", 1048576),
        ("auto", AUTO),
        (-1, AUTO),
    ],
)
def test_lengths_are_those_of_the_engine(given: t.Any, length: int | None) -> None:
    assert parse_length(given, "vllm_max_model_len") == length


@pytest.mark.parametrize("given", ["long", "1.5K", "1.5", 0, "8 K"])
def test_what_is_no_length_is_refused(given: t.Any) -> None:
    with pytest.raises(FleetError, match=r"^vllm_max_model_len is .*, which is no length: give a number of tokens"):
        parse_length(given, "vllm_max_model_len")


def test_versions_are_numbers() -> None:
    assert parse_version("0.32.0+cpu") == (0, 32, 0)
    assert parse_version("0.10.1.dev101+gbda9") == (0, 10, 1)
    assert parse_version("nightly") == ()


@pytest.mark.parametrize(
    ("kv_dtype", "dtype", "checkpoint", "size"),
    [
        ("auto", "bfloat16", "", 2),
        ("auto", "bfloat16", "scheme", 1),
        ("auto", "float32", "", 4),
        ("fp8", "bfloat16", "", 1),
        ("fp8_e5m2", "bfloat16", "", 1),
        ("bfloat16", "bfloat16", "algorithm", 2),
    ],
)
def test_a_number_of_the_kv_cache_has_a_size(kv_dtype: str, dtype: str, checkpoint: str, size: int) -> None:
    assert kv_number_bytes(vllm(kv_cache_dtype=kv_dtype), dtype, checkpoint) == size


def test_a_type_of_unknown_size_is_not_guessed() -> None:
    with pytest.raises(NotModelled, match="vllm_kv_cache_dtype is turboquant_3bit_nc"):
        kv_number_bytes(vllm(kv_cache_dtype="turboquant_3bit_nc"), "bfloat16", "")


@pytest.mark.parametrize(
    ("engine", "options", "message"),
    [
        ("vllm", {"gpu_memory_utilization": 92}, "vllm_gpu_memory_utilization is 92.0; it must be above 0 and at most"),
        ("sglang", {"mem_fraction_static": 1}, "sglang_mem_fraction_static is 1; it must be above 0 and below 1"),
        ("vllm", {"max_num_seqs": "many"}, "An option of the engine that must be a number is none"),
    ],
)
def test_what_an_engine_would_refuse_is_refused(engine: str, options: dict[str, t.Any], message: str) -> None:
    with pytest.raises(FleetError, match=message):
        read_options(engine, options, 1)


def test_a_model_split_in_another_way_is_not_judged() -> None:
    with pytest.raises(NotModelled, match="pipeline-parallel-size is 2, and only tensor parallelism is known"):
        vllm(pipeline_parallel_size=2)
    assert vllm(pipeline_parallel_size=1).tensor_parallel == 1


def test_what_is_not_counted_is_remembered() -> None:
    assert vllm(speculative_config={"method": "eagle3"}).uncounted == ("speculative-config",)
    assert sglang(enable_lora=True).uncounted == ("enable-lora",)
