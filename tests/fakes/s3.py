"""A proxy in front of an S3 server, which limits each connection's bandwidth and fails as a test wants."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import http.server
import re
import socket
import threading
import time
import typing as t
import urllib.parse

_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "date", "server")


@dataclasses.dataclass
class Request:
    """What was asked, and how many bytes of a body were sent for it."""

    method: str
    path: str
    span: tuple[int, int] | None
    if_match: str = ""
    sent: int = 0


@dataclasses.dataclass
class Faults:
    """What goes wrong.

    Attributes:
        bytes_per_second: of a connection; 0 for no limit.
        cut_after: break the connection after this many bytes of a body, for the next ``cuts`` bodies that are longer.
        cuts: how many bodies are cut; -1 for all.
        refuse: the status, code and message of the answer to a request instead of the server's; None for the server's.
        ignore_range: send whole objects.
        corrupt: change the first byte of the next so many ranges.
    """

    bytes_per_second: int = 0
    cut_after: int = 0
    cuts: int = 0
    refuse: t.Callable[[Request], tuple[int, str, str] | None] = lambda _request: None
    ignore_range: bool = False
    corrupt: int = 0


class Proxy:
    """What goes wrong, and what was asked."""

    def __init__(self, server: str) -> None:
        self.server = urllib.parse.urlsplit(server).netloc
        self.url = ""
        self.faults = Faults()
        self.requests: list[Request] = []
        self.most_at_once = 0
        self._running = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def noted(self, request: Request) -> t.Iterator[None]:
        with self._lock:
            self.requests.append(request)
            self._running += 1
            self.most_at_once = max(self.most_at_once, self._running)
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1

    def take(self, fault: str) -> bool:
        """Use up one of a counted fault."""
        with self._lock:
            left = int(getattr(self.faults, fault))
            if left > 0:
                setattr(self.faults, fault, left - 1)
            return bool(left)

    def gets(self, path_part: str = "") -> list[Request]:
        return [request for request in self.requests if request.method == "GET" and path_part in request.path]

    def sent(self, path_part: str = "") -> int:
        return sum(request.sent for request in self.gets(path_part))


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy

    def handle_error(self, request: t.Any, client_address: t.Any) -> None:
        """A client that was killed is part of the tests."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: t.Any) -> None:  # noqa: A002 - the base class's name
        """Not a word."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        proxy = self.server.proxy
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        bounds = (int(span.group(1)), int(span.group(2)) + 1) if span else None
        request = Request(self.command, self.path, bounds, self.headers.get("If-Match", ""))
        with proxy.noted(request):
            refusal = proxy.faults.refuse(request)
            if refusal:
                self._refuse(*refusal)
            else:
                self._forward(request)

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        self._head(status, {"Content-Type": "application/xml"}, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, headers: t.Mapping[str, str], length: int) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def _forward(self, request: Request) -> None:
        proxy = self.server.proxy
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        if proxy.faults.ignore_range:
            headers.pop("Range", None)
        connection = http.client.HTTPConnection(proxy.server, timeout=60)
        try:
            connection.request(self.command, self.path, headers=headers)
            answer = connection.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
            body = answer.read()
            length = int(answer.getheader("Content-Length", str(len(body))))
        finally:
            connection.close()
        self._head(answer.status, kept, length)
        if self.command == "HEAD":
            return
        if request.span and proxy.take("corrupt"):
            body = bytes([body[0] ^ 1]) + body[1:]
        cut = proxy.faults.cut_after and len(body) > proxy.faults.cut_after and proxy.take("cuts")
        self._pour(request, body[: proxy.faults.cut_after] if cut else body)
        if cut:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def _pour(self, request: Request, body: bytes) -> None:
        rate = self.server.proxy.faults.bytes_per_second
        step = max(1, rate // 20) if rate else 1024 * 1024
        due = time.monotonic()
        for start in range(0, len(body), step):
            piece = body[start : start + step]
            self.wfile.write(piece)
            request.sent += len(piece)
            if rate:
                due += len(piece) / rate
                time.sleep(max(0.0, due - time.monotonic()))


@contextlib.contextmanager
def start(server: str) -> t.Iterator[Proxy]:
    """A proxy in front of the S3 server at a URL, until the block ends."""
    proxy = Proxy(server)
    listener = _Server(proxy)
    proxy.url = f"http://127.0.0.1:{listener.server_address[1]}"
    threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield proxy
    finally:
        listener.shutdown()
        listener.server_close()
