"""A gateway with a cache, in front of one server: it answers a repeated request from the cache.

Its key is the whole request, or with ``careless`` only the conversation, so that one client gets another's answer.
Standard library only.
"""

from __future__ import annotations

import http.client
import http.server
import json
import threading
import typing as t
import urllib.parse


class FakeCache:
    """The gateway. Use it as a context manager.

    Args:
        upstream: URL of the server.
        key: the key that it accepts, and sends upstream; it checks keys itself, as gateways do.
        careless: whether its key leaves out the first word of a question, and all parameters but ``stream``.
        marks: whether a cached answer is marked, as by LiteLLM.
        aged: seconds by which the answers in it are older than they are.

    Attributes:
        hits: the number of cached answers.
    """

    def __init__(
        self, upstream: str, key: str, *, careless: bool = False, marks: bool = False, aged: float = 0.0
    ) -> None:
        self.upstream = urllib.parse.urlsplit(upstream)
        self.key = key
        self.careless = careless
        self.marks = marks
        self.aged = aged
        self.hits = 0
        self.kept: dict[str, tuple[int, str, bytes]] = {}
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> t.Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def name_of(self, path: str, body: t.Any) -> str:
        """The key of a request in the cache."""
        if not self.careless or body is None:
            return json.dumps([path, body])
        content = body["messages"][-1]["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        asked = [part["text"].partition(" ")[2] if part["type"] == "text" else part for part in parts]
        return json.dumps([path, asked, body.get("stream")])

    def ask(self, method: str, path: str, body: bytes | None) -> tuple[int, str, bytes]:
        """The server's answer: status, kind and body; 502 where there is none."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection(str(self.upstream.hostname), self.upstream.port, timeout=10)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.headers["Content-Type"], response.read()
        except OSError:
            return 502, "application/json", b'{"error": {"message": "The engine cannot be reached."}}'
        finally:
            connection.close()

    def older(self, body: bytes) -> bytes:
        """An answer as if it had been generated earlier."""
        if not self.aged:
            return body
        document = json.loads(body)
        return json.dumps({**document, "created": document["created"] - self.aged}).encode()


def _handler(cache: FakeCache) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: t.Any) -> None:  # noqa: A002 - the base class calls it so
            return

        def do_GET(self) -> None:
            self._serve(None)

        def do_POST(self) -> None:
            self._serve(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

        def _serve(self, body: bytes | None) -> None:
            if self.headers.get("Authorization") != f"Bearer {cache.key}":
                self._send(401, "application/json", b'{"error": "Unauthorized"}')
                return
            name = cache.name_of(self.path, None if body is None else json.loads(body))
            if name in cache.kept:
                cache.hits += 1
                self._send(*cache.kept[name], hit=True)
                return
            status, kind, answer = cache.ask(self.command, self.path, body)
            if status == 200:
                cache.kept[name] = status, kind, cache.older(answer) if kind == "application/json" and body else answer
            self._send(status, kind, answer)

        def _send(self, status: int, kind: str, body: bytes, hit: bool = False) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if hit and cache.marks:
                self.send_header("x-litellm-cache-key", "0123456789abcdef")
            self.end_headers()
            self.wfile.write(body)

    return Handler
