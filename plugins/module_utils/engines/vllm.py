# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""vLLM. Options, lines of its journal and metrics are those of vLLM 0.32; the unit tests have a line for each rule."""

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
    ALL_KEYS,
    COUNT,
    FIT,
    MEASURED,
    NO_DRAFT,
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
    RoleVariables,
    Setting,
    Tunable,
    Vitals,
    largest,
    last,
    smallest,
)
from ansible_collections.inference.fleet.plugins.module_utils.memory.base import (
    GIB,
    MIB,
    EngineStep,
    Gpu,
    MemoryModel,
    MemoryOptions,
    Overhead,
    parse_length,
    parse_mapping,
    parse_whole,
)
from ansible_collections.inference.fleet.plugins.module_utils.memory.tensors import peak_bytes
from ansible_collections.inference.fleet.plugins.module_utils.model.config import ModelConfig, Processor

# The parser prints to stderr and exits with 2 on an error; the last line of stdout then lists every option that it
# knows, so that the message can suggest the nearest one.
_CHECK = """
import json, sys
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser(prog="vllm")
serve = ServeSubcommand().subparser_init(parser.add_subparsers(dest="subparser"))
try:
    arguments = parser.parse_args(["serve", "--config", sys.argv[1]])
    ServeSubcommand().validate(arguments)
finally:
    print(json.dumps(sorted(o.lstrip("-") for a in serve._actions for o in a.option_strings if o.startswith("--"))))
"""


def _problems(options: t.Mapping[str, t.Any]) -> list[str]:
    """Speculative decoding without a draft model."""
    config = options.get("speculative-config") or {}
    method = str(config.get("method", ""))
    if method.lower() not in ("eagle", "eagle3") or config.get("model"):
        return []
    return [NO_DRAFT.format(variable="vllm_speculative_config", method=method)]


_CAUSES = (
    Cause(
        "max_model_len",
        r"max seq len \((?P<wanted>\d+)\), \((?P<needed>[\d.]+) GiB KV cache is needed, which is larger than the "
        r"available KV cache memory \((?P<available>[\d.]+) GiB\)"
        r".*?estimated maximum model length is (?P<fits>\d+)",
        "max_model_len {wanted} needs {needed} GiB of KV cache, and {available} GiB are left.",
        "The longest that fits is {fits}: set vllm_max_model_len to {fits} or less, raise "
        "vllm_gpu_memory_utilization, or set vllm_kv_cache_dtype: fp8.",
    ),
    Cause(
        "max_model_len",
        r"User-specified max_model_len \((?P<wanted>\d+)\) is greater than the derived max_model_len \([^)]*?"
        r"(?P<fits>\d+)",
        "max_model_len {wanted} is more than the model was made for ({fits}).",
        "Set vllm_max_model_len to {fits} or less.",
    ),
    Cause(
        "gpu_memory_taken",
        r"Free memory on device (?P<device>\S+) \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup is less than "
        r"desired GPU memory utilization \((?P<util>[\d.]+), (?P<wanted>[\d.]+) GiB\)",
        "Only {free} of {total} GiB are free on {device}, and gpu_memory_utilization {util} asks for {wanted} GiB.",
        "Something else holds the GPU: playbooks/verify_gpu.yml names it. Otherwise lower vllm_gpu_memory_utilization.",
    ),
    Cause(
        "kv_cache_memory",
        r"No available memory for the cache blocks",
        "The weights leave no memory for the KV cache.",
        "Raise vllm_gpu_memory_utilization, lower vllm_max_model_len, or use a smaller or quantised model.",
    ),
)

_PHASES = (
    Phase(IMPORTING, r"Initializing a V1 LLM engine \(v", "starting the engine's core"),
    Phase(IMPORTING, r"█ +version (?P<version>[\w.+]+)", "starting vLLM {version}"),
    Phase(IMPORTING, r"Resolved architecture: \w+|Using max model len \d", "reading the model's configuration"),
    Phase(IMPORTING, r"world_size=\d+ rank=\d+ local_rank=\d+ ", "starting the workers"),
    Phase(LOADING, r"Starting to load model ", "building the model"),
    Phase(
        LOADING,
        r"Filesystem type for checkpoints: .*Checkpoint size: (?P<size>[\d.]+) GiB",
        "loading the weights, {size} GiB",
        0,
    ),
    Phase(
        LOADING,
        r"Prefetching checkpoint files: (?P<percent>\d+)% \((?P<n>\d+)/(?P<total>\d+)\)",
        "reading the weights ahead, {n} of {total} files",
    ),
    Phase(LOADING, r"Loading weights took (?P<took>[\d.]+) seconds", "weights loaded in {took} s", 100),
    Phase(
        LOADING,
        r"Model loading took (?P<size>[\d.]+) GiB(?: memory)? and (?P<took>[\d.]+) seconds",
        "model loaded in {took} s, {size} GiB",
        100,
    ),
    Phase(COMPILING, r"Starting torch\.compile", "compiling with torch.compile"),
    Phase(COMPILING, r"Using cache directory: .* for vLLM's torch\.compile", "compiling with torch.compile"),
    Phase(COMPILING, r"Dynamo bytecode transform time: (?P<took>[\d.]+) s", "torch.compile: traced in {took} s"),
    Phase(
        COMPILING,
        r"Directly load (?:the compiled graph\(s\)|AOT compilation)",
        "torch.compile: loading from the cache",
    ),
    Phase(
        COMPILING,
        r"Cache the graph of compile range|Compiling a graph for compile range \((?P<range>[\d, ]+)\) takes ",
        "torch.compile: compiling for each size",
    ),
    Phase(COMPILING, r"torch\.compile took (?P<took>[\d.]+) s in total", "torch.compile took {took} s", 100),
    Phase(COMPILING, r"Compile and warming up model for size (?P<n>\d+)", "compiling for {n} tokens"),
    Phase(COMPILING, r"Warming up model for the compilation", "compiling"),
    Phase(COMPILING, r"Warming up done\.", "compiled", 100),
    Phase(PROFILING, r"Encoder cache will be initialized with", "measuring the memory that requests need"),
    Phase(
        PROFILING,
        r"torch\.compile and initial profiling/warmup|Initial profiling/warmup run took",
        "measured the memory that requests need",
    ),
    Phase(PROFILING, r"Profiling CUDA graph memory: ", "measuring the memory that CUDA graphs need"),
    Phase(PROFILING, r"Estimated CUDA graph memory: ", "measured the memory that CUDA graphs need"),
    Phase(PROFILING, r"Available KV cache memory: (?P<size>[\d.]+) GiB", "{size} GiB left for the KV cache"),
    Phase(PROFILING, r"\S+ KV cache size: (?P<n>[\d,]+) tokens", "KV cache of {n} tokens", 100),
    Phase(WARMING_UP, r"JIT kernel warmup starting\.", "warming up kernels"),
    Phase(WARMING_UP, r"JIT kernel warmup finished in (?P<took>[\d.]+)s\.", "kernels warmed up in {took} s"),
    Phase(WARMING_UP, r"Warming up (?!model for|done)", "warming up kernels"),
    Phase(
        CAPTURING,
        r"Graph capturing finished in (?P<took>\d+) secs, took (?P<size>-?[\d.]+) GiB",
        "CUDA graphs captured in {took} s, {size} GiB",
        100,
    ),
    Phase(CAPTURING, r"Encoder CUDA graph capture complete\.", "CUDA graphs of the encoder captured"),
    Phase(WARMING_UP, r"init engine \(profile, create kv cache, warmup model\) took", "the engine's core is up"),
    Phase(WARMING_UP, r"Starting vLLM server on ", "starting to listen"),
    # It opens its port last.
    Phase(SERVING, r"Application startup complete\.", "serves", 100),
)

_FIGURES = (
    Figure(("model_gib",), rf"Model loading took {SIZE}", largest),
    Figure(("kv_cache_gib",), rf"Available KV cache memory: {SIZE}", smallest),
    Figure(("kv_cache_gib",), rf"KV cache memory reduced to {SIZE}", smallest),
    Figure(("kv_cache_tokens",), rf"\w+ KV cache size: {COUNT} tokens", smallest),
    Figure(("max_length",), rf"Maximum concurrency for {COUNT} tokens per request", smallest),
    Figure(("max_length",), rf"Auto-fit max_model_len: reduced from \d+ to {COUNT}", smallest),
    Figure(
        ("gpu_gib", "requested_gib", "consumed_gib", "activation_gib"),
        r"Free memory on device \([\d.]+/([\d.]+) GiB\) on startup\. Desired GPU memory utilization is "
        rf"\([\d.]+, ([\d.]+) GiB\)\. Actual usage is {SIZE} for consumed memory \(weights \+ non-torch\), "
        rf"{SIZE} for peak activation",
        last,
    ),
    # The first is one of those from which it estimates, and then discards.
    Figure(("graphs_gib",), rf"Graph capturing finished in \d+ secs, took {SIZE}", last),
    Figure(
        ("kv_cache_gib", "fitting_length"),
        r"larger than the available KV cache memory \(([\d.]+) GiB\).*?estimated maximum model length is (\d+)",
        smallest,
    ),
)


class _VllmMemory(MemoryModel):
    """KV cache = visible memory x gpu_memory_utilization - weights - overhead."""

    variables = {  # noqa: RUF012
        "length": "vllm_max_model_len",
        "fraction": "vllm_gpu_memory_utilization",
        "kv_dtype": "vllm_kv_cache_dtype",
        "quantization": "vllm_quantization",
        "tensor_parallel": "vllm_tensor_parallel_size",
    }
    splits = ("pipeline-parallel-size", "decode-context-parallel-size")
    uncounted = ("speculative-config", "enable-lora", "kv-transfer-config", "cpu-offload-gb", "enable-dbo")
    fp8_kv_from = ("algorithm", "scheme")
    spare_blocks = 1
    encoder_is_optional = True
    encoder_is_quantised = True
    # The CUDA context is not in it.
    highest_fraction = 0.96

    def read(self, options: t.Mapping[str, t.Any]) -> MemoryOptions:
        limits = parse_mapping(options.get("limit-mm-per-prompt"))
        pixels = parse_mapping(options.get("mm-processor-kwargs"))
        size = parse_mapping(pixels.get("size"))
        compilation = parse_mapping(options.get("compilation-config"))
        graphs = not options.get("enforce-eager") and str(compilation.get("cudagraph_mode", "")).upper() != "NONE"
        text_only = bool(options.get("language-model-only"))
        kv_bytes = options.get("kv-cache-memory-bytes") or options.get("kv-cache-memory")
        fraction = float(options.get("gpu-memory-utilization", 0.92))
        if not 0 < fraction <= 1:
            raise FleetError(f"{self.variables['fraction']} is {fraction}; it must be above 0 and at most 1.")
        return MemoryOptions(
            engine=self,
            length=parse_length(options.get("max-model-len"), self.variables["length"]),
            fraction=fraction,
            kv_dtype=str(options.get("kv-cache-dtype", "auto")),
            kv_bytes=parse_length(kv_bytes, "vllm_kv_cache_memory_bytes"),
            dtype=str(options.get("dtype", "auto")),
            quantization=str(options.get("quantization", "")),
            block=int(options.get("block-size", 16)),
            batched_tokens=parse_whole(options.get("max-num-batched-tokens")),
            requests=parse_whole(options.get("max-num-seqs")),
            graphs=graphs,
            images=0 if text_only else _count(limits.get("image", 999)),
            videos=0 if text_only else _count(limits.get("video", 999)),
            image_pixels=parse_whole(pixels.get("max_pixels") or size.get("longest_edge")),
            split_encoder=options.get("mm-encoder-tp-mode", "weights") == "weights",
            split_experts=not options.get("enable-expert-parallel"),
            measures_encoder=not options.get("skip-mm-profiling"),
            reserved_bytes=int(float(options.get("mm-ipc-gpu-memory-gb", 0)) * GIB),
        )

    def step(self, options: MemoryOptions, gpu: Gpu) -> EngineStep:
        """Its server's defaults for the GPU (``engine/arg_utils.py``)."""
        tokens, requests = 2048, 256
        if gpu.visible >= 160 * GIB:
            tokens, requests = 16384, 1024
        elif gpu.visible >= 70 * GIB and "a100" not in gpu.name.lower():
            tokens, requests = 8192, 1024
        tokens = options.batched_tokens or tokens
        return EngineStep(tokens, min(options.requests or requests, tokens))

    def fraction(self, model: ModelConfig, options: MemoryOptions, gpu: Gpu) -> float:
        return options.fraction or 0.92

    def overhead(self, model: ModelConfig, processor: Processor, options: MemoryOptions, gpu: Gpu) -> Overhead:
        """Libraries took 0.34 GiB on an H200; a request has its graphs, its sampler's state, or that alone."""
        step = self.step(options, gpu)
        each = 2 * MIB if options.graphs else MIB // 2
        return Overhead(
            activations=peak_bytes(model, processor, options, step),
            fixed=348 * MIB + step.requests * each,
            media=options.reserved_bytes,
        )


def _count(value: t.Any) -> int:
    return int(value.get("count", 999)) if isinstance(value, dict) else int(value)


_SOURCE = "vLLM 0.32, config/"
_ARGUMENTS = "vLLM 0.32, engine/arg_utils.py"
_PROFILES = {
    "balanced": (
        Setting(
            "max_model_len",
            32768,
            "The model's own 262144 takes 36 GiB of KV cache, and an L40S has 20 left. This leaves room for "
            "four requests of full length at once.",
            FIT,
        ),
        Setting(
            "gpu_memory_utilization",
            0.92,
            "vLLM's own. The CUDA context is not in it, so it can go to 0.96, and no further.",
            _SOURCE + "cache.py",
        ),
        Setting("kv_cache_dtype", "auto", "The model's type: nothing is lost. fp8 halves it.", _SOURCE + "cache.py"),
        Setting("quantization", None, "As the checkpoint is.", _SOURCE + "model.py"),
        Setting("max_num_seqs", None, "vLLM's own: 256 below 70 GiB.", _ARGUMENTS),
        Setting(
            "max_num_batched_tokens",
            None,
            "vLLM's own, by GPU: 2048 on an L40S.",
            _ARGUMENTS,
        ),
        Setting(
            "max_num_queued_reqs",
            None,
            "The edge holds back what is more than edge_instance_max_requests, and refuses what is more than "
            "edge_queue_limit.",
            "roles/edge",
        ),
        Setting(
            "limit_mm_per_prompt",
            {"image": 16, "video": 1},
            "A conversation sends its pictures again with each turn. "
            "Without a limit one request may have 999 of each, up to 16384 tokens a picture.",
            _SOURCE + "multimodal.py",
        ),
        Setting(
            "mm_processor_kwargs",
            None,
            "Pictures as they come. {max_pixels: 1003520} holds one to 980 tokens.",
            "Qwen3-VL's preprocessor: one token for 32 x 32 pixels",
        ),
        Setting(
            "mm_processor_cache_gb",
            4,
            "vLLM's own, and it holds two of them; a g6e.xlarge has 32 GiB in all.",
            _SOURCE + "multimodal.py",
        ),
        Setting("enforce_eager", False, "CUDA graphs answer faster; they take 0.3 to 0.9 GiB.", FIT),
        Setting("enable_prefix_caching", True, "vLLM's own.", _SOURCE + "cache.py"),
        Setting(
            "speculative_config",
            None,
            "Off: drafts for this model were reported to be taken hardly ever, and to end the engine above 64 "
            "requests. Profile speculative switches it on, behind a gate.",
            "https://github.com/vllm-project/vllm/pull/29594, https://github.com/sgl-project/SpecForge/issues/310",
        ),
        Setting(
            "sse_keep_alive_interval",
            15,
            "An ALB closes a connection that is silent for 60 s, and a stream is silent while it waits.",
            ALB,
        ),
        Setting(
            "http_keep_alive",
            75,
            "Longer than an ALB's 60 s: else it answers 502 now and then. vLLM's own is 5 s.",
            ALB,
        ),
    ),
    "interactive": (
        Setting(
            "max_num_seqs",
            64,
            "Each token of a step is shared by fewer, so that each stream is faster.",
            TUNING,
        ),
        Setting(
            "max_num_batched_tokens",
            2048,
            "A long prompt is taken in small pieces, between which the running streams go on: half of them have their "
            "first token after 103 ms instead of 313 with 8192, at 32 at once.",
            MEASURED,
        ),
        Setting(
            "quantization",
            "fp8",
            "First token at 32 at once: 399 ms instead of 654 at p95, 103 instead of 191 at the median; each token "
            "takes 3.8 ms instead of 5.4. Look at your answers: the gate's golden ones do not show small losses.",
            MEASURED,
        ),
        Setting(
            "max_num_queued_reqs",
            96,
            "64 that run and 32 that wait; more get a 503 at once, and the balancer tries another host.",
            _SOURCE + "scheduler.py",
        ),
    ),
    "throughput": (
        Setting("max_num_seqs", 512, "The more share a step, the less each costs.", TUNING),
        Setting(
            "max_num_batched_tokens",
            4096,
            "As many tokens a second as with 16384, or 2 % more, and at 64 requests half of them have their first "
            "token after 245 ms instead of 572.",
            MEASURED,
        ),
        Setting(
            "quantization",
            "fp8",
            "1.43 times the tokens of the seed's settings at 64 requests, and 7 GiB more for the cache. Look at your "
            "answers: the gate's golden ones do not show small losses.",
            MEASURED,
        ),
    ),
    "long_context": (
        Setting(
            "max_model_len",
            262144,
            "What the model was made for. It takes 36 GiB of KV cache in bfloat16, more than an L40S has; in "
            "fp8 18. In bfloat16 it needs two GPUs: vllm_tensor_parallel_size: 2.",
            FIT,
        ),
        Setting("kv_cache_dtype", "fp8", "Halves the cache, which is what lets it fit one L40S.", FIT),
        Setting("gpu_memory_utilization", 0.95, "1.3 GiB more for the cache.", FIT),
        Setting("max_num_seqs", 16, "The cache holds one of full length, and a few shorter ones.", FIT),
        Setting("limit_mm_per_prompt", {"image": 64, "video": 2}, "There is room for many.", FIT),
    ),
    "low_memory": (
        Setting("max_model_len", 16384, "Enough for a conversation with pictures.", FIT),
        Setting("quantization", "fp8", "9.3 GiB of weights instead of 16.3.", FIT),
        Setting("kv_cache_dtype", "fp8", "Halves the cache.", FIT),
        Setting("gpu_memory_utilization", 0.9, "2 GiB of 22 stay free for what is not counted.", FIT),
        Setting("max_num_seqs", 32, "Fewer graphs and a smaller sampler.", FIT),
        Setting("max_num_batched_tokens", 2048, "Smaller activations.", FIT),
        Setting("limit_mm_per_prompt", {"image": 2, "video": 0}, "No room is kept for video.", FIT),
        Setting(
            "mm_processor_kwargs",
            {"max_pixels": 1003520},
            "A picture takes 980 tokens at most instead of 16384, and the encoder less memory.",
            FIT,
        ),
        Setting("mm_processor_cache_gb", 1, "A g6.xlarge has 16 GiB of memory.", _SOURCE + "multimodal.py"),
    ),
    "speculative": (
        Setting(
            "speculative_config",
            {"method": "eagle3", "num_speculative_tokens": 3},
            "Three proposals a step; each further one is taken less often.",
            "https://docs.vllm.ai/en/stable/features/spec_decode/",
        ),
        Setting(
            "max_num_seqs",
            32,
            "With many requests a step is full without proposals; above 64 engines were reported to end.",
            "https://github.com/vllm-project/vllm/pull/29594",
        ),
    ),
}

_TUNABLES = (
    Tunable(
        "max_num_batched_tokens",
        (1024, 2048, 4096, 8192, 16384),
        "Larger steps take prompts in fewer pieces, and make running streams wait longer for their next token.",
        own=2048,
    ),
    Tunable(
        "max_num_seqs",
        (32, 64, 128, 256, 512),
        "More share a step, which makes a token cheaper and each stream slower.",
        own=256,
    ),
    Tunable(
        "gpu_memory_utilization",
        (0.9, 0.92, 0.95),
        "More room for the cache lets more requests run at once, and leaves less for what is not counted.",
    ),
    Tunable("quantization", (None, "fp8"), "Half the weights to read for each token; answers change.", lossy=True),
    Tunable("kv_cache_dtype", ("auto", "fp8"), "Twice the requests in the cache; answers change.", lossy=True),
)

ENGINE = Engine(
    name="vllm",
    title="vLLM",
    documentation="https://docs.vllm.ai",
    launch=Launch(
        command=("bin/vllm", "serve", "--config"),
        check_program=_CHECK,
        key_options={"api-key": ALL_KEYS},
        several_gpus_by="uuid",
    ),
    options=OptionTable(
        means={
            "adapters": "lora-modules",
            "context_length": "max-model-len",
            "expert_parallel": "enable-expert-parallel",
            "frontend_processes": "api-server-count",
            "graphs": "enforce-eager",
            "image_processor_options": "mm-processor-kwargs",
            "kv_block_size": "block-size",
            "kv_cache_limit": "kv-cache-memory-bytes",
            "kv_offload_size": "kv-offloading-size",
            "max_adapters": "max-loras",
            "max_queued_requests": "max-num-queued-reqs",
            "max_requests": "max-num-seqs",
            "media_limit": "limit-mm-per-prompt",
            "memory_fraction": "gpu-memory-utilization",
            "model_config_overrides": "hf-overrides",
            "prefix_cache": "enable-prefix-caching",
            "root_path": "root-path",
            "sampling_defaults": "override-generation-config",
            "scheduling_policy": "scheduling-policy",
            "seed": "seed",
            "speculation": "speculative-config",
            "step_tokens": "max-num-batched-tokens",
            "tokenizer": "tokenizer",
            "vision_attention": "mm-encoder-attn-backend",
        },
        reserved={
            **RESERVED,
            "tp": RESERVED["tensor-parallel-size"],
            **dict.fromkeys(("nnodes", "node-rank", "master-addr", "master-port", "headless"), NODES),
            "allowed-local-media-path": "a client could make the engine open files of the host",
            "middleware": "the request guard stands there, which refuses what would make the engine open files",
            "disable-log-stats": "a drain waits for the engine's own counters, which are gone with it",
            "uds": "the edge reaches an instance over its loopback port",
        },
        # Its own below 70 GiB of GPU memory.
        default_limit=256,
        parallel="tensor-parallel-size",
        stages="pipeline-parallel-size",
        span={"nnodes": "{count}", "node-rank": "{rank}", "master-addr": "{first}", "master-port": "{meeting_port}"},
        node={"headless": "true"},
        span_environment={"VLLM_HOST_IP": "{own}"},
        tool_parser="tool-call-parser",
        tool_switch="enable-auto-tool-choice",
        tool_parsers={
            "qwen3-coder": "qwen3_coder",
            "qwen": "hermes",
            "hermes": "hermes",
            "llama-3": "llama3_json",
            "mistral": "mistral",
            "gpt-oss": "openai",
            "glm-4": "glm45",
            "kimi-k2": "kimi_k2",
        },
        # It silently drops ``<option>: false`` of a config file.
        negatable=True,
        problems=_problems,
    ),
    journal=Journal(
        causes=_CAUSES,
        gpu_advice="Lower vllm_gpu_memory_utilization, vllm_max_model_len or vllm_max_num_seqs",
        host_advice="Use an instance type with more memory, or lower vllm_mm_processor_cache_gb.",
        programs=r"vllm|api_server\.py",
        options=r"non-default args: \{",
        phases=_PHASES,
        figures=_FIGURES,
    ),
    counters=Counters(
        running="vllm:num_requests_running",
        waiting="vllm:num_requests_waiting",
        kv_usage="vllm:kv_cache_usage_perc",
        proposed="vllm:spec_decode_num_draft_tokens_total",
        taken="vllm:spec_decode_num_accepted_tokens_total",
    ),
    # Of a prompt that is computed in pieces, the counters of tokens move with the last piece only.
    vitals=Vitals(
        progress=(
            ("rate", "vllm:generation_tokens_total"),
            ("rate", "vllm:prompt_tokens_total"),
            ("rate", "vllm:prefix_cache_queries_total"),
            ("changes", "vllm:kv_cache_usage_perc"),
        ),
        finished="vllm:request_success_total",
        core=r"^VLLM::EngineCore",
    ),
    exposition=Exposition(
        first_token=Histogram("vllm:time_to_first_token_seconds"),
        token_gap=Histogram("vllm:inter_token_latency_seconds"),
        whole_answer=Histogram("vllm:e2e_request_latency_seconds"),
        generated="vllm:generation_tokens_total",
        generated_now="vllm:generation_tokens_total",
        prompted="vllm:prompt_tokens_total",
        cached="vllm:prompt_tokens_cached_total",
        preempted="vllm:num_preemptions_total",
        refused="vllm:admission_rejections_total",
    ),
    variables=RoleVariables(
        times=("http_keep_alive", "shutdown_timeout", "sse_keep_alive_interval"),
        sizes={"kv_cache_memory_bytes": "B", "mm_processor_cache_gb": "GiB"},
        fractions=("mm_processor_cache_gb",),
    ),
    memory=_VllmMemory(),
    profiles=_PROFILES,
    tunables=_TUNABLES,
    # It works without nvcc: FlashInfer is off where there is none, and others take its place. ninja is in the locks.
)
