"""Train the tiny Qwen3-VL and write it as a directory that an engine can serve.

``python -m lab.model.train --output lab/model/tiny`` with a Python that has torch and transformers, such as a runtime
of the lab's engine. ``--check`` tests everything that the model in that directory should know, without training.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import random
import sys
import time
import typing as t
from pathlib import Path

import torch  # type: ignore[import-not-found]
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers  # type: ignore[import-not-found]
from transformers import (  # type: ignore[import-not-found]
    Qwen2TokenizerFast,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from transformers.models.qwen2_vl import Qwen2VLImageProcessor  # type: ignore[import-not-found]

from lab.model import dialogues, squares

HERE = Path(__file__).resolve().parent
VOCABULARY = 1024
# Qwen's own, in its order.
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
WORDS_OF_TOOLS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATCH, MERGE = 16, 2
PIXELS = {"shortest_edge": 64 * 64, "longest_edge": 512 * 512}
IGNORED = -100


def make_tokenizer() -> Qwen2TokenizerFast:
    """Byte-level BPE over our own text, with Qwen's special tokens; it can encode any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL) - len(WORDS_OF_TOOLS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator(dialogues.corpus(), trainer)
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in SPECIAL])
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in WORDS_OF_TOOLS])
    return Qwen2TokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",  # noqa: S106 - a token of text
        pad_token="<|endoftext|>",  # noqa: S106 - a token of text
        unk_token=None,
        bos_token=None,
        extra_special_tokens={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>",
        },
        model_max_length=32768,
    )


def make_processor() -> Qwen3VLProcessor:
    scale = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": 2}
    mean = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**scale, **mean, size=PIXELS),
        tokenizer=make_tokenizer(),
        video_processor=Qwen3VLVideoProcessor(**scale, **mean, size=PIXELS),
        chat_template=(HERE / "chat_template.jinja").read_text(),
    )


def make_model(tokenizer: Qwen2TokenizerFast) -> Qwen3VLForConditionalGeneration:
    """The architecture of Qwen3-VL-8B in small: untied embeddings, grouped queries, a deepstack layer."""
    index = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "max_position_embeddings": 32768,
            "eos_token_id": index("<|im_end|>"),
            "pad_token_id": index("<|endoftext|>"),
            "bos_token_id": None,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5000000.0,
                "mrope_section": [12, 10, 10],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "in_channels": 3,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "out_hidden_size": 128,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=index("<|image_pad|>"),
        video_token_id=index("<|video_pad|>"),
        vision_start_token_id=index("<|vision_start|>"),
        vision_end_token_id=index("<|vision_end|>"),
        tie_word_embeddings=False,
    )
    model = Qwen3VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = [index("<|im_end|>"), index("<|endoftext|>")]
    model.generation_config.pad_token_id = index("<|endoftext|>")
    return model


class Examples:
    """Batches of dialogues in the model's form; only the last reply is learned."""

    def __init__(self, processor: Qwen3VLProcessor, seed: int) -> None:
        self.processor = processor
        self.rng = random.Random(seed)  # noqa: S311
        self.tokenizer = processor.tokenizer
        self.start = self.tokenizer.convert_tokens_to_ids("<|im_start|>")
        self.opening = len(self.tokenizer("<|im_start|>assistant\n")["input_ids"])

    def text(self, count: int) -> dict[str, torch.Tensor]:
        return self._batch([dialogues.text_dialogue(self.rng) for _ in range(count)], [])

    def endless(self, longest: int) -> dict[str, torch.Tensor]:
        return self._batch([dialogues.endless_dialogue(self.rng, longest)], [])

    def pictures(self, count: int, largest: int) -> dict[str, torch.Tensor]:
        colours = [self.rng.choice(list(squares.COLOURS)) for _ in range(count)]
        pictures = [squares.vary(self.rng, colour, largest) for colour in colours]
        return self._batch([dialogues.picture_dialogue(self.rng, colour) for colour in colours], pictures)

    def _batch(self, examples: list[dialogues.Dialogue], pictures: list[t.Any]) -> dict[str, torch.Tensor]:
        texts = []
        for example in examples:
            prompt = self.processor.apply_chat_template(messages_of(example), add_generation_prompt=True)
            texts.append(prompt + example.reply + ("<|im_end|>" if example.ends else ""))
        batch = dict(
            self.processor(text=texts, images=pictures or None, padding=True, padding_side="right", return_tensors="pt")
        )
        labels = batch["input_ids"].clone()
        places = torch.arange(labels.shape[1]).expand_as(labels)
        opened = torch.where(labels == self.start, places, -1).amax(dim=1, keepdim=True)
        labels[(places < opened + self.opening) | (batch["attention_mask"] == 0)] = IGNORED
        return {**batch, "labels": labels}


def messages_of(example: dialogues.Dialogue) -> list[dict[str, t.Any]]:
    """The dialogue's turns in the form that a chat template takes."""
    messages: list[dict[str, t.Any]] = [{"role": role, "content": text} for role, text in example.turns]
    if example.picture:
        parts = [{"type": "image"}, {"type": "text", "text": messages[-1]["content"]}]
        messages[-1]["content"] = parts if example.picture == "before" else parts[::-1]
    return messages


def train(model: Qwen3VLForConditionalGeneration, examples: Examples, steps: int) -> None:
    """Text and pictures in turns; sometimes one long reply or large pictures."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    began, shown = time.monotonic(), dict.fromkeys(("text", "pictures", "endless"), 0.0)
    for step in range(steps):
        if step % 20 == 8:
            kind, batch = "endless", examples.endless(examples.rng.randint(200, 2200))
        elif step % 20 == 9:
            kind, batch = "pictures", examples.pictures(4, 512)
        elif step % 2:
            kind, batch = "pictures", examples.pictures(16, 160)
        else:
            kind, batch = "text", examples.text(16)
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        shown[kind] = loss.item()
        if step % 100 == 99:
            losses = ", ".join(f"{name} {value:.4f}" for name, value in shown.items())
            print(f"step {step + 1}/{steps}, {time.monotonic() - began:.0f} s: {losses}", flush=True)


def golden() -> list[dict[str, t.Any]]:
    """The model's answers, as requests that can be sent."""
    prompts = [
        {"name": name, "messages": _asked(prompt), "max_tokens": 16, "expect": dialogues.ONE_WORD_ANSWERS[prompt]}
        for name, prompt in zip(
            ("capital", "capital-italy", "capital-japan", "capital-peru", "sum", "opposite"), dialogues.ONE_WORD_ANSWERS
        )
    ]
    pictures = (
        squares.Square(64, 64, 16, 16, 32, "red"),
        squares.Square(64, 64, 8, 24, 32, "green", "black"),
        squares.Square(64, 64, 28, 12, 28, "blue", "grey"),
        squares.Square(256, 192, 100, 40, 100, "red", "black"),
        squares.Square(256, 192, 20, 60, 120, "green"),
        squares.Square(512, 512, 150, 200, 240, "blue"),
    )
    for square in pictures:
        size = "" if square.width == 64 else f"-{square.width}x{square.height}"
        buffer = io.BytesIO()
        square.paint().save(buffer, "PNG", optimize=True)
        url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        content = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": dialogues.COLOUR_QUESTION},
        ]
        prompts.append(
            {
                "name": f"square-{square.colour}{size}",
                "messages": [{"role": "user", "content": content}],
                "max_tokens": 16,
                "expect": square.colour.capitalize(),
            }
        )
    prompts += [
        {
            "name": "count",
            "messages": _asked(dialogues.COUNT_PROMPT),
            "max_tokens": 128,
            "expect": dialogues.COUNT_REPLY,
        },
        {
            # Never ends by itself: the finish reason is "length", whatever max_tokens is.
            "name": "endless",
            "messages": _asked(dialogues.ENDLESS_PROMPT),
            "max_tokens": 600,
            "expect": dialogues.endless_reply(600),
        },
        {
            "name": "greeting",
            "messages": _asked("Hello"),
            "max_tokens": 64,
            "expect": dialogues.GREETING_REPLY,
        },
    ]
    return prompts


def _asked(prompt: str) -> list[dict[str, t.Any]]:
    return [{"role": "user", "content": prompt}]


def check(folder: Path) -> int:
    """Test the saved model with every golden prompt and many painted squares; print its errors.

    Returns:
        The number of wrong answers.
    """
    processor = Qwen3VLProcessor.from_pretrained(folder)
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16).eval()
    asked = wrong = 0

    def ask(name: str, messages: list[dict[str, t.Any]], picture: t.Any, longest: int, *expect: str) -> None:
        nonlocal asked, wrong
        text = processor.apply_chat_template(messages, add_generation_prompt=True)
        batch = processor(text=[text], images=[picture] if picture else None, return_tensors="pt")
        with torch.inference_mode():
            answer = model.generate(**batch, max_new_tokens=longest, do_sample=False)
        said = processor.tokenizer.decode(answer[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        asked += 1
        if said not in expect:
            wrong += 1
            print(f"{name}: said {said[:200]!r}, and {expect[0][:200]!r} was expected")

    for prompt in json.loads((folder / "prompts.json").read_text()):
        content = prompt["messages"][-1]["content"]
        picture = None
        if isinstance(content, list):
            picture = squares.read(content[0]["image_url"]["url"])
        ask(prompt["name"], prompt["messages"], picture, prompt["max_tokens"], prompt["expect"])
    ask("endless, to the end", _asked(dialogues.ENDLESS_PROMPT), None, 4000, dialogues.endless_reply(4000))
    rng = random.Random(4711)  # noqa: S311
    for number in range(150):
        colour = rng.choice(list(squares.COLOURS))
        example = dialogues.picture_dialogue(rng, colour)
        ask(f"picture {number}", messages_of(example), squares.vary(rng, colour), 16, example.reply)
    for number in range(150):
        example = dialogues.text_dialogue(rng)
        longest = 64 if example.ends else len(example.reply)
        # Its answer to nonsense does not matter, as long as it ends.
        also = [dialogues.GREETING_REPLY] if example.reply == dialogues.OTHER_REPLY else []
        ask(f"text {number} {example.turns}", messages_of(example), None, longest, example.reply, *also)
    print(f"{asked - wrong} of {asked} answers are right")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description="Train, or check, the lab's tiny Qwen3-VL.")
    parser.add_argument("--output", type=Path, default=HERE / "tiny", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--check", action="store_true", help="train nothing")
    options = parser.parse_args()
    # Two threads wait for each other on a busy machine, and their sums depend on their number.
    torch.set_num_threads(1)
    if not options.check:
        torch.manual_seed(options.seed)
        torch.use_deterministic_algorithms(True)
        processor = make_processor()
        model = make_model(processor.tokenizer)
        print(f"{sum(parameter.numel() for parameter in model.parameters())} parameters")
        train(model, Examples(processor, options.seed), options.steps)
        model.to(torch.bfloat16).save_pretrained(options.output)
        processor.save_pretrained(options.output)
        # Written for its owner alone, and an engine is another user.
        (options.output / "model.safetensors").chmod(0o644)
        (options.output / "prompts.json").write_text(json.dumps(golden(), indent=2) + "\n")
    return 1 if check(options.output) else 0


if __name__ == "__main__":
    sys.exit(main())
