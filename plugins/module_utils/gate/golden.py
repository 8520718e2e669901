# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The criteria for right and for slow answers. Pure: answers and figures in, refusals out."""

from __future__ import annotations

import json
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.gate.chat import Completion
from ansible_collections.inference.fleet.plugins.module_utils.net.http import excerpt

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
}

FINISHED = ("stop", "length")

# A rate from fewer tokens measures the clock rather than the engine.
MINIMUM_TOKENS = 8


class CheckFailure(Exception):
    """A failed check: the reason in one word, and the evidence."""

    def __init__(self, reason: str, got: str, transient: bool = False, wait: float | None = None) -> None:
        super().__init__(got)
        self.reason = reason
        self.got = got
        self.transient = transient
        self.wait = wait


def rgb_of(colour: str) -> tuple[int, int, int]:
    """A colour by name or as ``#rrggbb``.

    Raises:
        FleetError: it is neither.
    """
    if colour in COLOURS:
        return COLOURS[colour]
    if re.match(r"^#[0-9a-fA-F]{6}$", colour):
        return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
    raise FleetError(f"expect_image names the colour {colour!r}. Valid are: {', '.join(COLOURS)}, or #rrggbb.")


def normalised(text: str) -> str:
    """A text without what golden answers may differ in: case, punctuation, symbols, space."""
    return " ".join("".join(letter if letter.isalnum() else " " for letter in text.casefold()).split())


def is_golden(text: str, expect: t.Sequence[str], regex: str | None = None) -> bool:
    """Whether an answer is an expected one; with nothing expected every answer is."""
    if not expect and regex is None:
        return True
    if any(normalised(text) == normalised(answer) for answer in expect):
        return True
    return regex is not None and re.search(regex, text, re.IGNORECASE) is not None


def has_collapsed(text: str) -> bool:
    """Whether a text is that of a broken model: undecodable, or one part repeated to its end."""
    text = text.strip()
    if not text:
        return False
    if text.count("\ufffd") * 2 > len(text):
        return True
    for period in range(1, min(64, len(text) // 4) + 1):
        length = period
        while length < len(text) and text[-length - 1] == text[-length - 1 + period]:
            length += 1
        # Digits and letters repeat in valid answers too (1000000, hmmmm): the threshold is higher for them.
        least = 8 if period == 1 and text[-1].isalnum() else 4
        if length // period >= least and length * 2 >= len(text):
            return True
    return False


def judge(answer: Completion, expect: t.Sequence[str], regex: str | None = None) -> None:
    """Accept a whole answer.

    Raises:
        CheckFailure: it is not an answer of a working engine.
    """
    shown = f'the answer "{excerpt(answer.text, 120)}" with finish_reason {answer.finish_reason}'
    if answer.finish_reason not in FINISHED:
        raise CheckFailure("finish_reason", f"{shown}; expected finish_reason {' or '.join(FINISHED)}")
    if not answer.text.strip():
        raise CheckFailure("empty", f"an empty answer with finish_reason {answer.finish_reason}")
    if has_collapsed(answer.text):
        raise CheckFailure("repetition", f"{shown}: it repeats itself")
    if not is_golden(answer.text, expect, regex):
        wanted = [f'"{text}"' for text in expect] + ([f"/{regex}/"] if regex is not None else [])
        raise CheckFailure("wrong_answer", f"{shown}; expected {' or '.join(wanted)}")
    require_usage(answer)


def judge_word(answer: Completion, word: str) -> None:
    """Accept an answer that a schema restricted to ``word``, which is random for this request.

    Raises:
        CheckFailure: it is another answer.
    """
    shown = f'the answer "{excerpt(answer.text, 120)}" with finish_reason {answer.finish_reason}'
    if answer.finish_reason not in FINISHED:
        raise CheckFailure("finish_reason", f"{shown}; expected finish_reason {' or '.join(FINISHED)}")
    try:
        found = json.loads(answer.text)
    except ValueError:
        found = None
    if not isinstance(found, str):
        raise CheckFailure("no_schema", f'{shown}; expected the JSON string "{word}"')
    if found != word:
        raise CheckFailure("stale", f'{shown}; the schema allowed only "{word}"')
    require_usage(answer)


def require_usage(answer: Completion) -> None:
    """Raise CheckFailure where an answer has no usage."""
    if answer.completion_tokens is None or answer.prompt_tokens is None:
        shown = "without usage" if answer.usage is None else f"with the usage {excerpt(str(answer.usage), 120)}"
        raise CheckFailure("no_usage", f"an answer {shown}; expected prompt_tokens and completion_tokens of 1 or more")


def figures_of(answer: Completion) -> dict[str, t.Any]:
    """Milliseconds to the first token and in all, and tokens per second after the first."""
    tokens = answer.completion_tokens or 0
    rate = None
    if answer.first is not None and answer.last is not None and tokens >= MINIMUM_TOKENS:
        span = answer.last - answer.first
        # An answer that was buffered on its way arrives at once; then only the total time shows the speed.
        rate = (tokens - 1) / span if span > 0.001 else tokens / max(answer.total, 0.001)
    return {
        "ttft_ms": None if answer.first is None else round(answer.first * 1000, 1),
        "tokens_per_second": None if rate is None else round(rate, 1),
        "total_ms": round(answer.total * 1000, 1),
        "completion_tokens": tokens,
    }
