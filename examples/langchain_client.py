#!/usr/bin/env python3
"""Ask with LangChain in four ways: as a whole, in a stream, about a picture, and with a tool.

export OPENAI_BASE_URL=http://HOST:8000/v1 OPENAI_API_KEY=sk-...
python3 langchain_client.py ["What is the capital of Italy? Answer with one word."]

Needs LangChain's package for OpenAI's interface (pip install langchain-openai). MODEL chooses another model.
"""

from __future__ import annotations

import os
import sys

import openai
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

QUESTION = "What is the capital of France? Answer with one word."
COLOUR = "What colour is the square? Answer with one word."
WEATHER = "How warm is it in Paris? Use the tool."
# A red square on white.
SQUARE = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAZUlEQVR42u3aQQoAIAgAwYz+/2V7g0GUMHsPGvASGZk5OjdH8wAA"
    "AAAAAAAAAADetconIu7eqPg+MUIAAAAAAAAAAAAAAAAAAAAAAAAAAAAA5er/A5/tFxkhAAAAAAAAAAAAgOM2t8AHfx74EyQAAAAA"
    "SUVORK5CYII="
)


@tool
def temperature(city: str) -> str:
    """The temperature in a city."""
    return f"21 degrees Celsius in {city}"


# A model may give arguments that do not fit. It is shown the error then, and may correct them.
temperature.handle_validation_error = True


def whole(model: ChatOpenAI, question: str) -> str:
    return str(model.invoke(question).content)


def streamed(model: ChatOpenAI, question: str) -> str:
    reply = None
    for chunk in model.stream(question):
        print(chunk.content, end="", flush=True)
        reply = chunk if reply is None else reply + chunk
    print()
    # A stream that was cut off has an answer, but no finish reason.
    if reply is None or not reply.response_metadata.get("finish_reason"):
        raise ValueError(f"the stream ended early: {reply}")
    print(f"the stream used {reply.usage_metadata}", file=sys.stderr)
    return str(reply.content)


def seen(model: ChatOpenAI) -> str:
    parts = [{"type": "image_url", "image_url": {"url": SQUARE}}, {"type": "text", "text": COLOUR}]
    return str(model.invoke([HumanMessage(parts)]).content)


def with_a_tool(model: ChatOpenAI) -> str:
    messages: list[BaseMessage] = [HumanMessage(WEATHER)]
    equipped = model.bind_tools([temperature])
    reply = equipped.invoke(messages)
    calls = [call for call in reply.tool_calls if call["name"] == temperature.name]
    # The model decides. A small one may answer without the tool.
    if not calls:
        return f"no call; the model says: {reply.content}"
    messages.append(reply)
    messages += [temperature.invoke(call) for call in calls]
    return f"{len(calls)} call(s), then: {equipped.invoke(messages).content}"


def main() -> int:
    question = " ".join(sys.argv[1:]) or QUESTION
    model = ChatOpenAI(
        # The client reads both itself, but without an address it would send the key to OpenAI.
        base_url=os.environ["OPENAI_BASE_URL"],
        api_key=os.environ["OPENAI_API_KEY"],
        model=os.environ.get("MODEL") or "Qwen/Qwen3-VL-8B-Instruct",
        max_tokens=256,
        temperature=0,
        # With an address of one's own LangChain does not ask for it by itself.
        stream_usage=True,
    )
    answers = {
        "whole": whole(model, question),
        "streamed": streamed(model, question),
        "a picture": seen(model),
        "a tool": with_a_tool(model),
    }
    for way, answer in answers.items():
        print(f"{way}: {answer}")
    empty = [way for way, answer in answers.items() if not answer]
    if empty:
        print(f"langchain_client.py: the model answered nothing: {', '.join(empty)}", file=sys.stderr)
    return 1 if empty else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyError as error:
        sys.exit(f"langchain_client.py: set OPENAI_BASE_URL and OPENAI_API_KEY ({error} is missing)")
    except (openai.OpenAIError, ValueError) as error:
        sys.exit(f"langchain_client.py: {error}")
