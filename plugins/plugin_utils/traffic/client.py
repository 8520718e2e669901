# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""HTTP for the traffic driver: aiohttp, without features that would hide a failure or blame the server for one.

Nothing is sent twice: aiohttp does not retry a POST, and follows no redirect here. A connection that the server closed
before a request was sent on it is replaced by a new one; that is not a retry.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import ssl
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.net.http import Target
from ansible_collections.inference.fleet.plugins.plugin_utils.traffic.report import Failure

try:
    import aiohttp
    import aiohttp.http
except ImportError:
    # Module traffic names the library that is missing, before it starts the driver.
    _ERRORS: tuple[type[BaseException], ...] = ()
else:
    _ERRORS = (aiohttp.ClientError, aiohttp.http.HttpProcessingError, OSError, asyncio.TimeoutError)

CONNECT_TIMEOUT = 10.0
MAX_BODY = 64 * 1024
_MAX_HEADER = 64 * 1024
_MAX_IDLE_SECONDS = 30.0


class Broken(Exception):
    """There was no complete answer.

    Args:
        failure: what happened.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.what)
        self.failure = failure


class TrafficAnswer:
    """An answer whose headers have arrived.

    Attributes:
        status: its status code.
        kind: its Content-Type.
    """

    def __init__(self, response: aiohttp.ClientResponse, timeout: float) -> None:
        self._response = response
        self._timeout = timeout
        # aiohttp releases it with the last byte.
        self._connection = response.connection
        self.status = response.status
        self.kind = response.headers.get("Content-Type", "")

    async def pieces(self) -> t.AsyncIterator[bytes]:
        """The body as it arrives.

        Raises:
            Broken: it was interrupted.
        """
        while True:
            try:
                piece = await self._response.content.readany()
            except _ERRORS as error:
                raise Broken(explain(self._cause(error), self._timeout)) from None
            if not piece:
                return
            yield piece

    async def body(self) -> bytes:
        """The whole body.

        Raises:
            Broken: it was interrupted, or is too long to be an answer.
        """
        body = b""
        async for piece in self.pieces():
            body += piece
            if len(body) > MAX_BODY:
                raise Broken(Failure("too long", f"a body of more than {MAX_BODY} bytes"))
        return body

    def _cause(self, error: BaseException) -> BaseException:
        """What ended the connection, where aiohttp only reports an incomplete body."""
        protocol = self._connection.protocol if self._connection else None
        # It is a queue, and falsy while it is empty.
        return (None if protocol is None else protocol.exception()) or error


class TrafficClient:
    """Sends chat completions to one server. Made, used and closed in one event loop.

    Args:
        target: the server.
        api_key: sent as a Bearer token; none when empty.
        context: for TLS.
        timeout: seconds of silence after which a request has failed.
    """

    def __init__(self, target: Target, api_key: str, context: ssl.SSLContext | None, timeout: float) -> None:
        host = f"[{target.host}]" if ":" in target.host else target.host
        self._url = f"{'https' if target.tls else 'http'}://{host}:{target.port}{target.prefix}/v1/chat/completions"
        self._timeout = timeout
        self._sessions = {
            True: self._session(api_key, context, "keep-alive", keepalive_timeout=_MAX_IDLE_SECONDS),
            False: self._session(api_key, context, "close", force_close=True),
        }

    @contextlib.asynccontextmanager
    async def ask(self, document: dict[str, t.Any], reuse: bool) -> t.AsyncIterator[TrafficAnswer]:
        """Send a request; return its answer, once the headers have arrived.

        Args:
            document: the request's body.
            reuse: use a connection that was used before, where there is one, and keep it for the next.

        Raises:
            Broken: there is none.
        """
        if reuse:
            # The kernel's news about idle connections must reach aiohttp before it takes one: the first turn of the
            # loop polls the kernel, the second one processes the events.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        try:
            response = await self._sessions[reuse].post(
                self._url, data=json.dumps(document).encode(), allow_redirects=False
            )
        except _ERRORS as error:
            raise Broken(explain(error, self._timeout)) from None
        async with response:
            yield TrafficAnswer(response, self._timeout)

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    def _session(
        self, api_key: str, context: ssl.SSLContext | None, connection: str, **options: t.Any
    ) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            ssl=context or True,
            limit=0,
            # Resolved for each connection: the addresses of a name change.
            use_dns_cache=False,
            resolver=aiohttp.ThreadedResolver(),
            # A second address is not a retry while the first one has not answered.
            happy_eyeballs_delay=None,
            **options,
        )
        headers = {
            **({"Authorization": f"Bearer {api_key}"} if api_key else {}),
            "Content-Type": "application/json",
            "User-Agent": "inference-fleet-traffic",
            "Connection": connection,
        }
        return aiohttp.ClientSession(
            connector=connector,
            headers=headers,
            # A compressed answer cannot be read piece by piece.
            skip_auto_headers=["Accept-Encoding"],
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None, connect=min(self._timeout, CONNECT_TIMEOUT), sock_read=self._timeout
            ),
            # No proxy of the environment, and no password of a .netrc.
            trust_env=False,
            max_line_size=_MAX_HEADER,
            max_field_size=_MAX_HEADER,
        )


def explain(error: BaseException, timeout: float) -> Failure:
    """A library's error in our words. Its own text is not repeated: it holds addresses, and may hold a header."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Failure("timeout", f"timeout: no connection within {min(timeout, CONNECT_TIMEOUT):g} s")
    if isinstance(error, asyncio.TimeoutError):
        return Failure("timeout", f"timeout: nothing for {timeout:g} s")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        error = error.certificate_error
    elif isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    if isinstance(error, ssl.SSLError):
        return Failure("tls", f"no TLS connection ({getattr(error, 'reason', None) or type(error).__name__})")
    if isinstance(error, socket.gaierror):
        return Failure("name not resolved", "the server's name has no address")
    if isinstance(
        error, (aiohttp.ServerDisconnectedError, aiohttp.ClientConnectionResetError, aiohttp.ClientPayloadError)
    ):
        return Failure("connection closed", "connection closed without a whole answer")
    if isinstance(error, OSError):
        # By number: aiohttp's errors have classes of their own.
        if error.errno == errno.ECONNREFUSED:
            return Failure("connection refused", "connection refused")
        if error.errno in (errno.ECONNRESET, errno.EPIPE):
            return Failure("connection reset", "connection reset")
        # Several addresses may have failed; the text of such an error lists them.
        said = os.strerror(error.errno) if error.errno else type(error).__name__
        return Failure("no connection", f"no connection ({said})")
    return Failure("not HTTP", "something that is not HTTP")
