# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The memory of a GPU that an engine takes besides weights and KV cache: activations, buffers, CUDA graphs, libraries.

Pure. Where the figures come from:

- What is allocated when: the engines' source, vLLM 0.32 (``v1/worker/gpu_worker.py``, ``v1/worker/gpu/``,
  ``model_executor/models/qwen3_vl.py``) and SGLang 0.5.23 (``arg_groups/memory_hook.py``,
  ``mem_cache/kv_cache_configurator.py``). Sizes of tensors follow from the model's.
- Measured on one H200 with Qwen3-VL-8B's architecture and random weights: vLLM 0.26.0 and 0.32.0, SGLang 0.5.17 and
  0.5.23, all four beside PyTorch 2.11, 0.5.23 with the kernels of 0.5.17. The unit tests hold the figures.

Nothing here was measured on an L40S, whose attention kernels (FlashAttention 2) are others than a H200's.
"""

from __future__ import annotations

import dataclasses
import math

from ansible_collections.inference.fleet.plugins.module_utils.memory.options import Options
from ansible_collections.inference.fleet.plugins.module_utils.model.config import (
    DEFAULT_IMAGE_TOKENS,
    DEFAULT_VIDEO_TOKENS,
    ModelConfig,
    Processor,
    Vision,
)

MIB = 1024**2
GIB = 1024**3

#: What CUDA's libraries and kernels, buffers that are not counted below and what PyTorch's allocator cannot use take in
#: a vLLM process: 0.33 to 0.34 GiB on the H200, 0.36 with weights quantised to fp8, 0.30 without the vision encoder.
#: FlashInfer's workspace, which an fp8 KV cache needs on an L40S, was not measured.
VLLM_LIBRARIES = int(0.34 * GIB)

#: The same in the versions before _COUNTED_SINCE, which count twice what loading took of it.
VLLM_LIBRARIES_BEFORE = int(0.466 * GIB)

#: What a process of SGLang takes before it loads anything (0.5 to 0.6 GiB), and what the first kernels take later.
SGLANG_PROCESS = int(0.6 * GIB)
SGLANG_LIBRARIES = int(0.26 * GIB)

#: SGLang's cache of encoded images, and its pool for media on the GPU (``SGLANG_VLM_CACHE_SIZE_MB``,
#: ``SGLANG_MM_FEATURE_CACHE_MB``).
SGLANG_IMAGE_CACHE = 100 * MIB
SGLANG_MEDIA_POOL = 1024 * MIB

#: What vLLM sets aside for CUDA graphs: for each one of a layer so much, and more by the largest step that it captures
#: whole. It estimates from the largest two, about twice of what all take then (0.29 to 0.69 GiB), and not the same each
#: time: 0.63 and 0.77 GiB for 86 graphs, 0.94 to 1.15 GiB for 102.
GRAPHS_BASE = 24 * MIB
GRAPH_OF_A_LAYER = 7 * MIB // 36
GRAPH_OF_A_TOKEN = 227

#: vLLM's V2 model runner, which dense models have had since 0.26, measures the vision encoder from 0.27.1 on and sets
#: memory for CUDA graphs aside from 0.29 on. What it does not count comes on top of ``gpu_memory_utilization``; before
#: 0.27.1 that is also what it allocates between loading and measuring.
_ENCODER_SINCE = _COUNTED_SINCE = (0, 27)
_GRAPHS_SINCE = (0, 29)

#: SGLang sets memory for media aside when it sizes the KV cache; versions between 0.5.17 and this were not looked at.
_MEDIA_RESERVED_SINCE = (0, 5, 23)

_ACTIVATION_BYTES = 2


@dataclasses.dataclass(frozen=True)
class Overhead:
    """Bytes on each GPU besides weights and KV cache.

    Attributes:
        activations: the peak of a step, of the vision encoder or of the text model with its sampler.
        graphs: CUDA graphs.
        buffers: tensors that loading makes besides the weights.
        state: tensors made later that stay: inputs of a step, and what is kept of each request.
        libraries: CUDA's, and what else is not PyTorch's.
        media: set aside for images and videos.
    """

    activations: int = 0
    graphs: int = 0
    buffers: int = 0
    state: int = 0
    libraries: int = 0
    media: int = 0

    @property
    def total(self) -> int:
        return self.activations + self.graphs + self.buffers + self.state + self.libraries + self.media


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
        graphs=graph_bytes(model, step.requests) if graphs else 0,
        buffers=buffer_bytes(model, options, step),
        state=state_bytes(model, options, step) if options.version >= _COUNTED_SINCE else 0,
        libraries=VLLM_LIBRARIES if options.version >= _COUNTED_SINCE else VLLM_LIBRARIES_BEFORE,
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
    """The text model's peak: residual, input and output, and the MLP's tensors (three widths) or those of the experts.

    Exact for Qwen3-VL-8B: 96 KiB a token; and 168 KiB, the MLP's twice, at a first start of vLLM without media, which
    compiles and tunes while it measures (seen once). A later start finds that cached and may have the difference as
    KV cache.
    """
    parts = options.tensor_parallel
    if model.experts:
        # The kernel's two workspaces: gate and up, or the results, whichever is larger; and what goes down.
        wide = model.experts_per_token * (
            max(2 * model.expert_size // parts, model.hidden_size) + model.expert_size // parts
        )
    else:
        twice = options.engine == "vllm" and options.compiled and options.version >= _COUNTED_SINCE
        wide = 3 * model.intermediate_size // parts * (2 if twice else 1)
    return step.tokens * (3 * model.hidden_size + wide) * _ACTIVATION_BYTES


def sampler_bytes(model: ModelConfig, step: Step) -> int:
    """The sampler's peak: logits, beside the hidden states of the step and of those tokens."""
    rows = step.requests * (model.vocab_size + model.hidden_size)
    return (rows + step.tokens * model.hidden_size) * _ACTIVATION_BYTES


def buffer_bytes(model: ModelConfig, options: Options, step: Step) -> int:
    """Tensors that loading makes: the rotary table of all positions, and DeepStack's inputs of a step."""
    rotary = 0 if model.latent_size else model.max_length * model.head_dim
    inputs = model.vision.extra_outputs * step.tokens * model.hidden_size if model.vision and options.media else 0
    return (rotary + inputs) * _ACTIVATION_BYTES


def state_bytes(model: ModelConfig, options: Options, step: Step) -> int:
    """Tensors that are made later: the embeddings of a step with media, and what the sampler keeps of each request.

    That is a count and two bits for each entry of the vocabulary, and four times 1024 numbers: 0.63 MiB for Qwen3's.
    """
    inputs = step.tokens * model.hidden_size * _ACTIVATION_BYTES if model.vision and options.media else 0
    return inputs + step.requests * 4 * (model.vocab_size + 2 * math.ceil(model.vocab_size / 32) + 4 * 1024)


def graph_counts(requests: int) -> tuple[int, int]:
    """How many CUDA graphs vLLM captures, and tokens of the largest whole step among them.

    86 for 256 requests: 51 for pieces up to 512 tokens, 35 for whole steps up to 256.
    """
    largest = min(2 * requests, 512)
    sizes = [*(size for size in (1, 2, 4) if size <= largest), *range(8, min(largest + 1, 256), 8)]
    sizes += range(256, largest + 1, 16)
    steps = [size for size in sizes if size <= requests]
    return len(sizes) + len(steps), max(steps)


def graph_bytes(model: ModelConfig, requests: int) -> int:
    """What vLLM sets aside for CUDA graphs."""
    count, largest = graph_counts(requests)
    return GRAPHS_BASE + count * model.layers.total * (GRAPH_OF_A_LAYER + largest * GRAPH_OF_A_TOKEN)


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
    8 MiB a size of prefill graphs, at least 10 GiB above 60 GiB; and less again for a vision encoder. Models with one
    have no prefill graphs, but for a few newer ones.
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
    prefill = 0 if model.vision else sum(size <= step.tokens for size in sizes)
    return 2 * step.requests + (1.5 * 1024 if model.latent_size else 8 * prefill)


def sglang_started(model: ModelConfig, options: Options, gpu_name: str, total_mib: float) -> int:
    """What of a GPU is taken before SGLang loads the model: ``mem_fraction_static`` is of the rest.

    With a pool for media on the GPU the process that reads them takes part of it too.
    """
    pool = _media_pool(model, options, gpu_name, total_mib)
    return 2 * SGLANG_PROCESS + pool if pool else SGLANG_PROCESS


def sglang_overhead(model: ModelConfig, options: Options, gpu_name: str, total_mib: float) -> Overhead:
    """What SGLang takes out of ``mem_fraction_static`` besides weights and KV cache.

    Activations and graphs are not in it: they have to do with what the fraction leaves. The pool for media is there
    before, and 0.5.23 sets memory for it aside all the same.
    """
    media = 0
    if model.vision and options.version >= _MEDIA_RESERVED_SINCE:
        cache = 0 if _profiled(model, gpu_name, total_mib) else SGLANG_IMAGE_CACHE
        media = cache + _media_pool(model, options, gpu_name, total_mib)
    return Overhead(libraries=SGLANG_LIBRARIES, media=media)


def _profiled(model: ModelConfig, gpu_name: str, total_mib: float) -> bool:
    """Whether SGLang 0.5.23 has defaults of its own for this model on this GPU."""
    large_hopper = total_mib >= 60 * 1024 and any(name in gpu_name.upper() for name in ("H100", "H200", "H20", "GH200"))
    return large_hopper and model.kind in ("qwen3_vl", "qwen3_vl_moe")


def _media_pool(model: ModelConfig, options: Options, gpu_name: str, total_mib: float) -> int:
    """SGLang's pool for media: 0.5.17 has it by default, 0.5.23 on large Hopper GPUs."""
    wanted = options.media_on_gpu
    if wanted is None:
        wanted = options.version < _MEDIA_RESERVED_SINCE or _profiled(model, gpu_name, total_mib)
    return SGLANG_MEDIA_POOL if model.vision and wanted else 0


def sglang_activations(model: ModelConfig, processor: Processor, options: Options, step: Step) -> int:
    """What must fit in what ``mem_fraction_static`` leaves: a step's peak, taken to be vLLM's, and CUDA graphs."""
    vision = model.vision
    encoder, kept = 0, 0
    if vision and options.media:
        tokens = media_tokens(vision, processor, options)
        encoder, kept = encoder_bytes(vision, tokens, options), encoded_bytes(vision, tokens)
    peak = max(encoder, kept + text_bytes(model, options, step), kept + sampler_bytes(model, step))
    return peak + int(_sglang_graphs_mib(model, options, step) * MIB)
