# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""SGLang. Options, journal lines and metrics are those of SGLang 0.5.23; the unit tests have a line for each rule."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.progress import (
    CAPTURING,
    COMPILING,
    IMPORTING,
    LOADING,
    PROFILING,
    SERVING,
    WARMING_UP,
)
from ansible_collections.inference.fleet.plugins.module_utils.engines.base import (
    ALB,
    CURRENT_KEY,
    ENDS,
    FIT,
    INSTALL,
    MEASURED,
    NO_DRAFT,
    NOBODYS_KEY,
    NODES,
    RESERVED,
    SIZE,
    TUNING,
    Cause,
    Counters,
    Engine,
    Exposition,
    Figure,
    Histogram,
    Journal,
    Launch,
    OptionTable,
    Phase,
    Program,
    RoleVariables,
    Setting,
    Tunable,
    Vitals,
    first,
    largest,
    smallest,
)
from ansible_collections.inference.fleet.plugins.module_utils.memory.base import (
    MIB,
    EngineStep,
    Gpu,
    MemoryModel,
    MemoryOptions,
    Overhead,
    parse_length,
    parse_whole,
)
from ansible_collections.inference.fleet.plugins.module_utils.memory.tensors import peak_bytes
from ansible_collections.inference.fleet.plugins.module_utils.model.config import ModelConfig, Processor

# The parser prints to stderr and exits with 2 on an error; the last line of stdout then lists every option that it
# knows, so that the message can suggest the nearest one.
_CHECK = """
import argparse, json, sys
from sglang.srt.server_args import ServerArgs
from sglang.srt.utils.server_args_config_parser import ConfigArgumentMerger
parser = argparse.ArgumentParser(prog="sglang")
ServerArgs.add_cli_args(parser)
try:
    parser.parse_args(ConfigArgumentMerger(parser=parser).merge_config_with_args(["--config", sys.argv[1]]))
finally:
    print(json.dumps(sorted(o.lstrip("-") for a in parser._actions for o in a.option_strings if o.startswith("--"))))
"""


def _problems(options: t.Mapping[str, t.Any]) -> list[str]:
    """Speculative decoding without a draft model."""
    method = str(options.get("speculative-algorithm", ""))
    if method.lower() not in ("eagle", "eagle3") or options.get("speculative-draft-model-path"):
        return []
    return [NO_DRAFT.format(variable="sglang_speculative_algorithm", method=method)]


_CAUSES = (
    Cause(
        "kv_cache_memory",
        r"Not enough memory\. Please try to increase --mem-fraction-static",
        "The weights leave no memory for the KV cache.",
        "Raise sglang_mem_fraction_static, or use a smaller or quantised model.",
    ),
)

_PHASES = (
    Phase(IMPORTING, r"Init (?:parallel|torch distributed) begin\.", "starting the workers"),
    Phase(IMPORTING, r"Init (?:parallel|torch distributed) ends\.", "the workers are up"),
    Phase(LOADING, r"Load weight begin\.", "loading the weights", 0),
    Phase(LOADING, r"Load weight end\. elapsed=(?P<took>[\d.]+) s", "weights loaded in {took} s", 100),
    Phase(PROFILING, r"KV [Cc]ache (?:is )?allocated", "allocating the KV cache"),
    Phase(PROFILING, r"Memory pool end\.", "KV cache allocated", 100),
    Phase(PROFILING, r"KV pool holds (?P<n>\d+) tokens", "KV cache of {n} tokens", 100),
    Phase(PROFILING, r"max_total_num_tokens=(?P<n>\d+), ", "KV cache of {n} tokens", 100),
    Phase(WARMING_UP, r"Running FlashInfer autotune", "tuning kernels"),
    Phase(WARMING_UP, r"FlashInfer autotune completed", "kernels tuned"),
    Phase(COMPILING, r"DeepGEMM JIT Compiling", "compiling kernels"),
    Phase(CAPTURING, r"Capture (?:\w+ )+[A-Za-z]+ graph begin\.", "capturing CUDA graphs", 0),
    Phase(
        CAPTURING,
        r"Capture (?:\w+ )+[A-Za-z]+ graph end\..* elapsed=(?P<took>[\d.]+) s",
        "CUDA graphs captured in {took} s",
        100,
    ),
    Phase(WARMING_UP, r"Engine startup timings \(s\): ", "the schedulers are up"),
    Phase(SERVING, r"The server is fired up and ready to roll!", "serves", 100),
    # It listens before it is ready.
    Phase(WARMING_UP, r"Application startup complete\.", "answering a first question of its own"),
)

_FIGURES = (
    Figure(("model_gib",), rf"Load weight end\. .*mem usage={SIZE}", largest),
    Figure(("kv_cache_tokens", "max_length"), r"max_total_num_tokens=(\d+), .*context_len=(\d+)", smallest),
    Figure(("kv_cache_gib",), rf"[\]:] KV (?:cache|Cache is) allocated\. .*KV size: {SIZE}", first),
    Figure(("kv_cache_gib",), rf"\] KV Cache is allocated\. .*K size: {SIZE}, V size: {SIZE}", first, is_sum=True),
)


class _SglangMemory(MemoryModel):
    """KV cache = memory free at start x mem_fraction_static - weights - libraries.

    Activations and graphs depend on what the fraction leaves.
    """

    variables = {  # noqa: RUF012
        "length": "sglang_context_length",
        "fraction": "sglang_mem_fraction_static",
        "kv_dtype": "sglang_kv_cache_dtype",
        "quantization": "sglang_quantization",
        "tensor_parallel": "sglang_tensor_parallel_size",
    }
    splits = ("pp-size", "pipeline-parallel-size", "dcp-size")
    uncounted = ("speculative-algorithm", "enable-lora", "lora-paths", "cpu-offload-gb", "enable-hierarchical-cache")
    fp8_kv = "fp8_e4m3"
    knows_windows = False
    refuses_long = False

    def read(self, options: t.Mapping[str, t.Any]) -> MemoryOptions:
        fraction = options.get("mem-fraction-static")
        if fraction is not None and not 0 < float(fraction) < 1:
            raise FleetError(f"{self.variables['fraction']} is {fraction}; it must be above 0 and below 1.")
        chunk = parse_whole(options.get("chunked-prefill-size"))
        return MemoryOptions(
            engine=self,
            length=parse_length(options.get("context-length"), self.variables["length"]),
            fraction=None if fraction is None else float(fraction),
            kv_dtype=str(options.get("kv-cache-dtype", "auto")),
            kv_tokens=parse_whole(options.get("max-total-tokens")),
            dtype=str(options.get("dtype", "auto")),
            quantization=str(options.get("quantization", "")),
            block=int(options.get("page-size", 1)),
            # -1 disables chunks; a step then has at most max_prefill_tokens, 16384 by default.
            batched_tokens=chunk if chunk is None or chunk > 0 else int(options.get("max-prefill-tokens", 16384)),
            requests=parse_whole(options.get("max-running-requests")),
            graphs=not options.get("disable-cuda-graph") and options.get("cuda-graph-backend-decode") != "disabled",
            split_experts=int(options.get("ep-size") or options.get("expert-parallel-size") or 1) == 1,
        )

    def step(self, options: MemoryOptions, gpu: Gpu) -> EngineStep:
        """By the memory that nvidia-smi shows, with the largest one that is captured as a graph."""
        many = options.tensor_parallel >= 4
        if gpu.memory_mib < 20 * 1024:
            tokens, requests = 2048, 8
        elif gpu.memory_mib < 35 * 1024:
            tokens, requests = 4096, 160 if many else 48
        elif gpu.memory_mib < 60 * 1024:
            tokens, requests = 4096, 160 if many else 32
        elif gpu.memory_mib < 160 * 1024:
            tokens, requests = 8192, 512 if many else 256
        else:
            tokens, requests = 16384, 512
        return EngineStep(options.batched_tokens or tokens, min(options.requests or requests, requests))

    def fraction(self, model: ModelConfig, options: MemoryOptions, gpu: Gpu) -> float:
        """As SGLang itself computes it (``arg_groups/memory_hook.py``); a rounded share is off by 14 % of the cache.

        The rest is for activations and CUDA graphs: 512 MiB, 1.5 MiB a token of a step, 128 MiB a GPU and 2 MiB a
        request, at least 10 GiB above 60 GiB; and less again for a vision encoder.
        """
        step = self.step(options, gpu)
        reserved = 512 + 1.5 * max(step.tokens, 2048) + 128 * options.tensor_parallel
        reserved += 2 * step.requests if options.graphs else 0
        if gpu.memory_mib > 60 * 1024:
            reserved = max(reserved, 10 * 1024)
        share = round((gpu.memory_mib - reserved) / gpu.memory_mib, 3)
        if model.vision:
            # It looks for num_hidden_layers, which Qwen's encoders call depth, and then takes 24.
            layers = model.vision.depth if model.vision.image_size else 24
            size = layers * model.vision.hidden_size**2 / (24 * 1024**2)
            share *= 0.95 * max(0.8, min(1.05, 1 - 0.1 * (size - 1)))
        return share

    def started(self) -> int:
        return 614 * MIB

    def overhead(self, model: ModelConfig, processor: Processor, options: MemoryOptions, gpu: Gpu) -> Overhead:
        """What the first kernels took on an H200, and its cache of encoded images."""
        return Overhead(fixed=266 * MIB, media=100 * MIB if model.vision else 0)

    def beside(self, model: ModelConfig, processor: Processor, options: MemoryOptions, gpu: Gpu) -> int:
        step = self.step(options, gpu)
        # It encodes images one by one.
        graphs = 2 * step.requests * MIB if options.graphs else 0
        return peak_bytes(model, processor, options, step) + graphs


_SOURCE = "SGLang 0.5.23, srt/"
_FIELDS = _SOURCE + "arg_groups/fields/"
_PROFILES = {
    "balanced": (
        Setting(
            "context_length",
            32768,
            "As for vLLM. SGLang would start with the model's own 262144, and refuse requests that its cache "
            "does not hold.",
            FIT,
        ),
        Setting(
            "mem_fraction_static",
            None,
            "SGLang works it out from the GPU, and lowers it for a vision encoder.",
            _SOURCE + "server_args.py",
        ),
        Setting(
            "kv_cache_dtype",
            "auto",
            "The model's type: nothing is lost. fp8_e4m3 halves it.",
            _FIELDS + "model.py",
        ),
        Setting("quantization", None, "As the checkpoint is.", _FIELDS + "model.py"),
        Setting(
            "max_running_requests",
            None,
            "SGLang's own, from the size of its cache.",
            _FIELDS + "schedule.py",
        ),
        Setting(
            "chunked_prefill_size",
            None,
            "SGLang's own, by GPU: 4096 on an L40S.",
            _FIELDS + "schedule.py",
        ),
        Setting(
            "max_queued_requests",
            None,
            "The edge holds back and refuses. SGLang answers a full queue with 503, but a stream with 200 and "
            "an error in it.",
            "roles/edge; seen with 0.5.23",
        ),
        Setting(
            "schedule_policy",
            "lpm",
            "Requests that share a prefix with what is cached go first: conversations, documents that are "
            "asked about again.",
            _SOURCE + "managers/schedule_policy.py",
        ),
        Setting(
            "limit_mm_data_per_request",
            {"image": 16, "video": 1},
            "A conversation sends its pictures again with each turn. "
            "Without a limit one request may have any number, up to 16384 tokens a picture.",
            _FIELDS + "mm.py",
        ),
        Setting("mm_process_config", None, "Pictures as they come.", _FIELDS + "mm.py"),
        Setting("cuda_graph", True, "CUDA graphs answer faster.", FIT),
        Setting("radix_cache", True, "SGLang's own, and what it is chosen for.", _FIELDS + "memory.py"),
        Setting(
            "speculative_algorithm",
            None,
            "Off, as for vLLM.",
            "https://github.com/sgl-project/sglang/pull/17276",
        ),
        Setting(
            "http_keep_alive",
            75,
            "Longer than an ALB's 60 s: else it answers 502 now and then. SGLang's own is 5 s.",
            ALB,
        ),
    ),
    "interactive": (
        Setting("max_running_requests", 64, "As for vLLM.", TUNING),
        Setting("chunked_prefill_size", 2048, "As for vLLM.", TUNING),
        Setting(
            "max_queued_requests",
            96,
            "As for vLLM. Those that run do not count, but a request waits before it runs: with 32, a burst of 64 "
            "loses half of its requests.",
            MEASURED,
        ),
        Setting("quantization", "fp8", "As for vLLM.", MEASURED),
    ),
    "throughput": (
        Setting("max_running_requests", 512, "As for vLLM.", TUNING),
        Setting("chunked_prefill_size", 8192, "Larger steps, fewer of them.", _FIELDS + "schedule.py"),
        Setting("quantization", "fp8", "As for vLLM.", MEASURED),
    ),
    "long_context": (
        Setting("context_length", 262144, "As for vLLM.", FIT),
        Setting("kv_cache_dtype", "fp8_e4m3", "As for vLLM.", FIT),
        Setting(
            "chunked_prefill_size",
            2048,
            "SGLang sets memory aside for its largest step. Smaller ones leave 2.7 GiB more for the cache, "
            "without which a request of full length would not fit.",
            FIT,
            gpu="L40S",
        ),
        Setting("max_running_requests", 16, "As for vLLM.", FIT),
        Setting("limit_mm_data_per_request", {"image": 64, "video": 2}, "As for vLLM.", FIT),
    ),
    "low_memory": (
        Setting("context_length", 16384, "As for vLLM.", FIT),
        Setting("quantization", "fp8", "As for vLLM.", FIT),
        Setting("kv_cache_dtype", "fp8_e4m3", "As for vLLM.", FIT),
        Setting("max_running_requests", 32, "As for vLLM.", FIT),
        Setting("chunked_prefill_size", 2048, "As for vLLM.", FIT),
        Setting("limit_mm_data_per_request", {"image": 2, "video": 0}, "As for vLLM.", FIT),
        Setting("mm_process_config", {"image": {"max_pixels": 1003520}}, "As for vLLM.", FIT),
    ),
    "speculative": (
        Setting("speculative_algorithm", "EAGLE3", "As for vLLM.", _FIELDS + "spec.py"),
        Setting("speculative_num_steps", 3, "As for vLLM.", _FIELDS + "spec.py"),
        Setting(
            "speculative_eagle_topk",
            1,
            "A chain and no tree, as vLLM has it; a tree pays with very few requests only.",
            _FIELDS + "spec.py",
        ),
        Setting("speculative_num_draft_tokens", 4, "Steps and the model's own token.", _FIELDS + "spec.py"),
        Setting("max_running_requests", 32, "As for vLLM.", _FIELDS + "schedule.py"),
    ),
}

_TUNABLES = (
    Tunable(
        "chunked_prefill_size",
        (1024, 2048, 4096, 8192, 16384),
        "Larger steps take prompts in fewer pieces, and make running streams wait longer for their next token.",
        own=4096,
    ),
    Tunable(
        "max_running_requests",
        (32, 64, 128, 256, 512),
        "More share a step, which makes a token cheaper and each stream slower.",
        own=256,
    ),
    Tunable(
        "schedule_policy",
        ("fcfs", "lpm"),
        "Requests that share a prefix with the cache go first; with fcfs those that came first.",
    ),
    Tunable(
        "mem_fraction_static",
        (0.8, 0.85, 0.9),
        "More room for the cache lets more requests run at once, and leaves less for what is not counted.",
    ),
    Tunable("quantization", (None, "fp8"), "Half the weights to read for each token; answers change.", lossy=True),
    Tunable("kv_cache_dtype", ("auto", "fp8_e4m3"), "Twice the requests in the cache; answers change.", lossy=True),
)

ENGINE = Engine(
    name="sglang",
    title="SGLang",
    documentation="https://docs.sglang.ai",
    launch=Launch(
        # With the request guard, which it has no option for.
        command=("bin/python", "sglang_start.py", "--config"),
        check_program=_CHECK,
        # With only one key that key opens the routes that change weights and abort others' requests, too.
        key_options={"api-key": CURRENT_KEY, "admin-api-key": NOBODYS_KEY},
        # It reads each as a number where there are more than one (``custom_all_reduce_utils.py``).
        several_gpus_by="index",
        # It exits by killing its own process tree.
        clean_exit="SIGKILL",
    ),
    options=OptionTable(
        means={
            "adapters": "lora-paths",
            "context_length": "context-length",
            "expert_parallel": "ep-size",
            "frontend_processes": "tokenizer-worker-num",
            "graphs": "cuda-graph-backend-decode",
            "image_processor_options": "mm-process-config",
            "kv_block_size": "page-size",
            "kv_cache_limit": "max-total-tokens",
            "kv_offload_size": "hicache-size",
            "max_adapters": "max-loras-per-batch",
            "max_queued_requests": "max-queued-requests",
            "max_requests": "max-running-requests",
            "media_limit": "limit-mm-data-per-request",
            "memory_fraction": "mem-fraction-static",
            "model_config_overrides": "json-model-override-args",
            "prefix_cache": "disable-radix-cache",
            "root_path": "fastapi-root-path",
            "sampling_defaults": "preferred-sampling-params",
            "scheduling_policy": "schedule-policy",
            "seed": "random-seed",
            "speculation": "speculative-algorithm",
            "step_tokens": "chunked-prefill-size",
            "tokenizer": "tokenizer-path",
            "vision_attention": "mm-attention-backend",
        },
        reserved={
            **RESERVED,
            "model-path": RESERVED["model"],
            "tp-size": RESERVED["tensor-parallel-size"],
            "admin-api-key": "a new one is made at each start, and no one has it",
            "enable-custom-logit-processor": "a request could bring code that the engine runs",
            "enable-metrics": "a drain waits for the engine's own counters, which it switches on",
            **dict.fromkeys(("nnodes", "node-rank", "dist-init-addr", "nccl-init-addr"), NODES),
            "grpc-mode": "the edge speaks HTTP to an instance",
            "skip-server-warmup": "the first question that it asks itself shows that it answers",
        },
        aliases={"pipeline-parallel-size": "pp-size", "tensor-parallel-size": "tp-size"},
        # It derives this from the memory; in practice the maximum is this.
        default_limit=256,
        parallel="tp-size",
        stages="pp-size",
        span={"nnodes": "{count}", "node-rank": "{rank}", "dist-init-addr": "{first}:{meeting_port}"},
        # There something listens for the node's own health.
        node={"port": "{node_port}"},
        # Its processes find each other by a file where they are all on one host.
        span_environment={"SGLANG_HOST_IP": "{own}", "SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE": ""},
        tool_parser="tool-call-parser",
        tool_parsers={
            "qwen3-coder": "qwen3_coder",
            "qwen": "qwen",
            "hermes": "hermes",
            "llama-3": "llama3",
            "mistral": "mistral",
            "gpt-oss": "gpt-oss",
            "glm-4": "glm",
            "kimi-k2": "kimi_k2",
        },
        problems=_problems,
    ),
    journal=Journal(
        causes=_CAUSES,
        gpu_advice="Lower sglang_mem_fraction_static, sglang_context_length or sglang_max_running_requests",
        host_advice="Use an instance type with more memory.",
        programs=r"sglang|launch_server\.py",
        options=r"server_args=",
        phases=_PHASES,
        figures=_FIGURES,
    ),
    counters=Counters(
        running="sglang:num_running_reqs",
        waiting="sglang:num_queue_reqs",
        kv_usage="sglang:token_usage",
        taken_share="sglang:spec_accept_rate",
    ),
    # generation_tokens_total and prompt_tokens_total move when a request ends, and gen_throughput stands in a hang.
    vitals=Vitals(
        progress=(
            ("rate", "sglang:realtime_tokens_total"),
            ("rate", "sglang:inter_token_latency_seconds_count"),
            ("changes", "sglang:num_used_tokens"),
        ),
        finished="sglang:num_requests_total",
        core=r"^sglang::scheduler",
    ),
    exposition=Exposition(
        # An answer that is not streamed has its first token when the engine passes on the first block.
        first_token=Histogram("sglang:time_to_first_token_seconds", ("is_streaming", "false")),
        token_gap=Histogram("sglang:inter_token_latency_seconds"),
        whole_answer=Histogram("sglang:e2e_request_latency_seconds"),
        generated="sglang:generation_tokens_total",
        generated_now='sglang:realtime_tokens_total{mode="decode"}',
        prompted="sglang:prompt_tokens_total",
        cached="sglang:cached_tokens_total",
        preempted="sglang:num_retracted_requests_total",
    ),
    variables=RoleVariables(times=("http_keep_alive", "shutdown_timeout")),
    memory=_SglangMemory(),
    profiles=_PROFILES,
    tunables=_TUNABLES,
    programs={
        "cuda": (
            Program(
                "nvcc",
                ("nvidia-cuda-toolkit", "cuda-toolkit-13-0", "cuda-nvcc-13-0"),
                "SGLang compiles kernels of FlashInfer and its own at their first use",
                ENDS,
                "install the CUDA toolkit (NVIDIA's package cuda-toolkit-13-0), name that package in engine_packages, "
                "or start the host from an AWS Deep Learning AMI",
            ),
            Program(
                "ffmpeg",
                ("ffmpeg",),
                "SGLang decodes videos with its libraries",
                "each video is answered with 500",
                f"{INSTALL} ffmpeg",
            ),
        ),
    },
)
