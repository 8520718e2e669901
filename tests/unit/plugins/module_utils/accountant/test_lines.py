"""Lines as HAProxy's ring sends them."""

from __future__ import annotations

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.accountant.lines import AnswerUse, LineReader, parse

LINE = (
    "<29>1 2026-11-30T05:55:39.647421+00:00 - haproxy 7741 - - client=team-a key=01234567 from=1.2.3.4:5 for= "
    "method=POST path=/v1/chat/completions status={status} instance=gpu-1 end={end} queued_ms=0 connect_ms=0 "
    "first_ms=3 total_ms=10 bytes=100 active=1 queue=0 retries=0 cause=- request=0f-1 answer={answer} model={model} "
    "prompt={prompt} cached=- completion={completion} first_token_ms=- tokens_ms=-"
)


def line(**changes: str) -> bytes:
    values = {"status": "200", "end": "--", "answer": "whole", "model": "m", "prompt": "12", "completion": "3"}
    return LINE.format(**{**values, **changes}).encode()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (True, True, 12, 3)),
        ({"end": "CD", "answer": "stream"}, (True, True, 12, 3)),
        ({"completion": "-"}, (True, True, 12, 0)),
        ({"completion": "-", "answer": "stream", "end": "CD"}, (True, False, 0, 0)),
        ({"prompt": "-"}, (True, False, 0, 0)),
        ({"prompt": "-", "completion": "-"}, (True, False, 0, 0)),
        ({"answer": "-"}, (True, False, 0, 0)),
        ({"status": "502", "answer": "-"}, (False, False, 0, 0)),
        ({"status": "-1", "answer": "-"}, (False, False, 0, 0)),
        ({"status": "429", "answer": "-"}, (False, False, 0, 0)),
    ],
)
def test_a_line_says_what_was_used(changes: dict[str, str], expected: tuple[bool, bool, int, int]) -> None:
    assert parse(line(**changes)) == AnswerUse("0f-1", "team-a", *expected)


@pytest.mark.parametrize("other", [b"", b"<29>1 - Proxy edge_4000 started.", b"client=a", line()[:120], b"\xff" * 50])
def test_another_line_says_nothing(other: bytes) -> None:
    assert parse(other) is None


def framed(*lines: bytes) -> bytes:
    return b"".join(b"%d %s" % (len(one), one) for one in lines)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 100_000])
def test_lines_are_whole_whatever_comes_together(size: int) -> None:
    wanted = [line(prompt=str(number)) for number in range(20)]
    data = framed(*wanted)
    reader = LineReader()
    found = [one for at in range(0, len(data), size) for one in reader.feed(data[at : at + size])]
    assert (found, reader.skipped) == (wanted, 0)


def test_the_rest_of_a_line_waits() -> None:
    reader = LineReader()
    data = framed(line(), line())
    assert reader.feed(data[:-10]) == [line()]
    assert reader.feed(data[-10:]) == [line()]


@pytest.mark.parametrize("noise", [b"no length ", b"99999999 ", b"x", b"12345678901234567890", b"0123 \n\n"])
def test_what_is_no_line_is_left_out(noise: bytes) -> None:
    reader = LineReader()
    found = reader.feed(framed(line()) + noise + framed(line(prompt="9"), line(prompt="10")))
    assert found[0] == line()
    assert found[-1] == line(prompt="10")
    assert reader.skipped > 0 or noise.startswith(b"0123")
