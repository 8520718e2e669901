"""Hosts' edges, and gateways of kind ``edge`` in front of them, on loopback, with the role's configuration."""

from __future__ import annotations

import contextlib
import typing as t
from pathlib import Path

from tests.fakes.engine import MODEL
from tests.integration.edge.conftest import Edge, Engine, eventually, free_port, unstarted_edge

#: What gateways show to the hosts.
UPSTREAM = "sk-what-the-gateway-shows-to-the-hosts-00000000"


class EdgeFleet:
    """One model on all hosts.

    Args:
        stack: ends everything.
        place: a directory.
        hosts: the instances of each host.
        gateways: how many there are.
        keys: the clients of gateways and hosts, by their keys.
        limits: of clients, by their names.
        variables: of all edges.
        on_gateways: of gateways alone.
    """

    def __init__(
        self,
        stack: contextlib.ExitStack,
        place: Path,
        hosts: t.Mapping[str, t.Sequence[Engine]],
        gateways: int,
        keys: dict[str, str],
        limits: t.Mapping[str, t.Mapping[str, t.Any]] | None = None,
        variables: t.Mapping[str, t.Any] | None = None,
        on_gateways: t.Mapping[str, t.Any] | None = None,
    ) -> None:
        self.hosts: dict[str, Edge] = {}
        for name, engines in hosts.items():
            edge = self.hosts[name] = _edge(stack, place / name, engines)
            edge.set_keys({UPSTREAM: "gateway", **keys}, limits)
            edge.start(**(variables or {}))
        for edge in self.hosts.values():
            wait_for_servers(edge)
        self.gateways = [_edge(stack, place / f"gateway-{number}", []) for number in range(gateways)]
        counters = [free_port() for _ in self.gateways]
        for number, edge in enumerate(self.gateways):
            edge.set_keys({**keys, UPSTREAM: "gateway"}, limits, upstream_key=UPSTREAM)
            edge.start(**{**(variables or {}), **(on_gateways or {}), **self._as_gateway(number, counters)})
        for edge in self.gateways:
            wait_for_servers(edge)

    def _as_gateway(self, number: int, counters: t.Sequence[int]) -> dict[str, t.Any]:
        """The variables that a gateway's role gets."""
        others = [other for other in range(len(self.gateways)) if other != number]
        service = {
            "port": self.gateways[number].port,
            "kind": "pools",
            "served_name": MODEL,
            "instances": [],
            "models": [{"name": MODEL, "pool": "all"}],
            "peers": [_peer(other, self.gateways[other].port) for other in others],
            "counters": {
                "name": f"gateway-{number}",
                "port": counters[number],
                "local_port": free_port(),
                "peers": [_peer(other, counters[other]) for other in others],
            },
        }
        servers = [{"name": name, "address": "127.0.0.1", "port": host.port} for name, host in self.hosts.items()]
        return {
            "edge_services": [service],
            # In which order a gateway knows them is nothing that others agree with it on.
            "edge_pools": [{"name": "all", "servers": servers[::-1] if number % 2 else servers}],
            "edge_pools_port": free_port(),
            "inventory_hostname": f"gateway-{number}",
        }


def wait_for_servers(edge: Edge, seconds: float = 20) -> None:
    """Until all servers of an edge serve."""
    eventually(lambda: all(server.up for server in edge.servers()), seconds)


def _edge(stack: contextlib.ExitStack, place: Path, engines: t.Sequence[Engine]) -> Edge:
    place.mkdir()
    return stack.enter_context(unstarted_edge(place, engines))


def _peer(number: int, port: int) -> dict[str, t.Any]:
    return {"name": f"gateway-{number}", "address": "127.0.0.1", "port": port, "tls": False}
