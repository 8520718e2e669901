from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.net.http import (
    MAX_BODY,
    HttpClient,
    HttpFailure,
    SseParser,
    excerpt,
    parse_url,
    retry_after,
)

KEY = "sk-0123456789abcdef"
STREAM = (
    "\ufeff: a comment\r\n"
    'data: {"text": "Grüße, 世界"}\r\n\r\n'
    "event: x\ndata: one\ndata:two\nid: 7\n\n"
    "retry: 3\n\n"
    "data:\r\r"
    "data: [DONE]\n\n"
    "data: never ended"
).encode()
EVENTS = ['{"text": "Grüße, 世界"}', "one\ntwo", "", "[DONE]"]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 16, len(STREAM)])
def test_events_are_the_same_however_the_bytes_are_cut(size: int) -> None:
    parser = SseParser()
    chunks = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]
    assert [event for chunk in chunks for event in parser.feed(chunk)] == EVENTS


def test_events_are_the_same_for_every_single_cut() -> None:
    for cut in range(len(STREAM)):
        parser = SseParser()
        assert parser.feed(STREAM[:cut]) + parser.feed(STREAM[cut:]) == EVENTS


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2", 2.0),
        ("0.5", 0.5),
        ("86400", 30.0),
        ("-5", 0.0),
        ("nan", 0.0),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 10.0),
        ("Wed, 31 Dec 1969 23:00:00 GMT", 0.0),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_honoured_within_reason(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value}, now=0.0) == seconds


def test_an_answer_without_retry_after_asks_for_nothing() -> None:
    assert retry_after({}) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8000", ("127.0.0.1", 8000, "", False)),
        ("http://[::1]:8000/", ("::1", 8000, "", False)),
        ("https://llm.example/v1/", ("llm.example", 443, "", True)),
        ("http://llm.example/team/v1", ("llm.example", 80, "/team", False)),
    ],
)
def test_a_base_url_is_understood(url: str, expected: tuple[str, int, str, bool]) -> None:
    assert tuple(parse_url(url)) == expected


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", "http://x:port", "http://x?a=b", ""])
def test_an_invalid_url_is_named(url: str) -> None:
    with pytest.raises(FleetError, match="no base URL") as caught:
        parse_url(url)
    assert repr(url) in caught.value.message


def test_a_url_with_a_password_is_refused_without_repeating_it() -> None:
    with pytest.raises(FleetError, match="api_key") as caught:
        parse_url("http://user:hunter22@127.0.0.1")
    assert "hunter22" not in caught.value.message


def test_an_excerpt_is_one_printable_line() -> None:
    assert excerpt("a\n\tb\x1b[31m c\x00") == "a b [31m c"
    assert excerpt("x" * 400) == "x" * 299 + "…"


@contextlib.contextmanager
def server(talk: t.Callable[[socket.socket], None]) -> t.Iterator[str]:
    """A server that reads one request and then runs ``talk``."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _address = listener.accept()
                with connection, contextlib.suppress(OSError):
                    read_request(connection)
                    talk(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def read_request(connection: socket.socket) -> None:
    """Read a request with all of its body: unread data resets the connection when it is closed."""
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(65536)
        if not part:
            return
        received += part
        if received.startswith(b"\x16"):  # a TLS handshake, which has no end of headers
            return
    start, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", start, re.IGNORECASE)
    size = int(length[1]) if length else 0
    while len(body) < size:
        part = connection.recv(65536)
        if not part:
            return
        body += part


def head(extra: str = "", status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\n{extra}\r\n".encode()


def failure_of(url: str, timeout: float = 5.0) -> HttpFailure:
    with pytest.raises(HttpFailure) as caught:
        HttpClient(url, KEY, timeout).get("/v1/models")
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


def test_a_dead_port_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert failure_of(f"http://127.0.0.1:{port}").kind == "refused"


def test_silence_ends_at_the_timeout() -> None:
    release = threading.Event()

    def wait(_connection: socket.socket) -> None:
        release.wait(10)

    with server(wait) as url:
        began = time.monotonic()
        assert failure_of(url, 0.3).kind == "timeout"
        assert time.monotonic() - began < 9
        release.set()


@pytest.mark.parametrize("beginning", [b"", head("Content-Length: 1000\r\n"), b"HTTP/1.1 200 OK\r\nX: "])
def test_dripping_bytes_do_not_stretch_the_timeout(beginning: bytes) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(beginning)
        for _ in range(100):
            connection.sendall(b"H")
            time.sleep(0.05)

    with server(drip) as url:
        began = time.monotonic()
        assert failure_of(url, 0.5).kind == "timeout"
        assert time.monotonic() - began < 4.5


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (b"", "reset"),
        (head("Content-Length: 10\r\n") + b"abc", "cut"),
        (head("Transfer-Encoding: chunked\r\n") + b"5\r\nab", "cut"),
        (head("Transfer-Encoding: chunked\r\n") + b"5\r\nhello\r\n", "cut"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "garbled"),
        (head() + b"x" * (MAX_BODY + 1), "garbled"),
    ],
)
def test_half_an_answer_is_none(sent: bytes, kind: str) -> None:
    with server(lambda connection: connection.sendall(sent)) as url:
        assert failure_of(url).kind == kind


def test_plain_http_on_a_tls_url_is_reported() -> None:
    with server(lambda connection: connection.sendall(head())) as url:
        assert failure_of(url.replace("http:", "https:")).kind in ("tls", "reset")


def test_an_invalid_ca_file_is_named(tmp_path: t.Any) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("no certificate")
    with pytest.raises(FleetError, match=r"ca_path is .*ca\.pem"):
        HttpClient("https://127.0.0.1:1", KEY, ca_path=str(path)).get("/")


def test_a_whole_answer_comes_back() -> None:
    body = json.dumps({"data": []}).encode()

    def talk(connection: socket.socket) -> None:
        connection.sendall(head(f"Content-Length: {len(body)}\r\nRetry-After: 3\r\n", "503 Busy") + body)

    with server(talk) as url:
        reply = HttpClient(url, KEY).get("/v1/models")
    assert (reply.status, reply.headers["retry-after"], reply.json()) == (503, "3", {"data": []})


def test_a_key_that_is_sent_back_is_not_passed_on() -> None:
    body = b'{"error": "no such key: ' + KEY.encode() + b'"}'
    with server(lambda connection: connection.sendall(head() + body)) as url:
        reply = HttpClient(url, KEY).get("/")
        assert KEY not in reply.text()
        assert "sk-…" in reply.json()["error"]
        with HttpClient(url, KEY).stream("/", {}) as stream:
            assert KEY.encode() not in stream.reply().body
    event = b"data: " + KEY.encode() + b"\n\n"
    with (
        server(lambda connection: connection.sendall(head() + event)) as url,
        HttpClient(url, KEY).stream("/", {}) as stream,
    ):
        assert [data[:4] for _elapsed, data in stream.events()] == ["sk-…"]


def test_a_body_that_is_not_json_is_reported() -> None:
    with server(lambda connection: connection.sendall(head() + b"<html>")) as url:
        reply = HttpClient(url).get("/")
    with pytest.raises(HttpFailure, match="not JSON"):
        reply.json()
