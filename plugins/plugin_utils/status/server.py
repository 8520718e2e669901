# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Serves a status page on the loopback interface, and says on it how old it is."""

from __future__ import annotations

import http.server
import os
import time
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.report import words
from ansible_collections.inference.fleet.plugins.plugin_utils.status.page import AGE_MARK

_PATHS = ("/", "/status.html")
_LOST = "There is no page yet. On this host: systemctl status inference-status.timer inference-status.service\n"


class StatusServer(http.server.ThreadingHTTPServer):
    """A server of one page.

    Args:
        page: its file.
        port: on 127.0.0.1; 0 for any.
        patience: seconds after which a page that was not renewed is called old.
    """

    daemon_threads = True

    def __init__(self, page: str, port: int, patience: float) -> None:
        self._page = page
        self._patience = patience
        super().__init__(("127.0.0.1", port), _StatusHandler)

    def read(self) -> str | None:
        """The page as it is now; None for none."""
        try:
            with open(self._page, encoding="utf-8") as file:
                age = max(time.time() - os.fstat(file.fileno()).st_mtime, 0.0)
                return file.read().replace(AGE_MARK, describe_age(age, self._patience), 1)
        except FileNotFoundError:
            return None


def describe_age(seconds: float, patience: float) -> str:
    """HTML that says how old a page is, and what to do about an old one."""
    if seconds <= patience:
        return f" · written {round(seconds)} s ago"
    return (
        f' · <b class="bad">{words.duration(seconds)} old, and not renewed: systemctl status inference-status.timer '
        "inference-status.service</b>"
    )


class _StatusHandler(http.server.BaseHTTPRequestHandler):
    """A request of a browser; one that says nothing does not hold a thread for long."""

    timeout = 10
    server: StatusServer

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        if self.path.partition("?")[0] not in _PATHS:
            self._send(404, "text/plain", "The page is at /\n", with_body)
        elif (page := self.server.read()) is None:
            self._send(503, "text/plain", _LOST, with_body)
        else:
            self._send(200, "text/html", page, with_body)

    def _send(self, status: int, kind: str, text: str, with_body: bool) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", "frame-ancestors 'none'")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def version_string(self) -> str:
        return "inference-status"

    def log_message(self, *words_: t.Any) -> None:
        """Nothing: a page that reloads itself would fill the journal."""
