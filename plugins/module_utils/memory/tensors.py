# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The peak memory of a step, by the sizes of a model's tensors. Pure."""

from __future__ import annotations

from ansible_collections.inference.fleet.plugins.module_utils.memory.base import EngineStep, MemoryOptions
from ansible_collections.inference.fleet.plugins.module_utils.model.config import (
    DEFAULT_IMAGE_TOKENS,
    DEFAULT_VIDEO_TOKENS,
    ModelConfig,
    Processor,
    Vision,
)

_NUMBER_BYTES = 2


def peak_bytes(model: ModelConfig, processor: Processor, options: MemoryOptions, step: EngineStep) -> int:
    """The peak of a step: of the vision encoder, or of the text model, whichever is larger."""
    encoder = 0
    if model.vision and options.media and options.measures_encoder:
        tokens = media_tokens(model.vision, processor, options)
        # As many of the largest as fit in a step, at least one.
        encoder = max(1, step.tokens // tokens) * encoder_bytes(model.vision, tokens, options)
    return max(encoder, text_bytes(model, options, step))


def media_tokens(vision: Vision, processor: Processor, options: MemoryOptions) -> int:
    """Tokens of the largest image or video that a request may have, whichever is larger."""
    if vision.image_size:
        return (vision.image_size // vision.patch_size // vision.merge_size) ** 2
    area = (vision.patch_size * vision.merge_size) ** 2
    pixels = options.image_pixels or processor.image_pixels
    image = pixels // area if pixels else DEFAULT_IMAGE_TOKENS
    video = processor.video_pixels // area // vision.frames if processor.video_pixels else DEFAULT_VIDEO_TOKENS
    return max(1, image if options.images else 0, video if options.videos else 0)


def encoder_bytes(vision: Vision, tokens: int, options: MemoryOptions) -> int:
    """The vision encoder's peak for one image of so many tokens, by its simultaneous tensors.

    For each patch: its pixels, its position, the layer's input and its norm; and either queries, keys and values (3),
    their copy for the rotation (2), the rotated ones (2) and the attention's result (1), with its projection, or the
    two wide tensors of the MLP. DeepStack's outputs are kept meanwhile.
    """
    parts = options.tensor_parallel if options.split_encoder else 1
    h = vision.hidden_size
    attention = 8 * h // parts + h
    wide = 2 * vision.intermediate_size // parts
    each = vision.patch_values + 3 * h + max(attention, wide)
    patches = tokens * vision.merge_size**2
    kept = vision.extra_outputs * tokens * vision.out_size
    return (patches * each + kept) * _NUMBER_BYTES


def text_bytes(model: ModelConfig, options: MemoryOptions, step: EngineStep) -> int:
    """The text model's peak: residual, input and output, and the MLP's tensors or those of the experts."""
    parts = options.tensor_parallel
    if model.experts:
        # The kernel's two workspaces: gate and up, or the results, whichever is larger; and the input of down.
        wide = model.experts_per_token * (
            max(2 * model.expert_size // parts, model.hidden_size) + model.expert_size // parts
        )
    else:
        wide = 3 * model.intermediate_size // parts
    return step.tokens * (3 * model.hidden_size + wide) * _NUMBER_BYTES
