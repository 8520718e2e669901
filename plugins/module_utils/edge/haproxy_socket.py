# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""HAProxy's sockets, with nothing but the standard library: role edge copies this file beside its programs."""

from __future__ import annotations

import re
import socket

SOCKET = "/run/haproxy/admin.sock"
MASTER_SOCKET = "/run/haproxy-master.sock"

_WORKER = re.compile(r"^(\d+)\s+worker\s", re.MULTILINE)


def ask(path: str, command: str, timeout: float) -> str:
    """The answer of the process behind a socket.

    Args:
        path: the socket.
        command: what to ask.
        timeout: seconds of silence after which it does not answer.

    Raises:
        OSError: it does not answer.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(path)
        connection.sendall(command.encode() + b"\n")
        # The master answers on until nothing more can come.
        connection.shutdown(socket.SHUT_WR)
        chunks: list[bytes] = []
        while True:
            chunk = connection.recv(65536)
            if not chunk:
                return b"".join(chunks).decode("utf-8", "replace")
            chunks.append(chunk)


def former_workers(answer: str) -> list[str]:
    """The pids of the processes that a reload left to end their requests.

    Args:
        answer: the master's, to ``show proc``.
    """
    _before, _title, old = answer.partition("# old workers")
    return _WORKER.findall(old.partition("# programs")[0])
