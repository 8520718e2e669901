from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.net.http import Target
from ansible_collections.inference.fleet.plugins.module_utils.traffic.http_client import (
    Body,
    Broken,
    Connector,
    Head,
    named,
)

REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;ext=1\r\nlo\r\n0\r\nTrailer: x\r\n\r\n"


class Server:
    """Answers the requests on each connection with the next bytes of a script; None closes."""

    def __init__(self, *connections: list[bytes | None]) -> None:
        self._connections = list(connections)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.accepted = 0
        self.requests = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        # An accept that goes on after the socket was closed would take connections of whatever has its number next.
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


async def ask(connector: Connector, reuse: bool = True, timeout: float = 5.0) -> tuple[int, bytes]:
    connection = await connector.open(reuse)
    try:
        head = await connection.ask(REQUEST, timeout)
        body = b""
        while not connection.ended:
            body += await connection.more()
    except Broken:
        connection.close()
        raise
    connector.give_back(connection)
    return head.status, body


def run(server: Server, work: t.Callable[[Connector], t.Awaitable[t.Any]]) -> t.Any:
    async def whole() -> t.Any:
        connector = Connector(server.target, None, 5)
        try:
            return await asyncio.wait_for(work(connector), 20)
        finally:
            connector.close()

    return asyncio.run(whole())


async def twice(connector: Connector) -> list[tuple[int, bytes]]:
    first = await ask(connector)
    await asyncio.sleep(0.05)
    return [first, await ask(connector)]


@pytest.mark.parametrize("answer", [PLAIN, CHUNKED])
def test_a_connection_is_used_again(answer: bytes) -> None:
    with Server([answer, answer]) as server:
        assert run(server, twice) == [(200, b"hello")] * 2
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
        assert run(server, twice) == [(200, b"hello")] * 2
        assert server.accepted == 2
        assert server.requests == 2, "nothing is sent twice"


def test_each_time_a_new_one_where_that_is_asked_for() -> None:
    async def work(connector: Connector) -> None:
        for _ in range(3):
            await ask(connector, reuse=False)

    with Server([PLAIN], [PLAIN], [PLAIN]) as server:
        run(server, work)
        assert server.accepted == 3


def test_one_that_closes_on_the_second_request_is_a_failure_and_not_tried_again() -> None:
    with Server([PLAIN, b"", None], [PLAIN]) as server, pytest.raises(Broken, match="connection closed"):
        run(server, twice)
    assert (server.requests, server.accepted) == (2, 1)


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
    ],
)
def test_what_is_no_whole_answer(answer: bytes, kind: str) -> None:
    with Server([answer, None]) as server, pytest.raises(Broken) as broken:
        run(server, ask)
    assert broken.value.failure.kind == kind


def test_silence_is_a_timeout_and_drops_are_not() -> None:
    with Server([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"]) as server, pytest.raises(Broken) as broken:
        run(server, lambda connector: ask(connector, timeout=0.3))
    assert broken.value.failure.what == "timeout: nothing for 0.3 s"

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        for number in range(len(PLAIN)):
            writer.write(PLAIN[number : number + 1])
            await asyncio.sleep(0.02)

    async def work() -> tuple[int, bytes]:
        server = await asyncio.start_server(drip, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        return await ask(Connector(Target("127.0.0.1", port, "", False), None, 5), timeout=0.3)

    assert asyncio.run(work()) == (200, b"hello")


def test_what_came_before_a_reset_is_read() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")
        await writer.drain()
        await asyncio.sleep(0.1)
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        writer.transport.abort()

    async def work() -> tuple[bytes, str]:
        server = await asyncio.start_server(reset, "127.0.0.1", 0)
        connector = Connector(Target("127.0.0.1", server.sockets[0].getsockname()[1], "", False), None, 5)
        connection = await connector.open(False)
        await connection.ask(REQUEST, 5)
        content = await connection.more()
        with pytest.raises(Broken) as broken:
            await connection.more()
        return content, broken.value.failure.kind

    assert asyncio.run(work()) == (b"hello", "connection reset")


def test_nothing_listens() -> None:
    with Server() as server:
        target = server.target

    async def work(connector: Connector) -> None:
        await connector.open(True)

    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(Broken) as broken:
            asyncio.run(work(Connector(Target(host, target.port, "", False), None, 5)))
        assert broken.value.failure.kind == "connection refused"


def test_no_message_repeats_the_words_of_a_library() -> None:
    for error in (socket.gaierror(-2, "secret"), ssl.SSLError("secret"), OSError("secret"), ValueError("secret")):
        assert "secret" not in named(error).what
    assert named(socket.gaierror(-2, "x")).kind == "name not resolved"
    assert named(OSError(113, "No route to host")).what == "no connection (No route to host)"


def test_idle_connections_that_the_server_closed_are_let_go() -> None:
    async def work(connector: Connector) -> int:
        await ask(connector)
        await asyncio.sleep(0.1)
        connector.sweep()
        return len(connector._idle)

    with Server([PLAIN, None]) as server:
        assert run(server, work) == 0
    with Server([PLAIN, PLAIN]) as server:
        assert run(server, work) == 1


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body(status: int) -> None:
    assert Body(Head(status, {}, "HTTP/1.1")).done


def test_an_interim_answer_is_not_the_answer() -> None:
    with Server([b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN]) as server:
        assert run(server, ask) == (200, b"hello")


def test_chunks_may_be_cut_anywhere() -> None:
    raw = CHUNKED.partition(b"\r\n\r\n")[2]
    for size in range(1, len(raw)):
        body = Body(Head(200, {"transfer-encoding": "chunked"}, "HTTP/1.1"))
        content = b"".join(body.feed(raw[start : start + size]) for start in range(0, len(raw), size))
        assert (content, body.done, body.rest) == (b"hello", True, b"")
