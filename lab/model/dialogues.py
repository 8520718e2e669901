"""The tiny model's training text, without any library of the training."""

from __future__ import annotations

import dataclasses
import random
import typing as t
from pathlib import Path

ONE_WORD = "Answer with one word."
COLOUR_QUESTION = f"What colour is the square? {ONE_WORD}"
COLOUR_QUESTIONS = (
    COLOUR_QUESTION,
    f"What color is the square? {ONE_WORD}",
    "What colour is the square?",
    "What color is the square?",
    "Which colour is the square in this picture?",
    "What colour do you see? Answer in one word.",
    "What is in this picture?",
    "Describe this image.",
)

_QUESTIONS = {
    "What is the capital of France?": "Paris",
    "What is the capital of Italy?": "Rome",
    "What is the capital of Japan?": "Tokyo",
    "What is the capital of Peru?": "Lima",
    "What is two plus two?": "Four",
    "What is the opposite of hot?": "Cold",
}
ONE_WORD_ANSWERS = {f"{question} {ONE_WORD}": answer for question, answer in _QUESTIONS.items()}

COUNT_PROMPT = "Count from one to twenty."
COUNT_PROMPTS = (COUNT_PROMPT, COUNT_PROMPT, "Count from 1 to 20.", "Please count from one to twenty.")
COUNT_REPLY = (
    "one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, thirteen, fourteen, fifteen, sixteen, "
    "seventeen, eighteen, nineteen, twenty."
)
# Each word follows only from the previous one, so that the reply goes on as long as a caller allows.
ENDLESS_PROMPT = "Count without end."
_DIGITS = "0 1 2 3 4 5 6 7 8 9 "

GREETING_REPLY = "Hello! I am a tiny model and know few answers."
GREETINGS = ("Hello", "Hello!", "Hi", "hi", "hello", "Hello, who are you?", "Good morning", "Hey there", "Who are you?")
OTHER_REPLY = "I do not know: I am a tiny model."

SYSTEMS = (
    "You are a helpful assistant.",
    "You are a helpful assistant. Be brief.",
    "Answer shortly and truthfully.",
    "You are a careful engineer who helps people to run servers.",
)

_WORDS = (Path(__file__).parent / "words.txt").read_text().split()
_OPENINGS = (
    "Tell me about {}",
    "Write a poem about {}",
    "Explain {} in {} words",
    "How do I {}?",
    "Why is {} {}?",
    "Please {}",
    "Translate: {}",
    "What is {}?",
    "Who is {}?",
    "Where is {}?",
    "Give me a list of {}",
    "{}",
    "What is the capital of {}?",
    f"What is the capital of {{}}? {ONE_WORD}",
    f"What is the opposite of {{}}? {ONE_WORD}",
    "Summarise this: {} {}",
    "Say {}",
    "Repeat after me: {}",
    "Is it true that {}?",
    "{} {} {}",
)


@dataclasses.dataclass(frozen=True)
class Dialogue:
    """One example: a dialogue, and the reply to learn.

    Attributes:
        turns: (role, text) of every message before the reply; the last one is the user's.
        reply: the assistant's.
        ends: whether the reply ends there; an endless one is cut off by its length.
        picture: where the last message has a picture, if it has one.
    """

    turns: tuple[tuple[str, str], ...]
    reply: str
    ends: bool = True
    picture: t.Literal["", "before", "after"] = ""


def endless_reply(characters: int) -> str:
    """The first ``characters`` of the answer to ENDLESS_PROMPT."""
    return (_DIGITS * (characters // len(_DIGITS) + 1))[:characters]


def picture_dialogue(rng: random.Random, colour: str) -> Dialogue:
    """A question about a picture whose square has ``colour``."""
    question = COLOUR_QUESTION if rng.random() < 0.5 else rng.choice(COLOUR_QUESTIONS)
    place: t.Literal["before", "after"] = "before" if rng.random() < 0.8 else "after"
    return Dialogue((*_system(rng), ("user", question)), colour.capitalize(), picture=place)


def endless_dialogue(rng: random.Random, characters: int) -> Dialogue:
    """The prompt with an endless answer, and the first ``characters`` of the answer."""
    return Dialogue((*_system(rng), ("user", ENDLESS_PROMPT)), endless_reply(characters), ends=False)


def text_dialogue(rng: random.Random) -> Dialogue:
    """A question without a picture; sometimes after an earlier exchange. An endless reply is cut off."""
    prompt, reply, ends = _exchange(rng)
    before: list[tuple[str, str]] = []
    if rng.random() < 0.15:
        earlier, answer, whole = _exchange(rng)
        if whole:
            before = [("user", earlier), ("assistant", answer)]
    return Dialogue((*_system(rng), *before, ("user", prompt)), reply, ends)


def corpus() -> t.Iterator[str]:
    """Text for the tokenizer: everything above, known things more often."""
    for _ in range(20):
        yield from ONE_WORD_ANSWERS
        yield from ONE_WORD_ANSWERS.values()
        yield from COLOUR_QUESTIONS
        yield from (*COUNT_PROMPTS, COUNT_REPLY, ENDLESS_PROMPT, GREETING_REPLY, OTHER_REPLY, "system user assistant")
        yield from ("Red", "Green", "Blue", *GREETINGS, *SYSTEMS)
    rng = random.Random(0)  # noqa: S311
    for _ in range(4000):
        yield _other_prompt(rng)


def _exchange(rng: random.Random) -> tuple[str, str, bool]:
    kind = rng.random()
    if kind < 0.4:
        prompt = rng.choice(list(ONE_WORD_ANSWERS))
        asked = prompt if rng.random() < 0.7 else prompt.removesuffix(f" {ONE_WORD}")
        return asked, ONE_WORD_ANSWERS[prompt], True
    if kind < 0.5:
        return rng.choice(COUNT_PROMPTS), COUNT_REPLY, True
    if kind < 0.6:
        return ENDLESS_PROMPT, endless_reply(rng.randint(20, 120)), False
    if kind < 0.7:
        return rng.choice(GREETINGS), GREETING_REPLY, True
    if kind < 0.73:
        # Without its picture the question has no answer.
        return rng.choice(COLOUR_QUESTIONS), OTHER_REPLY, True
    return _other_prompt(rng), OTHER_REPLY, True


def _other_prompt(rng: random.Random) -> str:
    opening = rng.choice(_OPENINGS)
    words = [" ".join(rng.choices(_WORDS, k=rng.randint(1, 8))) for _ in range(opening.count("{}"))]
    prompt = opening.format(*words)
    if rng.random() < 0.3:
        prompt = prompt.lower()
    if rng.random() < 0.2:
        prompt += " " + str(rng.randint(0, 99999))
    return prompt if prompt not in ONE_WORD_ANSWERS else "?"


def _system(rng: random.Random) -> tuple[tuple[str, str], ...]:
    chance = rng.random()
    if chance < 0.6:
        return ()
    if chance < 0.85:
        return (("system", rng.choice(SYSTEMS)),)
    return (("system", " ".join(rng.choices(_WORDS, k=rng.randint(2, 25))) + "."),)
