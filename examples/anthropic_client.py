#!/usr/bin/env python3
"""Ask with Anthropic's client in four ways: as a whole, in a stream, about a picture, and with a tool.

export OPENAI_BASE_URL=http://HOST:8000/v1 OPENAI_API_KEY=sk-...
python3 anthropic_client.py ["What is the capital of Italy? Answer with one word."]

Needs Anthropic's package (pip install anthropic). MODEL chooses another model.
"""

from __future__ import annotations

import os
import sys
import typing as t

import anthropic

QUESTION = "What is the capital of France? Answer with one word."
COLOUR = "What colour is the square? Answer with one word."
WEATHER = "How warm is it in Paris? Use the tool."
OPTIONS: dict[str, t.Any] = {
    "model": os.environ.get("MODEL") or "Qwen/Qwen3-VL-8B-Instruct",
    "max_tokens": 256,
    # Newer releases of the client have no parameter for it.
    "extra_body": {"temperature": 0},
}
# A red square on white, as a PNG.
SQUARE = (
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAZUlEQVR42u3aQQoAIAgAwYz+/2V7g0GUMHsPGvASGZk5OjdH8wAA"
    "AAAAAAAAAADetconIu7eqPg+MUIAAAAAAAAAAAAAAAAAAAAAAAAAAAAA5er/A5/tFxkhAAAAAAAAAAAAgOM2t8AHfx74EyQAAAAA"
    "SUVORK5CYII="
)
TOOL: t.Any = {
    "name": "temperature",
    "description": "The temperature in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}

Messages = list[t.Any]


def temperature(arguments: dict[str, t.Any]) -> str:
    # A model may give arguments that do not fit. It is shown what was wrong then.
    return f"21 degrees Celsius in {arguments['city']}" if "city" in arguments else "error: city is missing"


def ask(client: anthropic.Anthropic, messages: Messages, **more: t.Any) -> t.Any:
    return client.messages.create(messages=messages, **OPTIONS, **more)


def text_of(reply: t.Any) -> str:
    return "".join(block.text for block in reply.content if block.type == "text")


def whole(client: anthropic.Anthropic, question: str) -> str:
    return text_of(ask(client, [{"role": "user", "content": question}]))


def streamed(client: anthropic.Anthropic, question: str) -> str:
    asked: Messages = [{"role": "user", "content": question}]
    with client.messages.stream(messages=asked, **OPTIONS) as stream:
        for piece in stream.text_stream:
            print(piece, end="", flush=True)
        reply = stream.get_final_message()
    print()
    # A stream that was cut off has an answer, but no reason to stop.
    if not reply.stop_reason:
        raise ValueError(f"the stream ended early: {reply}")
    print(f"the stream used {reply.usage.input_tokens} + {reply.usage.output_tokens} tokens", file=sys.stderr)
    return text_of(reply)


def seen(client: anthropic.Anthropic) -> str:
    source = {"type": "base64", "media_type": "image/png", "data": SQUARE}
    parts = [{"type": "image", "source": source}, {"type": "text", "text": COLOUR}]
    return text_of(ask(client, [{"role": "user", "content": parts}]))


def with_a_tool(client: anthropic.Anthropic) -> str:
    messages: Messages = [{"role": "user", "content": WEATHER}]
    reply = ask(client, messages, tools=[TOOL])
    calls = [block for block in reply.content if block.type == "tool_use" and block.name == TOOL["name"]]
    # The model decides. A small one may answer without the tool.
    if not calls:
        return f"no call; the model says: {text_of(reply)}"
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": temperature(call.input)} for call in calls]
    messages += [{"role": "assistant", "content": reply.content}, {"role": "user", "content": results}]
    return f"{len(calls)} call(s), then: {text_of(ask(client, messages, tools=[TOOL]))}"


def main() -> int:
    question = " ".join(sys.argv[1:]) or QUESTION
    # This client adds /v1 itself.
    address = os.environ["OPENAI_BASE_URL"].rstrip("/").removesuffix("/v1")
    client = anthropic.Anthropic(base_url=address, api_key=os.environ["OPENAI_API_KEY"])
    answers = {
        "whole": whole(client, question),
        "streamed": streamed(client, question),
        "a picture": seen(client),
        "a tool": with_a_tool(client),
    }
    for way, answer in answers.items():
        print(f"{way}: {answer}")
    empty = [way for way, answer in answers.items() if not answer]
    if empty:
        print(f"anthropic_client.py: the model answered nothing: {', '.join(empty)}", file=sys.stderr)
    return 1 if empty else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyError as error:
        sys.exit(f"anthropic_client.py: set OPENAI_BASE_URL and OPENAI_API_KEY ({error} is missing)")
    except (anthropic.AnthropicError, ValueError) as error:
        sys.exit(f"anthropic_client.py: {error}")
