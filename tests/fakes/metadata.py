"""A stand-in for the instance metadata (IMDSv2) over real HTTP, with the faults that a test asks for."""

from __future__ import annotations

import http.server
import json
import secrets
import threading
import time
import typing as t


class _MetadataServer(http.server.ThreadingHTTPServer):
    def handle_error(self, request: t.Any, client_address: t.Any) -> None:
        """A client that has waited for long enough, or was killed."""


class FakeMetadata:
    """The metadata of one instance. Use it as a context manager.

    Attributes:
        said: texts by their path below /latest/meta-data/.
        status: answers every document with this status; 0 answers as it should.
        silent: accepts connections and never answers.
        tokens: how many tokens were given.
        asked: the paths of the documents that were asked for.
    """

    def __init__(self) -> None:
        self.said: dict[str, str] = {"instance-id": "i-0123456789abcdef0", "events/maintenance/scheduled": "[]"}
        self.status = 0
        self.silent = False
        self.tokens = 0
        self.asked: list[str] = []
        self._valid: set[str] = set()
        self._ended = threading.Event()
        fake = self

        class Request(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_arguments: object) -> None:
                pass

            def do_PUT(self) -> None:
                fake._ask_for_token(self)

            def do_GET(self) -> None:
                fake._ask(self)

        self._server = _MetadataServer(("127.0.0.1", 0), Request)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakeMetadata:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def announce(self, path: str, document: t.Any) -> None:
        self.said[path] = document if isinstance(document, str) else json.dumps(document)

    def announce_spot(self, seconds: float, action: str = "terminate") -> str:
        """Announce the end of a Spot instance; the moment as AWS writes it."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
        self.announce("spot/instance-action", {"action": action, "time": moment})
        return moment

    def announce_maintenance(self, seconds: float, **changes: t.Any) -> None:
        """Schedule a reboot."""
        event = {
            "NotBefore": time.strftime("%d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + seconds)),
            "Code": "system-reboot",
            "Description": "scheduled reboot",
            "EventId": "instance-event-0d59937288b749b32",
            "State": "active",
        }
        self.announce("events/maintenance/scheduled", [{**event, **changes}])

    def withdraw(self, path: str) -> None:
        self.said.pop(path, None)

    def forget_tokens(self) -> None:
        """What a stop and start of the instance does."""
        self._valid.clear()

    def _ask_for_token(self, request: http.server.BaseHTTPRequestHandler) -> None:
        ttl = request.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if request.path != "/latest/api/token" or not ttl.isdigit() or not 1 <= int(ttl) <= 21600:
            self._answer(request, 400)
            return
        token = secrets.token_urlsafe(16)
        self._valid.add(token)
        self.tokens += 1
        self._answer(request, 200, token)

    def _ask(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path = request.path.removeprefix("/latest/meta-data/")
        self.asked.append(path)
        if request.headers.get("X-aws-ec2-metadata-token") not in self._valid:
            self._answer(request, 401)
        elif self.status:
            self._answer(request, self.status, "<html>")
        else:
            text = self.said.get(path)
            self._answer(request, 404 if text is None else 200, text or "")

    def _answer(self, request: http.server.BaseHTTPRequestHandler, status: int, text: str = "") -> None:
        if self.silent:
            self._ended.wait(60)
            return
        request.send_response(status)
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text.encode())
