"""Who reads which metrics through the edge, and in which form."""

from __future__ import annotations

import contextlib
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core import times

from tests.integration.edge.conftest import KEY, Answer, Edge, error_of, eventually, free_port, unstarted_edge
from tests.integration.edge.engine import Recorder

MONITORING = "sk-the-key-of-monitoring-for-tests-only-0000000"
RETIRED = "sk-a-key-that-monitoring-had-before-00000000000"
SCRAPER = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"
METRICS = b"# TYPE up gauge\nup 1\n"
OWN = "/metrics"
INSTANCE = "/metrics/engine-0"
NODE = "/metrics/node"
DCGM = "/metrics/dcgm"


class Scraped(t.NamedTuple):
    """An edge, and what is scraped through it."""

    edge: Edge
    instance: Recorder
    node: Recorder
    is_gateway: bool


@pytest.fixture(params=["engine", "gateway"])
def scraped(tmp_path: Path, request: pytest.FixtureRequest) -> t.Iterator[Scraped]:
    """An edge of each kind on a host with a node exporter and without a DCGM exporter."""
    is_gateway = request.param == "gateway"
    with contextlib.ExitStack() as stack:
        instance, node = Recorder(), Recorder()
        for one in (instance, node):
            one.metrics = METRICS
            stack.callback(one.stop)
        edge = stack.enter_context(unstarted_edge(tmp_path, [instance]))
        edge.set_keys({KEY: "team-a", MONITORING: "monitoring"})
        service = {"port": edge.port, "instances": [{"name": "engine-0", "port": instance.port}], "kind": request.param}
        ports = {"edge_node_exporter_port": node.port, "edge_dcgm_exporter_port": free_port()}
        edge.start(edge_services=[service], inventory_hostname="host", **ports)
        eventually(edge.healthy)
        yield Scraped(edge, instance, node, is_gateway)


def code_of(answer: Answer) -> tuple[int, str]:
    return answer[0], error_of(answer)["code"]


def test_every_scraper_gets_the_same_names(scraped: Scraped) -> None:
    assert scraped.edge.ask(INSTANCE, MONITORING, Accept=SCRAPER)[2] == METRICS
    [seen] = scraped.instance.seen
    assert seen.headers["accept"] == "text/plain;version=0.0.4"
    assert seen.path == ("/metrics/" if scraped.is_gateway else "/metrics")


def test_a_host_with_a_node_exporter(scraped: Scraped) -> None:
    assert scraped.edge.ask(NODE, MONITORING, Accept=SCRAPER)[2] == METRICS
    [seen] = scraped.node.seen
    assert (seen.path, seen.headers["accept"]) == ("/metrics", "text/plain;version=0.0.4")
    assert "sk-" not in str(seen.headers)


def test_a_host_without_an_exporter_says_so(scraped: Scraped) -> None:
    answer = scraped.edge.ask(DCGM, MONITORING)
    assert code_of(answer) == (503, "no_exporter")
    assert str(scraped.edge.variables["edge_dcgm_exporter_port"]) in error_of(answer)["message"]
    assert error_of(answer)["message"].endswith("has no DCGM exporter, or it does not run.")


@pytest.mark.parametrize("path", [OWN, INSTANCE, NODE, DCGM])
def test_nobody_else_reads_metrics(scraped: Scraped, path: str) -> None:
    edge = scraped.edge
    edge.set_keys({KEY: "team-a", MONITORING: "monitoring", RETIRED: "monitoring"})
    assert edge.status(path, RETIRED) == edge.status(path, MONITORING)
    edge.set_keys({KEY: "team-a", MONITORING: "monitoring"})
    for key in (KEY, RETIRED, "sk-wrong", None):
        assert code_of(edge.ask(path, key)) == (404, "unknown_url")


def test_an_expired_key_reads_no_metrics(scraped: Scraped) -> None:
    edge = scraped.edge
    keys = {KEY: "team-a", MONITORING: "monitoring"}
    edge.set_keys(keys, {"monitoring": {"expires": times.moment(time.time() + 2)}})
    assert edge.status(OWN, MONITORING) == 200
    eventually(lambda: edge.status(OWN, MONITORING) != 200)
    for path in (OWN, INSTANCE, NODE, DCGM):
        assert code_of(edge.ask(path, MONITORING)) == (401, "expired_api_key")


def test_a_drained_host_is_still_seen(scraped: Scraped) -> None:
    scraped.edge.drain(state="drained", metrics=[])
    assert [scraped.edge.status(path, MONITORING) for path in (OWN, INSTANCE, NODE, DCGM)] == [200, 200, 200, 503]


def test_a_full_host_is_still_seen(scraped: Scraped) -> None:
    # Nothing may wait, so every client is refused at once.
    scraped.edge.configure(edge_queue_limit=0)
    scraped.edge.reload()
    assert scraped.edge.status("/v1/x", KEY) == 429
    assert [scraped.edge.status(path, MONITORING) for path in (OWN, INSTANCE, NODE)] == [200, 200, 200]


def test_without_ports_there_are_no_such_paths(scraped: Scraped) -> None:
    scraped.edge.configure(edge_node_exporter_port=0, edge_dcgm_exporter_port=0)
    scraped.edge.reload()
    for path in (NODE, DCGM):
        assert code_of(scraped.edge.ask(path, MONITORING)) == (404, "unknown_url")
