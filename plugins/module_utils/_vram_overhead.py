# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The memory of a GPU that an engine takes besides weights and KV cache: activations, buffers, CUDA graphs, libraries.

Pure. Where the figures come from:

- What is allocated when: the engines' source, vLLM 0.32 (``v1/worker/gpu_worker.py``, ``v1/worker/gpu/``,
  ``model_executor/models/qwen3_vl.py``) and SGLang 0.5.23 (``arg_groups/memory_hook.py``,
  ``mem_cache/kv_cache_configurator.py``). Sizes of tensors follow from the model's.
- Measured on one H200 with Qwen3-VL-8B's architecture: vLLM 0.26.0, 1.46 GiB besides weights and KV cache at 8192
  tokens and 1024 requests in a step; SGLang 0.5.17, 2.1 GiB besides both and what ``mem_fraction_static`` leaves.
- From a user's log (LMCache, "CPU offloading quickstart claims 24GB GPU is sufficient"): vLLM 0.21, RTX A5000,
  Qwen3-8B: 0.52 GiB for 86 CUDA graphs.

Nothing here was measured on an L40S.
"""

from __future__ import annotations

import dataclasses

from ansible_collections.inference.fleet.plugins.module_utils._model_config import (
    DEFAULT_IMAGE_TOKENS,
    DEFAULT_VIDEO_TOKENS,
    ModelConfig,
    Processor,
    Vision,
)
from ansible_collections.inference.fleet.plugins.module_utils._vram_options import Options

MIB = 1024**2
GIB = 1024**3

#: What CUDA's libraries, kernels and small buffers take in a vLLM process beside the tensors that are counted. An
#: estimate, on the safe side: the H200's 1.46 GiB leave 0.03 to 0.2 GiB for them. FlashInfer's workspace, which an fp8
#: KV cache needs on an L40S, was not measured.
VLLM_LIBRARIES = int(0.3 * GIB)

#: CUDA contexts and what else SGLang 0.5.17 took on the H200: 139.80 GiB x 0.85 - 16.33 GiB of weights - 100.40 GiB
#: of KV cache - 1 GiB of the media pool. The process that reads the images has a context of its own with that pool
#: only, so this is an upper bound without it.
SGLANG_LIBRARIES = int(1.1 * GIB)

#: SGLang's cache of encoded images, and its pool for media on the GPU (``SGLANG_VLM_CACHE_SIZE_MB``,
#: ``SGLANG_MM_FEATURE_CACHE_MB``).
SGLANG_IMAGE_CACHE = 100 * MIB
SGLANG_MEDIA_POOL = 1024 * MIB

#: A CUDA graph of one layer: the user's 0.52 GiB, less the base, over 86 graphs of 36 layers; and the base, which five
#: graphs still took in users' logs of vLLM 0.20 and 0.22 (0.09 and 0.13 GiB).
GRAPHS_BASE = int(0.1 * GIB)
GRAPH_OF_A_LAYER = int(0.42 * GIB / (86 * 36))

#: vLLM's V2 model runner, which dense models have had since 0.26, measures the vision encoder from 0.27.1 on and sets
#: memory for CUDA graphs aside from 0.29 on. What it does not count comes on top of ``gpu_memory_utilization``.
_ENCODER_SINCE = (0, 27)
_GRAPHS_SINCE = (0, 29)

_ACTIVATION_BYTES = 2


@dataclasses.dataclass(frozen=True)
class Overhead:
    """Bytes on each GPU besides weights and KV cache.

    Attributes:
        activations: the peak of a step, of the vision encoder or of the text model with its sampler.
        graphs: CUDA graphs.
        buffers: tensors that stay, the rotary embedding's table and inputs' among them.
        libraries: CUDA's, and what else is not PyTorch's.
        media: set aside for images and videos.
    """

    activations: int = 0
    graphs: int = 0
    buffers: int = 0
    libraries: int = 0
    media: int = 0

    @property
    def total(self) -> int:
        return self.activations + self.graphs + self.buffers + self.libraries + self.media


@dataclasses.dataclass(frozen=True)
class Step:
    """The largest step.

    Attributes:
        tokens: of all requests together.
        requests: in it.
    """

    tokens: int
    requests: int


def vllm_step(options: Options, gpu_bytes: int, gpu_name: str) -> Step:
    """vLLM's largest step: what it was told, else its server's default for the GPU.

    2048 tokens and 256 requests below 70 GiB and on an A100, 8192 and 1024 from there, 16384 and 1024 from 160 GiB
    (``engine/arg_utils.py``).
    """
    tokens, requests = 2048, 256
    if gpu_bytes >= 160 * GIB:
        tokens, requests = 16384, 1024
    elif gpu_bytes >= 70 * GIB and "a100" not in gpu_name.lower():
        tokens, requests = 8192, 1024
    factor = 2 if options.throughput else 1
    tokens = options.batched_tokens or tokens * factor
    return Step(tokens, min(options.requests or requests * factor, tokens))


def vllm_overhead(model: ModelConfig, processor: Processor, options: Options, step: Step) -> Overhead:
    """What vLLM counts against ``gpu_memory_utilization`` besides weights and KV cache."""
    encoder, kept = 0, 0
    if model.vision and options.media and options.profile_encoder and options.version >= _ENCODER_SINCE:
        tokens = media_tokens(model.vision, processor, options)
        # As many of the largest as fit in a step, at least one.
        items = max(1, step.tokens // tokens)
        encoder = items * encoder_bytes(model.vision, tokens, options)
        kept = items * encoded_bytes(model.vision, tokens)
    graphs = options.graphs and options.version >= _GRAPHS_SINCE
    return Overhead(
        activations=max(encoder, kept + text_bytes(model, options, step), kept + sampler_bytes(model, step)),
        graphs=graph_bytes(model, graph_count(step.requests)) if graphs else 0,
        buffers=buffer_bytes(model, step),
        libraries=VLLM_LIBRARIES,
        media=options.reserved_bytes,
    )


def media_tokens(vision: Vision, processor: Processor, options: Options) -> int:
    """Tokens of the largest image or video that a request may have, whichever is more."""
    if vision.image_size:
        return (vision.image_size // vision.patch_size // vision.merge_size) ** 2
    area = (vision.patch_size * vision.merge_size) ** 2
    pixels = options.image_pixels or processor.image_pixels
    image = pixels // area if pixels else DEFAULT_IMAGE_TOKENS
    video = processor.video_pixels // area // vision.frames if processor.video_pixels else DEFAULT_VIDEO_TOKENS
    return max(1, image if options.images else 0, video if options.videos else 0)


def encoder_bytes(vision: Vision, tokens: int, options: Options) -> int:
    """The vision encoder's peak for one image of so many tokens, by its tensors that live at the same time.

    For each patch: its pixels, its position, the layer's input and its norm; and either queries, keys and values (3),
    their copy for the rotation (2), the rotated ones (2) and the attention's result (1), with its projection, or the
    two wide tensors of the MLP. DeepStack's outputs are kept meanwhile. The parts are those of Qwen3-VL in vLLM 0.32;
    the sum was not measured.
    """
    parts = options.tensor_parallel if options.split_encoder else 1
    h = vision.hidden_size
    attention = 8 * h // parts + h
    wide = 2 * vision.intermediate_size // parts
    each = vision.patch_values + 3 * h + max(attention, wide)
    patches = tokens * vision.merge_size**2
    kept = vision.extra_outputs * tokens * vision.out_size
    return (patches * each + kept) * _ACTIVATION_BYTES


def encoded_bytes(vision: Vision, tokens: int) -> int:
    """What the encoder leaves of an image, which is kept while the text model runs."""
    return tokens * vision.out_size * (1 + vision.extra_outputs) * _ACTIVATION_BYTES


def text_bytes(model: ModelConfig, options: Options, step: Step) -> int:
    """The text model's peak: residual and input, and the MLP's two tensors (three widths) or those of the experts."""
    parts = options.tensor_parallel
    if model.experts:
        # The kernel's two workspaces: gate and up, or the results, whichever is larger; and what goes down.
        wide = model.experts_per_token * (
            max(2 * model.expert_size // parts, model.hidden_size) + model.expert_size // parts
        )
    else:
        wide = 3 * model.intermediate_size // parts
    return step.tokens * (2 * model.hidden_size + wide) * _ACTIVATION_BYTES


def sampler_bytes(model: ModelConfig, step: Step) -> int:
    """The sampler's peak: logits as the model gives them and as 32 bit numbers, beside the hidden states."""
    return step.requests * model.vocab_size * (_ACTIVATION_BYTES + 4) + step.tokens * model.hidden_size * 2


def buffer_bytes(model: ModelConfig, step: Step) -> int:
    """Tensors that vLLM keeps: the rotary table of all positions; for images the inputs of a step, and DeepStack's."""
    rotary = 0 if model.latent_size else model.max_length * model.head_dim
    inputs = (1 + model.vision.extra_outputs) * step.tokens * model.hidden_size if model.vision else 0
    return (rotary + inputs) * _ACTIVATION_BYTES


def graph_count(requests: int) -> int:
    """How many CUDA graphs vLLM captures: 51 for pieces up to 512 tokens, 35 for whole steps up to 256 requests."""
    largest = min(2 * requests, 512)
    sizes = [*(size for size in (1, 2, 4) if size <= largest), *range(8, min(largest + 1, 256), 8)]
    sizes += range(256, largest + 1, 16)
    return len(sizes) + sum(size <= requests for size in sizes)


def graph_bytes(model: ModelConfig, count: int) -> int:
    """CUDA graphs, in proportion to their number and the model's layers."""
    return GRAPHS_BASE + count * model.layers.total * GRAPH_OF_A_LAYER


def sglang_step(options: Options, total_mib: float) -> Step:
    """SGLang's largest step, by the memory that nvidia-smi shows, and the largest one that is captured as a graph."""
    many = options.tensor_parallel >= 4
    if total_mib < 20 * 1024:
        tokens, requests = 2048, 8
    elif total_mib < 35 * 1024:
        tokens, requests = 4096, 160 if many else 48
    elif total_mib < 60 * 1024:
        tokens, requests = 4096, 160 if many else 32
    elif total_mib < 160 * 1024:
        tokens, requests = 8192, 512 if many else 256
    else:
        tokens, requests = 16384, 512
    return Step(options.batched_tokens or tokens, min(options.requests or requests, requests))


def sglang_fraction(model: ModelConfig, options: Options, step: Step, total_mib: float) -> float:
    """``mem_fraction_static`` as SGLang sets it where nobody does (``arg_groups/memory_hook.py``).

    The rest is for activations and CUDA graphs: 512 MiB, 1.5 MiB a token of a step, 128 MiB a GPU, 2 MiB a request and
    8 MiB a size of prefill graphs, at least 10 GiB above 60 GiB; and less again for a vision encoder.
    """
    reserved = 512 + 1.5 * max(step.tokens, 2048) + 128 * options.tensor_parallel
    reserved += _sglang_graphs_mib(model, options, step)
    if total_mib > 60 * 1024:
        reserved = max(reserved, 10 * 1024)
    fraction = round((total_mib - reserved) / total_mib, 3)
    if model.vision:
        # SGLang looks for num_hidden_layers, which Qwen's encoders call depth, and then takes 24.
        layers = model.vision.depth if model.vision.image_size else 24
        size = layers * model.vision.hidden_size**2 / (24 * 1024**2)
        fraction *= 0.95 * max(0.8, min(1.05, 1 - 0.1 * (size - 1)))
    return fraction


def _sglang_graphs_mib(model: ModelConfig, options: Options, step: Step) -> float:
    if not options.graphs:
        return 0
    small = (*range(4, 33, 4), *range(48, 257, 16), *range(288, 513, 32), *range(576, 1025, 64))
    sizes = (*small, *range(1280, 4097, 256), *range(4608, step.tokens + 1, 512))
    prefill = sum(size <= step.tokens for size in sizes)
    return 2 * step.requests + (1.5 * 1024 if model.latent_size else 8 * prefill)


def sglang_overhead(model: ModelConfig, options: Options, gpu_name: str, total_mib: float) -> Overhead:
    """What SGLang takes out of ``mem_fraction_static`` besides weights and KV cache.

    Activations and graphs are not in it: they have to do with what the fraction leaves.
    """
    large_hopper = total_mib >= 60 * 1024 and any(name in gpu_name.upper() for name in ("H100", "H200", "H20", "GH200"))
    profiled = large_hopper and model.kind in ("qwen3_vl", "qwen3_vl_moe")
    media = 0
    if model.vision:
        pool = options.media_on_gpu
        if pool is None:
            # 0.5.17 has the pool by default, 0.5.23 on large Hopper GPUs only; those between were not looked at.
            pool = options.version < (0, 5, 23) or profiled
        cache = 0 if profiled or options.version < (0, 5, 23) else SGLANG_IMAGE_CACHE
        media = cache + (SGLANG_MEDIA_POOL if pool else 0)
    return Overhead(libraries=SGLANG_LIBRARIES, media=media)


def sglang_activations(model: ModelConfig, processor: Processor, options: Options, step: Step) -> int:
    """What must fit in what ``mem_fraction_static`` leaves: a step's peak, taken to be vLLM's, and CUDA graphs."""
    vision = model.vision
    encoder, kept = 0, 0
    if vision and options.media:
        tokens = media_tokens(vision, processor, options)
        encoder, kept = encoder_bytes(vision, tokens, options), encoded_bytes(vision, tokens)
    peak = max(encoder, kept + text_bytes(model, options, step), kept + sampler_bytes(model, step))
    return peak + int(_sglang_graphs_mib(model, options, step) * MIB)
