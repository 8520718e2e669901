"""What module serving_counters reads of a real HAProxy: the answers of instances, and which of them were errors."""

from __future__ import annotations

import contextlib
import http.client

from tests.integration.edge.conftest import KEY, Edge
from tests.integration.edge.engine import Recorder


def test_answers_of_instances_count_and_what_the_edge_says_by_itself_does_not(
    edge: Edge, engines: list[Recorder]
) -> None:
    found = edge.count()
    assert (found["instances"], found["edge"]) == ({}, {"answers": 0, "errors": 0})
    for path, key in (("/health", None), ("/v1/models", "sk-wrong-key-for-this-edge-000000000000"), ("/other", KEY)):
        edge.ask(path, key)
    assert edge.count()["edge"] == {"answers": 0, "errors": 0}
    for path in ("/v1/models", "/v1/status/404", "/v1/status/500"):
        edge.ask(path, KEY)
    assert edge.count()["edge"] == {"answers": 3, "errors": 1}
    for engine in engines:
        engine.dies = True
    with contextlib.suppress(http.client.HTTPException):
        edge.ask("/v1/models", KEY)
    assert edge.count()["edge"] == {"answers": 4, "errors": 2}


def test_without_its_process_nothing_is_known(edge: Edge) -> None:
    edge.stop()
    found = edge.count()
    assert found["edge"] is None
    assert len(found["problems"]) == 1
