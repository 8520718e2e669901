# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""HTTP/1.1 for the traffic driver: many connections in one thread, kept alive and reused as clients do.

A connection that the server closed before a request was sent on it is replaced by a new one; that is no retry. Nothing
is ever sent a second time.
"""

from __future__ import annotations

import asyncio
import ipaddress
import select
import socket
import ssl
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.net.http import Target
from ansible_collections.inference.fleet.plugins.module_utils.traffic.report import Failure

CONNECT_TIMEOUT = 10.0
_MAX_HEAD = 64 * 1024
_MAX_IDLE = 16
_MAX_IDLE_SECONDS = 30.0


class Broken(Exception):
    """There was no whole answer.

    Args:
        failure: what happened.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.what)
        self.failure = failure


class Head(t.NamedTuple):
    """The beginning of an answer."""

    status: int
    headers: dict[str, str]
    version: str


class Body:
    """An answer's body out of the bytes after its head. Pure.

    Attributes:
        done: it is complete.
        rest: what came after its end.
    """

    def __init__(self, head: Head) -> None:
        self._chunked = "chunked" in head.headers.get("transfer-encoding", "").lower()
        length = head.headers.get("content-length")
        # None where the body ends with the connection.
        self._left: int | None = None if self._chunked or length is None else int(length)
        self._buffer = b""
        self._in_trailer = False
        self.done = self._left == 0 or head.status in (204, 304)
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """The content in the next bytes.

        Raises:
            ValueError: they are no HTTP.
        """
        if self._chunked:
            return self._dechunk(data)
        if self._left is None:
            return data
        content, self.rest = data[: self._left], data[self._left :]
        self._left -= len(content)
        self.done = self._left == 0
        return content

    def ends_with_connection(self) -> bool:
        """Whether the body is whole, now that the connection has ended."""
        self.done = self.done or (not self._chunked and self._left is None)
        return self.done

    def _dechunk(self, data: bytes) -> bytes:
        buffer, content = self._buffer + data, []
        while not self.done:
            line, found, after = buffer.partition(b"\r\n")
            if not found:
                break
            if self._in_trailer:
                buffer = after
                self.done = not line
                continue
            size = int(line.partition(b";")[0], 16)
            if size == 0:
                self._in_trailer, buffer = True, after
                continue
            if len(after) < size + 2:
                break
            if after[size : size + 2] != b"\r\n":
                raise ValueError("a chunk of another size")
            content.append(after[:size])
            buffer = after[size + 2 :]
        self._buffer = buffer
        if self.done:
            self.rest = buffer
        return b"".join(content)


class Wire(asyncio.Protocol):
    """The bytes of one connection. What came before it broke can still be read."""

    def __init__(self) -> None:
        self._received = b""
        self._ended = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.transport: t.Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._wake()

    def eof_received(self) -> bool:
        self._ended = True
        self._wake()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._ended, self._error = True, error
        self._wake()

    async def read(self) -> bytes:
        """The bytes that came since the last call, waiting for the first; b"" at the end.

        Raises:
            OSError: the connection broke.
        """
        if not self._received and not self._ended:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        data, self._received = self._received, b""
        if not data and self._error:
            raise self._error
        return data

    def fresh(self) -> bool:
        """Whether neither bytes nor the end are waiting."""
        if self._received or self._ended or self.transport.is_closing():
            return False
        # The event loop may not have looked yet.
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)
        self._waiter = None


class Connection:
    """One connection, with at most one request under way."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._body: Body | None = None
        self._early = b""
        self._reusable = False
        self._timeout = 0.0
        self._until = 0.0
        self._expired = False
        self._timer: asyncio.TimerHandle | None = None
        self.idle_since = 0.0

    async def ask(self, request: bytes, timeout: float) -> Head:
        """Send a request; the head of its answer.

        Args:
            timeout: seconds of silence, from now until the next byte, and then from each byte to the next.

        Raises:
            Broken: there is none.
        """
        self._timeout = timeout
        self._watch()
        try:
            self._wire.transport.write(request)
            head = await self._head()
            self._body = Body(head)
        except (OSError, EOFError, ValueError) as error:
            raise self._broken(error) from None
        closing = head.headers.get("connection", "").lower()
        self._reusable = "close" not in closing and (head.version == "HTTP/1.1" or "keep-alive" in closing)
        if self._body.done:
            self._unwatch()
        return head

    async def more(self) -> bytes:
        """Some more of the answer's body, which may be no content; see ``ended``.

        Raises:
            Broken: the body was cut.
        """
        body = self._body
        if body is None or body.done:
            return b""
        try:
            data, self._early = self._early or await self._read(), b""
            if data:
                content = body.feed(data)
            elif body.ends_with_connection():
                content, self._reusable = b"", False
            else:
                raise EOFError
        except (OSError, EOFError, ValueError) as error:
            raise self._broken(error) from None
        if self.ended:
            self._unwatch()
        return content

    @property
    def ended(self) -> bool:
        """Whether the answer is complete."""
        return self._body is not None and self._body.done

    @property
    def reusable(self) -> bool:
        """Whether another request can follow on this connection."""
        return self._body is not None and self.ended and self._reusable and not self._body.rest and self.fresh()

    def fresh(self) -> bool:
        """Whether nothing came while no request was under way: neither bytes nor the end."""
        return self._wire.fresh()

    def close(self) -> None:
        self._unwatch()
        self._wire.transport.abort()

    async def _head(self) -> Head:
        raw = b""
        while True:
            before, found, after = raw.partition(b"\r\n\r\n")
            if found:
                head = _parse_head(before)
                if head.status >= 200:
                    self._early = after
                    return head
                raw = after
                continue
            if len(raw) > _MAX_HEAD:
                raise ValueError("a head without an end")
            data = await self._read()
            if not data:
                raise EOFError
            raw += data

    async def _read(self) -> bytes:
        data = await self._wire.read()
        if self._expired:
            raise EOFError
        self._until = asyncio.get_running_loop().time() + self._timeout
        return data

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        self._expired = False
        self._until = loop.time() + self._timeout
        self._timer = loop.call_at(self._until, self._look)

    def _look(self) -> None:
        # Wound up again when it rings too early: no timer for each piece of an answer.
        loop = asyncio.get_running_loop()
        if loop.time() >= self._until:
            self._expired = True
            self._wire.transport.abort()
        else:
            self._timer = loop.call_at(self._until, self._look)

    def _unwatch(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _broken(self, error: Exception) -> Broken:
        self._unwatch()
        if self._expired:
            return Broken(Failure("timeout", f"timeout: nothing for {self._timeout:g} s"))
        return Broken(named(error))


class Connector:
    """Opens connections to one server, and keeps those that can be used again.

    Args:
        target: the server.
        context: for TLS.
        timeout: seconds for a connection.
    """

    def __init__(self, target: Target, context: ssl.SSLContext | None, timeout: float) -> None:
        self._target = target
        self._context = context
        self._timeout = min(timeout, CONNECT_TIMEOUT)
        self._idle: list[Connection] = []

    async def open(self, reuse: bool) -> Connection:
        """A connection, one that was used before where ``reuse`` allows it and there is one.

        Raises:
            Broken: there is none.
        """
        while reuse and self._idle:
            kept = self._idle.pop()
            if kept.fresh():
                return kept
            kept.close()
        try:
            return await asyncio.wait_for(self._connect(), self._timeout)
        except (asyncio.TimeoutError, TimeoutError):
            raise Broken(Failure("timeout", f"timeout: no connection within {self._timeout:g} s")) from None
        except (OSError, ValueError) as error:
            raise Broken(named(error)) from None

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for later, if it can be used again."""
        if connection.reusable and len(self._idle) < _MAX_IDLE:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()

    def sweep(self) -> None:
        """Let go of connections that the server has closed, or that nobody has used for long."""
        oldest = time.monotonic() - _MAX_IDLE_SECONDS
        kept = []
        for connection in self._idle:
            if connection.idle_since >= oldest and connection.fresh():
                kept.append(connection)
            else:
                connection.close()
        self._idle = kept

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    async def _connect(self) -> Connection:
        target = self._target
        failure: OSError = OSError("no address")
        for address in await self._addresses():
            try:
                _transport, wire = await asyncio.get_running_loop().create_connection(
                    Wire,
                    address,
                    target.port,
                    ssl=self._context,
                    server_hostname=target.host if self._context else None,
                )
            except OSError as error:
                failure = error
            else:
                return Connection(wire)
        raise failure

    async def _addresses(self) -> list[str]:
        """Looked up for each connection: behind a name, addresses come and go."""
        host = self._target.host
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            found = await asyncio.get_running_loop().getaddrinfo(host, self._target.port, type=socket.SOCK_STREAM)
            return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def named(error: BaseException) -> Failure:
    """What a library's error means. Its own words are not repeated: they hold addresses, and may hold a header."""
    if isinstance(error, ConnectionRefusedError):
        return Failure("connection refused", "connection refused")
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return Failure("connection reset", "connection reset")
    if isinstance(error, EOFError):
        return Failure("connection closed", "connection closed without a whole answer")
    if isinstance(error, ssl.SSLError):
        return Failure("tls", f"no TLS connection ({getattr(error, 'reason', None) or type(error).__name__})")
    if isinstance(error, socket.gaierror):
        return Failure("name not resolved", "the server's name has no address")
    if isinstance(error, OSError):
        said = error.strerror or type(error).__name__
        return Failure("no connection", f"no connection ({said})")
    return Failure("not HTTP", "something that is not HTTP")


def _parse_head(raw: bytes) -> Head:
    first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    version, _blank, rest = first.partition(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError("no status line")
    headers = {}
    for line in lines:
        name, _colon, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return Head(int(rest[:3]), headers, version)
