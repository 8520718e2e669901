from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.progress import PHASES, EngineProgress
from ansible_collections.inference.fleet.plugins.module_utils.engines.base import Engine
from ansible_collections.inference.fleet.plugins.module_utils.engines.progress import progress
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES, KINDS

VLLM = "(APIServer pid=17582) INFO 11-22 13:37:20 [entry.py:136] Supported tasks: ['generate']"

# The engines' lines: those of a start on a CPU are recorded, those of a GPU are derived from the engines' own log
# statements (vLLM 0.32.0, SGLang 0.5.23) and users' logs.
VLLM_LINES = [
    (
        "(APIServer pid=17582) INFO 11-22 13:36:55 [api_utils.py:347]  ▄▄ ▄█ █     █     █ ▀▄▀ █  version 0.32.0",
        EngineProgress("importing", "starting vLLM 0.32.0"),
    ),
    (
        "(APIServer pid=17582) INFO 11-22 13:36:55 [api_utils.py:286] non-default args: {'model_tag': '/m', 'host': "
        "'127.0.0.1', 'port': 8100, 'compilation_config': 'Starting torch.compile'}",
        EngineProgress("importing", "reading its arguments"),
    ),
    (
        "(APIServer pid=17582) INFO 11-22 13:36:55 [model.py:733] Resolved architecture: "
        "Qwen3VLForConditionalGeneration",
        EngineProgress("importing", "reading the model's configuration"),
    ),
    (
        "(EngineCore pid=19341) INFO 11-22 13:37:04 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: "
        "model='/m', speculative_config=None, cudagraph_mode: FULL",
        EngineProgress("importing", "starting the engine's core"),
    ),
    (
        "(Worker pid=20227) INFO 11-22 13:37:16 [parallel_state.py:1906] world_size=1 rank=0 local_rank=0 "
        "distributed_init_method=file:///tmp/vllm_dist_9b48 backend=gloo",
        EngineProgress("importing", "starting the workers"),
    ),
    (
        "(Worker pid=20227) INFO 11-22 13:37:16 [cpu_model_runner.py:68] Starting to load model /m/tiny...",
        EngineProgress("loading", "building the model"),
    ),
    (
        "(Worker pid=20227) INFO 11-22 13:37:17 [weight_utils.py:1108] Filesystem type for checkpoints: EXT4. "
        "Checkpoint size: 16.35 GiB. Available RAM: 20.67 GiB.",
        EngineProgress("loading", "loading the weights, 16.35 GiB", 0),
    ),
    (
        "Loading safetensors checkpoint shards:  56% Completed | 5/9 [00:13<00:11,  2.87s/it]",
        EngineProgress("loading", "loading the weights, 5 of 9 files", 56),
    ),
    (
        "Loading safetensors checkpoint shards (eager):   0% Completed | 0/1 [00:00<?, ?it/s]",
        EngineProgress("loading", "loading the weights, 0 of 1 files", 0),
    ),
    (
        "(Worker pid=1) INFO 11-22 13:37:17 [weight_utils.py:1042] Prefetching checkpoint files: 40% (2/5)",
        EngineProgress("loading", "reading the weights ahead, 2 of 5 files", 40),
    ),
    (
        "(Worker_TP0 pid=34322) INFO 05-06 20:59:57 [default_loader.py:384] Loading weights took 24.84 seconds",
        EngineProgress("loading", "weights loaded in 24.84 s", 100),
    ),
    (
        "(Worker_TP0 pid=34322) INFO 05-06 20:59:59 [gpu_model_runner.py:4879] Model loading took 12.66 GiB memory "
        "and 31.657031 seconds",
        EngineProgress("loading", "model loaded in 31.657031 s, 12.66 GiB", 100),
    ),
    (
        "(Worker_TP0 pid=34322) INFO 05-06 21:00:00 [gpu_model_runner.py:5820] Encoder cache will be initialized with "
        "a budget of 8192 tokens, and profiled with 3 video items of the maximum feature size.",
        EngineProgress("profiling", "measuring the memory that requests need"),
    ),
    (
        "(EngineCore pid=1) INFO 11-22 13:37:18 [monitor.py:40] [backbone] Starting torch.compile",
        EngineProgress("compiling", "compiling with torch.compile"),
    ),
    (
        "(EngineCore pid=1265223) INFO 06-02 00:51:49 [backends.py:1089] Using cache directory: "
        "/var/cache/vllm/torch_compile_cache/a00dd112c3/rank_0_0/backbone for vLLM's torch.compile",
        EngineProgress("compiling", "compiling with torch.compile"),
    ),
    (
        "(EngineCore pid=1265223) INFO 06-02 00:51:49 [backends.py:1148] Dynamo bytecode transform time: 8.52 s",
        EngineProgress("compiling", "torch.compile: traced in 8.52 s"),
    ),
    (
        "(Worker_TP0 pid=2500801) INFO 06-23 14:53:25 [backends.py:292] Directly load the compiled graph(s) for "
        "compile range (1, 8192) from the cache, took 5.684 s",
        EngineProgress("compiling", "torch.compile: loading from the cache"),
    ),
    (
        "(Worker_TP0 pid=16271) INFO 04-20 15:33:16 [backends.py:319] Compiling a graph for compile range (1, 132096) "
        "takes 14.64 s",
        EngineProgress("compiling", "torch.compile: compiling for each size"),
    ),
    (
        "(Worker_TP0 pid=2500801) INFO 06-23 14:53:25 [monitor.py:53] torch.compile took 14.85 s in total",
        EngineProgress("compiling", "torch.compile took 14.85 s", 100),
    ),
    (
        "(Worker_TP0 pid=2500801) INFO 06-23 14:53:26 [monitor.py:81] Initial profiling/warmup run took 1.02 s",
        EngineProgress("profiling", "measured the memory that requests need"),
    ),
    (
        "(EngineCore pid=1) INFO 11-22 13:37:18 [gpu_model_runner.py:6369] Profiling CUDA graph memory: PIECEWISE=35 "
        "(largest=256), FULL=19 (largest=128)",
        EngineProgress("profiling", "measuring the memory that CUDA graphs need"),
    ),
    (
        "(Worker_TP0 pid=16271) INFO 04-20 15:33:18 [gpu_worker.py:356] Available KV cache memory: 43.03 GiB",
        EngineProgress("profiling", "43.03 GiB left for the KV cache"),
    ),
    (
        "(EngineCore pid=19341) INFO 11-22 13:37:18 [kv_cache_utils.py:2327] CPU KV cache size: 32,768 tokens, "
        "Maximum concurrency for 4,096 tokens per request: 8.00x",
        EngineProgress("profiling", "KV cache of 32,768 tokens", 100),
    ),
    (
        "(EngineCore pid=1) INFO 11-22 13:37:18 [kernel_warmup.py:176] JIT kernel warmup starting.",
        EngineProgress("warming_up", "warming up kernels"),
    ),
    (
        "JIT kernel warmup (118 compile keys):  43%|####2     | 3/7 [00:02<00:03,  1.14kernel/s, GDN (12 keys)]",
        EngineProgress("warming_up", "warming up kernels, 3 of 7", 43),
    ),
    (
        "(EngineCore pid=1) INFO 11-22 13:37:18 [kernel_warmup.py:190] JIT kernel warmup finished in 3.41s.",
        EngineProgress("warming_up", "kernels warmed up in 3.41 s"),
    ),
    (
        "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  61%|██████    | 41/67 [00:06<00:04,  6.30it/s]",
        EngineProgress("capturing", "capturing CUDA graphs (mixed prefill-decode, PIECEWISE), 41 of 67", 61),
    ),
    (
        "Capturing CUDA graphs:   0%|          | 0/4 [00:00<?, ?it/s][rank4]:[W420 15:33:19.925424531 "
        "CUDAGraph.cpp:137] Warning: Waiting for pending NCCL work to finish before starting graph capture.",
        EngineProgress("capturing", "capturing CUDA graphs, 0 of 4", 0),
    ),
    (
        "INFO 06-19 23:05:35 [gpu_model_runner.py:1608] Graph capturing finished in 17 secs, took 0.48 GiB",
        EngineProgress("capturing", "CUDA graphs captured in 17 s, 0.48 GiB", 100),
    ),
    (
        "(EngineCore pid=19341) INFO 11-22 13:37:18 [core.py:402] init engine (profile, create kv cache, warmup "
        "model) took 0.05 s",
        EngineProgress("warming_up", "the engine's core is up"),
    ),
    (
        "(APIServer pid=17582) INFO 11-22 13:37:21 [entry.py:140] Starting vLLM server on http://127.0.0.1:8100",
        EngineProgress("warming_up", "starting to listen"),
    ),
]
SGLANG_LINES = [
    (
        "[2026-11-22 13:28:54] server_args=ServerArgs(model_path='/m', api_key='sk-secret-0123456789', "
        "max_total_tokens=8192, chat_template='Load weight begin.')",
        EngineProgress("importing", "reading its arguments"),
    ),
    ("[2026-11-22 13:35:19] Init parallel begin.", EngineProgress("importing", "starting the workers")),
    (
        "[2026-11-22 13:35:20] Init parallel ends. elapsed=0.91 s",
        EngineProgress("importing", "the workers are up"),
    ),
    (
        "[2025-12-23 14:18:01] Load weight begin. avail mem=46.81 GB",
        EngineProgress("loading", "loading the weights", 0),
    ),
    (
        "Multi-thread loading shards: 100% Completed | 1/1 [00:00<00:00, 391.30it/s]",
        EngineProgress("loading", "loading the weights, 1 of 1 files", 100),
    ),
    (
        "[2026-01-30 20:54:56 PP1 TP1] Load weight end. elapsed=6.21 s, type=Qwen3ForCausalLM, dtype=torch.bfloat16, "
        "avail mem=76.05 GB, mem usage=2.33 GB.",
        EngineProgress("loading", "weights loaded in 6.21 s", 100),
    ),
    (
        "[2026-06-08 07:20:53 TP0] KV Cache is allocated. dtype: torch.bfloat16, #tokens: 1106304, K size: 25.32 GB",
        EngineProgress("profiling", "allocating the KV cache"),
    ),
    (
        "[2026-06-08 07:20:53 TP0] Memory pool end. avail mem=12.05 GB",
        EngineProgress("profiling", "KV cache allocated", 100),
    ),
    (
        "[2026-11-22 13:35:27] KV pool holds 8192 tokens, fewer than --context-length 32768. One full-length request "
        "cannot fit, so long requests will be refused or truncated at serving time.",
        EngineProgress("profiling", "KV cache of 8192 tokens", 100),
    ),
    (
        "[2026-11-22 13:35:27] Capture target decode CUDA graph begin. backend=full, num_tokens_per_req=1, "
        "avail mem=12.07 GB",
        EngineProgress("capturing", "capturing CUDA graphs", 0),
    ),
    (
        "Capturing batches (bs=512 avail_mem=11.47 GB):   2%|▏         | 1/52 [00:00<?, ?it/s]",
        EngineProgress("capturing", "capturing CUDA graphs, 1 of 52", 2),
    ),
    (
        "Capturing prefill shape (num_tokens=4096 avail_mem=11.47 GB):  50%|█████     | 4/8 [00:01<00:01,  2.1it/s]",
        EngineProgress("capturing", "capturing CUDA graphs, 4 of 8", 50),
    ),
    (
        "[2026-11-22 13:35:41] Capture target decode CUDA graph end. bs=[1, 2, 4, 8], elapsed=5.37 s, "
        "mem usage=1.44 GB, avail mem=38.05 GB.",
        EngineProgress("capturing", "CUDA graphs captured in 5.37 s", 100),
    ),
    (
        "[2026-11-22 13:35:41] Try DeepGEMM JIT Compiling for <GEMM_NT_F8F8BF16> N=4096, K=4096, num_groups=1 with "
        "all Ms.",
        EngineProgress("compiling", "compiling kernels"),
    ),
    (
        "DeepGEMM warmup:  10%|█         | 1638/16384 [00:01<00:09]",
        EngineProgress("warming_up", "warming up kernels, 1638 of 16384", 10),
    ),
    (
        "[2026-11-22 13:35:27] max_total_num_tokens=8192, chunked_prefill_size=8192, max_prefill_tokens=16384, "
        "max_running_requests=2048, context_len=32768, available_gpu_mem=1.00 GB",
        EngineProgress("profiling", "KV cache of 8192 tokens", 100),
    ),
    ("[2026-11-22 13:36:01] The server is fired up and ready to roll!", EngineProgress("serving", "serves", 100)),
]
SYSTEMD_LINES = [
    ("Starting vllm@0.service - vLLM instance 0...", EngineProgress("preparing", "being started by systemd")),
    (
        "vllm@0.service: Scheduled restart job, restart counter is at 1.",
        EngineProgress("preparing", "being started by systemd"),
    ),
]


LINES = [
    *(("vllm", *case) for case in VLLM_LINES),
    *(("sglang", *case) for case in SGLANG_LINES),
    *((name, *case) for case in SYSTEMD_LINES for name in KINDS),
]


@pytest.mark.parametrize(
    ("engine", "line", "expected"), LINES, ids=[f"{i}-{case[0]}-{case[2].phase}" for i, case in enumerate(LINES)]
)
def test_a_line_says_what_the_engine_is_doing(engine: str, line: str, expected: EngineProgress) -> None:
    assert progress([line], KINDS[engine]) == expected
    assert expected.phase in PHASES


@pytest.mark.parametrize("engine", KINDS.values(), ids=lambda engine: engine.name)
def test_no_lines_say_nothing(engine: Engine) -> None:
    assert progress([], engine) is None
    assert progress(["", "  "], engine) is None


@pytest.mark.parametrize("engine", KINDS.values(), ids=lambda engine: engine.name)
def test_lines_that_are_not_known_say_that_python_runs(engine: Engine) -> None:
    lines = [
        "Started vllm@0.service - vLLM instance 0.",
        "W1122 13:36:55.062000 17582 torch/_library/triton.py:53] Triton not available, find_triton_kernels = []",
    ]
    assert progress(lines[:1], engine) == EngineProgress("preparing", "being started by systemd")
    assert progress(lines, engine) == EngineProgress("importing", "importing its libraries")


def test_the_last_line_that_is_known_counts() -> None:
    lines = [VLLM_LINES[0][0], VLLM_LINES[7][0], "Warning: NUMA binding: Using MEMBIND policy", "  warnings.warn("]
    assert progress(lines, ENGINES["vllm"]) == VLLM_LINES[7][1]


def test_a_bar_in_one_line_of_the_journal_counts_with_its_last_state() -> None:
    line = (
        "\rMulti-thread loading shards:   0% Completed | 0/4 [00:00<?, ?it/s]"
        "\rMulti-thread loading shards:  75% Completed | 3/4 [00:03<00:01, 1.01it/s]"
    )
    assert progress([line], ENGINES["vllm"]) == EngineProgress("loading", "loading the weights, 3 of 4 files", 75)


def test_listening_is_the_end_for_vllm_and_the_beginning_of_the_warm_up_for_sglang() -> None:
    listening = "INFO:     Application startup complete."
    access = 'INFO:     127.0.0.1:51234 - "GET /health HTTP/1.1" 200 OK'
    assert progress([VLLM, listening, access], ENGINES["vllm"]) == EngineProgress("serving", "serves", 100)
    assert progress([listening, access], KINDS["litellm"]) == EngineProgress("serving", "serves", 100)
    sglang = ["[2026-11-22 13:35:27] Memory pool end. avail mem=12.05 GB", listening]
    warming = EngineProgress("warming_up", "answering a first question of its own")
    assert progress([*sglang, access], ENGINES["sglang"]) == warming
    ready = "[2026-11-22 13:36:01] The server is fired up and ready to roll!"
    assert progress([*sglang, ready, access], ENGINES["sglang"]) == EngineProgress("serving", "serves", 100)


def test_no_text_repeats_a_key() -> None:
    key = "sk-secret-0123456789"
    for engine, line, _wanted in LINES:
        found = progress([f"{line} {key}"], KINDS[engine])
        assert found is not None
        assert key not in found.text


@pytest.mark.parametrize(
    ("name", "engine", "wanted"),
    [
        (
            "vllm-0.26-two-gpus.log",
            "vllm",
            ["importing", "loading", "compiling", "profiling", "capturing", "warming_up", "serving"],
        ),
        (
            "sglang-0.5.17-two-gpus.log",
            "sglang",
            ["importing", "loading", "profiling", "capturing", "warming_up", "serving"],
        ),
    ],
)
def test_a_start_on_two_gpus_goes_through_the_phases_in_order(name: str, engine: str, wanted: list[str]) -> None:
    recorded = Path(__file__).parents[3] / "fixtures/engines" / name
    lines = recorded.read_text().splitlines()
    seen = [progress(lines[:end], ENGINES[engine]) for end in range(1, len(lines) + 1)]
    phases = list(dict.fromkeys(each.phase for each in seen if each))
    assert phases == wanted
