"""Ports for programs that bind them later, in another process."""

from __future__ import annotations

import random
import socket

#: Below those that the kernel gives to whoever binds port 0 or connects: such a port would be gone before the program,
#: which takes seconds to start, has bound it. Tests in other processes choose here, too, so the choice is random.
RANGE = range(20000, 32000)


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    while True:
        port = random.SystemRandom().choice(RANGE)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
