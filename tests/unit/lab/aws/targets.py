"""A target for the lab's target groups: a real HTTP server whose status the test sets."""

from __future__ import annotations

import http.server
import threading
import typing as t


class Answering:
    """Serves on an address of loopback until the block ends.

    Args:
        address: such as 127.0.0.11: one for each target.
        port: 0 for a free one.

    Attributes:
        status: what it answers.
        hold: unset, it answers no request for /hold.
        paths: what it got requests for.
    """

    def __init__(self, address: str = "127.0.0.1", port: int = 0, status: int = 200) -> None:
        self.address = address
        self.status = status
        self.hold = threading.Event()
        self.hold.set()
        self.paths: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.paths.append(self.path)
                if self.path == "/hold":
                    outer.hold.wait()
                body = outer.address.encode()
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer((address, port), Handler)
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> t.Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
