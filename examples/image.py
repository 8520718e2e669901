#!/usr/bin/env python3
"""Ask something about a picture and print the answer.

export OPENAI_BASE_URL=http://HOST:8000/v1 OPENAI_API_KEY=sk-...
python3 image.py                                      # a red square, made here
python3 image.py photo.jpg "What is in this picture?"

The picture travels inside the request. The hosts fetch no URLs unless vllm_allowed_media_domains lets them.
Needs OpenAI's package (pip install openai). MODEL chooses another model.
"""

from __future__ import annotations

import base64
import mimetypes
import os
import struct
import sys
import zlib

import openai

SIDE = 256
RED = bytes((220, 20, 20))


def red_square() -> bytes:
    """A PNG with the standard library only."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + RED * SIDE) * SIDE
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def data_url(path: str | None) -> str:
    kind, picture = "image/png", red_square()
    if path:
        kind = mimetypes.guess_type(path)[0] or "image/png"
        with open(path, "rb") as file:
            picture = file.read()
    return f"data:{kind};base64,{base64.b64encode(picture).decode()}"


def main() -> int:
    path = sys.argv[1] if len(sys.argv) > 1 else None
    asked_of_own = "What colour is the square? Answer with one word."
    question = " ".join(sys.argv[2:]) or ("What is in this picture?" if path else asked_of_own)
    # The client reads both itself, but without an address it would send the key to OpenAI.
    client = openai.OpenAI(base_url=os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"])
    reply = client.chat.completions.create(
        model=os.environ.get("MODEL") or "Qwen/Qwen3-VL-8B-Instruct",
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": data_url(path)}},
                    {"type": "text", "text": question},
                ],
            }
        ],
        max_tokens=256,
        temperature=0,
    )
    answer = reply.choices[0].message.content if reply.choices else None
    if not answer:
        print(f"image.py: the model answered nothing: {reply}", file=sys.stderr)
        return 1
    print(answer)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyError as error:
        sys.exit(f"image.py: set OPENAI_BASE_URL and OPENAI_API_KEY ({error} is missing)")
    except (openai.OpenAIError, OSError) as error:
        sys.exit(f"image.py: {error}")
