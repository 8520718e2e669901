"""The nodes of an engine that spans hosts meet before it serves. As with NCCL, a lost node goes unnoticed."""

from __future__ import annotations

import socket
import time


def meet(nodes: int, rank: int, address: str, port: int) -> list[socket.socket]:
    """Wait until all nodes are there; the connections, which have to be kept.

    Args:
        nodes: how many there are.
        rank: which of them this is; the first one listens.
        address: the first one's.
        port: where it listens.
    """
    if rank:
        return [_reach(address, port)]
    with socket.create_server((address, port), backlog=nodes) as server:
        return [server.accept()[0] for _node in range(nodes - 1)]


def _reach(address: str, port: int) -> socket.socket:
    while True:
        try:
            return socket.create_connection((address, port), timeout=5)
        except OSError:
            time.sleep(0.2)


def compute() -> None:
    """What a node does to which no requests come."""
    while True:
        time.sleep(3600)
