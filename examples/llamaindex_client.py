#!/usr/bin/env python3
"""Ask with LlamaIndex in four ways: as a whole, in a stream, about a picture, and with a tool.

export OPENAI_BASE_URL=http://HOST:8000/v1 OPENAI_API_KEY=sk-...
python3 llamaindex_client.py ["What is the capital of Italy? Answer with one word."]

Needs LlamaIndex's package for servers with OpenAI's interface (pip install llama-index-llms-openai-like). MODEL chooses
another model.
"""

# Without annotations of __future__: LlamaIndex reads a tool's parameters from them.

import base64
import os
import sys
import typing as t

import openai
from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

QUESTION = "What is the capital of France? Answer with one word."
COLOUR = "What colour is the square? Answer with one word."
WEATHER = "How warm is it in Paris? Use the tool."
# A red square on white, as a PNG.
SQUARE = (
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAZUlEQVR42u3aQQoAIAgAwYz+/2V7g0GUMHsPGvASGZk5OjdH8wAA"
    "AAAAAAAAAADetconIu7eqPg+MUIAAAAAAAAAAAAAAAAAAAAAAAAAAAAA5er/A5/tFxkhAAAAAAAAAAAAgOM2t8AHfx74EyQAAAAA"
    "SUVORK5CYII="
)


def temperature(city: t.Literal["Paris", "Rome"]) -> str:
    """The temperature in a city."""
    return f"21 degrees Celsius in {city}"


TOOL = FunctionTool.from_defaults(temperature)


def whole(model: OpenAILike, question: str) -> str:
    return str(model.chat([ChatMessage(question)]).message.content)


def streamed(model: OpenAILike, question: str) -> str:
    finish, text = None, ""
    for piece in model.stream_chat([ChatMessage(question)]):
        print(piece.delta, end="", flush=True)
        text = str(piece.message.content)
        for choice in piece.raw.choices:
            finish = choice.finish_reason or finish
    print()
    # A stream that was cut off has an answer, but no finish reason.
    if not finish:
        raise ValueError(f"the stream ended early: {text}")
    return text


def seen(model: OpenAILike) -> str:
    picture = ImageBlock(image=base64.b64decode(SQUARE), image_mimetype="image/png")
    return str(model.chat([ChatMessage(blocks=[picture, TextBlock(text=COLOUR)])]).message.content)


def with_a_tool(model: OpenAILike) -> str:
    messages = [ChatMessage(WEATHER)]
    # Named, the tool has to be called; with "auto" the model decides.
    named = {"type": "function", "function": {"name": "temperature"}}
    reply = model.chat_with_tools([TOOL], chat_history=messages, tool_choice=named)
    calls = model.get_tool_calls_from_response(reply, error_on_no_tool_call=False)
    if not calls:
        return f"no call; the model says: {reply.message.content}"
    messages.append(reply.message)
    for call in calls:
        result = TOOL.call(**call.tool_kwargs)
        messages.append(ChatMessage(str(result), role="tool", additional_kwargs={"tool_call_id": call.tool_id}))
    return f"{len(calls)} call(s), then: {model.chat(messages).message.content}"


def main() -> int:
    question = " ".join(sys.argv[1:]) or QUESTION
    model = OpenAILike(
        # The client reads both itself, but without an address it would send the key to OpenAI.
        api_base=os.environ["OPENAI_BASE_URL"],
        api_key=os.environ["OPENAI_API_KEY"],
        model=os.environ.get("MODEL") or "Qwen/Qwen3-VL-8B-Instruct",
        # LlamaIndex knows neither of the server's models; without these it would ask for text completions.
        is_chat_model=True,
        is_function_calling_model=True,
        context_window=32768,
        max_tokens=256,
        temperature=0,
        timeout=120,
    )
    answers = {
        "whole": whole(model, question),
        "streamed": streamed(model, question),
        "a picture": seen(model),
        "a tool": with_a_tool(model),
    }
    for way, answer in answers.items():
        print(f"{way}: {answer}")
    empty = [way for way, answer in answers.items() if answer in ("", "None")]
    if empty:
        print(f"llamaindex_client.py: the model answered nothing: {', '.join(empty)}", file=sys.stderr)
    return 1 if empty else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyError as error:
        sys.exit(f"llamaindex_client.py: set OPENAI_BASE_URL and OPENAI_API_KEY ({error} is missing)")
    except (openai.OpenAIError, ValueError) as error:
        sys.exit(f"llamaindex_client.py: {error}")
