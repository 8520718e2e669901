"""A server in place of an engine that records exactly what the edge sent it."""

from __future__ import annotations

import http.server
import json
import select
import socket
import struct
import threading
import time
import typing as t


class Seen(t.NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Recorder:
    """Paths: /v1/stream/SECONDS streams, /v1/slow/SECONDS answers late, /v1/status/CODE answers so, /v1/says/CODE with
    the request's own body and type, too; /v1/uses/SECONDS/PROMPT/COMPLETION answers late, with usage; /v1/pieces/END
    sends the list of texts in the body one by one, and then ends, waits until the client has gone (wait), or resets the
    connection (cut); /v1/responses/ may come before each; else it echoes."""

    def __init__(self, port: int = 0) -> None:
        self.seen: list[Seen] = []
        self.aborted = 0
        self.broken_off = 0
        self.models: t.Any = None
        self.healthy = True
        self.breaks = False
        #: The status of every answer, if not 0.
        self.refuses = 0
        #: Whether a request ends the process: its port closes, and the connection without an answer.
        self.dies = False
        self.health_takes = 0.0
        #: Its metrics, where it has any.
        self.metrics = b""
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.recorder = self
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024
    recorder: Recorder

    def handle_error(self, request: t.Any, client_address: t.Any) -> None:
        """HAProxy resets the connection of a health check as soon as it has read enough."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: t.Any) -> None:  # noqa: A002 - the base class calls it so
        return

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_OPTIONS(self) -> None:
        self._answer()

    def _answer(self) -> None:
        recorder = self.server.recorder
        body = self._body()
        if self.path.startswith("/health"):
            time.sleep(recorder.health_takes)
            return self._send(200 if recorder.healthy else 503, b"{}")
        if body is None:
            recorder.broken_off += 1
            self.close_connection = True
            return None
        if recorder.metrics and self.path.startswith("/metrics"):
            recorder.seen.append(Seen(self.command, self.path, dict(self.headers), body))
            return self._send(200, recorder.metrics, "text/plain; version=0.0.4")
        if not self.path.startswith("/v1/"):
            return self._send(404, b"{}")
        recorder.seen.append(Seen(self.command, self.path, dict(self.headers), body))
        if self.path == "/v1/models" and recorder.models:
            return self._send(200, json.dumps(recorder.models, separators=(",", ":")).encode())
        if recorder.refuses:
            return self._send(recorder.refuses, b"{}")
        if recorder.dies:
            recorder.stop()
            self.close_connection = True
            return None
        _, _, kind, *rest = self.path.replace("/responses/", "/").split("/")
        if kind == "stream":
            return self._stream(float(rest[0]))
        if kind == "slow":
            return self._slow(float(rest[0]))
        if kind == "status":
            return self._send(int(rest[0]), b'{"from":"engine"}')
        if kind == "says":
            return self._send(int(rest[0]), body, self.headers.get("Content-Type", ""))
        if kind == "uses":
            return self._use(float(rest[0]), int(rest[1]), int(rest[2]))
        if kind == "pieces":
            return self._pieces(json.loads(body), rest[0])
        if kind == "break" or recorder.breaks:
            self.close_connection = True
            return None
        return self._send(200, json.dumps({"length": len(body)}).encode())

    def _body(self) -> bytes | None:
        """The body, unless the request was broken off in it: HAProxy closes the connection then, or resets it."""
        try:
            return self._chunks() if "chunked" in self.headers.get("Transfer-Encoding", "") else self._bytes()
        except ConnectionResetError:
            return None

    def _bytes(self) -> bytes | None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        return body if len(body) == size else None

    def _chunks(self) -> bytes | None:
        body = b""
        while size := int(self.rfile.readline() or b"0", 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        return body if self.rfile.readline() else None

    def _slow(self, seconds: float) -> None:
        gone, _, _ = select.select([self.connection], [], [], seconds)
        if gone:
            self.server.recorder.aborted += 1
            self.close_connection = True
        else:
            self._send(200, b"{}")

    def _use(self, seconds: float, prompt: int, completion: int) -> None:
        time.sleep(seconds)
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        self._send(200, json.dumps({"object": "chat.completion", "model": "org/Alpha", "usage": usage}).encode())

    def _stream(self, seconds: float) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for number in range(int(seconds * 20)):
                self._chunk(f"data: {number}\n\n".encode())
                time.sleep(0.05)
            self._chunk(b"data: [DONE]\n\n")
            self._chunk(b"")
        except OSError:
            self.server.recorder.aborted += 1

    def _pieces(self, pieces: list[str], end: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", self.headers.get("Content-Type", ""))
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in pieces:
            self._chunk(piece.encode())
            # HAProxy takes what comes together for one piece.
            time.sleep(0.003)
        if end == "wait":
            select.select([self.connection], [], [], 10)
            self.server.recorder.aborted += 1
        if end != "end":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _send(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        # As every engine and LiteLLM do.
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Allow-Credentials", "true")
        if 300 <= status < 400:
            self.send_header("Location", "http://127.0.0.1/elsewhere")
        if "Answer-Encoding" in self.headers:
            self.send_header("Content-Encoding", self.headers["Answer-Encoding"])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
