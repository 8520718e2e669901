from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.keys import fingerprint
from ansible_collections.inference.fleet.plugins.plugin_utils.traffic.answer import (
    EventReader,
    StreamedAnswer,
    judge,
    refusal,
)

KEY = "sk-secret-0123456789-0123456789"


def chunk(content: str | None = None, finish: str | None = None, **delta: t.Any) -> bytes:
    choice = {"index": 0, "delta": {"content": content, **delta}, "finish_reason": finish}
    return b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error": {"message": "EngineCore died", "code": 500}}\n\n'
USAGE = b'data: {"choices": [], "usage": {"completion_tokens": 2}}\n\n'
WHOLE = chunk("", role="assistant") + chunk("one") + chunk(" two") + chunk(finish="stop") + USAGE + DONE


def read(raw: bytes, size: int = 10**6) -> tuple[int, str | None]:
    answer = StreamedAnswer(KEY)
    tokens = sum(answer.feed(raw[start : start + size]) for start in range(0, len(raw), size))
    failure = answer.verdict()
    return tokens, failure.what if failure else None


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10**6])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_a_whole_stream_is_whole_however_its_bytes_arrive(size: int, line_end: bytes) -> None:
    assert read(WHOLE.replace(b"\n", line_end), size) == (2, None)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", (0, "the stream ended without finish_reason and [DONE]")),
        (chunk("one"), (1, "the stream ended without finish_reason and [DONE]")),
        (chunk("one") + DONE, (1, "the stream ended without finish_reason")),
        (chunk("one", "length"), (1, "the stream ended without [DONE]")),
        (chunk("one") + ERROR + DONE, (1, "error event: EngineCore died")),
        (chunk("one") + ERROR + chunk(finish="stop") + DONE, (1, "error event: EngineCore died")),
        (chunk("one") + b'data: {"error": "gone"}\n\n', (1, "error event: gone")),
        (chunk("one") + chunk(finish="abort") + DONE, (1, "finish_reason abort")),
        (chunk("one") + b"data: <html>\n\n" + DONE, (1, "an event that is no chat completion chunk")),
        (chunk("one") + b"data: [1]\n\n" + DONE, (1, "an event that is no chat completion chunk")),
        (chunk("one") + b'data: {"choices": [5]}\n\n' + DONE, (1, "an event that is no chat completion chunk")),
    ],
)
def test_a_stream_that_is_not_whole(raw: bytes, expected: tuple[int, str]) -> None:
    assert read(raw) == expected


def test_comments_and_other_fields_are_no_events() -> None:
    reader = EventReader()
    assert reader.feed(b": ping\n\nevent: x\nid: 1\n\ndata: a\ndata:b\n\n") == [b"a\nb"]


def test_reasoning_is_content_too() -> None:
    raw = chunk(None, reasoning_content="hm") + chunk(None, reasoning="hm") + chunk(None, tool_calls=[])
    assert read(raw + chunk(finish="tool_calls") + DONE) == (2, None)


def whole(**changes: t.Any) -> bytes:
    choice = {"message": {"role": "assistant", "content": "Paris"}, "finish_reason": "stop", **changes}
    return json.dumps({"choices": [choice]}).encode()


def test_a_whole_answer() -> None:
    assert judge(200, whole(), KEY) is None
    assert judge(200, whole(message={"content": None, "reasoning_content": "hm"}, finish_reason="length"), KEY) is None


@pytest.mark.parametrize(
    ("status", "body", "kind", "what"),
    [
        (200, b"<h1>It works!</h1>", "no chat completion", "200, but no chat completion: <h1>It works!</h1>"),
        (200, b"", "no chat completion", "200, but no chat completion: "),
        (200, b'{"choices": []}', "no chat completion", '200, but no chat completion: {"choices": []}'),
        (200, b"[]", "no chat completion", "200, but no chat completion: []"),
        (200, b'{"error": {"message": "engine died"}}', "error in a 200", "200, but an error: engine died"),
        (200, whole(finish_reason="abort"), "finish_reason", "200, but finish_reason abort"),
        (200, whole(finish_reason=None), "finish_reason", "200, but finish_reason None"),
        (503, b'{"error": {"message": "drained"}}', "503 Service Unavailable", "503 Service Unavailable: drained"),
        (401, b'{"error": "Unauthorized"}', "401 Unauthorized", "401 Unauthorized: Unauthorized"),
        (502, b"<html>\n<b>Bad</b>", "502 Bad Gateway", "502 Bad Gateway: <html> <b>Bad</b>"),
        (504, b"", "504 Gateway Timeout", "504 Gateway Timeout"),
        (599, b"x", "599", "599: x"),
    ],
)
def test_an_answer_that_is_none(status: int, body: bytes, kind: str, what: str) -> None:
    failure = judge(status, body, KEY)
    assert failure is not None
    assert (failure.kind, failure.what) == (kind, what)


def test_messages_are_short_and_hold_no_key() -> None:
    for where in (0, 150, 190, 400):
        body = json.dumps({"error": {"message": f"{'x' * where} no session for Bearer {KEY} " + "y" * 500}}).encode()
        what = refusal(500, body, KEY).what
        assert len(what) < 250
        assert KEY[:8] not in what
    assert fingerprint(KEY) in refusal(500, f"for {KEY}".encode(), KEY).what
    assert KEY not in str(read(b'data: {"error": {"message": "no session for ' + KEY.encode() + b'"}}\n\n'))
