from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.gate.capabilities import (
    CAPABILITIES,
    long_prompt,
    tools_are_off,
)
from ansible_collections.inference.fleet.plugins.module_utils.gate.golden import CheckFailure

TOKEN = {"token": "Paris", "logprob": -0.1, "top_logprobs": [{"token": "Paris", "logprob": -0.1}]}
CALL = {"id": "1", "type": "function", "function": {"name": "paint", "arguments": '{"colour": "red"}'}}


def answer(finish_reason: str = "stop", **choice: t.Any) -> dict[str, t.Any]:
    return {"choices": [{"index": 0, "finish_reason": finish_reason, **choice}]}


def called(arguments: str, name: str = "paint", finish_reason: str = "tool_calls") -> dict[str, t.Any]:
    function = {"name": name, "arguments": arguments}
    return answer(finish_reason, message={"content": None, "tool_calls": [{**CALL, "function": function}]})


ACCEPTED = [
    ("logprobs", answer(logprobs={"content": [TOKEN, TOKEN]})),
    ("prompt_logprobs", answer("length", logprobs={"token_logprobs": [None, -1.5, 0, -3]})),
    ("sampling", {"choices": [{"finish_reason": "stop"}, {"finish_reason": "length"}]}),
    ("long_prompt", answer("length")),
    ("tools", answer("tool_calls")),
    ("forced_tool", called('{"colour": "blue"}')),
    ("forced_tool", called('{ "colour": "red" }', finish_reason="stop")),
    ("forced_tool", called("971.2085634798107")),
    ("forced_tool", called("{   ", finish_reason="length")),
    ("forced_tool", answer("length", message={"content": "", "tool_calls": None})),
]

REFUSED = [
    ("logprobs", answer(logprobs=None)),
    ("logprobs", answer(logprobs={"content": []})),
    ("logprobs", answer(logprobs={"content": [{**TOKEN, "logprob": json.loads("NaN")}]})),
    ("logprobs", answer(logprobs={"content": [{**TOKEN, "top_logprobs": []}]})),
    ("logprobs", answer("abort", logprobs={"content": [TOKEN]})),
    ("logprobs", {}),
    ("prompt_logprobs", answer(logprobs={"token_logprobs": [None, None, -1.0]})),
    ("prompt_logprobs", answer(logprobs={"token_logprobs": [-1.0]})),
    ("sampling", answer()),
    ("long_prompt", answer("abort")),
    ("tools", answer("error")),
    ("forced_tool", answer(message={"content": "I paint it."})),
    ("forced_tool", answer("length", message={"content": "I paint it with"})),
    ("forced_tool", answer(message={"content": ""})),
    ("forced_tool", called('{"colour": "blue"}', name="draw")),
    ("forced_tool", called("colour: red")),
    ("forced_tool", called("{   ", finish_reason="stop")),
]


@pytest.mark.parametrize(("capability", "document"), ACCEPTED)
def test_the_shape_of_the_answer_counts(capability: str, document: dict[str, t.Any]) -> None:
    CAPABILITIES[capability].judge(document)


@pytest.mark.parametrize(("capability", "document"), REFUSED)
def test_an_answer_of_another_shape_is_refused(capability: str, document: dict[str, t.Any]) -> None:
    with pytest.raises(CheckFailure) as caught:
        CAPABILITIES[capability].judge(document)
    assert caught.value.reason in ("not_capable", "finish_reason")


@pytest.mark.parametrize(("length", "words"), [(2048, 1024), (262144, 9000), (None, 1024)])
def test_a_long_prompt_fits_the_context(length: int | None, words: int) -> None:
    assert len(long_prompt(length).split()) == words


@pytest.mark.parametrize(
    ("said", "off"),
    [
        ('400: "auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set', True),
        ('400: tool_choice=function "paint" requires --tool-call-parser to be set', True),
        ("400: Invalid schema", False),
    ],
)
def test_engines_without_tools_say_so(said: str, off: bool) -> None:
    assert tools_are_off(said) is off
