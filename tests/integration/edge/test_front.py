"""A gateway without a process behind its edge: HAProxy finds the model, checks the client, and leads into the pools."""

from __future__ import annotations

import contextlib
import json
import typing as t
from pathlib import Path

import pytest

from tests.integration.edge.conftest import (
    IS_HAPROXY_2_4,
    KEY,
    Answer,
    Edge,
    error_of,
    eventually,
    free_port,
    unstarted_edge,
)
from tests.integration.edge.engine import Recorder

pytestmark = pytest.mark.skipif(IS_HAPROXY_2_4, reason="refused at preflight: HAProxy 2.4 has no filters in Lua")

UPSTREAM = "sk-what-the-gateway-shows-to-the-hosts-00000000"
#: Clients with limits, by name.
KEYS = {name: f"sk-the-key-of-{name}-for-tests-only-000000000" for name in ("alpha", "one", "few", "minute", "two")}
LIMITS: dict[str, dict[str, t.Any]] = {
    "alpha": {"models": ["org/Alpha"]},
    "one": {"max_concurrent": 2},
    "minute": {"requests_per_minute": 200},
    "two": {"models": ["org/Alpha", "beta"]},
}
BREAKS = ("break", "status/500", "status/502", "status/504")


class Front:
    """Gateways of this kind, and the hosts behind: two for the model org/Alpha, one for the model beta."""

    def __init__(self, stack: contextlib.ExitStack, place: Path, gateways: int, hosts: int = 3) -> None:
        self.engines = [Recorder() for _ in range(hosts)]
        for engine in self.engines:
            stack.callback(engine.stop)
        self.hosts = [self._edge(stack, place / f"host-{n}", [engine]) for n, engine in enumerate(self.engines)]
        for host in self.hosts:
            host.set_keys({UPSTREAM: "gateway"})
            host.start_and_wait()
        self.gateways = [self._edge(stack, place / f"gateway-{n}", []) for n in range(gateways)]
        self.counters = [free_port() for _ in self.gateways]
        for number, gateway in enumerate(self.gateways):
            keys = {KEY: "team-a", UPSTREAM: "gateway", **{key: name for name, key in KEYS.items()}}
            gateway.set_keys(keys, LIMITS, upstream_key=UPSTREAM)
            gateway.start(**self.variables(number))
        for gateway in self.gateways:
            eventually(lambda gateway=gateway: all(server.up for server in gateway.servers()))  # type: ignore[misc]

    def variables(self, number: int) -> dict[str, t.Any]:
        """What the role of a gateway gets."""
        others = [n for n in range(len(self.gateways)) if n != number]
        service = {
            "port": self.gateways[number].port,
            "kind": "pools",
            "served_name": "org/Alpha",
            "instances": [],
            "models": [{"name": "org/Alpha", "pool": "alpha"}, {"name": "beta", "pool": "beta"}],
            "peers": [
                {"name": f"gateway-{n}", "address": "127.0.0.1", "port": self.gateways[n].port} for n in others
            ],
            "counters": {
                "name": f"gateway-{number}",
                "port": self.counters[number],
                "peers": [
                    {"name": f"gateway-{n}", "address": "127.0.0.1", "port": self.counters[n]} for n in others
                ],
            },
        }
        servers = [
            {"name": f"inference-{n}", "address": "127.0.0.1", "port": host.port} for n, host in enumerate(self.hosts)
        ]
        return {
            "edge_services": [service],
            "edge_pools": [{"name": "alpha", "servers": servers[:-1]}, {"name": "beta", "servers": servers[-1:]}],
            "edge_pools_port": free_port(),
            "inventory_hostname": f"gateway-{number}",
        }

    @staticmethod
    def _edge(stack: contextlib.ExitStack, place: Path, engines: list[Recorder]) -> Edge:
        place.mkdir()
        return stack.enter_context(unstarted_edge(place, engines))

    def ask(self, body: t.Any, key: str = KEY, path: str = "/v1/x", gateway: int = 0, **headers: str) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.gateways[gateway].ask(path, key, method="POST", body=data, **headers)

    def asked(self) -> list[int]:
        """The requests that each engine got."""
        return [len(engine.seen) for engine in self.engines]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Front]:
    with contextlib.ExitStack() as stack:
        yield Front(stack, tmp_path_factory.mktemp("front"), gateways=2)


@pytest.fixture
def front(running: Front) -> Front:
    """The same for all tests here, with everything repaired."""
    for engine in running.engines:
        engine.seen.clear()
        engine.breaks = False
    for gateway in running.gateways:
        eventually(lambda gateway=gateway: all(server.up for server in gateway.servers()))  # type: ignore[misc]
    return running


def test_it_runs(front: Front) -> None:
    assert front.ask({"model": "org/Alpha"})[0] == 200
    assert front.ask({"model": "beta"})[0] == 200
    assert front.asked()[2] == 1
