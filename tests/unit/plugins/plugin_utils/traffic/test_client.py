"""The traffic driver's HTTP against servers that answer byte by byte by a script."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.net.http import Target
from ansible_collections.inference.fleet.plugins.plugin_utils.traffic.client import (
    MAX_BODY,
    Broken,
    TrafficClient,
    explain,
)

KEY = "sk-test-0123456789-0123456789"
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;ext=1\r\nlo\r\n0\r\nTrailer: x\r\n\r\n"


class Server:
    """Answers the requests on each connection with the next bytes of a script; None closes, after some seconds."""

    def __init__(self, *connections: list[bytes | None], close_after: float = 0) -> None:
        self._connections = list(connections)
        self._close_after = close_after
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.accepted = 0
        self.requests = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        # An accept that continues after the socket was closed would take connections of the next socket with its
        # number.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    @property
    def target(self) -> Target:
        return Target("127.0.0.1", self._socket.getsockname()[1], "", False)

    def _serve(self) -> None:
        for script in self._connections:
            try:
                connection, _address = self._socket.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._answer, args=(connection, script), daemon=True).start()

    def _answer(self, connection: socket.socket, script: list[bytes | None]) -> None:
        with connection:
            for answer in script:
                if answer is None:
                    time.sleep(self._close_after)
                    return
                seen = b""
                while not seen.endswith(b"{}"):
                    got = connection.recv(65536)
                    if not got:
                        return
                    seen += got
                self.requests += 1
                connection.sendall(answer)
            connection.recv(1)


async def ask(client: TrafficClient, reuse: bool = True) -> tuple[int, bytes]:
    async with client.ask({}, reuse) as answer:
        return answer.status, await answer.body()


def run(work: t.Coroutine[t.Any, t.Any, t.Any]) -> t.Any:
    return asyncio.run(asyncio.wait_for(work, 20))


@contextlib.asynccontextmanager
async def opened(target: Target, timeout: float = 5.0) -> t.AsyncIterator[TrafficClient]:
    client = TrafficClient(target, KEY, None, timeout)
    try:
        yield client
    finally:
        await client.close()


async def once(target: Target, timeout: float = 5.0) -> tuple[int, bytes]:
    async with opened(target, timeout) as client:
        return await ask(client)


async def twice(target: Target) -> list[tuple[int, bytes]]:
    async with opened(target) as client:
        first = await ask(client)
        await asyncio.sleep(0.05)
        return [first, await ask(client)]


@contextlib.asynccontextmanager
async def serving(
    answer: t.Callable[[asyncio.StreamReader, asyncio.StreamWriter], t.Awaitable[None]],
) -> t.AsyncIterator[Target]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=512)
    try:
        yield Target("127.0.0.1", server.sockets[0].getsockname()[1], "", False)
    finally:
        server.close()


@pytest.mark.parametrize("answer", [PLAIN, CHUNKED])
def test_a_connection_is_used_again(answer: bytes) -> None:
    with Server([answer, answer]) as server:
        assert run(twice(server.target)) == [(200, b"hello")] * 2
        assert server.accepted == 1


@pytest.mark.parametrize(
    "first",
    [
        [PLAIN, None],
        [PLAIN.replace(b"OK", b"OK\r\nConnection: close")],
        [PLAIN.replace(b"1.1", b"1.0", 1)],
        [PLAIN + b"HTTP/1.1 408 Request Timeout\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\n\r\nhello", None],
    ],
    ids=["closed later", "said so", "1.0", "more than asked for", "ends with the connection"],
)
def test_a_connection_that_cannot_be_used_again_is_replaced(first: list[bytes | None]) -> None:
    with Server(first, [PLAIN]) as server:
        assert run(twice(server.target)) == [(200, b"hello")] * 2
        assert server.accepted == 2
        assert server.requests == 2, "nothing is sent twice"


def test_a_connection_that_was_closed_while_the_driver_did_not_run_is_replaced() -> None:
    async def work(target: Target) -> list[tuple[int, bytes]]:
        async with opened(target) as client:
            first = await ask(client)
            # The end arrives meanwhile, and only the kernel knows.
            time.sleep(0.2)
            return [first, await ask(client)]

    with Server([PLAIN, None], [PLAIN], close_after=0.1) as server:
        assert run(work(server.target)) == [(200, b"hello")] * 2
        assert (server.requests, server.accepted) == (2, 2)


def test_each_time_a_new_one_where_that_is_asked_for() -> None:
    async def work(target: Target) -> None:
        async with opened(target) as client:
            for _ in range(3):
                await ask(client, reuse=False)

    with Server([PLAIN], [PLAIN], [PLAIN]) as server:
        run(work(server.target))
        assert server.accepted == 3


def test_one_that_closes_on_the_second_request_is_a_failure_and_not_tried_again() -> None:
    with Server([PLAIN, b"", None], [PLAIN]) as server, pytest.raises(Broken, match="connection closed"):
        run(twice(server.target))
    assert (server.requests, server.accepted) == (2, 1)


def test_a_redirect_is_the_answer() -> None:
    moved = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
    with Server([moved, PLAIN], [PLAIN]) as server:
        assert run(once(server.target)) == (307, b"")
        assert server.requests == 1


def test_requests_do_not_wait_for_each_other() -> None:
    """A limit of the library would look like a slow server."""
    arrived = []
    all_have = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(await reader.readuntil(b"{}"))
        if len(arrived) == 300:
            all_have.set()
        await all_have.wait()
        writer.write(PLAIN)

    async def work() -> None:
        async with serving(serve) as target, opened(target) as client:
            answers = await asyncio.gather(*(ask(client, bool(number % 2)) for number in range(300)))
            assert set(answers) == {(200, b"hello")}

    run(work())


@pytest.mark.parametrize("reuse", [True, False])
def test_what_is_sent(reuse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    seen = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen = await reader.readuntil(b"{}")
        writer.write(PLAIN)

    async def work() -> int:
        async with serving(serve) as target, opened(target._replace(prefix="/fleet")) as client:
            assert await ask(client, reuse) == (200, b"hello")
            return target.port

    port = run(work())
    first, *lines = seen.decode().split("\r\n")
    assert first == "POST /fleet/v1/chat/completions HTTP/1.1"
    assert sorted(lines, key=str.lower) == [
        "",
        "Accept: */*",
        f"Authorization: Bearer {KEY}",
        f"Connection: {'keep-alive' if reuse else 'close'}",
        "Content-Length: 2",
        "Content-Type: application/json",
        f"Host: 127.0.0.1:{port}",
        "User-Agent: inference-fleet-traffic",
        "{}",
    ]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "connection closed"),
        (CHUNKED[:-4], "connection closed"),
        (CHUNKED[:60], "connection closed"),
        (b"HTTP/1.1 200", "connection closed"),
        (b"", "connection closed"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 abc\r\n\r\n", "not HTTP"),
        (CHUNKED.replace(b"3\r\nhel", b"zz\r\nhel"), "not HTTP"),
        (CHUNKED.replace(b"3\r\nhel", b"2\r\nhel"), "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_BODY + 1), "too long"),
    ],
)
def test_what_is_no_whole_answer(answer: bytes, kind: str) -> None:
    with Server([answer, None]) as server, pytest.raises(Broken) as broken:
        run(once(server.target))
    assert broken.value.failure.kind == kind


def test_silence_is_a_timeout_and_drops_are_not() -> None:
    for answer in (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", b"HTTP/1.1 2", b""):
        with Server([answer]) as server, pytest.raises(Broken) as broken:
            run(once(server.target, 0.3))
        assert broken.value.failure.what == "timeout: nothing for 0.3 s"

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        for number in range(len(PLAIN)):
            writer.write(PLAIN[number : number + 1])
            await asyncio.sleep(0.02)

    async def work() -> tuple[int, bytes]:
        async with serving(drip) as target:
            return await once(target, 0.3)

    assert run(work()) == (200, b"hello")


def test_a_server_that_accepts_no_connection_is_a_timeout() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        target = Target("127.0.0.1", full.getsockname()[1], "", False)
        with socket.create_connection(("127.0.0.1", target.port)), pytest.raises(Broken) as broken:
            run(once(target, 0.3))
    assert broken.value.failure.what == "timeout: no connection within 0.3 s"


def test_what_came_before_a_reset_is_read() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")
        await writer.drain()
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        writer.transport.abort()

    async def work() -> tuple[bytes, str]:
        read = b""
        try:
            async with serving(reset) as target, opened(target) as client, client.ask({}, False) as answer:
                async for piece in answer.pieces():
                    read += piece
        except Broken as broken:
            return read, broken.failure.kind
        return read, "whole"

    for _ in range(20):
        assert run(work()) == (b"hello", "connection reset")


def test_nothing_listens() -> None:
    with Server() as server:
        target = server.target
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(Broken) as broken:
            run(once(Target(host, target.port, "", False)))
        assert broken.value.failure.kind == "connection refused"


def test_a_name_without_an_address() -> None:
    with pytest.raises(Broken) as broken:
        run(once(Target("no-such-host.invalid", 80, "", False)))
    assert broken.value.failure.kind == "name not resolved"


def test_no_message_repeats_the_words_of_a_library() -> None:
    for error in (socket.gaierror(-2, "secret"), ssl.SSLError("secret"), OSError("secret"), ValueError("secret")):
        assert "secret" not in explain(error, 1).what
    assert explain(OSError(113, "secret"), 1).what == "no connection (No route to host)"


def test_an_interim_answer_is_not_the_answer() -> None:
    with Server([b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN]) as server:
        assert run(once(server.target)) == (200, b"hello")
