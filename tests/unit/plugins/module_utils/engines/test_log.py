from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.engines.log import explain
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES, KINDS

# The engines' lines, shortened to the relevant part.
LOGS = [
    (
        "ValueError: To serve at least one request with the model's max seq len (262144), (36.0 GiB KV cache is "
        "needed, which is larger than the available KV cache memory (6.94 GiB). Based on the available memory, the "
        "estimated maximum model length is 50512. Try increasing `gpu_memory_utilization`",
        "max_model_len",
        ["262144 needs 36.0 GiB", "6.94 GiB are left", "vllm_max_model_len to 50512"],
    ),
    (
        "Value error, User-specified max_model_len (99999) is greater than the derived max_model_len "
        "(max_position_embeddings=32768 or model_max_length=None in model's config.json).",
        "max_model_len",
        ["99999", "vllm_max_model_len to 32768"],
    ),
    (
        "ValueError: Free memory on device cuda:0 (3.1/44.39 GiB) on startup is less than desired GPU memory "
        "utilization (0.92, 40.84 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
        "gpu_memory_taken",
        ["Only 3.1 of 44.39 GiB", "cuda:0", "verify_gpu.yml"],
    ),
    (
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
        "kv_cache_memory",
        [],
    ),
    (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 192.00 MiB. GPU 0 has a total capacity",
        "out_of_memory",
        ["Tried to allocate 192.00 MiB"],
    ),
    ("vllm@0.service: A process of this unit has been killed by the OOM killer.", "host_out_of_memory", []),
    ("OSError: [Errno 28] No space left on device: '/var/cache/inference/vllm/x'", "disk_full", []),
    ("OSError: [Errno 98] Address already in use", "port_in_use", []),
    ("vllm: error: unrecognized arguments: --max-modle-len=1", "bad_argument", ["--max-modle-len=1"]),
    (
        "api_server.py: error: argument --dtype: invalid choice: 'int3'\nvllm serve: error: argument --dtype: invalid",
        "bad_argument",
        ["argument --dtype"],
    ),
    ("RuntimeError: The NVIDIA driver on your system is too old (found version 12080)", "driver", ["too old"]),
    ("ImportError: libnuma.so.1: cannot open shared object file: No such file", "missing_library", ["libnuma.so.1"]),
    ("ValueError: Model architectures ['FooForCausalLM'] are not supported for now.", "unsupported_model", ["FooFor"]),
    ("ValueError: something that no rule matches", "engine_error", ["no rule matches"]),
]
RECORDED = Path(__file__).parents[3] / "fixtures/engines"


@pytest.mark.parametrize(("log", "kind", "words"), LOGS, ids=[f"{i}-{log[1]}" for i, log in enumerate(LOGS)])
def test_a_dead_engine_is_explained(log: str, kind: str, words: list[str]) -> None:
    why = explain(
        ["INFO starting", *log.splitlines(), "RuntimeError: Engine core initialization failed."], ENGINES["vllm"]
    )
    assert why is not None
    assert why.kind == kind
    for word in words:
        assert word in str(why)
    assert why.advice


def test_a_healthy_log_is_not_explained() -> None:
    for engine in KINDS.values():
        assert explain(["INFO Loading weights took 0.1 seconds", "INFO Application startup complete."], engine) is None


def test_an_error_that_a_warning_quotes_is_not_the_reason() -> None:
    # At each start where vLLM cannot raise its limit of open files.
    lines = (RECORDED / "vllm-0.26-two-gpus.log").read_text().splitlines()
    assert any("OSError: [Errno 24]" in line for line in lines)
    assert explain(lines, ENGINES["vllm"]) is None


def test_a_program_that_is_missing_is_named() -> None:
    why = explain((RECORDED / "sglang-0.5.17-without-ninja.log").read_text().splitlines(), ENGINES["sglang"])
    assert why is not None
    assert why.kind == "missing_program"
    assert "the program ninja" in why.reason


@pytest.mark.parametrize(
    ("name", "engine", "kind", "word"),
    [
        ("vllm-0.26-lost-rank.log", "vllm", "lost_process", "One of its processes was lost"),
        ("sglang-0.5.17-lost-rank.log", "sglang", "lost_process", "One of its processes was lost"),
        ("sglang-0.5.17-two-hosts.log", "sglang", "lost_node", "The node sglang-second"),
    ],
)
def test_what_was_lost_is_named_and_not_what_followed(name: str, engine: str, kind: str, word: str) -> None:
    # Of each, SIGKILL ended a process that held a GPU.
    why = explain((RECORDED / name).read_text().splitlines(), ENGINES[engine])
    assert why is not None
    assert why.kind == kind
    assert word in why.reason


def test_a_process_that_ends_by_its_own_error_is_not_lost() -> None:
    lines = ["RuntimeError: CUDA error: an illegal memory access", "Worker proc VllmWorker-0 died unexpectedly"]
    why = explain([*lines, "RuntimeError: Executor failed."], ENGINES["vllm"])
    assert why is not None
    assert "illegal memory access" in why.reason
