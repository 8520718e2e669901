"""A real Redis on the loopback interface, and enough of a client for the gateway's modules."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import time
import typing as t
from pathlib import Path

import pytest

from tests.ports import free_port

#: Debian's redis-tools has the server's program, without a service: it is one with redis-check-rdb, by another name.
PROGRAM = shutil.which("redis-server") or shutil.which("redis-check-rdb")


class Redis:
    """Speaks to a server as redis-py does; a connection for each command."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def eval(self, script: str, numkeys: int, *words: t.Any) -> t.Any:
        return await self.ask("EVAL", script, numkeys, *words)

    async def ask(self, *words: t.Any) -> t.Any:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
            parts = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
            writer.write(b"*%d\r\n%s" % (len(encoded), parts))
            return await _answer(reader)
        finally:
            writer.close()


async def _answer(reader: asyncio.StreamReader) -> t.Any:
    line = (await reader.readuntil(b"\r\n"))[:-2]
    kind, rest = line[:1], line[1:]
    if kind == b"-":
        raise RuntimeError(rest.decode())
    if kind == b"*":
        return [await _answer(reader) for _ in range(int(rest))]
    if kind == b"$":
        return None if rest == b"-1" else (await reader.readexactly(int(rest) + 2))[:-2]
    return int(rest) if kind == b":" else rest


@contextlib.contextmanager
def redis_server(directory: Path, *options: str) -> t.Iterator[int]:
    """A server; its port. Options with ``{port}`` get it."""
    if not PROGRAM:
        pytest.skip("needs redis-tools")
    port = free_port()
    words = [option.format(port=port) for option in options or ("--port", "{port}")]
    with (directory / "redis.log").open("wb") as log:
        process = subprocess.Popen(
            ["redis-server", "--bind", "127.0.0.1", "--save", "", "--dir", str(directory), *words],
            executable=PROGRAM,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        end = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            assert time.monotonic() < end, (directory / "redis.log").read_text()
            assert process.poll() is None, (directory / "redis.log").read_text()
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def redis(tmp_path: Path) -> t.Iterator[Redis]:
    with redis_server(tmp_path) as port:
        yield Redis(port)
