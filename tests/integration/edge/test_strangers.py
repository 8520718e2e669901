"""What the edge leaves to connections and requests without a live key."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy

from tests.integration.edge.conftest import KEY, Edge, error_of, eventually
from tests.integration.edge.engine import Recorder

MONITORING = "sk-the-key-of-monitoring-for-tests-only-0000000"


@contextlib.contextmanager
def idle(edge: Edge, count: int) -> t.Iterator[list[socket.socket]]:
    """Connections that send nothing."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(("127.0.0.1", edge.port), timeout=20)) for _ in range(count)
        ]


def open_connections(edge: Edge) -> int:
    rows = haproxy.workers(edge.socket, edge.master_socket)[0].statistics()
    return sum(int(row["scur"]) for row in rows if row["svname"] == "FRONTEND")


def is_closed(connection: socket.socket, seconds: float) -> bool:
    connection.settimeout(seconds)
    try:
        while connection.recv(1000):
            pass
    except TimeoutError:
        return False
    except ConnectionResetError:
        pass
    return True


def test_idle_connections_leave_health_its_place(unstarted: Edge) -> None:
    unstarted.start_and_wait(edge_max_connections=100)
    with idle(unstarted, 400) as connections:
        assert unstarted.healthy()
        # It did not wait until the edge gave the first of them up.
        assert not is_closed(connections[0], 0.01)
        assert error_of(unstarted.ask("/v1/x", KEY))["code"] == "too_many_connections"


def test_one_address_does_not_fill_the_edge(unstarted: Edge) -> None:
    unstarted.start_and_wait(edge_max_connections=100, edge_source_connections=80)
    with idle(unstarted, 400) as connections:
        eventually(lambda: sum(is_closed(connection, 0.01) for connection in connections) >= 310)


def test_keys_and_balancers_are_not_limited_by_address(unstarted: Edge) -> None:
    variables = {"edge_max_connections": 100, "edge_source_connections": 20}
    unstarted.start_and_wait(**variables)
    with contextlib.ExitStack() as stack:
        for _ in range(90):
            connection = http.client.HTTPConnection("127.0.0.1", unstarted.port)
            stack.callback(connection.close)
            connection.request("GET", "/v1/x", headers={"Authorization": f"Bearer {KEY}"})
            response = connection.getresponse()
            response.read()
            assert response.status == 200
    unstarted.configure(edge_trusted_networks=["127.0.0.0/8"])
    unstarted.reload()
    with idle(unstarted, 90) as connections:
        assert not any(is_closed(connection, 0.01) for connection in connections)


@pytest.mark.parametrize("path", ["/health", "/", "/v1/models", "/metrics"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer sk-wrong"}])
def test_without_a_live_key_a_connection_is_for_one_request(edge: Edge, path: str, headers: dict[str, str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", edge.port)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    assert response.headers["connection"] == "close"
    response.read()
    connection.close()


def test_a_connection_that_asks_nothing_is_closed_soon(edge: Edge) -> None:
    with idle(edge, 1) as [connection]:
        assert is_closed(connection, 7)


def test_a_slow_body_waits_before_an_instance_has_it(unstarted: Edge, engines: list[Recorder]) -> None:
    unstarted.start_and_wait(edge_instance_max_requests=1)
    head = f"POST /v1/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 5000\r\n\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", unstarted.port)))
            raw.sendall(head.encode() + b"x" * 100)
        eventually(lambda: open_connections(unstarted) >= 6)
        assert unstarted.status("/v1/models", KEY) == 200
    assert [seen.path for engine in engines for seen in engine.seen] == ["/v1/models"]


def test_keys_are_not_probed_through_health(unstarted: Edge) -> None:
    unstarted.start_and_wait(edge_wrong_keys_per_minute=5)
    before = len(unstarted.access_log())
    answers = [unstarted.ask("/health", f"sk-wrong-{number}") for number in range(7)]
    assert [answer[0] for answer in answers] == [*([401] * 5), 429, 429]
    assert (error_of(answers[-1])["code"], answers[-1][1]["retry-after"]) == ("too_many_wrong_keys", "60")
    eventually(lambda: len(unstarted.access_log()) == before + 7)
    assert [line for line in unstarted.access_log() if "path=/health" in line]
    # Others behind the same address are served.
    assert (unstarted.status("/health", KEY), unstarted.status("/v1/x", KEY), unstarted.status("/health")) == (200,) * 3


@pytest.mark.parametrize("path", ["/health", "/metrics", "/metrics/engine-0", "/v1/models", "/other"])
def test_an_expired_key_reads_nothing(edge: Edge, path: str) -> None:
    edge.set_keys({KEY: "team-a", MONITORING: "monitoring"}, {"monitoring": {"expires": times.moment(time.time() + 2)}})
    assert edge.status("/metrics", MONITORING) == 200
    eventually(lambda: edge.status("/metrics", MONITORING) != 200)
    answer = edge.ask(path, MONITORING)
    assert (answer[0], error_of(answer)["code"]) == (401, "expired_api_key")


def test_a_body_that_does_not_come_is_refused(unstarted: Edge, engines: list[Recorder]) -> None:
    unstarted.start_and_wait(edge_body_timeout=1)
    head = f"POST /v1/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 5000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", unstarted.port), timeout=10) as raw:
        raw.sendall(head.encode() + b"x" * 100)
        assert raw.recv(100).startswith(b"HTTP/1.1 408 ")
    assert [seen.path for engine in engines for seen in engine.seen] == []
