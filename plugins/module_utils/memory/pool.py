# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""How an engine lays out weights and KV cache over the GPUs that share a model.

Pure. Differences between engines are in their ``MemoryModel``.
"""

from __future__ import annotations

import dataclasses
import math

from ansible_collections.inference.fleet.plugins.module_utils.memory.base import (
    MemoryOptions,
    NotModelled,
    kv_number_bytes,
)
from ansible_collections.inference.fleet.plugins.module_utils.model.config import DTYPE_BYTES, ModelConfig


class Pool:
    """The KV cache of one GPU, divided as the engine divides it.

    Args:
        model: the model.
        options: the engine's.
        step_tokens: tokens of the largest step.
        scale: the measured size of a token, relative to the one by the configuration.
    """

    def __init__(self, model: ModelConfig, options: MemoryOptions, step_tokens: int, scale: float = 1.0) -> None:
        fp8_from = model.quantization.kv_fp8 if model.quantization else ""
        number = kv_number_bytes(options, run_dtype(model, options), fp8_from)
        heads = max(1, model.kv_heads // options.tensor_parallel)
        # A compressed form is the same on every GPU.
        self._row = round((model.latent_size or 2 * heads * model.head_dim) * number * scale)
        self._layers = model.layers
        self._window = model.window
        self._options = options
        self._step_tokens = step_tokens
        if not options.engine.knows_windows:
            self._layers = dataclasses.replace(model.layers, full=model.layers.full + model.layers.window, window=0)
        if not self._layers.full and not self._layers.window:
            raise NotModelled(f"{model.architecture or 'The model'} has no layer with a KV cache.")

    @property
    def token_bytes(self) -> int:
        """The size of a token, over the layers that keep every token, or else over those with a window."""
        return self._row * (self._layers.full or self._layers.window)

    @property
    def _group(self) -> int:
        """Layers that share a block: all, or with two kinds, so many that each kind makes whole groups."""
        full, window = self._layers.full, self._layers.window
        if not full or not window:
            return full or window
        return max(full, window) if max(full, window) < 1.5 * min(full, window) else min(full, window)

    @property
    def block_bytes(self) -> int:
        return self._row * self._group * self._options.block

    def blocks_of(self, length: int) -> int:
        """Blocks that one request of ``length`` tokens takes."""
        block = self._options.block
        blocks = math.ceil(self._layers.full / self._group) * math.ceil(length / block)
        if self._layers.window:
            # Two steps are in progress at once, and the tokens of both are kept.
            kept = min(self._window - 1 + 2 * self._step_tokens, length)
            blocks += math.ceil(self._layers.window / self._group) * (math.ceil(kept / block) + 1)
        return blocks

    def tokens(self, kv_bytes: int, length: int) -> int:
        """Tokens that ``kv_bytes`` hold, as the engine prints them."""
        blocks = self._blocks(kv_bytes)
        if not self._layers.window:
            return blocks * self._options.block
        return int(blocks / self.blocks_of(length) * length)

    def concurrency(self, kv_bytes: int, length: int) -> float:
        """Requests of ``length`` tokens that ``kv_bytes`` hold at once."""
        return self._blocks(kv_bytes) / self.blocks_of(length)

    def longest(self, kv_bytes: int, limit: int) -> int:
        """The longest request that ``kv_bytes`` hold, at most ``limit`` tokens."""
        usable = self._blocks(kv_bytes) - self._options.engine.spare_blocks
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.blocks_of(middle) <= usable else (low, middle - 1)
        return low

    def needed(self, length: int) -> int:
        """Bytes that one request of ``length`` tokens takes."""
        return self.blocks_of(length) * self.block_bytes

    def _blocks(self, kv_bytes: int) -> int:
        blocks = max(0, kv_bytes) // self.block_bytes
        limit = self._options.kv_tokens
        return min(blocks, limit // self._options.block) if limit else blocks


def run_dtype(model: ModelConfig, options: MemoryOptions) -> str:
    """The type of weights and activations at run time: by default both engines turn 32 bits into 16."""
    if options.dtype != "auto":
        return options.dtype
    return "bfloat16" if model.dtype in ("float32", "float") else model.dtype


def weights_on_gpu(model: ModelConfig, disk_bytes: int, options: MemoryOptions) -> int:
    """Bytes of the weights on one GPU.

    All are split evenly, except a vision encoder that is copied to each. Copies of key and value heads, where there are
    more GPUs than heads, and norms are not counted: below 1 %.

    Args:
        model: the model.
        disk_bytes: of the checkpoint.
        options: the engine's.
    """
    bytes_now = DTYPE_BYTES.get(run_dtype(model, options), 2)
    total = disk_bytes
    vision = model.vision.parameters * bytes_now if model.vision else 0
    if model.quantization is None:
        total = total * bytes_now // model.dtype_bytes
        if options.quantization == "fp8":
            # Every linear layer to one byte.
            quantised = options.engine.encoder_is_quantised
            kept = model.embedding_parameters + (0 if quantised else vision // bytes_now)
            total = kept * bytes_now + (total // bytes_now - kept)
            vision = vision // bytes_now if quantised else vision
    if options.engine.encoder_is_optional and not options.media:
        total, vision = total - vision, 0
    if not options.split_encoder:
        return (total - vision) // options.tensor_parallel + vision
    return total // options.tensor_parallel


def parallel_problem(model: ModelConfig, options: MemoryOptions, parallel: int) -> str:
    """Why ``parallel`` GPUs cannot share the model, empty where they can."""
    if model.heads % parallel:
        return f"the model has {model.heads} attention heads, which {parallel} does not divide"
    kv = model.kv_heads
    if not model.latent_size and kv % parallel and parallel % kv:
        return f"the model has {kv} key-value heads, and one of {parallel} and {kv} must divide the other"
    if options.engine.encoder_is_optional and model.vision and options.split_encoder and options.media:
        heads = model.vision.heads
        if heads and heads % parallel:
            return f"the vision encoder has {heads} heads, which {parallel} does not divide (mm-encoder-tp-mode: data)"
    block = model.quantization.block if model.quantization else None
    if block and parallel > 1 and (options.split_experts or not model.experts):
        what, width = ("experts", model.expert_size) if model.experts else ("MLP", model.intermediate_size)
        if width % parallel or (width // parallel) % block[0] or (width // parallel) % block[1]:
            return f"the {what}'s width {width} in {parallel} parts is no multiple of the weights' blocks of {block[0]}"
    return ""


def parallel_sizes(model: ModelConfig, options: MemoryOptions, most: int) -> list[int]:
    """The numbers of GPUs up to ``most`` that can share the model."""
    return [size for size in range(1, most + 1) if not parallel_problem(model, options, size)]
