# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What an engine compiles or loads on first use: requested before clients do, on a drained instance.

Requests, and the expected form of the answer. The model's text is noise here, so only the form counts. Pure.
"""

from __future__ import annotations

import json
import math
import typing as t

from ..engines.registry import ENGINES
from ..net.http import excerpt
from .chat import CHAT_PATH
from .golden import FINISHED, CheckFailure

COMPLETIONS_PATH = "/v1/completions"

# More tokens than engines prefill at once, and fewer than a context has.
LONG_PROMPT = 9000
# The context length where the list of models does not give it.
UNKNOWN_LENGTH = 2048

_TOOL = "paint"
_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": _TOOL,
            "description": "Paints the square.",
            "parameters": {
                "type": "object",
                "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}},
                "required": ["colour"],
                "additionalProperties": False,
            },
        },
    }
]
# A small model fills what a grammar leaves open with spaces, which these penalise.
_NO_PADDING = {"frequency_penalty": 2.0, "presence_penalty": 2.0}


class Capability(t.NamedTuple):
    """One capability.

    Attributes:
        asked: the request, in words.
        hint: what to try where the engine cannot do it.
        options: the request's options beside model and prompt.
        judge: raises CheckFailure for an answer of another form.
        prompt: the request's prompt.
        streamed: whether the answer is streamed, and only has to be complete.
        path: of the request.
    """

    asked: str
    hint: str
    options: dict[str, t.Any]
    judge: t.Callable[[t.Any], None]
    prompt: str = "Paint the square."
    streamed: bool = False
    path: str = CHAT_PATH


def _choices(document: t.Any, count: int = 1) -> list[dict[str, t.Any]]:
    """The choices of an answer, each of them complete."""
    choices = document.get("choices")
    if not isinstance(choices, list) or len(choices) != count or not all(isinstance(one, dict) for one in choices):
        raise _other(document, f"{count} choices")
    for choice in choices:
        if choice.get("finish_reason") not in (*FINISHED, "tool_calls"):
            raise CheckFailure("finish_reason", f"an answer with finish_reason {choice.get('finish_reason')}")
    return choices


def _other(found: t.Any, wanted: str) -> CheckFailure:
    return CheckFailure("not_capable", f"200 with {excerpt(json.dumps(found), 160)}; expected {wanted}")


def _is_finite(value: t.Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def judge_logprobs(document: t.Any) -> None:
    """Accept a finite probability for each token, and the likeliest beside it."""
    (choice,) = _choices(document)
    tokens = (choice.get("logprobs") or {}).get("content")
    found = tokens if isinstance(tokens, list) else []
    if not found or not all(_is_finite(one.get("logprob")) and one.get("top_logprobs") for one in found):
        raise _other(choice.get("logprobs"), "a finite logprob and top_logprobs for each token")


def judge_prompt_logprobs(document: t.Any) -> None:
    """Accept a finite probability for each token of the prompt but the first."""
    (choice,) = _choices(document)
    tokens = (choice.get("logprobs") or {}).get("token_logprobs")
    # The first token follows nothing; engines return null.
    if not isinstance(tokens, list) or len(tokens) < 3 or not all(_is_finite(one) for one in tokens[1:]):
        raise _other(choice.get("logprobs"), "a finite token_logprobs for each token of the prompt")


def judge_sampling(document: t.Any) -> None:
    """Accept two answers to one prompt."""
    _choices(document, 2)


def judge_forced_tool(document: t.Any) -> None:
    """Accept a call of the forced tool, with arguments in JSON; engines promise no more than that.

    For a call that was cut off at the limit, one engine returns nothing, and another returns the part that it has.
    """
    (choice,) = _choices(document)
    message: t.Any = choice.get("message") or {}
    was_cut = choice["finish_reason"] == "length"
    calls = message.get("tool_calls")
    if was_cut and not calls and not message.get("content"):
        return
    try:
        function = calls[0]["function"]
        name, text = function["name"], function["arguments"]
    except (TypeError, LookupError):
        raise _other(message, f"a call of the tool {_TOOL}") from None
    if name != _TOOL:
        raise _other(function, f"a call of the tool {_TOOL}")
    try:
        json.loads(text)
    except (TypeError, ValueError):
        if not was_cut:
            raise _other(function, "arguments in JSON") from None


def judge_end(document: t.Any) -> None:
    """Accept any complete answer."""
    _choices(document)


_COMPILER = "see the engine's journal for what it could not compile or load, and that the host has a C and C++ compiler"
_PARSER = "see that the engine was started with the tool parser of the model's family, and its journal"

CAPABILITIES: dict[str, Capability] = {
    "logprobs": Capability(
        "with the probabilities of its tokens",
        _COMPILER,
        {"logprobs": True, "top_logprobs": 2, "max_tokens": 4},
        judge_logprobs,
    ),
    "prompt_logprobs": Capability(
        "with the probabilities of the prompt's tokens",
        _COMPILER,
        {"echo": True, "logprobs": 1, "max_tokens": 1},
        judge_prompt_logprobs,
        path=COMPLETIONS_PATH,
    ),
    "sampling": Capability(
        "twice, sampled with penalties",
        _COMPILER,
        {
            "n": 2,
            "temperature": 0.8,
            "top_p": 0.9,
            "frequency_penalty": 0.5,
            "presence_penalty": 0.5,
            "seed": 7,
            "max_tokens": 8,
        },
        judge_sampling,
    ),
    "long_prompt": Capability(
        "after a prompt longer than what is prefilled at once",
        "see the engine's journal; the memory that a prefill takes grows with max_num_batched_tokens",
        {"max_tokens": 4},
        judge_end,
    ),
    "tools": Capability(
        "with a tool that may be called, streamed",
        _PARSER,
        {"tools": _TOOLS, "tool_choice": "auto", "max_tokens": 24},
        judge_end,
        streamed=True,
    ),
    "forced_tool": Capability(
        "with a tool that must be called",
        _PARSER,
        {
            "tools": _TOOLS,
            "tool_choice": {"type": "function", "function": {"name": _TOOL}},
            "max_tokens": 64,
            **_NO_PADDING,
        },
        judge_forced_tool,
    ),
}


def long_prompt(length: int | None) -> str:
    """A prompt that is prefilled in pieces, and leaves half of a short context free.

    Args:
        length: the context length; None where it is not known.
    """
    # A word is one token for most tokenizers, and two for some.
    return "one " * min(LONG_PROMPT, (length or UNKNOWN_LENGTH) // 2)


def tools_are_off(said: str) -> bool:
    """Whether an engine refuses tools because it was started without them."""
    tables = [engine.options for engine in ENGINES.values()]
    return any(f"--{name}" in said for table in tables for name in (table.tool_parser, table.tool_switch) if name)
