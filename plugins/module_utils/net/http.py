# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A small HTTP client for JSON and server-sent events: every byte has a deadline, and no error shows a key."""

from __future__ import annotations

import codecs
import contextlib
import email.utils
import http.client
import io
import json
import socket
import ssl
import time
import typing as t
import urllib.parse

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.keys import fingerprint

# A gate reads answers of a few kilobytes; a larger one is not an answer to its request.
MAX_BODY = 4 * 1024 * 1024
CONNECT_TIMEOUT = 10.0
RETRY_AFTER_LIMIT = 30.0


class HttpFailure(Exception):
    """There was no complete answer.

    Args:
        kind: refused, timeout, reset, cut, garbled, tls or unreachable.
        said: what happened, in words, without a secret.
    """

    def __init__(self, kind: str, said: str) -> None:
        super().__init__(said)
        self.kind = kind
        self.said = said


class Reply(t.NamedTuple):
    """A complete answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> t.Any:
        """The body's JSON document.

        Raises:
            HttpFailure: the body is something else.
        """
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise HttpFailure("garbled", "a body that is not JSON") from error


class Target(t.NamedTuple):
    """The address and the settings of a client."""

    host: str
    port: int
    prefix: str
    tls: bool


def parse_url(url: str) -> Target:
    """Split a base URL; a trailing ``/v1``, as OpenAI's clients need it, is dropped.

    Raises:
        FleetError: it is not an http or https URL, or it carries credentials.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urllib.parse.urlsplit(""), None
    if parts.username or parts.password:
        # The URL is not repeated: it holds a secret.
        raise FleetError("The URL holds a user name or password. Give the key in api_key or api_key_file instead.")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise FleetError(f"url is {url!r}, which is no base URL. Give one such as http://127.0.0.1:8000.")
    prefix = parts.path.rstrip("/")
    if prefix.endswith("/v1"):
        prefix = prefix[: -len("/v1")]
    tls = parts.scheme == "https"
    return Target(parts.hostname, port or (443 if tls else 80), prefix, tls)


def tls_context(ca_path: str | None, validate_certs: bool) -> ssl.SSLContext:
    """The TLS context of a client.

    Args:
        ca_path: certificates to trust; the system's when None.
        validate_certs: False accepts any certificate.

    Raises:
        FleetError: there are no certificates at ca_path.
    """
    try:
        context = ssl.create_default_context(cafile=ca_path)
    except (OSError, ssl.SSLError) as error:
        raise FleetError(
            f"ca_path is {ca_path}, which cannot be read as certificates ({error}). Give a PEM file."
        ) from error
    if not validate_certs:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def retry_after(headers: t.Mapping[str, str], now: float | None = None) -> float | None:
    """The seconds of a Retry-After header, within limits; None where there is no usable one."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - (time.time() if now is None else now)
        except (TypeError, ValueError):
            return None
    # The comparison also refuses NaN.
    return min(seconds, RETRY_AFTER_LIMIT) if seconds >= 0 else 0.0


def excerpt(text: str, limit: int = 300) -> str:
    """One printable line of at most ``limit`` characters."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


class SseParser:
    """Server-sent events out of bytes that may be split anywhere, even within a character or a line end."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._line = ""
        self._data: list[str] = []
        self._after_return = False

    def feed(self, chunk: bytes) -> list[str]:
        """The data of each event that ``chunk`` completes."""
        events: list[str] = []
        for letter in self._decoder.decode(chunk):
            after_return, self._after_return = self._after_return, letter == "\r"
            if letter == "\n" and after_return:
                continue
            if letter not in "\r\n":
                self._line += letter
                continue
            line, self._line = self._line, ""
            if line:
                self._field(line)
            elif self._data:
                events.append("\n".join(self._data))
                self._data = []
        return events

    def _field(self, line: str) -> None:
        name, _colon, value = line.partition(":")
        if name == "data":
            self._data.append(value[1:] if value.startswith(" ") else value)


class _TimedSocket(io.RawIOBase):
    """Reads a socket until a deadline, however slowly the bytes arrive."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._socket = sock
        # Holds the descriptor open after http.client has closed the connection's own reference.
        self._raw = sock.makefile("rb", buffering=0)
        self._until = until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: t.Any) -> int | None:
        remaining = self._until - time.monotonic()
        if remaining <= 0:
            raise socket.timeout("timed out")
        self._socket.settimeout(remaining)
        count: int | None = self._raw.readinto(buffer)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def _timed_response(until: float) -> type[http.client.HTTPResponse]:
    class TimedResponse(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *args: t.Any, **options: t.Any) -> None:
            super().__init__(sock, *args, **options)
            timed: t.Any = io.BufferedReader(_TimedSocket(sock, until))
            self.fp.close()
            self.fp = timed

    return TimedResponse


@contextlib.contextmanager
def _failures(timeout: float) -> t.Iterator[None]:
    """Turn the libraries' errors into HttpFailure. Their own texts are not repeated: they may hold a header."""
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _named(error, timeout) from None


def _named(error: Exception, timeout: float) -> HttpFailure:
    if isinstance(error, (TimeoutError, socket.timeout)):
        return HttpFailure("timeout", f"no whole answer within {timeout:.1f} s")
    if isinstance(error, ConnectionRefusedError):
        return HttpFailure("refused", "connection refused: nothing listens there")
    if isinstance(error, ssl.SSLError):
        return HttpFailure("tls", f"no TLS connection ({error.reason or type(error).__name__})")
    if isinstance(error, http.client.IncompleteRead):
        return HttpFailure("cut", "the connection ended in the middle of the answer")
    if isinstance(error, ConnectionError):
        return HttpFailure("reset", "the connection was closed without a whole answer")
    if isinstance(error, OSError):
        return HttpFailure("unreachable", f"no connection ({error.strerror or type(error).__name__})")
    return HttpFailure("garbled", f"something that is not HTTP ({type(error).__name__})")


class HttpStream:
    """A streamed answer. Use it as a context manager."""

    def __init__(
        self, connection: http.client.HTTPConnection, response: t.Any, sent: float, timeout: float, key: str | None
    ) -> None:
        self._connection = connection
        self._response = response
        self._sent = sent
        self._timeout = timeout
        self._key = key
        self.status: int = response.status
        self.headers: dict[str, str] = {name.lower(): value for name, value in response.getheaders()}

    def __enter__(self) -> HttpStream:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._response.close()
        self._connection.close()

    def chunks(self) -> t.Iterator[bytes]:
        """The body as it arrives.

        Raises:
            HttpFailure: it was cut, too long, or too slow.
        """
        # None where the body is chunked, or ends with the connection. http.client itself does not detect missing bytes.
        length: int | None = self._response.length
        size = 0
        while size != length:
            with _failures(self._timeout):
                chunk = self._response.read1(65536)
                if not chunk and length is not None:
                    raise http.client.IncompleteRead(b"")
            if not chunk:
                return
            size += len(chunk)
            if size > MAX_BODY:
                raise HttpFailure("garbled", f"a body of more than {MAX_BODY} bytes")
            yield chunk

    def events(self) -> t.Iterator[tuple[float, str]]:
        """Each event's data, with the seconds since the request was sent."""
        parser = SseParser()
        for chunk in self.chunks():
            elapsed = time.monotonic() - self._sent
            for data in parser.feed(chunk):
                yield elapsed, data.replace(self._key, fingerprint(self._key)) if self._key else data

    def reply(self) -> Reply:
        """The rest of the body as a complete answer."""
        body = b"".join(self.chunks())
        if self._key:
            # Here and not where it is shown: a shortened text may hold half a key.
            body = body.replace(self._key.encode(), fingerprint(self._key).encode())
        return Reply(self.status, self.headers, body, time.monotonic() - self._sent)


class HttpClient:
    """Requests to one base URL, each with a new connection, so that a pooled one hides no failure.

    Args:
        url: base URL, with or without ``/v1``.
        key: sent as a Bearer token; None sends no Authorization header.
        timeout: seconds for a whole request, connection and body included.
        ca_path: certificates to trust for https; the system's when None.
        validate_certs: False accepts any certificate.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        timeout: float = 30.0,
        ca_path: str | None = None,
        validate_certs: bool = True,
    ) -> None:
        self._target = parse_url(url)
        self._key = key
        self._timeout = timeout
        self._ca_path = ca_path
        self._validate_certs = validate_certs

    def get(self, path: str, timeout: float | None = None) -> Reply:
        """The answer to a GET.

        Raises:
            HttpFailure: there was none, or not a complete one.
        """
        with self._open("GET", path, None, timeout) as stream:
            return stream.reply()

    def post(self, path: str, document: t.Any, timeout: float | None = None) -> Reply:
        """The answer to a POST of ``document`` as JSON; raises like get()."""
        with self._open("POST", path, document, timeout) as stream:
            return stream.reply()

    def send(self, method: str, path: str, headers: t.Mapping[str, str]) -> Reply:
        """The answer to a request without a body, with headers of its own; raises like get()."""
        with self._open(method, path, None, None, headers) as stream:
            return stream.reply()

    def stream(self, path: str, document: t.Any, timeout: float | None = None) -> HttpStream:
        """Like post(), but return as soon as the headers have arrived."""
        return self._open("POST", path, document, timeout)

    def _open(
        self,
        method: str,
        path: str,
        document: t.Any,
        timeout: float | None,
        further: t.Mapping[str, str] | None = None,
    ) -> HttpStream:
        limit = self._timeout if timeout is None else min(self._timeout, timeout)
        headers = {"Accept": "*/*", "Connection": "close", **(further or {})}
        body = None
        if document is not None:
            body = json.dumps(document).encode()
            headers["Content-Type"] = "application/json"
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        sent = time.monotonic()
        connection = self._connection(min(limit, CONNECT_TIMEOUT))
        try:
            with _failures(limit):
                connection.connect()
                connection.response_class = _timed_response(sent + limit)
                connection.sock.settimeout(max(0.001, sent + limit - time.monotonic()))
                connection.request(method, self._target.prefix + path, body, headers)
                return HttpStream(connection, connection.getresponse(), sent, limit, self._key)
        except BaseException:
            connection.close()
            raise

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        target = self._target
        if not target.tls:
            return http.client.HTTPConnection(target.host, target.port, timeout=timeout)
        context = tls_context(self._ca_path, self._validate_certs)
        return http.client.HTTPSConnection(target.host, target.port, timeout=timeout, context=context)
