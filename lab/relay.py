"""Relay ports of this machine's loopback: ``python -m lab.relay ADDRESS PROTOCOL:PORT=HOST:PORT …``."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import typing as t

CHUNK = 65536
DATAGRAM_PATIENCE = 10.0


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(ConnectionError, OSError):
        writer.write_eof()


class _Answer(asyncio.DatagramProtocol):
    """One datagram out, one back."""

    def __init__(self, question: bytes, back: t.Callable[[bytes], None]) -> None:
        self.question = question
        self.back = back

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = t.cast(asyncio.DatagramTransport, transport)
        self.transport.sendto(self.question)
        asyncio.get_running_loop().call_later(DATAGRAM_PATIENCE, self.transport.close)

    def datagram_received(self, data: bytes, addr: t.Any) -> None:
        self.back(data)
        self.transport.close()


class _Questions(asyncio.DatagramProtocol):
    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.running: set[asyncio.Task[t.Any]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = t.cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: t.Any) -> None:
        answer = _Answer(data, lambda reply: self.transport.sendto(reply, addr))
        endpoint = asyncio.get_running_loop().create_datagram_endpoint(lambda: answer, remote_addr=self.target)
        task = asyncio.ensure_future(endpoint)
        self.running.add(task)
        task.add_done_callback(self.running.discard)


async def _serve_datagrams(address: str, port: int, target: tuple[str, int]) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: _Questions(target), local_addr=(address, port))


async def _serve_streams(address: str, port: int, target: tuple[str, int]) -> asyncio.Server:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(*target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))
        writer.close()
        there_writer.close()

    return await asyncio.start_server(connected, address, port)


async def serve(address: str, relays: list[str]) -> None:
    """Listen on ``address`` for every relay, for ever."""
    servers = []
    for relay in relays:
        listen, _, there = relay.partition("=")
        protocol, _, port = listen.partition(":")
        host, _, target_port = there.rpartition(":")
        target = (host, int(target_port))
        if protocol == "udp":
            await _serve_datagrams(address, int(port), target)
        else:
            servers.append(await _serve_streams(address, int(port), target))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2:]))
