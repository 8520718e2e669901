"""Ports for programs that bind them later, in another process."""

from __future__ import annotations

import random
import socket

#: Below the ephemeral ports. The kernel could give one of those to another program before the one that it is meant for
#: has started. The choice is random because tests in other processes choose from here too.
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
