# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Those of an engine's options that decide how it uses a GPU's memory, under one name for both engines.

Pure. Names and defaults are those of vLLM 0.32 and SGLang 0.5.23.
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.values import typed
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES

#: ``max_model_len: auto``: the longest that fits.
AUTO = -1

#: The versions whose source the figures follow; what is assumed where no version is given.
NEWEST = {"vllm": (0, 32, 0), "sglang": (0, 5, 23)}

#: The role variables that a message names, by what they set.
VARIABLES = {
    "vllm": {
        "length": "vllm_max_model_len",
        "fraction": "vllm_gpu_memory_utilization",
        "kv_dtype": "vllm_kv_cache_dtype",
        "quantization": "vllm_quantization",
        "tensor_parallel": "vllm_tensor_parallel_size",
    },
    "sglang": {
        "length": "sglang_context_length",
        "fraction": "sglang_mem_fraction_static",
        "kv_dtype": "sglang_kv_cache_dtype",
        "quantization": "sglang_quantization",
        "tensor_parallel": "sglang_tensor_parallel_size",
    },
}

#: What to write for a KV cache of one byte a number.
FP8_KV = {"vllm": "fp8", "sglang": "fp8_e4m3"}

_KV_BYTES = {
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "bf16": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
    "fp8_inc": 1,
}

# Options that take memory of a GPU which is not counted.
_UNCOUNTED = {
    "vllm": ("speculative-config", "enable-lora", "kv-transfer-config", "cpu-offload-gb", "enable-dbo"),
    "sglang": ("speculative-algorithm", "enable-lora", "lora-paths", "cpu-offload-gb", "enable-hierarchical-cache"),
}
_SPLITS = ("pipeline-parallel-size", "pp-size", "decode-context-parallel-size", "dcp-size")
_MULTIPLIERS = {suffix: 1000**power for power, suffix in enumerate("kmgt", 1)}
_MULTIPLIERS.update({suffix: 1024**power for power, suffix in enumerate("KMGT", 1)})


class NotModelled(Exception):
    """The memory that this takes is not known here, so that nothing can be said either way."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What an engine was told about memory. None is "not told": the engine's own choice.

    Attributes:
        engine: ``vllm`` or ``sglang``.
        version: the engine's.
        tensor_parallel: GPUs that share the model.
        length: the longest context in tokens; AUTO for the longest that fits, None for the model's own.
        fraction: ``gpu_memory_utilization`` or ``mem_fraction_static``.
        kv_dtype: of the KV cache.
        kv_bytes: bytes of KV cache instead of a fraction of the GPU (vLLM).
        kv_tokens: the most tokens of KV cache (SGLang).
        dtype: of weights and activations.
        quantization: while loading, empty for none.
        block: tokens that are allocated together.
        batched_tokens: the most tokens in one step: ``max_num_batched_tokens``, ``chunked_prefill_size``.
        requests: the most requests in one step.
        throughput: vLLM's performance mode that doubles the defaults of both.
        graphs: whether CUDA graphs are captured.
        compiled: whether vLLM compiles the model.
        images, videos: the most in one request.
        image_pixels: pixels of the largest image, where an option says so.
        split_encoder: whether the vision encoder is split over the GPUs rather than copied to each.
        split_experts: whether each expert is split over the GPUs rather than the experts divided among them.
        profile_encoder: whether vLLM measures the encoder at start.
        reserved_bytes: taken from the KV cache for media (vLLM's ``mm_ipc_gpu_memory_gb``).
        media_on_gpu: SGLang's pool for media on the GPU is asked for (``mm_feature_transport``).
        uncounted: options that take memory which is not counted.
    """

    engine: str
    version: tuple[int, ...]
    tensor_parallel: int = 1
    length: int | None = None
    fraction: float | None = None
    kv_dtype: str = "auto"
    kv_bytes: int | None = None
    kv_tokens: int | None = None
    dtype: str = "auto"
    quantization: str = ""
    block: int = 16
    batched_tokens: int | None = None
    requests: int | None = None
    throughput: bool = False
    graphs: bool = True
    compiled: bool = True
    images: int = 999
    videos: int = 999
    image_pixels: int | None = None
    split_encoder: bool = True
    split_experts: bool = True
    profile_encoder: bool = True
    reserved_bytes: int = 0
    media_on_gpu: bool | None = None
    uncounted: tuple[str, ...] = ()

    @property
    def variables(self) -> dict[str, str]:
        return VARIABLES[self.engine]

    @property
    def media(self) -> bool:
        """Whether a request may have images or videos."""
        return self.images > 0 or self.videos > 0


def read_options(engine: str, given: t.Mapping[str, t.Any], tensor_parallel: int, version: str = "") -> Options:
    """The options that matter, of those that an instance starts with.

    Args:
        engine: ``vllm`` or ``sglang``.
        given: its options, with dashes or underscores; values may be text, as those of ``-e`` are.
        tensor_parallel: GPUs that share the model.
        version: the engine's, empty for the one whose source this follows.

    Raises:
        FleetError: a value is none that the engine would take.
        NotModelled: the model is split in a way that is not known here.
    """
    if engine not in ENGINES:
        raise FleetError(f"engine is {engine!r}; valid are {', '.join(ENGINES)}.")
    options = {str(name).replace("_", "-").lstrip("-"): typed(value) for name, value in given.items()}
    options = {name: value for name, value in options.items() if value is not None}
    for name in _SPLITS:
        if int(options.get(name) or 1) != 1:
            raise NotModelled(f"{name} is {options[name]}, and only tensor parallelism is known here.")
    uncounted = tuple(name for name in _UNCOUNTED[engine] if options.get(name))
    try:
        read = (_vllm if engine == "vllm" else _sglang)(options)
    except (TypeError, ValueError) as error:
        raise FleetError(f"An option of {engine} that must be a number is none: {error}.") from error
    return dataclasses.replace(
        read,
        version=parse_version(version) or NEWEST[engine],
        tensor_parallel=tensor_parallel,
        uncounted=uncounted,
    )


def parse_version(version: str) -> tuple[int, ...]:
    """The numbers of a version: (0, 32, 0) of ``0.32.0+cpu``; empty where it has none."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", version)
    return tuple(int(number) for number in found[1].split(".")) if found else ()


def parse_length(value: t.Any, variable: str) -> int | None:
    """A length as the engines take it: 8192, ``8K`` (8192), ``8k`` (8000), ``auto`` and -1, None.

    Raises:
        FleetError: it is none.
    """
    if value is None or value == "":
        return None
    text = str(value).strip()
    if text.lower() in ("auto", "-1"):
        return AUTO
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT]?)", text)
    length = float(found[1]) * (_MULTIPLIERS[found[2]] if found[2] else 1) if found else 0
    if not found or length < 1 or ("." in found[1] and not found[2].islower()):
        raise FleetError(
            f"{variable} is {value!r}, which is no length: give a number of tokens, such as 32768, 32K or 32k."
        )
    return int(length)


def kv_number_bytes(options: Options, dtype: str, kv_fp8: bool) -> int:
    """Bytes of one number in the KV cache.

    Args:
        options: the engine's.
        dtype: the model's, which ``auto`` follows.
        kv_fp8: whether the checkpoint brings scales for an fp8 cache, which ``auto`` then means.

    Raises:
        NotModelled: a type with a size of its own, as those with scales among the numbers have.
    """
    if options.kv_dtype == "auto":
        return 1 if kv_fp8 else 4 if dtype in ("float32", "float") else 2
    if options.kv_dtype not in _KV_BYTES:
        raise NotModelled(
            f"{options.variables['kv_dtype']} is {options.kv_dtype}, and the size of a token is known here for "
            f"auto, {', '.join(_KV_BYTES)}."
        )
    return _KV_BYTES[options.kv_dtype]


def _vllm(options: dict[str, t.Any]) -> Options:
    limits = _mapping(options.get("limit-mm-per-prompt"))
    pixels = _mapping(options.get("mm-processor-kwargs"))
    size = _mapping(pixels.get("size"))
    compilation = _mapping(options.get("compilation-config"))
    graphs = not options.get("enforce-eager") and str(compilation.get("cudagraph_mode", "")).upper() != "NONE"
    text_only = bool(options.get("language-model-only"))
    memory = options.get("kv-cache-memory-bytes") or options.get("kv-cache-memory")
    fraction = float(options.get("gpu-memory-utilization", 0.92))
    if not 0 < fraction <= 1:
        raise FleetError(f"{VARIABLES['vllm']['fraction']} is {fraction}; it must be above 0 and at most 1.")
    return Options(
        engine="vllm",
        version=(),
        length=parse_length(options.get("max-model-len"), VARIABLES["vllm"]["length"]),
        fraction=fraction,
        kv_dtype=str(options.get("kv-cache-dtype", "auto")),
        kv_bytes=parse_length(memory, "vllm_kv_cache_memory_bytes"),
        dtype=str(options.get("dtype", "auto")),
        quantization=str(options.get("quantization", "")),
        block=int(options.get("block-size", 16)),
        batched_tokens=_whole(options.get("max-num-batched-tokens")),
        requests=_whole(options.get("max-num-seqs")),
        throughput=options.get("performance-mode") == "throughput",
        graphs=graphs,
        compiled=not options.get("enforce-eager"),
        images=0 if text_only else _count(limits.get("image", 999)),
        videos=0 if text_only else _count(limits.get("video", 999)),
        image_pixels=_whole(pixels.get("max_pixels") or size.get("longest_edge")),
        split_encoder=options.get("mm-encoder-tp-mode", "weights") == "weights",
        split_experts=not options.get("enable-expert-parallel"),
        profile_encoder=not options.get("skip-mm-profiling"),
        reserved_bytes=int(float(options.get("mm-ipc-gpu-memory-gb", 0)) * 1024**3),
    )


def _sglang(options: dict[str, t.Any]) -> Options:
    fraction = options.get("mem-fraction-static")
    if fraction is not None and not 0 < float(fraction) < 1:
        raise FleetError(f"{VARIABLES['sglang']['fraction']} is {fraction}; it must be above 0 and below 1.")
    transport = options.get("mm-feature-transport")
    chunk = _whole(options.get("chunked-prefill-size"))
    return Options(
        engine="sglang",
        version=(),
        length=parse_length(options.get("context-length"), VARIABLES["sglang"]["length"]),
        fraction=None if fraction is None else float(fraction),
        kv_dtype=str(options.get("kv-cache-dtype", "auto")),
        kv_tokens=_whole(options.get("max-total-tokens")),
        dtype=str(options.get("dtype", "auto")),
        quantization=str(options.get("quantization", "")),
        block=int(options.get("page-size", 1)),
        # -1 switches chunks off; a step then has at most max_prefill_tokens, 16384 where nobody sets it.
        batched_tokens=chunk if chunk is None or chunk > 0 else int(options.get("max-prefill-tokens", 16384)),
        requests=_whole(options.get("max-running-requests")),
        graphs=not options.get("disable-cuda-graph") and options.get("cuda-graph-backend-decode") != "disabled",
        split_experts=int(options.get("ep-size") or options.get("expert-parallel-size") or 1) == 1,
        media_on_gpu=None if transport is None else transport in ("cuda_ipc", "cuda_vmm"),
    )


def _mapping(value: t.Any) -> t.Mapping[str, t.Any]:
    if isinstance(value, str) and value.strip().startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}


def _whole(value: t.Any) -> int | None:
    return None if value is None or value == "" else int(value)


def _count(value: t.Any) -> int:
    return int(value.get("count", 999)) if isinstance(value, dict) else int(value)
