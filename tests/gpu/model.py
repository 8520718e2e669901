"""Makes a model's folder with the architecture of Qwen3-VL-8B-Instruct and without its weights.

usage: python3 -m tests.gpu.model DIRECTORY

Engines fill it with random weights (``load-format: dummy``). Tokenizer and processor are those of the lab's model; each
further id of the vocabulary gets a word, so that whatever such weights answer is a text.
"""

from __future__ import annotations

import json
import shutil
import sys
import typing as t
from pathlib import Path

TINY = Path(__file__).parents[2] / "lab/model/tiny"
VOCABULARY = 151936
CONTEXT = 262144

TEXT = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "dtype": "bfloat16",
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 12288,
    "max_position_embeddings": CONTEXT,
    "model_type": "qwen3_vl_text",
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
    "rope_theta": 5000000,
    "use_cache": True,
    "vocab_size": VOCABULARY,
}
VISION = {
    "deepstack_visual_indexes": [8, 16, 24],
    "depth": 27,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "in_channels": 3,
    "initializer_range": 0.02,
    "intermediate_size": 4304,
    "model_type": "qwen3_vl",
    "num_heads": 16,
    "num_position_embeddings": 2304,
    "out_hidden_size": 4096,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
PIXELS = {
    "image_processor": {"longest_edge": 16777216, "shortest_edge": 65536},
    "video_processor": {"longest_edge": 25165824, "shortest_edge": 4096},
}


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(TINY / "chat_template.jinja", directory / "chat_template.jinja")
    # Random weights repeat a word for ever, which the gate refuses.
    _write(directory / "generation_config.json", {**_read("generation_config.json"), "repetition_penalty": 2.0})
    config = _read("config.json")
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    _write(
        directory / "config.json",
        {
            **config,
            "text_config": {**TEXT, **{name: config["text_config"][name] for name in names}},
            "vision_config": VISION,
        },
    )
    processor = _read("processor_config.json")
    for kind, size in PIXELS.items():
        processor[kind]["size"] = size
    _write(directory / "processor_config.json", processor)
    _write(directory / "preprocessor_config.json", processor["image_processor"])
    _write(directory / "video_preprocessor_config.json", processor["video_processor"])
    _write(directory / "tokenizer_config.json", {**_read("tokenizer_config.json"), "model_max_length": CONTEXT})
    _write(directory / "tokenizer.json", with_every_id(_read("tokenizer.json"), VOCABULARY))


def with_every_id(tokenizer: dict[str, t.Any], size: int) -> dict[str, t.Any]:
    """A tokenizer whose every id below ``size`` has a word.

    Args:
        tokenizer: of the tokenizers library, as JSON.
        size: of the vocabulary.
    """
    model = tokenizer["model"]
    vocabulary = {**model["vocab"], **{word["content"]: word["id"] for word in tokenizer["added_tokens"]}}
    known = set(vocabulary.values())
    # As byte-level tokenizers write a space.
    vocabulary.update({f"\u0120w{index}": index for index in range(size) if index not in known})
    return {**tokenizer, "model": {**model, "vocab": vocabulary}}


def _read(name: str) -> dict[str, t.Any]:
    document: dict[str, t.Any] = json.loads((TINY / name).read_text(encoding="utf-8"))
    return document


def _write(path: Path, document: dict[str, t.Any]) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
