"""The edge under overload, with large and slow requests, and when an engine or a client goes away."""

from __future__ import annotations

import functools
import http.client
import socket
import subprocess
import threading
import time
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy

from tests.integration.edge.conftest import IS_HAPROXY_2_4, KEY, Edge, error_of, eventually
from tests.integration.edge.engine import Recorder

LIMIT = 100_000


def busy(edge: Edge, seconds: float, count: int = 1) -> list[threading.Thread]:
    """Slow requests, once the engines or the queue have them.

    Sequentially: of two concurrent ones, both of HAProxy's threads may see the same instance idle.
    """
    threads = [threading.Thread(target=edge.ask, args=(f"/v1/slow/{seconds}", KEY)) for _ in range(count)]
    for number, thread in enumerate(threads, 1):
        thread.start()
        eventually(functools.partial(has_taken, edge, number))
    return threads


def has_taken(edge: Edge, count: int) -> bool:
    """Whether this many requests are at an instance or wait for one."""
    rows = haproxy.workers(edge.socket, edge.master_socket)[0].statistics()
    waiting = sum(int(row["qcur"] or 0) for row in rows)
    return count == waiting + sum(int(row["scur"]) for row in rows if row["svname"] not in ("FRONTEND", "BACKEND"))


@pytest.fixture
def small(unstarted: Edge) -> Edge:
    return unstarted.start_and_wait(edge_max_body_bytes=LIMIT)


def test_a_body_is_limited(small: Edge) -> None:
    assert small.status("/v1/x", KEY, method="POST", body=b"x" * LIMIT) == 200
    answer = small.ask("/v1/x", KEY, method="POST", body=b"x" * (LIMIT + 1))
    assert answer[0] == 413
    assert str(LIMIT) in error_of(answer)["message"]


def test_a_large_body_is_refused_before_it_is_sent(small: Edge) -> None:
    with socket.create_connection(("127.0.0.1", small.port)) as raw:
        raw.sendall(
            f"POST /v1/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 999999\r\n\r\n".encode()
        )
        assert raw.recv(100).startswith(b"HTTP/1.1 413 ")


def chunks(size: int) -> t.Iterator[bytes]:
    for begin in range(0, size, 1000):
        yield b"x" * min(1000, size - begin)


@pytest.mark.parametrize("size", [0, 5000, LIMIT - 1, LIMIT])
@pytest.mark.parametrize("header", [10, 9000])
def test_a_body_needs_no_length(small: Edge, engines: list[Recorder], size: int, header: int) -> None:
    answer = small.ask("/v1/x", KEY, method="POST", body=chunks(size), X_Large="x" * header)
    passed = [len(request.body) for engine in engines for request in engine.seen]
    if IS_HAPROXY_2_4 and size + header > 6000:
        assert (answer[0], error_of(answer)["code"], passed) == (411, "length_required", [])
    else:
        assert (answer[0], passed) == (200, [size])


@pytest.mark.parametrize(("size", "status"), [(2000, 200), (2001, 413)])
def test_a_small_body_without_a_length_is_limited(
    unstarted: Edge, engines: list[Recorder], size: int, status: int
) -> None:
    unstarted.start_and_wait(edge_max_body_bytes=2000)
    assert unstarted.status("/v1/x", KEY, method="POST", body=chunks(size)) == status
    assert [len(request.body) for engine in engines for request in engine.seen] == ([size] if status == 200 else [])


@pytest.mark.parametrize("size", [LIMIT + 1, 20 * LIMIT])
def test_a_body_without_a_length_is_limited(small: Edge, engines: list[Recorder], size: int) -> None:
    answer = small.ask("/v1/x", KEY, method="POST", body=chunks(size))
    if IS_HAPROXY_2_4:
        assert (answer[0], error_of(answer)["code"]) == (411, "length_required")
        assert [request for engine in engines for request in engine.seen] == []
        return
    assert answer[0] == 413
    assert (error_of(answer)["code"], str(LIMIT) in error_of(answer)["message"]) == ("request_too_large", True)
    eventually(lambda: [line for line in small.access_log() if "status=413" in line])
    # The engine has seen that there is no such request, and the edge keeps working.
    eventually(lambda: sum(engine.broken_off for engine in engines) == 1)
    assert [request for engine in engines for request in engine.seen] == []
    assert small.status("/v1/x", KEY, method="POST", body=chunks(LIMIT)) == 200


@pytest.mark.parametrize("size", [LIMIT, 2 * LIMIT])
def test_bodies_of_http2_without_a_length_are_limited(small: Edge, engines: list[Recorder], size: int) -> None:
    # Curl does not know the length of data from a pipe.
    curl = ["curl", "-sS", "--max-time", "20", "--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_code}"]
    answer = subprocess.run(
        [*curl, "-H", f"Authorization: Bearer {KEY}", "-X", "POST", "-T", "-", f"http://127.0.0.1:{small.port}/v1/x"],
        input=b"x" * size,
        check=False,
        capture_output=True,
    )
    passed = [len(request.body) for engine in engines for request in engine.seen]
    if size == LIMIT and not IS_HAPROXY_2_4:
        assert (answer.stdout, passed) == (b"200", [LIMIT])
        return
    # HAProxy resets the stream, so that the client need not see the answer.
    assert answer.stdout != b"200"
    assert passed == []
    status = 411 if IS_HAPROXY_2_4 else 413
    eventually(lambda: [line for line in small.access_log() if f"status={status}" in line])


def test_more_requests_than_an_instance_takes_wait_and_are_served(unstarted: Edge, engines: list[Recorder]) -> None:
    unstarted.start_and_wait(edge_instance_max_requests=1)
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(unstarted.status("/v1/slow/0.3", KEY))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 6
    assert [len(engine.seen) for engine in engines] == [3, 3]


def test_a_full_queue_is_429(unstarted: Edge) -> None:
    unstarted.start_and_wait(edge_instance_max_requests=1, edge_queue_limit=2, edge_retry_after="7s")
    threads = busy(unstarted, 3, 4)
    answer = unstarted.ask("/v1/models", KEY)
    assert answer[0] == 429
    assert answer[1]["retry-after"] == "7"
    assert error_of(answer)["type"] == "rate_limit_error"
    assert unstarted.healthy()
    for thread in threads:
        thread.join()


def test_waiting_too_long_is_503(unstarted: Edge) -> None:
    unstarted.start_and_wait(edge_instance_max_requests=1, edge_queue_timeout="1s")
    threads = busy(unstarted, 3, 2)
    answer = unstarted.ask("/v1/models", KEY)
    assert answer[0] == 503
    assert answer[1]["retry-after"] == "5"
    assert error_of(answer)["code"] == "unavailable"
    for thread in threads:
        thread.join()


def test_too_many_connections_are_503_but_health_answers(unstarted: Edge) -> None:
    unstarted.start_and_wait(edge_max_connections=3)
    idle = [socket.create_connection(("127.0.0.1", unstarted.port)) for _ in range(3)]
    time.sleep(0.2)
    answer = unstarted.ask("/v1/models", KEY)
    assert answer[0] == 503
    assert error_of(answer)["code"] == "too_many_connections"
    assert unstarted.healthy()
    for connection in idle:
        connection.close()
    eventually(lambda: unstarted.status("/v1/models", KEY) == 200)


def test_a_silent_engine_is_504(unstarted: Edge) -> None:
    unstarted.start_and_wait(edge_stream_timeout=1)
    answer = unstarted.ask("/v1/slow/3", KEY)
    assert answer[0] == 504
    assert error_of(answer)["code"] == "gateway_timeout"


def test_an_engine_that_breaks_off_is_502_and_not_asked_again(edge: Edge, engines: list[Recorder]) -> None:
    answer = edge.ask("/v1/break", KEY, method="POST", body=b"{}")
    assert answer[0] == 502
    assert error_of(answer)["type"] == "server_error"
    assert [request.path for engine in engines for request in engine.seen] == ["/v1/break"]


def test_an_instance_that_is_gone_costs_no_request(edge: Edge, engines: list[Recorder]) -> None:
    engines[0].stop()
    assert [edge.status("/v1/models", KEY) for _ in range(20)] == [200] * 20


def test_a_stream_arrives_as_it_is_made(edge: Edge) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", edge.port)
    connection.request("POST", "/v1/stream/1", headers={"Authorization": f"Bearer {KEY}"})
    response = connection.getresponse()
    began = time.monotonic()
    arrivals = []
    while event := response.read1(1000):
        arrivals.append(time.monotonic() - began)
        last = event
    connection.close()
    assert b"[DONE]" in last
    # Twenty events, 50 ms apart: they came one by one, not together.
    assert len(arrivals) > 10
    assert arrivals[len(arrivals) // 2] < 0.8 * arrivals[-1]


@pytest.mark.parametrize("path", ["/v1/slow/20", "/v1/stream/20"])
def test_an_engine_learns_that_its_client_has_gone(edge: Edge, engines: list[Recorder], path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", edge.port)
    connection.request("POST", path, body=b"{}", headers={"Authorization": f"Bearer {KEY}"})
    eventually(lambda: any(engine.seen for engine in engines))
    connection.close()
    if connection.sock:
        connection.sock.close()
    eventually(lambda: sum(engine.aborted for engine in engines) == 1, seconds=3)
