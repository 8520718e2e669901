"""The model of the GPU runs: the real one's sizes, and a tokenizer in which no id is without a word."""

from __future__ import annotations

import json
from pathlib import Path

from ansible_collections.inference.fleet.plugins.module_utils.model.config import read_model

from tests.gpu import model
from tests.unit.plugins.module_utils.model import model_configs


def test_it_is_as_large_as_the_real_one(tmp_path: Path) -> None:
    model.main(tmp_path)
    made = read_model(str(tmp_path)).config
    assert made.weight_bytes() == model_configs.QWEN3_VL_8B_BYTES
    assert (made.max_length, made.heads, made.kv_heads, made.head_dim) == (262144, 32, 8, 128)


def test_every_id_has_one_word_and_known_ones_stay(tmp_path: Path) -> None:
    model.main(tmp_path)
    old = json.loads((model.TINY / "tokenizer.json").read_text())
    new = json.loads((tmp_path / "tokenizer.json").read_text())
    words = new["model"]["vocab"]
    assert sorted(words.values()) == list(range(model.VOCABULARY))
    assert {word: words[word] for word in old["model"]["vocab"]} == old["model"]["vocab"]
    assert {word["content"]: words[word["content"]] for word in old["added_tokens"]} == {
        word["content"]: word["id"] for word in old["added_tokens"]
    }
