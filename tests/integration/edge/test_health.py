"""/health is 200 exactly while an instance serves and the host is in service."""

from __future__ import annotations

import http.client
import json
import signal
import time

from tests.integration.edge.conftest import KEY, Edge, error_of, eventually
from tests.integration.edge.engine import Recorder
from tests.integration.edge.traffic import Stream, Traffic


def test_health_needs_no_key_and_is_not_logged(edge: Edge) -> None:
    before = len(edge.access_log())
    status, headers, body = edge.ask("/health?from=balancer")
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["status"] == "ok"
    assert len(edge.access_log()) == before


def test_one_instance_is_enough(edge: Edge, engines: list[Recorder]) -> None:
    engines[0].healthy = False
    eventually(lambda: not edge.servers()[0].up)
    assert edge.healthy()
    engines[1].healthy = False
    eventually(lambda: not edge.healthy())
    answer = edge.ask("/v1/models", KEY)
    assert answer[0] == 503
    assert answer[1]["retry-after"] == "5"
    assert error_of(answer)["code"] == "unavailable"
    engines[0].healthy = True
    eventually(edge.healthy)


def test_an_edge_that_starts_before_its_engines_is_never_healthy(unstarted: Edge, engines: list[Recorder]) -> None:
    for engine in engines:
        engine.healthy = False
    unstarted.start()
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        assert not unstarted.healthy()
    engines[1].healthy = True
    eventually(unstarted.healthy)


def test_a_reload_forgets_neither_who_serves_nor_who_does_not(edge: Edge, engines: list[Recorder]) -> None:
    engines[0].healthy = False
    eventually(lambda: not edge.servers()[0].up)
    for engine in engines:
        engine.seen.clear()
    edge.reload()
    assert [edge.status("/v1/models", KEY) for _ in range(10)] == [200] * 10
    assert [len(engine.seen) for engine in engines] == [0, 10]


def test_a_reload_closes_no_idle_connection_under_a_balancer(edge: Edge) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", edge.port)
    headers = {"Authorization": f"Bearer {KEY}"}
    for _ in range(2):
        connection.request("GET", "/v1/models", headers=headers)
        connection.getresponse().read()
    edge.reload()
    connection.request("GET", "/v1/models", headers=headers)
    response = connection.getresponse()
    assert response.status == 200
    # The process that is left behind says that this was the last one.
    assert response.headers["connection"] == "close"
    connection.close()


def test_no_request_fails_while_it_reloads(edge: Edge) -> None:
    stream = Stream(edge, KEY, 3)
    with Traffic(edge, [KEY] * 4) as traffic:
        for _ in range(3):
            edge.reload()
            time.sleep(0.3)
    assert set(traffic.answers) == {"200"}
    assert stream.finished_whole()


def test_a_configuration_that_is_refused_leaves_the_former_one_in_service(edge: Edge) -> None:
    assert edge.process
    edge.config.write_text(edge.config.read_text() + "\nnonsense\n")
    edge.process.send_signal(signal.SIGUSR2)
    time.sleep(0.5)
    assert edge.status("/v1/models", KEY) == 200
