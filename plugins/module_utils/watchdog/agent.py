# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The answers to HAProxy's agent checks: whether an instance may take requests, apart from its health."""

from __future__ import annotations

import socketserver
import threading
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

#: On the loopback interface.
PORT = 8099
UP = "up"


def down(why: str) -> str:
    """The answer that takes an instance out of service; HAProxy logs the reason. Pure."""
    return f"down #{''.join(letter if letter.isalnum() else '_' for letter in why)}"


class Agent:
    """Answers with the state of the instance that HAProxy names.

    ``ready`` and ``drain`` are never said: they would end an operator's drain.

    Args:
        port: where it listens; 0 takes a free one.
        answer: the answer for the edge's name of an instance.

    Raises:
        FleetError: the port is taken.
    """

    def __init__(self, port: int, answer: t.Callable[[str], str]) -> None:
        class Handler(socketserver.StreamRequestHandler):
            timeout = 2.0

            def handle(self) -> None:
                try:
                    name = self.rfile.readline(100).decode("ascii", "replace").strip()
                    self.wfile.write(f"{answer(name)}\n".encode())
                except OSError:
                    return

        try:
            self._server = _AgentServer(("127.0.0.1", port), Handler)
        except OSError as error:
            raise FleetError(
                f"Port {port} of 127.0.0.1, where the edge asks the watchdog, cannot be taken ({error.strerror}). "
                "End what listens there, or set edge_watchdog_port to another one and run site.yml."
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.5,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _AgentServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64
