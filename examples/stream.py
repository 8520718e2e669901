#!/usr/bin/env python3
"""Ask one question and print the answer as it is written.

export OPENAI_BASE_URL=http://HOST:8000/v1 OPENAI_API_KEY=sk-...
python3 stream.py ["Count from one to twenty in words."]

Needs OpenAI's package (pip install openai). MODEL chooses another model.
"""

from __future__ import annotations

import os
import sys
import time

import openai

QUESTION = "Count from one to twenty in words."


def main() -> int:
    # The client reads both itself, but without an address it would send the key to OpenAI.
    client = openai.OpenAI(base_url=os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"])
    began = time.monotonic()
    first = 0.0
    finish = usage = None
    stream = client.chat.completions.create(
        model=os.environ.get("MODEL") or "Qwen/Qwen3-VL-8B-Instruct",
        messages=[{"role": "user", "content": " ".join(sys.argv[1:]) or QUESTION}],
        max_tokens=256,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        # The last chunk has the usage and no choice.
        usage = chunk.usage or usage
        for choice in chunk.choices:
            if choice.delta.content:
                first = first or time.monotonic() - began
                print(choice.delta.content, end="", flush=True)
            finish = choice.finish_reason or finish
    print()
    # A stream that was cut off has an answer, but no finish reason.
    if not first or not finish or not usage:
        print(f"stream.py: the stream ended early (finish reason {finish}, usage {usage})", file=sys.stderr)
        return 1
    print(f"first token after {first:.2f} s, {usage.completion_tokens} tokens, finish: {finish}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyError as error:
        sys.exit(f"stream.py: set OPENAI_BASE_URL and OPENAI_API_KEY ({error} is missing)")
    except openai.OpenAIError as error:
        sys.exit(f"stream.py: {error}")
