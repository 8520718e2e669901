"""What the usage report makes of requests and of streams, in the words of both engines."""

from __future__ import annotations

import asyncio
import json
import typing as t
from pathlib import Path

import pytest

from tests.programs import load

FILES = Path(__file__).parents[3] / "roles/engine/files"
MARK = [(b"x-fleet-usage", b"always"), (b"content-length", b"0")]


@pytest.fixture(scope="module")
def report() -> t.Any:
    return load(FILES / "usage_report.py")


@pytest.fixture(scope="module")
def guard(report: t.Any) -> t.Any:
    assert report
    return load(FILES / "request_guard.py")


def usage(completion: int, cached: int | None = None) -> dict[str, t.Any]:
    counted: dict[str, t.Any] = {"prompt_tokens": 9, "total_tokens": 9 + completion, "completion_tokens": completion}
    return counted if cached is None else {**counted, "prompt_tokens_details": {"cached_tokens": cached}}


def event(document: t.Any) -> bytes:
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


def piece(text: str, count: t.Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}}], "usage": count})


LAST = event({"choices": [], "usage": usage(2, 8)})
DONE = b"data: [DONE]\n\n"
ANSWER = [piece("", usage(0)), piece("Par", usage(1)), piece("is", usage(2)), LAST, DONE]
#: What the client gets of it who did not ask for usage.
PLAIN = [piece("", None), piece("Par", None), piece("is", None), DONE]


def commented(**counted: t.Any) -> bytes:
    return b": usage " + json.dumps(counted, separators=(",", ":")).encode() + b"\n\n"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def rewritten(report: t.Any, body: t.Any, pieces: list[bytes], seconds_each: float = 0.0) -> list[bytes]:
    """What goes out for each piece, and at the end."""
    asked = report.asked_in(json.dumps({"stream": True, **body}).encode())
    clock = Clock()
    stream = report.StreamUsage(asked, clock)
    out = []
    for one in [*pieces, b""]:
        out.append(stream.rewrite(one, bool(one)))
        clock.now += seconds_each
    return out


def visible(pieces: list[bytes]) -> bytes:
    """What a client reads of it."""
    events = b"".join(pieces).split(b"\n\n")
    return b"".join(event + b"\n\n" for event in events if event and not event.startswith(b":"))


def test_a_client_that_did_not_ask_sees_none_of_it(report: t.Any) -> None:
    for body in ({}, {"stream_options": None}, {"stream_options": {"include_usage": False}}):
        out = rewritten(report, body, ANSWER)
        assert visible(out) == b"".join(PLAIN)
        assert b"".join(out).endswith(commented(**usage(2, 8)) + DONE)


def test_a_client_that_asked_gets_it_at_the_end_alone(report: t.Any) -> None:
    out = rewritten(report, {"stream_options": {"include_usage": True}}, ANSWER)
    assert visible(out) == b"".join([*PLAIN[:3], LAST, DONE])


def test_a_client_that_asked_for_all_of_it_gets_all_of_it(report: t.Any) -> None:
    asked = {"include_usage": True, "continuous_usage_stats": True}
    assert b"".join(rewritten(report, {"stream_options": asked}, ANSWER)) == b"".join(ANSWER)


def test_it_is_reported_at_first_and_from_time_to_time(report: t.Any) -> None:
    pieces = [piece("x", usage(number)) for number in range(10)]
    out = rewritten(report, {}, pieces, seconds_each=0.1)
    assert [number for number, one in enumerate(out) if b": usage " in one] == [0, 3, 6, 9]
    assert out[3].endswith(commented(**usage(3)))


def test_what_was_not_reported_is_reported_at_the_end(report: t.Any) -> None:
    out = rewritten(report, {}, [piece("x", usage(1)), piece("x", usage(2)), piece("x", usage(3))])
    assert out[-1] == commented(**usage(3))
    # Before the end as clients know it.
    out = rewritten(report, {}, [piece("x", usage(1)), piece("x", usage(2)), DONE])
    assert out[-2:] == [commented(**usage(2)) + DONE, b""]


def test_pieces_without_usage_pass_as_they_are(report: t.Any) -> None:
    pieces = [
        b": keep-alive\n\n",
        # SGLang.
        piece("x", None),
        event({"choices": [{"delta": {"content": 'say "usage":{"prompt_tokens":1}'}}]}),
        event({"error": {"message": '"usage"'}}),
        b'data: {"usage"',
        b'data: cut "usage":{"a":1}\n',
        DONE,
    ]
    assert rewritten(report, {}, pieces) == [*pieces, b""]


def test_several_events_may_come_together(report: t.Any) -> None:
    out = rewritten(report, {}, [b"".join(ANSWER)])
    assert visible(out) == b"".join(PLAIN)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"stream":false}',
        b'{"stream":1}',
        b'"stream"',
        b'{"stream":true,"stream_options":[1]}',
    ],
)
def test_what_is_no_stream_is_left_alone(report: t.Any, body: bytes) -> None:
    assert report.asked_in(body) is None


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({}, {"include_usage": True, "continuous_usage_stats": True}),
        ({"stream_options": {"include_usage": False}}, {"include_usage": True, "continuous_usage_stats": True}),
        (
            {"stream_options": {"include_obfuscation": False}},
            {"include_obfuscation": False, "include_usage": True, "continuous_usage_stats": True},
        ),
        ({"prompt": [1, 2, 3]}, {"include_usage": True, "continuous_usage_stats": True}),
        # Their pieces have each their own.
        ({"n": 2}, {"include_usage": True}),
        ({"best_of": 2}, {"include_usage": True}),
        ({"prompt": ["a", "b"]}, {"include_usage": True}),
        ({"prompt": [[1], [2]]}, {"include_usage": True}),
    ],
)
def test_the_engine_is_asked(report: t.Any, given: t.Any, options: t.Any) -> None:
    before = {"stream": True, "messages": [{"content": '{"}'}], **given}
    for body in (json.dumps(before).encode(), json.dumps(before, indent=1).encode() + b" \n"):
        document = json.loads(report.with_usage(body, report.asked_in(body), True))
        assert document == {**before, "stream_options": options}


def ask(guard: t.Any, body: t.Any, kind: bytes = b"text/event-stream", **scope: t.Any) -> tuple[t.Any, t.Any, bytes]:
    """What the application behind the real guard gets, and what it says, as the client gets it."""
    got: dict[str, t.Any] = {}
    sent: list[t.Any] = []
    left = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

    async def app(scope: t.Any, receive: t.Any, send: t.Any) -> None:
        got.update(scope, body=(await receive())["body"], after=(await receive())["type"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Type", kind)]})
        for one in ANSWER:
            await send({"type": "http.response.body", "body": one, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> t.Any:
        return left.pop() if left else {"type": "http.disconnect"}

    async def send(message: t.Any) -> None:
        sent.append(message)

    asked = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": MARK, **scope}
    asyncio.run(guard.RequestGuard(app)(asked, receive, send))
    assert not sent[-1].get("more_body")
    return got, json.loads(got["body"]), b"".join(message.get("body", b"") for message in sent)


def test_the_engine_is_asked_for_the_end_alone_where_that_is_enough(report: t.Any) -> None:
    """A comment that stands alone ends the streams of some clients, so others than those with limits get none."""
    body = b'{"stream":true}'
    document = json.loads(report.with_usage(body, report.asked_in(body), False))
    assert document["stream_options"] == {"include_usage": True}
    out = rewritten(report, {}, [piece("Par", None), piece("is", None), LAST, DONE])
    assert b"".join(out) == b"".join([piece("Par", None), piece("is", None), commented(**usage(2, 8)), DONE])


def test_it_stands_behind_the_guard(guard: t.Any) -> None:
    got, body, answer = ask(guard, {"stream": True})
    assert body["stream_options"]["include_usage"] is True
    assert dict(got["headers"])[b"content-length"] == str(len(got["body"])).encode()
    assert got["after"] == "http.disconnect"
    assert visible([answer]) == b"".join(PLAIN)
    assert commented(**usage(2, 8)) in answer


@pytest.mark.parametrize(
    "scope", [{"headers": []}, {"path": "/v1/responses"}, {"path": "/v1/messages"}], ids=["unmarked", "r", "m"]
)
def test_only_what_the_edge_has_marked_is_touched(guard: t.Any, scope: dict[str, t.Any]) -> None:
    _got, body, answer = ask(guard, {"stream": True}, **scope)
    assert (body, answer) == ({"stream": True}, b"".join(ANSWER))


def test_only_streams_are_touched(guard: t.Any) -> None:
    assert ask(guard, {"stream": False})[1:] == ({"stream": False}, b"".join(ANSWER))
    assert ask(guard, {"stream": True}, b"application/json")[2] == b"".join(ANSWER)
