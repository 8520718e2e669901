"""A server in place of an engine, and clients, that leave most of a core to the edges between them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import multiprocessing.connection
import statistics
import time
import typing as t

from tests.fakes.engine import MODEL

USAGE = {
    "prompt_tokens": 20,
    "completion_tokens": 40,
    "total_tokens": 60,
    "prompt_tokens_details": {"cached_tokens": 0},
}
#: What chat completions answer and stream: about as many bytes as an engine's.
ANSWER = json.dumps(
    {
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion",
        "created": 1796000000,
        "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * 100}, "finish_reason": "stop"}],
        "usage": USAGE,
    }
).encode()
PIECE = json.dumps(
    {
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": 1796000000,
        "model": MODEL,
        "choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}],
    }
).encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Backend:
    """The server, in a process of its own. Use it as a context manager.

    A request says in the header X-Bench what it gets: nothing for an answer, ``after SECONDS`` for one later, ``stream
    PIECES SECONDS`` for so many pieces with so much between them, ``wait`` for none.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,), daemon=True)
        self.port = 0

    def __enter__(self) -> Backend:
        self._process.start()
        self.port = self._pipe.recv()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.terminate()
        self._process.join(10)
        self._process.kill()


def _serve(pipe: multiprocessing.connection.Connection) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(_Engine, "127.0.0.1", 0, backlog=2048)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


class _Engine(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = t.cast("asyncio.Transport", transport)
        self._received = bytearray()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._received[:end]).lower()
            length = int(head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0] or 0)
            if len(self._received) < end + 4 + length:
                return
            del self._received[: end + 4 + length]
            self._answer(head.partition(b"\r\nx-bench: ")[2].partition(b"\r\n")[0].split())

    def _answer(self, wanted: list[bytes]) -> None:
        if not wanted:
            self._transport.write(HEAD % len(ANSWER) + ANSWER)
        elif wanted[0] == b"after":
            asyncio.get_running_loop().call_later(float(wanted[1]), self._answer, [])
        elif wanted[0] == b"stream":
            self._transport.write(STREAM_HEAD)
            self._stream(int(wanted[1]), float(wanted[2]))

    def _stream(self, left: int, pause: float) -> None:
        if self._transport.is_closing():
            return
        if left:
            self._transport.write(chunk(b"data: " + PIECE + b"\n\n"))
            asyncio.get_running_loop().call_later(pause, self._stream, left - 1, pause)
            return
        usage = b": usage " + json.dumps(USAGE).encode() + b"\n\n"
        self._transport.write(chunk(usage) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")


class Timed(t.NamedTuple):
    """The seconds of requests, and of all of them together."""

    p50: float
    took: float


def request_of(key: str, body: bytes, wanted: str = "") -> bytes:
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: bench",
        f"Authorization: Bearer {key}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *([f"X-Bench: {wanted}"] if wanted else []),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def ask(port: int, request: bytes, clients: int, requests: int, tls: t.Any = None) -> Timed:
    """So many clients at once, each over one connection, which send so many requests together."""
    return asyncio.run(_ask(port, request, clients, requests // clients, tls))


async def _ask(port: int, request: bytes, clients: int, each: int, tls: t.Any) -> Timed:
    seconds: list[float] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        for _ in range(each):
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"bench: the edge at port {port} answered {head[:300]!r}")
            length = int(head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            seconds.append(time.perf_counter() - began)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return Timed(statistics.median(seconds), time.perf_counter() - began)


class Held(t.NamedTuple):
    """Requests that are open at once.

    Attributes:
        request: each of them.
        many: how many.
        answered: whether their answers begin.
    """

    request: bytes
    many: int
    answered: bool


def hold(port: int, requests: t.Sequence[Held], ready: t.Callable[[], float]) -> float:
    """What ``ready`` returns while all of these are open, some seconds after the last one has begun."""
    return asyncio.run(_hold(port, requests, ready))


async def _hold(port: int, requests: t.Sequence[Held], ready: t.Callable[[], float]) -> float:
    begun = 0

    async def one(held: Held) -> None:
        nonlocal begun
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(held.request)
        await writer.drain()
        begun += not held.answered
        while data := await reader.read(65536):
            if data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"bench: the edge at port {port} answered {data[:300]!r}")
            begun += held.answered and data.startswith(b"HTTP/1.1 200")
        writer.close()

    tasks = [asyncio.create_task(one(held)) for held in requests for _ in range(held.many)]
    wanted, end = sum(held.many for held in requests), time.monotonic() + 60
    while begun < wanted:
        if time.monotonic() > end:
            raise SystemExit(f"bench: {begun} of {wanted} requests had begun after 60 s")
        await asyncio.sleep(0.05)
    await asyncio.sleep(2)
    found = ready()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return found


def stream(port: int, key: str, body: bytes, streams: int, pieces: int, pause: float) -> int:
    """So many streams at once, to their end; how many pieces came."""
    return asyncio.run(_stream(port, request_of(key, body, f"stream {pieces} {pause}"), streams))


async def _stream(port: int, request: bytes, streams: int) -> int:
    async def one() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        seen = 0
        last = b""
        while b"0\r\n\r\n" not in last:
            data = await reader.read(65536)
            if not data:
                raise SystemExit(f"bench: a stream of port {port} ended early, after {seen} pieces")
            seen += data.count(b"data: {")
            last = last[-8:] + data
        writer.close()
        return seen

    return sum(await asyncio.gather(*(one() for _ in range(streams))))
