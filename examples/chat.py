#!/usr/bin/env python3
"""Ask one question and print the answer.

export OPENAI_BASE_URL=http://HOST:8000/v1 OPENAI_API_KEY=sk-...
python3 chat.py ["What is the capital of Italy? Answer with one word."]

Needs OpenAI's package (pip install openai). MODEL chooses another model.
"""

from __future__ import annotations

import os
import sys

import openai

QUESTION = "What is the capital of France? Answer with one word."


def main() -> int:
    # The client reads both itself, but without an address it would send the key to OpenAI.
    client = openai.OpenAI(base_url=os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"])
    reply = client.chat.completions.create(
        model=os.environ.get("MODEL") or "Qwen/Qwen3-VL-8B-Instruct",
        messages=[{"role": "user", "content": " ".join(sys.argv[1:]) or QUESTION}],
        max_tokens=256,
        temperature=0,
    )
    answer = reply.choices[0].message.content if reply.choices else None
    if not answer:
        print(f"chat.py: the model answered nothing: {reply}", file=sys.stderr)
        return 1
    print(answer)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyError as error:
        sys.exit(f"chat.py: set OPENAI_BASE_URL and OPENAI_API_KEY ({error} is missing)")
    except openai.OpenAIError as error:
        sys.exit(f"chat.py: {error}")
