"""The committed tiny model: properties that engines and tests rely on, without loading it."""

from __future__ import annotations

import json
import struct
import typing as t
from pathlib import Path

import pytest

from lab.model import dialogues, squares

MODEL = Path(__file__).parents[3] / "lab/model/tiny"
PROMPTS: list[dict[str, t.Any]] = json.loads((MODEL / "prompts.json").read_text())
PICTURES = [prompt for prompt in PROMPTS if isinstance(prompt["messages"][-1]["content"], list)]


def read_json(name: str) -> dict[str, t.Any]:
    content: dict[str, t.Any] = json.loads((MODEL / name).read_text())
    return content


def test_the_weights_are_small_bfloat16_and_readable_by_a_service_user() -> None:
    weights = MODEL / "model.safetensors"
    assert weights.stat().st_size <= 5 * 1024**2
    assert weights.stat().st_mode & 0o444 == 0o444
    with weights.open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    assert {tensor["dtype"] for name, tensor in header.items() if name != "__metadata__"} == {"BF16"}


def test_the_architecture_is_the_real_models() -> None:
    config = read_json("config.json")
    assert config["architectures"] == ["Qwen3VLForConditionalGeneration"]
    assert config["model_type"] == "qwen3_vl"
    assert config["text_config"]["num_attention_heads"] % config["text_config"]["num_key_value_heads"] == 0


def test_the_special_tokens_are_where_the_config_says() -> None:
    config = read_json("config.json")
    tokens = {token["content"]: token["id"] for token in read_json("tokenizer.json")["added_tokens"]}
    assert tokens["<|image_pad|>"] == config["image_token_id"]
    assert tokens["<|vision_start|>"] == config["vision_start_token_id"]
    assert tokens["<|im_end|>"] == config["text_config"]["eos_token_id"]
    assert max(tokens.values()) < config["text_config"]["vocab_size"]


def test_the_chat_template_is_the_one_that_the_model_was_trained_with() -> None:
    assert (MODEL / "chat_template.jinja").read_text().strip() == (
        (MODEL.parent / "chat_template.jinja").read_text().strip()
    )


def test_the_prompts_cover_a_word_every_colour_and_a_stream() -> None:
    names = [prompt["name"] for prompt in PROMPTS]
    assert len(names) == len(set(names))
    assert {"capital", "square-red", "square-green", "square-blue", "count", "endless"} <= set(names)


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt["name"])
def test_a_prompt_is_a_request_with_an_exact_answer(prompt: dict[str, t.Any]) -> None:
    assert set(prompt) == {"name", "messages", "max_tokens", "expect"}
    assert [message["role"] for message in prompt["messages"]] == ["user"]
    assert prompt["expect"]
    assert prompt["max_tokens"] > 0


@pytest.mark.parametrize("prompt", PICTURES, ids=lambda prompt: prompt["name"])
def test_a_picture_shows_the_colour_that_is_expected(prompt: dict[str, t.Any]) -> None:
    picture = squares.read(prompt["messages"][-1]["content"][0]["image_url"]["url"])
    colours = {colour for _, colour in picture.getcolors(2) or []}
    assert squares.COLOURS[prompt["expect"].lower()] in colours


def test_an_endless_reply_is_as_long_as_asked() -> None:
    assert dialogues.endless_reply(23) == "0 1 2 3 4 5 6 7 8 9 0 1"
    assert len(dialogues.endless_reply(1000)) == 1000
