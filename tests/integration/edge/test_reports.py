"""Requests of public reports on proxies and engines. docs/testing.md lists them with their sources."""

from __future__ import annotations

import gzip
import socket
import typing as t

import pytest

from tests.integration.edge.conftest import (
    KEY,
    Edge,
    Shared,
    error_of,
    eventually,
    sharing,
)
from tests.integration.edge.engine import Recorder

CHAT = "/v1/chat/completions"
#: More than HAProxy holds of a body.
LARGE = b"{" + b" " * 299_998 + b"}"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Shared]:
    with sharing(tmp_path_factory) as both:
        yield both


def begin(edge: Edge, key: str) -> socket.socket:
    """A client that sends a large body only after 100 Continue."""
    connection = socket.create_connection(("127.0.0.1", edge.port), 10)
    lines = [f"POST {CHAT} HTTP/1.1", "Host: edge", f"Authorization: Bearer {key}", f"Content-Length: {len(LARGE)}"]
    connection.sendall("\r\n".join([*lines, "Expect: 100-continue", "", ""]).encode())
    return connection


def test_a_client_that_waits_for_100_continue_receives_it(shared: Shared) -> None:
    with begin(shared[0], KEY) as connection:
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(LARGE)
        answer = b""
        while b'{"length": 300000}' not in answer:
            received = connection.recv(65536)
            assert received, answer
            answer += received


def test_without_a_live_key_it_is_refused_before_it_sends(shared: Shared) -> None:
    with begin(shared[0], "sk-wrong") as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("header", ["a" * 14_000, "中文".encode().decode("latin-1")])
def test_long_headers_and_those_beyond_ascii_pass(shared: Shared, header: str) -> None:
    assert shared[0].status("/v1/models", KEY, X_Title=header) == 200


def test_a_compressed_body_arrives_as_it_is(shared: Shared) -> None:
    """No part of the service unpacks one: the request guard says that it is no JSON."""
    edge, engines = shared
    body = gzip.compress(b"{}" * 1000)
    assert edge.status(CHAT, KEY, method="POST", body=body, Content_Encoding="gzip") == 200
    assert [request.body for engine in engines for request in engine.seen][-1] == body


def test_a_large_body_is_answered_although_no_engine_is_there(unstarted: Edge, engines: list[Recorder]) -> None:
    edge = unstarted.start_and_wait()
    for engine in engines:
        engine.healthy = False
    eventually(lambda: not edge.healthy())
    answer = edge.ask(CHAT, KEY, method="POST", body=b"x" * 3_000_000)
    assert (answer[0], error_of(answer)["code"]) == (503, "unavailable")
