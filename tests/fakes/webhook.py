"""A receiver of Alertmanager's webhooks, which keeps the alerts that it gets."""

from __future__ import annotations

import datetime
import http.server
import json
import re
import threading
import typing as t


def unix(moment: str) -> float:
    """A moment of Alertmanager's API in Unix time."""
    # Go writes nine digits of a second, or fewer; Python 3.10 reads six.
    return datetime.datetime.fromisoformat(re.sub(r"([.]\d{1,6})\d*|Z", _plain, moment)).timestamp()


def _plain(found: re.Match[str]) -> str:
    return f"{found[1]:0<7}" if found[1] else "+00:00"


class Hook(http.server.ThreadingHTTPServer):
    """The receiver, on a port of its own.

    Args:
        address: to listen on.
    """

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.alerts: list[dict[str, t.Any]] = []
        super().__init__((address, 0), _Recording)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]!s}:{self.server_port}/"

    def got(self, name: str, status: str = "firing", after: float = 0.0) -> list[dict[str, t.Any]]:
        """Alerts of a name that began after a Unix time, and what is said of them."""
        named = [one for one in self.alerts if (one["labels"]["alertname"], one["status"]) == (name, status)]
        return [one for one in named if unix(one["startsAt"]) > after]


class _Recording(http.server.BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        self.server.alerts += json.loads(self.rfile.read(int(self.headers["Content-Length"])))["alerts"]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *words: t.Any) -> None:
        pass
