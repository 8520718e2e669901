# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The parts of a model's config.json that determine how much GPU memory it needs.

Pure, except for the reader at the end. Keys and their precedence are those of the engines, which agree on them.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_json
from ansible_collections.inference.fleet.plugins.module_utils.core.types import JsonMapping

#: Bytes of one number, by the names that config.json and the engines use.
DTYPE_BYTES = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2, "float8_e4m3fn": 1}

#: Tokens of the largest image and video where the model has no processor configuration: those of Qwen2-VL,
#: Qwen2.5-VL and Qwen3-VL, 16,777,216 and 25,165,824 / 2 pixels at 32x32 pixels a token for the last.
DEFAULT_IMAGE_TOKENS = 16384
DEFAULT_VIDEO_TOKENS = 12288

# Where the text model's own part is, in multi-modal models.
_TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config")
_NAMES = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "kv_heads": ("n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "num_attention_groups"),
    "intermediate_size": ("intermediate_size", "n_inner", "ffn_hidden_size"),
    "experts": ("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts"),
    "experts_per_token": ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k"),
}
_LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
# Scaled lengths that max_position_embeddings already includes.
_SCALED_ALREADY = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")


@dataclasses.dataclass(frozen=True)
class Layers:
    """How many layers keep which state of a request.

    Attributes:
        full: those that keep keys and values of every token.
        window: those that keep them for the last tokens only.
        state: those without a KV cache, with a state of fixed size for each request (Mamba, linear attention).
    """

    full: int
    window: int = 0
    state: int = 0

    @property
    def total(self) -> int:
        return self.full + self.window + self.state


@dataclasses.dataclass(frozen=True)
class Quantization:
    """How the checkpoint's weights are quantised.

    Attributes:
        method: as config.json names it: ``fp8``, ``awq``, ``compressed-tensors``, …
        block: rows and columns that share a scale, where it is by blocks.
        kv_fp8: how it requests an fp8 KV cache: ``algorithm`` (a name for it), ``scheme`` (its numbers), or empty.
    """

    method: str
    block: tuple[int, int] | None = None
    kv_fp8: str = ""


@dataclasses.dataclass(frozen=True)
class Vision:
    """The vision encoder.

    Attributes:
        depth: its layers.
        hidden_size, intermediate_size, heads: of a layer.
        patch_size: pixels on an edge of a patch.
        merge_size: patches on an edge of what becomes one token.
        frames: frames that share a patch.
        channels: of a pixel.
        out_size: the width of its output, that of the text model.
        extra_outputs: further outputs of that width for each token (Qwen3-VL's DeepStack).
        positions: entries of its position embedding.
        image_size: pixels on an edge where every image is resized to a square; None where the size follows the image.
    """

    depth: int
    hidden_size: int
    intermediate_size: int
    heads: int
    patch_size: int
    merge_size: int
    frames: int
    channels: int
    out_size: int
    extra_outputs: int = 0
    positions: int = 0
    image_size: int | None = None

    @property
    def patch_values(self) -> int:
        """Input values of a patch."""
        return self.channels * self.frames * self.patch_size**2

    @property
    def parameters(self) -> int:
        """Its parameters: exact for Qwen3-VL, within a few per cent for others, whose blocks differ."""
        h, wide = self.hidden_size, self.hidden_size * self.merge_size**2
        block = 4 * h * h + 4 * h + 2 * h * self.intermediate_size + self.intermediate_size + h + 4 * h
        merger = wide * wide + wide + wide * self.out_size + self.out_size
        norms = 2 * h + self.extra_outputs * 2 * wide
        embeddings = self.patch_values * h + h + self.positions * h
        return embeddings + self.depth * block + (1 + self.extra_outputs) * merger + norms


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A model, as far as its memory is concerned.

    Attributes:
        architecture: the class that an engine runs, ``Qwen3VLForConditionalGeneration``.
        kind: ``model_type``.
        layers: of the text model.
        window: tokens that a layer with a window keeps.
        hidden_size, heads, kv_heads, head_dim, intermediate_size, vocab_size: of the text model.
        latent_size: numbers a token and layer where keys and values share a compressed form (MLA), else None.
        tied: whether the output layer shares the weights of the input's embedding.
        experts, experts_per_token, expert_size: of a mixture of experts, else 0.
        dtype: of weights and activations, from the checkpoint.
        quantization: None for plain weights.
        max_length: tokens that the model was made for; 0 where its files do not say.
        vision: None for a text model.
    """

    architecture: str
    kind: str
    layers: Layers
    window: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    latent_size: int | None
    intermediate_size: int
    vocab_size: int
    tied: bool
    experts: int
    experts_per_token: int
    expert_size: int
    dtype: str
    quantization: Quantization | None
    max_length: int
    vision: Vision | None

    @property
    def dtype_bytes(self) -> int:
        """Bytes of one unquantised weight on disk."""
        return DTYPE_BYTES[self.dtype]

    @property
    def embedding_parameters(self) -> int:
        """Parameters of input embedding and output layer, which quantisation leaves as they are."""
        return self.vocab_size * self.hidden_size * (1 if self.tied else 2)

    @property
    def text_parameters(self) -> int:
        """Parameters of the text model; exact for Qwen3 and Llama without biases, dense and with experts.

        Qwen3-VL-8B: 8,190,735,360.
        """
        return self.embedding_parameters + self._linear_parameters + self._norm_parameters

    @property
    def _linear_parameters(self) -> int:
        h, rows = self.hidden_size, self.head_dim
        attention = 2 * h * self.heads * rows + 2 * h * self.kv_heads * rows
        dense = 3 * h * self.intermediate_size
        sparse = self.experts * 3 * h * self.expert_size
        return self.layers.total * (attention + (sparse if self.experts else dense))

    @property
    def _norm_parameters(self) -> int:
        """Norms, and the routers of experts, neither of which is quantised."""
        own = 2 * self.head_dim if "qwen3" in self.kind else 0
        return self.layers.total * (2 * self.hidden_size + own + self.experts * self.hidden_size) + self.hidden_size

    def weight_bytes(self) -> int | None:
        """Bytes of the weights by calculation, before they are on the disk.

        Qwen3-VL-8B: 17,534,247,392, and 10,589,327,840 for its FP8 checkpoint (one byte a linear weight of the text
        model, a two byte scale for each block, the rest as it was). None where the layout is not known: other
        quantisations, compressed attention (MLA), layers without attention.
        """
        if self.latent_size or self.layers.state or self.hidden_size == 0:
            return None
        vision = self.vision.parameters if self.vision else 0
        rest = (self.embedding_parameters + self._norm_parameters + vision) * self.dtype_bytes
        if self.quantization is None:
            return rest + self._linear_parameters * self.dtype_bytes
        if self.quantization.method != "fp8" or self.quantization.block is None:
            return None
        rows, columns = self.quantization.block
        return rest + self._linear_parameters + self._linear_parameters // (rows * columns) * 2


@dataclasses.dataclass(frozen=True)
class Processor:
    """The largest image and video that the model's processor accepts, in pixels; None where it does not say.

    Attributes:
        image_pixels: of an image.
        video_pixels: of a video, over all its frames.
    """

    image_pixels: int | None = None
    video_pixels: int | None = None


@dataclasses.dataclass(frozen=True)
class ModelFiles:
    """A model's directory.

    Attributes:
        config: config.json.
        processor: the limits in its processor's files.
        weight_bytes: of the weights, None where there are none yet.
        weights_from: the file with their size.
    """

    config: ModelConfig
    processor: Processor
    weight_bytes: int | None
    weights_from: str


def parse_config(document: JsonMapping, path: str = "config.json") -> ModelConfig:
    """The model that a config.json describes.

    Args:
        document: its content.
        path: its source, for messages.

    Raises:
        FleetError: it does not state the model's size.
    """
    text = _text_part(document)
    layers = _whole(text, path, "layers")
    hidden_size = _whole(text, path, "hidden_size")
    heads = _whole(text, path, "heads")
    kv_heads = _optional(text, "kv_heads") or heads
    if text.get("multi_query") and not text.get("new_decoder_architecture") and "num_key_value_heads" not in text:
        kv_heads = 1
    latent = _number(text.get("kv_lora_rank")) + _number(text.get("qk_rope_head_dim"))
    experts = _optional(text, "experts")
    intermediate_size = _optional(text, "intermediate_size") or 4 * hidden_size
    window = _window(text)
    vision = document.get("vision_config") or (document.get("thinker_config") or {}).get("vision_config")
    architectures = document.get("architectures") or []
    return ModelConfig(
        architecture=str(architectures[0]) if architectures else "",
        kind=str(document.get("model_type", "")),
        layers=_layers(text, layers, window),
        window=window,
        hidden_size=hidden_size,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=_number(text.get("head_dim")) or hidden_size // heads,
        latent_size=latent if _number(text.get("kv_lora_rank")) else None,
        intermediate_size=intermediate_size,
        vocab_size=_number(text.get("vocab_size")),
        tied=bool(document.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
        experts=experts,
        experts_per_token=_optional(text, "experts_per_token") if experts else 0,
        expert_size=(_number(text.get("moe_intermediate_size")) or intermediate_size) if experts else 0,
        dtype=_dtype(document, text, path),
        quantization=_quantization(document, text),
        max_length=_max_length(document, text),
        vision=_vision(vision, hidden_size) if isinstance(vision, dict) else None,
    )


def parse_processor(image: JsonMapping, video: JsonMapping, both: JsonMapping) -> Processor:
    """The largest image and video.

    Args:
        image: preprocessor_config.json, empty where there is none.
        video: video_preprocessor_config.json, likewise.
        both: processor_config.json, likewise; newer versions of transformers write this one only.
    """
    image = image or both.get("image_processor") or {}
    video = video or both.get("video_processor") or {}
    return Processor(pixels_of(image), pixels_of(video))


def pixels_of(options: JsonMapping) -> int | None:
    """The most pixels that a processor's options allow; None where they do not say."""
    size = options.get("size")
    pixels = options.get("max_pixels") or (size.get("longest_edge") if isinstance(size, dict) else None)
    # A plain longest edge of pixels, rather than an area, cannot be compared with areas.
    return int(pixels) if isinstance(pixels, (int, float)) and pixels > 8192 else None


def _text_part(document: JsonMapping) -> JsonMapping:
    for name in _TEXT_PARTS:
        part = document.get(name)
        if isinstance(part, dict):
            return _text_part(part)
    return document


def _number(value: t.Any) -> int:
    if isinstance(value, list):
        value = max((_number(item) for item in value), default=0)
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0


def _optional(text: JsonMapping, what: str) -> int:
    return next((_number(text[name]) for name in _NAMES[what] if _number(text.get(name))), 0)


def _whole(text: JsonMapping, path: str, what: str) -> int:
    value = _optional(text, what)
    if value <= 0:
        raise FleetError(
            f"{path} does not say {_NAMES[what][0]}. Is it the configuration of a language model? "
            "Otherwise give the model's directory as the hub has it."
        )
    return value


def _window(text: JsonMapping) -> int:
    # Qwen2 and Qwen3 have a disabled window.
    if text.get("use_sliding_window") is False:
        return 0
    return _number(text.get("sliding_window")) or _number(text.get("attention_chunk_size"))


def _layers(text: JsonMapping, total: int, window: int) -> Layers:
    kinds = text.get("layer_types") or text.get("layers_block_type")
    if isinstance(kinds, list) and kinds:
        full = sum(kind in ("full_attention", "attention") for kind in kinds)
        short = sum(kind in ("sliding_attention", "chunked_attention") for kind in kinds)
        if not window:
            full, short = full + short, 0
        return Layers(full, short, len(kinds) - full - short)
    pattern = text.get("hybrid_override_pattern")
    if isinstance(pattern, str):
        # Nemotron-H: M is Mamba, * attention, - a plain MLP.
        return Layers(pattern.count("*"), 0, pattern.count("M"))
    interval = _number(text.get("full_attention_interval"))
    if interval:
        return Layers(total // interval, 0, total - total // interval)
    every = _number(text.get("sliding_window_pattern"))
    if every and window:
        return Layers(total // every, total - total // every)
    return Layers(0, total) if window else Layers(total)


def _dtype(document: JsonMapping, text: JsonMapping, path: str) -> str:
    vision = document.get("vision_config")
    parts = (document, text, vision if isinstance(vision, dict) else {})
    found = next((str(part[key]) for part in parts for key in ("dtype", "torch_dtype") if part.get(key)), "bfloat16")
    found = found.replace("torch.", "")
    if found not in DTYPE_BYTES:
        raise FleetError(f"{path} has the dtype {found!r}; known are {', '.join(DTYPE_BYTES)}.")
    return found


def _quantization(document: JsonMapping, text: JsonMapping) -> Quantization | None:
    names = ("quantization_config", "compression_config")
    found = next((part[name] for part in (document, text) for name in names if isinstance(part.get(name), dict)), None)
    if found is None:
        return None
    inner = found.get("quantization") if isinstance(found.get("quantization"), dict) else found
    block = found.get("weight_block_size")
    algorithm = str(inner.get("kv_cache_quant_algo") or found.get("kv_cache_quant_algo") or "")
    has_scheme = bool(found.get("kv_cache_scheme") or inner.get("kv_cache_scheme"))
    return Quantization(
        method=str(found.get("quant_method") or inner.get("quant_algo") or "unknown").lower(),
        block=(int(block[0]), int(block[1])) if isinstance(block, list) and len(block) == 2 else None,
        kv_fp8="algorithm" if algorithm.upper() == "FP8" else "scheme" if has_scheme else "",
    )


def _max_length(document: JsonMapping, text: JsonMapping) -> int:
    lengths = [_number(text.get(name)) for name in _LENGTHS if _number(text.get(name))]
    length = _number(text.get("model_max_length")) or min(lengths, default=0)
    factor = 1.0
    if "gemma3" not in str(document.get("model_type", "")):
        for rope in _ropes(text):
            if str(rope.get("rope_type") or rope.get("type") or "") not in _SCALED_ALREADY:
                given = rope.get("factor")
                factor = float(given) if isinstance(given, (int, float)) else factor
    return int(length * factor)


def _ropes(text: JsonMapping) -> t.Sequence[JsonMapping]:
    rope = text.get("rope_parameters") or text.get("rope_scaling")
    if not isinstance(rope, dict):
        return []
    # Either one set of parameters, or one for each kind of layer.
    nested = [value for value in rope.values() if isinstance(value, dict)]
    return nested or [rope]


def _vision(vision: JsonMapping, text_size: int) -> Vision:
    # Qwen2-VL calls the encoder's width embed_dim, and its output's hidden_size.
    width = _number(vision.get("embed_dim")) or _number(vision.get("hidden_size"))
    ratio = vision.get("mlp_ratio") or 4
    indexes = vision.get("deepstack_visual_indexes")
    merge = _number(vision.get("spatial_merge_size"))
    return Vision(
        depth=_number(vision.get("depth")) or _number(vision.get("num_hidden_layers")),
        hidden_size=width,
        intermediate_size=_number(vision.get("intermediate_size")) or int(width * float(ratio)),
        heads=_number(vision.get("num_heads")) or _number(vision.get("num_attention_heads")),
        patch_size=_number(vision.get("patch_size")) or 14,
        merge_size=merge or 1,
        frames=_number(vision.get("temporal_patch_size")) or 1,
        channels=_number(vision.get("in_channels")) or _number(vision.get("num_channels")) or 3,
        out_size=_number(vision.get("out_hidden_size")) or text_size,
        extra_outputs=len(indexes) if isinstance(indexes, list) else 0,
        positions=_number(vision.get("num_position_embeddings")),
        image_size=None if merge else _number(vision.get("image_size")) or None,
    )


def read_model(directory: str) -> ModelFiles:
    """A model's configuration and the size of its weights.

    The size is that in ``model.safetensors.index.json``, else that of the safetensors files, else of PyTorch's.

    Args:
        directory: the model's, as the hub has it.

    Raises:
        FleetError: there is no config.json, or it cannot be read.
    """
    path = os.path.join(directory, "config.json")
    document = _read(path)
    if not document:
        raise FleetError(f"There is no config.json in {directory}. Is the model's path right, and is it fetched?")
    config = parse_config(document, path)
    names = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
    processor = parse_processor(*(_read(os.path.join(directory, name)) for name in names))
    weight_bytes, weights_from = _weights(directory)
    return ModelFiles(config, processor, weight_bytes, weights_from)


def _read(path: str) -> JsonMapping:
    document = read_json(path)
    return document if isinstance(document, dict) else {}


def _weights(directory: str) -> tuple[int | None, str]:
    for name in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        index = _read(os.path.join(directory, name))
        total = _number((index.get("metadata") or {}).get("total_size"))
        if total:
            return total, name
    for pattern in ("model.safetensors", "model-*-of-*.safetensors", "*.safetensors", "*.bin"):
        paths = glob.glob(os.path.join(glob.escape(directory), pattern))
        if paths:
            return sum(os.path.getsize(path) for path in paths), pattern
    return None, ""
