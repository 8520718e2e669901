from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.engines.memory import (
    EngineMemory,
    as_reported,
    engine_memory,
)
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES

# The engines' lines, from the log statements of vLLM 0.32.0 and SGLang 0.5.23 and from users' logs.
VLLM = [
    "(APIServer pid=1) INFO 11-22 13:36:55 [api_utils.py:286] non-default args: {'x': 'Model loading took 99 GiB'}",
    "(EngineCore pid=9) INFO 11-22 13:36:57 [gpu_model_runner.py:5150] Model loading took 16.59 GiB memory and 6.35 "
    "seconds",
    "(EngineCore pid=9) INFO 11-22 13:36:58 [model_runner.py:1127] Graph capturing finished in 6 secs, took 0.62 GiB",
    "(EngineCore pid=9) INFO 11-22 13:36:58 [gpu_worker.py:759] Available KV cache memory: 21.32 GiB",
    "(EngineCore pid=9) INFO 11-22 13:36:58 [kv_cache_utils.py:2327] GPU KV cache size: 155,216 tokens, Maximum "
    "concurrency for 32,768 tokens per request: 4.74x",
    "(EngineCore pid=9) INFO 11-22 13:36:59 [gpu_model_runner.py:1608] Graph capturing finished in 17 secs, took 0.48 "
    "GiB",
    "(EngineCore pid=9) INFO 11-22 13:36:59 [gpu_worker.py:1035] Free memory on device (43.9/44.39 GiB) on startup. "
    "Desired GPU memory utilization is (0.92, 40.84 GiB). Actual usage is 16.9 GiB for consumed memory (weights + "
    "non-torch), 2.62 GiB for peak activation, and 0.48 GiB for CUDAGraph memory. Replace gpu_memory_utilization "
    "config with `--kv-cache-memory=22481371914` (20.94 GiB) to fit into requested memory, or "
    "`--kv-cache-memory=25767059456` (24.0 GiB) to fully utilize gpu memory. Current kv cache memory in use is 21.32 "
    "GiB.",
]
SGLANG = [
    "[2026-11-22 13:28:54] server_args=ServerArgs(api_key='sk-secret-0123456789', max_total_num_tokens=1, "
    "context_len=1)",
    "[2026-11-22 13:28:58] Load weight begin. avail mem=43.82 GB",
    "[2026-11-22 13:29:08] Load weight end. elapsed=9.87 s, type=Qwen3VLForConditionalGeneration, avail mem=27.36 GB, "
    "mem usage=16.46 GB.",
    "[2026-11-22 13:29:09] KV Cache is allocated. dtype: torch.bfloat16, #tokens: 146000, K size: 10.03 GB, V size: "
    "10.02 GB",
    "[2026-11-22 13:29:40] max_total_num_tokens=146000, chunked_prefill_size=4096, max_prefill_tokens=16384, "
    "max_running_requests=2048, context_len=32768, available_gpu_mem=5.61 GB",
]


def test_vllm_s_memory_is_read() -> None:
    assert engine_memory(VLLM, ENGINES["vllm"]) == EngineMemory(
        model_gib=16.59,
        kv_cache_gib=21.32,
        kv_cache_tokens=155216,
        requested_gib=40.84,
        gpu_gib=44.39,
        consumed_gib=16.9,
        activation_gib=2.62,
        graphs_gib=0.48,
        max_length=32768,
    )


def test_sglang_s_memory_is_read_and_its_key_is_not() -> None:
    found = engine_memory(SGLANG, ENGINES["sglang"])
    assert found == EngineMemory(model_gib=16.46, kv_cache_gib=20.05, kv_cache_tokens=146000, max_length=32768)
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], EngineMemory()),
        (["nothing of interest"], EngineMemory()),
        # Older: the length on a line of its own.
        (
            ["GPU KV cache size: 46,368 tokens", "Maximum concurrency for 16,384 tokens per request: 2.83x"],
            EngineMemory(kv_cache_tokens=46368, max_length=16384),
        ),
        # Of several workers the one with least.
        (
            [
                "(Worker_TP0 pid=1) INFO [gpu_worker.py:460] Available KV cache memory: 15.74 GiB",
                "(Worker_TP1 pid=2) INFO [gpu_worker.py:460] Available KV cache memory: 15.72 GiB",
                "(Worker_TP0 pid=1) INFO Model loading took 14.2474 GiB and 558.868858 seconds",
            ],
            EngineMemory(kv_cache_gib=15.72, model_gib=14.2474),
        ),
        (
            [
                "ValueError: To serve at least one request with the model's max seq len (262144), (36.0 GiB KV cache "
                "is needed, which is larger than the available KV cache memory (6.94 GiB). Based on the available "
                "memory, the estimated maximum model length is 50512. Try increasing `gpu_memory_utilization`"
            ],
            EngineMemory(kv_cache_gib=6.94, fitting_length=50512),
        ),
        (
            [
                "Auto-fit max_model_len: reduced from 262144 to 155200 to fit in available KV cache memory (21.31 GiB "
                "GPU)"
            ],
            EngineMemory(max_length=155200),
        ),
        (
            [
                "[2026-06-08 07:20:53 TP0] KV Cache is allocated. dtype: torch.bfloat16, #tokens: 90, KV size: 3.25 GB",
                "[2026-06-08 07:20:54 TP0] Draft KV Cache is allocated. dtype: torch.bfloat16, #tokens: 900, KV size: "
                "0.10 GB",
            ],
            EngineMemory(kv_cache_gib=3.25),
        ),
        (
            [
                "[2026-06-08 07:20:53] Post-capture KV sizing: KV cache allocated. dtype: torch.bfloat16, #tokens: "
                "90000, KV size: 12.36 GB, avail mem=5.00 GB"
            ],
            EngineMemory(kv_cache_gib=12.36),
        ),
    ],
)
def test_other_lines_are_read(lines: list[str], expected: EngineMemory) -> None:
    engine = ENGINES["sglang" if any("[2026" in line for line in lines) else "vllm"]
    assert engine_memory(lines, engine) == expected


def test_what_the_module_takes_is_picked() -> None:
    assert as_reported(engine_memory(VLLM, ENGINES["vllm"])) == {
        "kv_cache_gib": 21.32,
        "kv_cache_tokens": 155216,
        "model_gib": 16.59,
        "requested_gib": 40.84,
    }
    assert as_reported(EngineMemory()) == {}


def test_of_two_gpus_the_one_with_less_cache_counts() -> None:
    # A recorded start of vLLM 0.26, whose line about the budget is another one than 0.32's.
    recorded = Path(__file__).parents[3] / "fixtures/engines/vllm-0.26-two-gpus.log"
    assert engine_memory(recorded.read_text().splitlines(), ENGINES["vllm"]) == EngineMemory(
        model_gib=8.63, kv_cache_gib=119.09, kv_cache_tokens=1734336, graphs_gib=0.63, max_length=262144
    )


def test_of_sglang_on_two_gpus_the_cache_of_each_is_read() -> None:
    recorded = Path(__file__).parents[3] / "fixtures/engines/sglang-0.5.17-two-gpus.log"
    assert engine_memory(recorded.read_text().splitlines(), ENGINES["sglang"]) == EngineMemory(
        model_gib=8.3, kv_cache_gib=106.2, kv_cache_tokens=1546564, max_length=262144
    )
