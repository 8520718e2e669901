"""The memory fit, compared with known figures.

VLLM_MEASURED and SGLANG_MEASURED were measured on one H200 with Qwen3-VL-8B's architecture and random weights, most of
them with no more memory than an L40S has; the rest is what users' logs say. BRACKETS are what others worked out for an
L40S by hand, with activations of 2.0 to 3.2 GiB and graphs of 0.3 to 0.9 GiB; it was not measured there.
"""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES
from ansible_collections.inference.fleet.plugins.module_utils.memory.base import (
    AUTO,
    GIB,
    MIB,
    EngineStep,
    Gpu,
    MemoryModel,
    MemoryOptions,
)
from ansible_collections.inference.fleet.plugins.module_utils.memory.base import read_options as read
from ansible_collections.inference.fleet.plugins.module_utils.memory.fit import UNSURE, Fit, Reported, Suggestion, fit
from ansible_collections.inference.fleet.plugins.module_utils.memory.pool import (
    Pool,
    parallel_problem,
    parallel_sizes,
    weights_on_gpu,
)
from ansible_collections.inference.fleet.plugins.module_utils.memory.tensors import (
    encoder_bytes,
    media_tokens,
    text_bytes,
)
from ansible_collections.inference.fleet.plugins.module_utils.model.config import ModelConfig, Processor, parse_config

from ..model import model_configs as models

L40S = Gpu("NVIDIA L40S", 46068, 609)
L4 = Gpu("NVIDIA L4", 23034)
H200 = Gpu("NVIDIA H200", 143771, 616)
PROCESSOR = Processor(16777216, 25165824)
BF16 = parse_config(models.QWEN3_VL_8B)
FP8 = parse_config(models.QWEN3_VL_8B_FP8)
BF16_BYTES, FP8_BYTES = models.QWEN3_VL_8B_BYTES, models.QWEN3_VL_8B_FP8_BYTES


def memory_of(engine: str) -> MemoryModel:
    memory = ENGINES[engine].memory
    assert memory is not None
    return memory


def read_options(engine: str, options: dict[str, t.Any], parallel: int, version: str = "") -> MemoryOptions:
    return read(memory_of(engine), options, parallel, version)


def step(engine: str, options: dict[str, t.Any], gpu: Gpu, parallel: int = 1) -> EngineStep:
    return memory_of(engine).step(read_options(engine, options, parallel), gpu)


def vllm(
    *,
    model: ModelConfig = BF16,
    size: int | None = BF16_BYTES,
    gpus: t.Sequence[Gpu] = (L40S,),
    parallel: int = 1,
    version: str = "",
    reported: Reported | None = None,
    **options: t.Any,
) -> Fit:
    return fit(model, size, PROCESSOR, gpus, read_options("vllm", options, parallel, version), reported)


def sglang(
    *,
    gpus: t.Sequence[Gpu] = (L40S,),
    parallel: int = 1,
    version: str = "",
    reported: Reported | None = None,
    **options: t.Any,
) -> Fit:
    return fit(BF16, BF16_BYTES, PROCESSOR, gpus, read_options("sglang", options, parallel, version), reported)


def pool(model: ModelConfig, engine: str = "vllm", parallel: int = 1, **options: t.Any) -> Pool:
    return Pool(model, read_options(engine, options, parallel), 2048)


# The size of a token


def test_a_token_of_qwen3_vl_8b_takes_144_kib() -> None:
    assert pool(BF16).token_bytes == 147456
    assert pool(BF16, kv_cache_dtype="fp8").token_bytes == 73728
    assert pool(BF16, parallel=2).token_bytes == 73728
    assert pool(BF16, "sglang").token_bytes == 147456
    assert pool(BF16).block_bytes == 2.25 * MIB


@pytest.mark.parametrize(
    ("length", "bf16", "fp8"),
    [
        (8192, 1.12, 0.56),
        (32768, 4.50, 2.25),
        (65536, 9.00, 4.50),
        (131072, 18.00, 9.00),
        (163840, 22.50, 11.25),
        (196608, 27.00, 13.50),
        (262144, 36.00, 18.00),
    ],
)
def test_a_request_takes_what_is_known(length: int, bf16: float, fp8: float) -> None:
    assert pool(BF16).needed(length) / GIB == pytest.approx(bf16, abs=0.005)
    assert pool(BF16, kv_cache_dtype="fp8").needed(length) / GIB == pytest.approx(fp8, abs=0.005)


def test_key_value_heads_are_copied_where_there_are_more_gpus() -> None:
    moe = parse_config(models.QWEN3_30B_A3B)
    assert pool(moe).token_bytes == 2 * 48 * 4 * 128 * 2
    assert pool(moe, parallel=4).token_bytes == pool(moe, parallel=8).token_bytes == 2 * 48 * 128 * 2


def test_a_compressed_cache_is_the_same_on_every_gpu() -> None:
    lite = parse_config(models.DEEPSEEK_LITE)
    assert pool(lite).token_bytes == pool(lite, parallel=4).token_bytes == 27 * 576 * 2


def test_an_fp8_cache_of_the_checkpoint_is_what_auto_means() -> None:
    scheme = {"quant_method": "compressed-tensors", "kv_cache_scheme": {"num_bits": 8, "type": "float"}}
    model = parse_config({**models.QWEN3_8B, "quantization_config": scheme})
    assert pool(model).token_bytes == 73728
    assert pool(model, "sglang").token_bytes == 147456


def test_vllm_s_own_estimate_is_met() -> None:
    # Reported for a Qwen3-VL: 36.0 GiB are needed for 262144, 6.94 GiB available, 50512 would fit.
    assert pool(BF16).longest(int(6.94 * GIB), 262144) == 50512
    # vLLM 0.10, Qwen3-Coder-480B on eight H20: 62.00 GiB, 48.66 and 55.65 available, 205728 and 235296 would fit. That
    # version did not yet leave a block unused, and its GiB are rounded.
    coder = parse_config({**models.QWEN3_30B_A3B, "num_hidden_layers": 62, "num_key_value_heads": 8})
    assert pool(coder).needed(262144) / GIB == pytest.approx(62.00, abs=0.005)
    assert pool(coder).longest(int(48.66 * GIB), 262144) == pytest.approx(205728, abs=48)
    assert pool(coder).longest(int(55.65 * GIB), 262144) == pytest.approx(235296, abs=48)


def test_layers_with_a_window_keep_only_that_of_a_long_request() -> None:
    kinds = [*["sliding_attention"] * 5, "full_attention"] * 6
    changes = {"layer_types": kinds, "sliding_window": 1024, "use_sliding_window": None}
    model = parse_config({**models.QWEN3_8B, **changes, "max_position_embeddings": 131072})
    hybrid = pool(model)
    # Six layers share a block, as one group that keeps everything and five that keep the window and two steps.
    assert hybrid.block_bytes == 6 * 4096 * 16
    assert hybrid.blocks_of(131072) == 8192 + 5 * (-(-(1023 + 4096) // 16) + 1)
    assert hybrid.blocks_of(16) == 1 + 5 * 2
    assert hybrid.needed(131072) < 0.2 * pool(parse_config(models.QWEN3_8B)).needed(131072)
    longest = hybrid.longest(2 * GIB, 131072)
    assert hybrid.needed(longest) <= 2 * GIB - hybrid.block_bytes < hybrid.needed(longest + 16)
    # What vLLM prints depends on the length then.
    assert hybrid.tokens(2 * GIB, 131072) > hybrid.tokens(2 * GIB, 1024)
    assert pool(model, "sglang").token_bytes == 147456


# Against what was measured


# gpu_memory_utilization and mem_fraction_static of a H200 that come to 0.92 and 0.85 of an L40S.
L40S_SHARE, L40S_STATIC = 0.292147, 0.269918
MEDIA: dict[str, t.Any] = {"limit_mm_per_prompt": {"image": 4, "video": 1}}
NO_MEDIA: dict[str, t.Any] = {"limit_mm_per_prompt": {"image": 0, "video": 0}}
SMALL_IMAGES: dict[str, t.Any] = {
    "limit_mm_per_prompt": {"image": 4, "video": 0},
    "mm_processor_kwargs": {"max_pixels": 1003520},
}
L40S_STEP: dict[str, t.Any] = {"max_num_batched_tokens": 2048, "max_num_seqs": 256}
BEFORE: dict[str, t.Any] = {"max_model_len": 32768, "max_num_batched_tokens": 8192, "gpu_memory_utilization": 0.92}
NOW: dict[str, t.Any] = {"max_model_len": 32768, "gpu_memory_utilization": L40S_SHARE}

# What it is, the version, options, and the tokens of "GPU KV cache size". Without any, a H200's steps are of
# 8192 tokens and 1024 requests.
VLLM_MEASURED: list[tuple[str, str, dict[str, t.Any], int]] = [
    (
        "0.26, 1024 tokens, 0.95",
        "0.26.0",
        {"max_model_len": 1024, "gpu_memory_utilization": 0.95},
        837536,
    ),
    ("0.26", "0.26.0", {**BEFORE, **MEDIA}, 806992),
    ("0.26, fp8 weights", "0.26.0", {**BEFORE, **MEDIA, "quantization": "fp8"}, 857808),
    (
        "0.26, fp8 weights and KV cache",
        "0.26.0",
        {**BEFORE, **MEDIA, "quantization": "fp8", "kv_cache_dtype": "fp8"},
        1715616,
    ),
    ("its own step", "0.32.0", {**NOW, **MEDIA}, 144672),
    ("an L40S's step", "0.32.0", {**NOW, **MEDIA, **L40S_STEP}, 152256),
    ("fp8 KV cache", "0.32.0", {**NOW, **MEDIA, "kv_cache_dtype": "fp8"}, 289344),
    ("fp8 weights", "0.32.0", {**NOW, **MEDIA, "quantization": "fp8"}, 195152),
    # It was stopped before that line; this is its "Available KV cache memory", computed from its bytes.
    ("eager", "0.32.0", {**NOW, **MEDIA, "max_num_batched_tokens": 2048, "enforce_eager": True}, 154448),
    ("no media", "0.32.0", {**NOW, **NO_MEDIA}, 162656),
    ("small images", "0.32.0", {**NOW, **SMALL_IMAGES, **L40S_STEP}, 166176),
    (
        "131072 tokens, fp8 KV cache, 64 requests",
        "0.32.0",
        {
            **NOW,
            **MEDIA,
            "max_model_len": 131072,
            "max_num_batched_tokens": 4096,
            "max_num_seqs": 64,
            "kv_cache_dtype": "fp8",
        },
        313136,
    ),
    (
        "262144 tokens, fp8 weights and KV cache",
        "0.32.0",
        {**NOW, **MEDIA, **L40S_STEP, "max_model_len": 262144, "quantization": "fp8", "kv_cache_dtype": "fp8"},
        407168,
    ),
    ("16 requests", "0.32.0", {**NOW, **MEDIA, **L40S_STEP, "max_num_seqs": 16}, 158096),
    ("128 requests", "0.32.0", {**NOW, **MEDIA, **L40S_STEP, "max_num_seqs": 128}, 155360),
]


@pytest.mark.parametrize(("what", "version", "options", "tokens"), VLLM_MEASURED, ids=[row[0] for row in VLLM_MEASURED])
def test_vllm_on_a_h200(what: str, version: str, options: dict[str, t.Any], tokens: int) -> None:
    found = vllm(gpus=[H200], version=version, **options)
    assert found.kv_tokens == pytest.approx(tokens, rel=0.03)
    if version == "0.32.0":
        # Within the margin that the fit needs to be certain.
        assert abs(found.kv_tokens - tokens) * found.token_bytes < UNSURE


@pytest.mark.parametrize(
    ("options", "besides", "peak"),
    [
        # MiB: taken after loading and measuring besides the weights, graphs included, and the peak of a step.
        ({}, 18030 - 16722 + 1182, 2265),
        (L40S_STEP, 17356 - 16722 + 790, 2265),
        ({"max_num_batched_tokens": 2048, "enforce_eager": True}, 17838 - 16722, 2265),
        ({"quantization": "fp8"}, 10888 - 9572 + 1154, 2337),
        ({**L40S_STEP, "max_num_seqs": 16}, 17204 - 16722 + 120, 2265),
        ({**L40S_STEP, "max_num_seqs": 128}, 17280 - 16722 + 430, 2265),
        (NO_MEDIA, 16640 - 15623 + 964, 1344),
        ({**SMALL_IMAGES, **L40S_STEP}, 17356 - 16722 + 790, 306),
    ],
)
def test_the_parts_are_about_right_by_themselves(options: dict[str, t.Any], besides: int, peak: int) -> None:
    parts = vllm(gpus=[H200], version="0.32.0", **{**NOW, **MEDIA, **options}).overhead
    assert parts.fixed / MIB == pytest.approx(besides, abs=600)
    assert parts.activations / MIB == pytest.approx(peak, abs=600)


SGLANG_MEASURED: list[tuple[str, str, dict[str, t.Any], int]] = [
    ("0.5.17", "0.5.17", {"mem_fraction_static": 0.85}, 731112),
    ("0.5.17, like an L40S", "0.5.17", {"mem_fraction_static": L40S_STATIC}, 149823),
    ("fp8 KV cache", "0.5.17", {"mem_fraction_static": L40S_STATIC, "kv_cache_dtype": "fp8_e4m3"}, 299646),
    ("its own fraction", "0.5.17", {}, 720130),
    ("fp8 weights", "0.5.17", {"mem_fraction_static": L40S_STATIC, "quantization": "fp8"}, 194893),
    (
        "0.5.23, no pool for media",
        "0.5.23",
        {"mem_fraction_static": L40S_STATIC, "mm_feature_transport": "cpu"},
        152793,
    ),
    ("0.5.23", "0.5.23", {"mem_fraction_static": 0.85}, 723559),
]


@pytest.mark.parametrize(
    ("what", "version", "options", "tokens"), SGLANG_MEASURED, ids=[row[0] for row in SGLANG_MEASURED]
)
def test_sglang_on_a_h200(what: str, version: str, options: dict[str, t.Any], tokens: int) -> None:
    found = sglang(gpus=[H200], version=version, context_length=32768, **options)
    assert found.kv_tokens == pytest.approx(tokens, rel=0.025)


@pytest.mark.parametrize(
    ("parallel", "tokens", "found"),
    [
        (1, 806912, vllm(gpus=[H200], version="0.26.0", max_model_len=262144, **MEDIA)),
        (2, 1734336, vllm(gpus=[H200] * 2, parallel=2, version="0.26.0", max_model_len=262144, **MEDIA)),
        (1, 720130, sglang(gpus=[H200], version="0.5.17", context_length=32768)),
        (2, 1546564, sglang(gpus=[H200] * 2, parallel=2, version="0.5.17", context_length=262144)),
    ],
    ids=["vllm", "vllm on two", "sglang", "sglang on two"],
)
def test_profile_balanced_on_one_and_two_h200(parallel: int, tokens: int, found: Fit) -> None:
    # tests/gpu/several.py, 2026-11-29; the parallel size halves the weights and the size of a token.
    assert found.kv_tokens == pytest.approx(tokens, rel=0.03)
    assert found.token_bytes == 147456 // parallel


def test_vllm_on_an_a5000_as_a_user_reports_it() -> None:
    # LMCache's example with vLLM 0.21 and Qwen3-8B: 0.52 GiB for graphs are 0.0221 of the memory that CUDA sees. No
    # figure of the estimate is from it.
    visible = 0.52 / (0.9764 - 0.9543) * 1024
    found = vllm(
        model=parse_config(models.QWEN3_8B),
        size=None,
        gpus=[Gpu("NVIDIA RTX A5000", visible, 0)],
        gpu_memory_utilization=0.9764,
        max_model_len=16384,
        max_num_batched_tokens=8192,
        version="0.21.0",
    )
    assert found.kv_tokens == pytest.approx(46368, rel=0.05)
    assert found.concurrency == pytest.approx(2.83, rel=0.05)


BRACKETS = [
    # gpu_memory_utilization, then thousands of tokens: bf16 weights with bf16 and fp8 KV cache, FP8 weights likewise.
    (0.85, (123, 135), (246, 269), (170, 182), (340, 364)),
    (0.90, (139, 151), (278, 302), (186, 198), (373, 396)),
    (0.92, (146, 157), (291, 315), (193, 204), (386, 409)),
    (0.95, (155, 167), (311, 334), (202, 214), (405, 428)),
]


@pytest.mark.parametrize("row", BRACKETS, ids=[str(row[0]) for row in BRACKETS])
def test_vllm_on_an_l40s_is_what_others_worked_out(row: tuple[t.Any, ...]) -> None:
    for number, bracket in enumerate(row[1:]):
        model, size = ((BF16, BF16_BYTES), (FP8, FP8_BYTES))[number // 2]
        kv_dtype = ("auto", "fp8")[number % 2]
        found = vllm(
            model=model, size=size, gpu_memory_utilization=row[0], kv_cache_dtype=kv_dtype, max_model_len=32768
        )
        low, high = (1000 * value for value in bracket)
        assert low <= found.kv_tokens <= high
        assert found.kv_tokens == pytest.approx((low + high) / 2, rel=0.05)


def test_two_l40s_hold_about_410_thousand_tokens() -> None:
    found = vllm(gpus=[L40S, L40S], parallel=2, gpu_memory_utilization=0.90, max_model_len=262144)
    assert found.weight_bytes / GIB == pytest.approx(8.2, abs=0.05)
    assert found.kv_bytes / GIB == pytest.approx(28, rel=0.05)
    assert found.kv_tokens == pytest.approx(410_000, rel=0.05)
    assert found.verdict == "fits"


@pytest.mark.parametrize(
    ("length", "options", "fits"),
    [
        (131072, {"gpu_memory_utilization": 0.90}, True),
        (262144, {"gpu_memory_utilization": 0.96}, False),
        (262144, {"gpu_memory_utilization": 0.90, "kv_cache_dtype": "fp8"}, True),
    ],
)
def test_how_long_a_context_one_l40s_serves(length: int, options: dict[str, t.Any], fits: bool) -> None:
    assert vllm(max_model_len=length, **options).fits is fits


def test_what_cuda_sees_of_an_l40s() -> None:
    assert L40S.visible / GIB == pytest.approx(44.39, abs=0.005)
    assert vllm(gpu_memory_utilization=0.92).budget_bytes / GIB == pytest.approx(40.84, abs=0.005)
    # Without a figure, what the largest GPU reserves.
    assert Gpu("NVIDIA L40S", 46068).visible == L40S.visible - 7 * MIB


def test_fp8_weights_give_more_than_a_larger_share() -> None:
    both = vllm(model=FP8, size=FP8_BYTES, max_model_len=262144, kv_cache_dtype="fp8", gpu_memory_utilization=0.90)
    one = vllm(max_model_len=262144, kv_cache_dtype="fp8", gpu_memory_utilization=0.90)
    assert (round(one.concurrency, 1), round(both.concurrency, 1)) == (1.1, 1.5)


# The overhead


def test_the_parts_of_the_encoder_s_peak() -> None:
    options = read_options("vllm", {}, 1)
    assert BF16.vision is not None
    assert media_tokens(BF16.vision, PROCESSOR, options) == 16384
    assert encoder_bytes(BF16.vision, 16384, options) / GIB == pytest.approx(2.25, abs=0.01)
    split = read_options("vllm", {}, 2)
    assert encoder_bytes(BF16.vision, 16384, split) < encoder_bytes(BF16.vision, 16384, options)
    copied = read_options("vllm", {"mm_encoder_tp_mode": "data"}, 2)
    assert encoder_bytes(BF16.vision, 16384, copied) == encoder_bytes(BF16.vision, 16384, options)


def test_smaller_images_leave_more_for_the_kv_cache() -> None:
    default = vllm(max_model_len=32768).overhead.activations
    small = vllm(max_model_len=32768, mm_processor_kwargs={"max_pixels": 1003520}, limit_mm_per_prompt={"video": 0})
    assert small.overhead.activations < 0.2 * default
    # The number of images does not change what is measured at start.
    assert vllm(max_model_len=32768, limit_mm_per_prompt={"image": 4}).overhead.activations == default


def test_without_images_and_videos_vllm_leaves_the_encoder_out() -> None:
    found = vllm(max_model_len=32768, limit_mm_per_prompt={"image": 0, "video": 0})
    assert found.weight_bytes == BF16_BYTES - 2 * 576_388_336
    assert found.overhead.activations == text_bytes(BF16, read_options("vllm", {}, 1), EngineStep(2048, 256))


def test_the_text_model_counts_once_the_images_are_small() -> None:
    assert text_bytes(BF16, read_options("vllm", {}, 1), EngineStep(8192, 1024)) == 768 * MIB
    small: dict[str, t.Any] = {"mm_processor_kwargs": {"max_pixels": 1003520}, "limit_mm_per_prompt": {"video": 0}}
    assert vllm(max_num_batched_tokens=16384, **small).overhead.activations >= 1536 * MIB


def test_videos_alone_are_smaller_than_images() -> None:
    assert BF16.vision is not None
    options = read_options("vllm", {"limit_mm_per_prompt": {"image": 0}}, 1)
    assert media_tokens(BF16.vision, PROCESSOR, options) == 12288
    assert media_tokens(BF16.vision, Processor(), options) == 12288


def test_an_encoder_of_squares_counts_one_square() -> None:
    siglip = {"num_hidden_layers": 27, "hidden_size": 1152, "image_size": 896, "patch_size": 14}
    model = parse_config({"text_config": models.QWEN3_8B, "vision_config": siglip})
    assert model.vision is not None
    assert media_tokens(model.vision, PROCESSOR, read_options("vllm", {}, 1)) == 4096
    assert any("tiles" in note for note in vllm(model=model).notes)


def test_a_step_is_vllm_s_default_for_the_gpu() -> None:
    assert step("vllm", {}, L40S) == EngineStep(2048, 256)
    assert step("vllm", {}, H200) == EngineStep(8192, 1024)
    assert step("vllm", {}, Gpu("NVIDIA A100-SXM4-80GB", 79 * 1024, 0)) == EngineStep(2048, 256)
    assert step("vllm", {}, Gpu("NVIDIA B200", 178 * 1024, 0)) == EngineStep(16384, 1024)
    assert step("vllm", {"max_num_batched_tokens": 64, "max_num_seqs": 128}, L40S) == EngineStep(64, 64)


def test_larger_steps_take_more() -> None:
    small = vllm(model=parse_config(models.QWEN3_8B), max_model_len=32768).overhead
    large = vllm(model=parse_config(models.QWEN3_8B), max_model_len=32768, max_num_batched_tokens=16384).overhead
    assert large.activations - small.activations > 1 * GIB
    moe = parse_config(models.QWEN3_30B_A3B)
    # Eight experts a token: the wider of their workspaces and the narrower.
    options = read_options("vllm", {}, 1)
    assert text_bytes(moe, options, EngineStep(2048, 256)) == 2048 * (3 * 2048 + 8 * (2048 + 768)) * 2


def test_more_requests_and_their_graphs_take_more() -> None:
    few, many = (vllm(max_model_len=32768, max_num_seqs=count).overhead for count in (16, 256))
    assert many.fixed - few.fixed == 480 * MIB
    assert vllm(max_model_len=32768, enforce_eager=True).overhead.fixed < many.fixed


def test_memory_for_media_is_taken_from_the_kv_cache() -> None:
    plain, media = vllm(max_model_len=32768), vllm(max_model_len=32768, mm_ipc_gpu_memory_gb=2)
    assert plain.kv_bytes - media.kv_bytes == 2 * GIB
    assert plain.overhead.media == 0


# SGLang


def test_sglang_s_own_fraction_is_worked_out() -> None:
    memory, options = memory_of("sglang"), read_options("sglang", {}, 1)
    assert memory.step(options, L40S) == EngineStep(4096, 32)
    # 512 + 1.5 x 4096 + 128 + 2 x 32 MiB are left of 46068.
    text = parse_config(models.QWEN3_8B)
    assert memory.fraction(text, options, L40S) == round((46068 - 6848) / 46068, 3) == 0.851
    # The encoder's factor is 0.95 x 0.973.
    assert memory.fraction(BF16, options, L40S) == pytest.approx(0.851 * 0.95 * 0.97344, abs=0.0001)


@pytest.mark.parametrize(
    ("mib", "given", "fraction"),
    [
        (23034, {}, 0.648260703125),
        (46068, {}, 0.7869755468749999),
        (46068, {"chunked_prefill_size": 2048}, 0.84893484375),
        (81559, {}, 0.7721792968749999),
        (143771, {}, 0.8387624218749999),
    ],
)
def test_sglang_s_own_fraction_is_what_it_says(mib: int, given: dict[str, t.Any], fraction: float) -> None:
    # As SGLang 0.5.23 itself resolves it for Qwen3-VL-8B on GPUs of these sizes, L4 to H200.
    assert sglang(gpus=[Gpu("NVIDIA GPU", mib)], context_length=32768, **given).fraction == pytest.approx(fraction)


@pytest.mark.parametrize(
    ("mib", "parallel", "expected"),
    [
        (15360, 1, EngineStep(2048, 8)),
        (23034, 1, EngineStep(4096, 48)),
        (46068, 4, EngineStep(4096, 160)),
        (81559, 1, EngineStep(8192, 256)),
        (143771, 8, EngineStep(8192, 512)),
        (183359, 1, EngineStep(16384, 512)),
    ],
)
def test_a_step_is_sglang_s_default_for_the_gpu(mib: int, parallel: int, expected: EngineStep) -> None:
    assert step("sglang", {}, Gpu("NVIDIA GPU", mib), parallel) == expected


def test_sglang_serves_shorter_requests_where_the_configured_length_does_not_fit() -> None:
    found = sglang(mem_fraction_static=0.85, context_length=262144)
    assert (found.verdict, found.fits) == ("too_long", False)
    assert "the engine then serves shorter requests only" in found.message
    assert found.suggestions[0].variable == "sglang_context_length"
    assert found.longest == found.kv_tokens


def test_sglang_s_limit_of_tokens_counts() -> None:
    found = sglang(mem_fraction_static=0.85, context_length=32768, max_total_tokens=16384)
    assert (found.kv_tokens, found.verdict) == (16384, "too_long")


def test_a_fraction_that_leaves_too_little_is_noted() -> None:
    assert sglang(mem_fraction_static=0.85, context_length=32768).notes == ()
    (note,) = sglang(mem_fraction_static=0.95, context_length=32768).notes
    assert note.startswith("sglang_mem_fraction_static 0.95 leaves 2.2 GiB for activations and CUDA graphs")


# Weights


def test_weights_are_split_and_the_encoder_as_configured() -> None:
    whole = weights_on_gpu(BF16, BF16_BYTES, read_options("vllm", {}, 1))
    assert whole == BF16_BYTES
    assert weights_on_gpu(BF16, BF16_BYTES, read_options("vllm", {}, 4)) == BF16_BYTES // 4
    copied = weights_on_gpu(BF16, BF16_BYTES, read_options("vllm", {"mm_encoder_tp_mode": "data"}, 4))
    encoder = 2 * 576_388_336
    assert copied == (BF16_BYTES - encoder) // 4 + encoder


def test_weights_of_32_bits_are_loaded_as_16() -> None:
    model = parse_config({**models.QWEN3_8B, "dtype": "float32"})
    assert weights_on_gpu(model, 4000, read_options("vllm", {}, 1)) == 2000
    assert weights_on_gpu(model, 4000, read_options("vllm", {"dtype": "float32"}, 1)) == 4000


def test_weights_that_are_quantised_while_loading_are_smaller() -> None:
    # 9.35 GiB on the H200: 128.62 GiB - 117.80 of KV cache - the 1.46 that the engine takes besides.
    size = weights_on_gpu(BF16, BF16_BYTES, read_options("vllm", {"quantization": "fp8"}, 1))
    assert size / GIB == pytest.approx(9.35, abs=0.05)
    assert weights_on_gpu(FP8, FP8_BYTES, read_options("vllm", {"quantization": "fp8"}, 1)) == FP8_BYTES


def test_weights_that_are_not_there_yet_are_worked_out() -> None:
    assert vllm(size=None, max_model_len=32768).weight_bytes == BF16_BYTES
    found = vllm(model=parse_config(models.DEEPSEEK_LITE), size=None)
    assert (found.verdict, found.fits) == ("unknown", True)
    assert "There are no weights yet" in found.message


# How many GPUs


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        (models.QWEN3_VL_8B, [1, 2, 4, 8, 16]),
        (models.QWEN3_30B_A3B, [1, 2, 4, 8, 16]),
        # Six key-value heads: four GPUs neither divide them nor are a multiple.
        ({**models.QWEN3_8B, "num_attention_heads": 24, "num_key_value_heads": 6}, [1, 2, 3, 6, 12]),
        # 12288 in 8 parts is a multiple of 128, in 16 parts too; 768 of an expert is one in 1, 2, 3, and 6 parts.
        (models.QWEN3_VL_8B_FP8, [1, 2, 4, 8, 16]),
        (
            {
                **models.QWEN3_30B_A3B,
                "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
            },
            [1, 2],
        ),
    ],
)
def test_which_numbers_of_gpus_can_share_a_model(config: dict[str, t.Any], sizes: list[int]) -> None:
    assert parallel_sizes(parse_config(config), read_options("vllm", {}, 1), 16) == sizes


def test_experts_that_are_not_split_do_not_mind_their_width() -> None:
    fp8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    moe = parse_config({**models.QWEN3_30B_A3B, "quantization_config": fp8})
    assert "width 768 in 4 parts is no multiple" in parallel_problem(moe, read_options("vllm", {}, 1), 4)
    assert parallel_problem(moe, read_options("vllm", {"enable_expert_parallel": True}, 1), 4) == ""


def test_the_encoder_s_heads_count_where_it_is_split() -> None:
    vision = {**models.QWEN3_VL_8B["vision_config"], "num_heads": 6}
    model = parse_config({**models.QWEN3_VL_8B, "vision_config": vision})
    assert "vision encoder has 6 heads" in parallel_problem(model, read_options("vllm", {}, 1), 4)
    assert parallel_problem(model, read_options("vllm", {"mm_encoder_tp_mode": "data"}, 1), 4) == ""
    assert parallel_problem(model, read_options("vllm", {"language_model_only": True}, 1), 4) == ""


@pytest.mark.parametrize(
    ("parallel", "gpus", "message"),
    [
        (
            3,
            [L40S] * 4,
            "vllm_tensor_parallel_size is 3, but the model has 32 attention heads, which 3 does not divide. What works "
            "is 1, 2, 4, 8; this host has 4 GPUs.",
        ),
        (
            2,
            [L40S],
            "vllm_tensor_parallel_size is 2, and the host has 1 GPU. Set it to 1 or less, or use an instance type with "
            "more.",
        ),
        (0, [L40S], "vllm_tensor_parallel_size is 0; it must be at least 1."),
        (1, [], "There is no GPU to fit the model to. playbooks/verify_gpu.yml says what the host has."),
        (1, [Gpu("NVIDIA L40S", 44)], "NVIDIA L40S has 44 MiB of memory: give memory.total of nvidia-smi, in MiB."),
    ],
)
def test_what_cannot_run_is_refused(parallel: int, gpus: list[Gpu], message: str) -> None:
    with pytest.raises(FleetError) as error:
        vllm(gpus=gpus, parallel=parallel)
    assert error.value.message == message


def test_key_value_heads_are_named() -> None:
    model = parse_config({**models.QWEN3_8B, "num_attention_heads": 24, "num_key_value_heads": 6})
    with pytest.raises(FleetError, match="the model has 6 key-value heads, and one of 4 and 6 must divide the other"):
        vllm(model=model, gpus=[L40S] * 4, parallel=4)


# The verdict and what to do


def test_what_fits_is_reported_with_its_figures() -> None:
    found = vllm(max_model_len=32768)
    assert (found.verdict, found.fits, found.certain, found.source) == ("fits", True, True, "estimate")
    assert (found.suggestions, found.notes, found.error_percent) == ((), (), None)
    assert found.needed_bytes == 4.5 * GIB
    assert found.besides_bytes == found.overhead.total
    assert found.budget_bytes == found.weight_bytes + found.besides_bytes + found.kv_bytes
    assert found.message == (
        "Qwen3VLForConditionalGeneration fits NVIDIA L40S: 21.42 GiB of KV cache (by estimate) hold 155984 tokens, 4.8 "
        "requests of 32768 tokens at once; 155968 fit at most."
    )


def test_a_length_that_does_not_fit_is_reported_with_what_fits() -> None:
    found = vllm(max_model_len=262144)
    assert (found.verdict, found.fits, found.certain) == ("too_long", False, True)
    assert found.message == (
        "vllm_max_model_len 262144 does not fit NVIDIA L40S: a request of that length takes 36.00 GiB of KV cache on "
        "each GPU, and 21.42 GiB are left (by estimate) of 40.84 GiB; the engine would not start. What fits: "
        "vllm_max_model_len: 148480; or vllm_kv_cache_dtype: fp8; or vllm_tensor_parallel_size: 2 on a host with 2 "
        "GPUs."
    )
    # The estimate holds 155968; the suggestion holds even if it is off by its margin.
    assert found.longest == 155968
    length, kv_dtype, parallel = found.suggestions
    assert length == Suggestion("vllm_max_model_len", 148480, 148480)
    assert (kv_dtype.value, kv_dtype.longest, parallel.gpus) == ("fp8", 262144, 2)


def test_every_suggestion_fits_by_itself() -> None:
    found = vllm(max_model_len=170000, gpu_memory_utilization=0.85, gpus=[L40S, L40S])
    assert [suggestion.variable for suggestion in found.suggestions] == [
        "vllm_max_model_len",
        "vllm_kv_cache_dtype",
        "vllm_tensor_parallel_size",
    ]
    changes: list[dict[str, t.Any]] = [{"max_model_len": found.suggestions[0].value}, {"kv_cache_dtype": "fp8"}]
    for change in changes:
        options = {"max_model_len": 170000, "gpu_memory_utilization": 0.85, **change}
        assert vllm(gpus=[L40S, L40S], **options).fits
    assert vllm(max_model_len=170000, gpu_memory_utilization=0.85, gpus=[L40S, L40S], parallel=2).fits
    assert found.suggestions[-1].gpus == 0


def test_a_larger_share_is_proposed_where_it_is_enough() -> None:
    found = vllm(max_model_len=150000, gpu_memory_utilization=0.85)
    (share,) = (suggestion for suggestion in found.suggestions if suggestion.variable == "vllm_gpu_memory_utilization")
    assert share.value == 0.91
    assert vllm(max_model_len=150000, gpu_memory_utilization=0.91).fits
    assert not vllm(max_model_len=150000, gpu_memory_utilization=0.90).fits


def test_a_model_that_is_too_large_is_reported_with_what_fits() -> None:
    found = vllm(gpus=[Gpu("Tesla T4", 15360)], max_model_len=8192)
    assert (found.verdict, found.kv_bytes, found.kv_tokens, found.longest) == ("too_large", 0, 0, 0)
    assert found.message == (
        "Qwen3VLForConditionalGeneration does not fit Tesla T4: 16.33 GiB of weights and about 3.1 GiB besides leave "
        "no KV cache of the 13.25 GiB that the engine may use on each GPU. What fits: vllm_tensor_parallel_size: 2 on "
        "a host with 2 GPUs."
    )
    found = vllm(gpus=[Gpu("NVIDIA A10", 20480)], max_model_len=8192)
    assert Suggestion("vllm_quantization", "fp8", found.suggestions[0].longest) == found.suggestions[0]


def test_a_model_that_no_option_makes_fit_is_reported() -> None:
    found = vllm(gpus=[Gpu("NVIDIA T400", 2048)], max_model_len=8192)
    assert found.message.endswith("Use GPUs with more memory, more of them, or a smaller or quantised model.")


def test_near_the_border_the_verdict_is_not_certain() -> None:
    near = vllm(max_model_len=150000)
    assert (near.fits, near.certain) == (True, False)
    assert near.message.endswith("The estimate may be off by 1 GiB: the engine's start will show it.")
    beyond = vllm(gpus=[L4], max_model_len=8192)
    assert (beyond.verdict, beyond.certain) == ("too_long", False)
    assert vllm(max_model_len=140000).certain


def test_more_than_the_model_was_made_for_is_refused() -> None:
    found = vllm(max_model_len=300000, kv_cache_dtype="fp8")
    assert (found.verdict, found.certain) == ("too_long", True)
    assert found.message == (
        "vllm_max_model_len is 300000, more than the model was made for (262144). What fits: vllm_max_model_len: "
        "262144."
    )


def test_the_models_own_length_is_the_default() -> None:
    found = vllm()
    assert (found.length, found.verdict) == (262144, "too_long")
    assert found.message.startswith("The model's own length 262144 does not fit NVIDIA L40S")
    assert sglang(gpus=[H200], mem_fraction_static=0.85).verdict == "fits"


def test_auto_takes_the_longest_that_fits() -> None:
    found = vllm(max_model_len="auto")
    assert (found.verdict, found.length, found.certain) == ("fits", 155968, True)
    assert vllm(max_model_len=AUTO, kv_cache_dtype="fp8").length == 262144
    assert vllm(max_model_len="auto", gpus=[Gpu("Tesla T4", 15360)]).verdict == "too_large"


def test_the_smallest_gpu_decides() -> None:
    mixed = vllm(gpus=[L40S, L4], max_model_len=32768)
    assert mixed.kv_tokens == vllm(gpus=[L4], max_model_len=32768).kv_tokens


def test_bytes_of_kv_cache_replace_the_share() -> None:
    found = vllm(max_model_len=32768, kv_cache_memory_bytes=9 * GIB)
    assert (found.kv_tokens, found.verdict) == (65536, "fits")
    assert found.notes == ()
    (note,) = vllm(max_model_len=32768, kv_cache_memory_bytes="30G").notes
    assert note.startswith("With 30.00 GiB of KV cache, 16.33 GiB of weights and about 3.1 GiB besides")


def test_what_is_not_known_is_not_judged() -> None:
    found = vllm(max_model_len=32768, kv_cache_dtype="nvfp4")
    assert (found.verdict, found.fits, found.certain) == ("unknown", True, False)
    assert found.message.startswith("Whether the model fits is unknown. vllm_kv_cache_dtype is nvfp4")
    assert vllm(max_model_len=32768, quantization="bitsandbytes").verdict == "unknown"
    mamba = parse_config({**models.QWEN3_8B, "layer_types": ["mamba"] * 36})
    assert vllm(model=mamba).verdict == "unknown"


def test_what_is_not_counted_is_noted() -> None:
    hybrid = parse_config({**models.QWEN3_8B, "layer_types": [*["linear_attention"] * 3, "full_attention"] * 9})
    (note,) = vllm(model=hybrid, max_model_len=32768).notes
    assert note == "27 of 36 layers have no KV cache but a state for each request, which is not counted."
    (note,) = vllm(max_model_len=32768, speculative_config={"method": "eagle3"}).notes
    assert note == "The memory that speculative-config takes is not counted."
    (note,) = vllm(max_model_len=32768, gpu_memory_utilization=0.98).notes
    assert "the CUDA context is not in it" in note


# What the engine reported


REPORT = Reported(kv_cache_gib=20.95, kv_cache_tokens=152544, model_gib=16.6, requested_gib=40.84)


def test_the_engine_s_own_figures_replace_the_estimate() -> None:
    found = vllm(max_model_len=32768, reported=REPORT)
    assert (found.kv_tokens, found.longest, found.source, found.certain) == (152544, 152528, "engine", True)
    assert found.weight_bytes == int(16.6 * GIB)
    assert found.besides_bytes / GIB == pytest.approx(40.84 - 20.95 - 16.6, abs=0.02)
    assert found.error_percent == pytest.approx(100 * (155984 / 152544 - 1), abs=0.1)
    assert "20.95 GiB of KV cache (as the engine reported it)" in found.message


def test_they_hold_for_another_length_share_and_kv_type() -> None:
    more = vllm(max_model_len=32768, gpu_memory_utilization=0.95, reported=REPORT)
    then = Reported(kv_cache_gib=20.95, kv_cache_tokens=152544, fraction=0.92)
    assert more.kv_bytes / GIB == pytest.approx(20.95 + 0.03 * 44.39, abs=0.02)
    assert vllm(max_model_len=32768, gpu_memory_utilization=0.95, reported=then).kv_tokens == pytest.approx(
        more.kv_tokens, rel=0.001
    )
    was = Reported(kv_cache_gib=20.95, kv_cache_tokens=152544, kv_dtype="auto")
    assert vllm(max_model_len=262144, kv_cache_dtype="fp8", reported=was).kv_tokens == 305088


def test_suggestions_follow_them_too() -> None:
    found = vllm(max_model_len=180000, reported=REPORT)
    assert [str(suggestion) for suggestion in found.suggestions] == [
        "vllm_max_model_len: 152528",
        "vllm_kv_cache_dtype: fp8",
        "vllm_tensor_parallel_size: 2 on a host with 2 GPUs",
    ]
    assert found.suggestions[1].longest == 262144


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (Reported(kv_cache_gib=1.0, gpu="NVIDIA L4"), "it is of another GPU, NVIDIA L4"),
        (Reported(kv_cache_gib=1.0, tensor_parallel=2), "it is of 2 GPUs that share the model"),
        (Reported(kv_cache_gib=1.0, version=(0, 31, 0)), "it is of version 0.31.0"),
        (Reported(kv_cache_gib=1.0, quantization="fp8"), "it is of the quantisation fp8"),
    ],
)
def test_a_report_of_something_else_is_left_out(other: Reported, why: str) -> None:
    found = vllm(max_model_len=32768, reported=other, version="0.32.0")
    assert (found.source, found.kv_tokens) == ("estimate", 155984)
    assert found.notes == (f"What the engine reported is left out: {why}.",)


def test_only_the_model_s_size_is_still_better_than_none() -> None:
    # The engine died before it had a KV cache. Its load includes 0.1 GiB of buffers.
    found = vllm(max_model_len=32768, reported=Reported(model_gib=16.44))
    assert (found.source, found.weight_bytes) == ("engine", int(16.44 * GIB))
    assert found.kv_bytes == pytest.approx(vllm(max_model_len=32768).kv_bytes, abs=0.12 * GIB)


def test_a_token_of_another_size_is_taken_from_the_engine() -> None:
    # Twice the bytes for each token: config.json does not show the layout.
    found = vllm(max_model_len=32768, reported=Reported(kv_cache_gib=20.0, kv_cache_tokens=72800))
    assert found.token_bytes == pytest.approx(2 * 147456, rel=0.01)
    assert found.kv_tokens == pytest.approx(72800, rel=0.001)


def test_sglang_s_report_holds_too() -> None:
    report = Reported(kv_cache_gib=20.05, kv_cache_tokens=146000, model_gib=16.46, fraction=0.85)
    found = sglang(mem_fraction_static=0.85, context_length=32768, reported=report)
    assert (found.kv_tokens, found.source) == (146000, "engine")
    more = sglang(mem_fraction_static=0.88, context_length=32768, reported=report)
    assert more.kv_bytes / GIB == pytest.approx(20.05 + 0.03 * (44.39 - 0.6), abs=0.01)
