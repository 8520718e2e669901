"""Any answer with status 200 is a valid answer or a reported failure, never a traceback."""

from __future__ import annotations

import http.server
import json
import threading
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.gate.chat import (
    ChatFailure,
    Completion,
    ask,
    ask_streamed,
    models,
    question,
    said,
)
from ansible_collections.inference.fleet.plugins.module_utils.net.http import HttpClient, Reply

QUESTION = question("m", "?", 8)
USAGE = {"prompt_tokens": 1, "completion_tokens": 2}


class Server(t.Protocol):
    def __call__(self, body: bytes | str, kind: str = ...) -> HttpClient: ...


@pytest.fixture
def server() -> t.Iterator[Server]:
    """A server that answers everything with one body."""

    class Handler(http.server.BaseHTTPRequestHandler):
        body, kind = b"", ""

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", self.kind)
            self.end_headers()
            self.wfile.write(self.body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_args: t.Any) -> None:
            return

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()

    def answer(body: bytes | str, kind: str = "application/json") -> HttpClient:
        Handler.body, Handler.kind = body.encode() if isinstance(body, str) else body, kind
        return HttpClient(f"http://127.0.0.1:{running.server_address[1]}", timeout=5)

    yield answer
    running.shutdown()
    running.server_close()


def sse(*documents: t.Any) -> str:
    return "".join(
        f"data: {document if isinstance(document, str) else json.dumps(document)}\n\n" for document in documents
    )


def piece(content: t.Any, finish: str | None = None, **delta: t.Any) -> dict[str, t.Any]:
    return {"choices": [{"delta": {"content": content, **delta}, "finish_reason": finish}]}


@pytest.mark.parametrize(
    "body",
    [
        "[]",
        "1",
        "null",
        "{}",
        '{"choices": []}',
        '{"choices": null}',
        '{"choices": [null]}',
        '{"choices": [{"message": null}]}',
        '{"choices": [{"message": {}}]}',
        '{"choices": [{"message": {"content": [1]}}]}',
        "<html>",
        "",
        b"\xff\xfe",
    ],
)
def test_what_is_no_completion_is_malformed(server: Server, body: bytes | str) -> None:
    with pytest.raises(ChatFailure) as caught:
        ask(server(body), QUESTION, 5)
    assert (caught.value.reason, caught.value.transient) == ("malformed", False)


@pytest.mark.parametrize("usage", [None, [], "many", {"completion_tokens": "2"}])
def test_usage_of_another_shape_is_no_usage(server: Server, usage: t.Any) -> None:
    answer = ask(server(json.dumps({"choices": [{"message": {"content": "x"}}], "usage": usage})), QUESTION, 5)
    assert (answer.text, answer.completion_tokens, answer.finish_reason) == ("x", None, None)


def test_an_answer_of_nothing_is_an_empty_text(server: Server) -> None:
    assert ask(server('{"choices": [{"message": {"content": null}}]}'), QUESTION, 5).text == ""


def test_a_stream_is_put_together(server: Server) -> None:
    body = sse(
        {"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
        piece("Pa"),
        piece("ris", "stop"),
        {"choices": [], "usage": USAGE},
        "[DONE]",
    )
    answer = ask_streamed(server(": keep-alive\n\n" + body, "text/event-stream"), QUESTION, 5)
    assert (answer.text, answer.finish_reason, answer.completion_tokens) == ("Paris", "stop", 2)
    assert answer.first is not None
    assert answer.last is not None
    assert 0 < answer.first <= answer.last <= answer.total


def test_thinking_counts_as_the_first_token_but_not_as_an_answer(server: Server) -> None:
    body = sse(piece(None, reasoning_content="hm"), piece("ok", "stop"), "[DONE]")
    answer = ask_streamed(server(body, "text/event-stream"), QUESTION, 5)
    assert answer.text == "ok"
    assert answer.first is not None


def test_tokens_without_text_are_timed_too(server: Server) -> None:
    body = sse(piece(""), piece("", "length"), "[DONE]")
    answer = ask_streamed(server(body, "text/event-stream"), QUESTION, 5)
    assert (answer.text, answer.first is None) == ("", False)


@pytest.mark.parametrize(
    ("body", "reason", "shown"),
    [
        ("", "truncated", "after 0 events"),
        (sse(piece("Pa")), "truncated", "ended without [DONE] after 1 events"),
        (sse("not json"), "malformed", "not json"),
        (sse([1]), "malformed", "[1]"),
        (sse({"choices": [1]}), "malformed", "another shape"),
        (sse({"choices": 1}), "malformed", "another shape"),
        (sse(piece([1])), "malformed", "another shape"),
        (sse({"choices": [{"delta": [1]}]}), "malformed", "another shape"),
        (sse(piece("Pa"), {"error": {"message": "EngineCore died"}}), "truncated", "EngineCore died"),
        (sse({"error": "gone"}), "truncated", "gone"),
    ],
)
def test_a_broken_stream_is_reported(server: Server, body: str, reason: str, shown: str) -> None:
    with pytest.raises(ChatFailure) as caught:
        ask_streamed(server(body, "text/event-stream"), QUESTION, 5)
    assert (caught.value.reason, caught.value.transient) == (reason, False)
    assert shown in caught.value.came_back


@pytest.mark.parametrize("body", ["{}", "[]", '{"data": null}', '{"data": [1]}', '{"data": [{}]}', '{"data": 1}', "x"])
def test_what_is_no_list_of_models_is_malformed(server: Server, body: str) -> None:
    with pytest.raises(ChatFailure) as caught:
        models(server(body), 5)
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ('{"error": "Unauthorized"}', "401: Unauthorized"),
        ('{"error": {"message": "No such model"}}', "401: No such model"),
        ('{"detail": "x"}', '401: {"detail": "x"}'),
        ("", "401 without a body"),
        ("x" * 1000, "401: " + "x" * 299 + "…"),
    ],
)
def test_a_refusal_is_reported_in_the_servers_words(body: str, shown: str) -> None:
    assert said(Reply(401, {}, body.encode(), 0.1)) == shown


def test_counts_are_numbers_above_zero() -> None:
    assert Completion(usage=USAGE).completion_tokens == 2
    assert Completion(usage={"completion_tokens": 0}).completion_tokens is None
    assert Completion().prompt_tokens is None
