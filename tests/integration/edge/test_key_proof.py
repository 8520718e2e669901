"""Module key_proof in front of a real edge."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from tests.fakes.engine import MODEL, FakeEngine
from tests.integration.edge.conftest import ENGINE_KEY, KEY, Edge, eventually
from tests.integration.edge.test_clients import OTHER


@pytest.fixture
def edge(tmp_path: Path) -> t.Iterator[Edge]:
    with FakeEngine(key=ENGINE_KEY) as engine:
        edge = Edge(tmp_path, [engine.port])
        edge.set_keys({KEY: "team-a"})
        try:
            yield edge.start(edge_served_name=MODEL)
        finally:
            edge.stop()


def failures(edge: Edge, live: dict[str, str], dead: dict[str, str]) -> list[str]:
    return list(edge.prove(live, dead, MODEL)["failures"])


def test_before_and_after_a_rotation(edge: Edge) -> None:
    eventually(edge.healthy)
    assert failures(edge, {KEY: "team-a"}, {OTHER: "team-a"}) == []
    edge.set_keys({KEY: "team-a", OTHER: "team-a"})
    assert failures(edge, {KEY: "team-a", OTHER: "team-a"}, {}) == []
    edge.set_keys({OTHER: "team-a"})
    assert failures(edge, {OTHER: "team-a"}, {KEY: "team-a"}) == []
    # The edge takes this key on each of its routes, and does not take the other; the engine accepts neither.
    assert len(failures(edge, {KEY: "team-a"}, {OTHER: "team-a"})) == 8 + 1


def test_a_drained_host_still_proves_its_keys(edge: Edge) -> None:
    eventually(edge.healthy)
    edge.drain(state="drained", metrics=[])
    assert failures(edge, {KEY: "team-a"}, {OTHER: "team-a"}) == []
    assert len(failures(edge, {OTHER: "team-a"}, {})) == 1


@pytest.mark.parametrize(
    "limits", [{"requests_per_minute": 1}, {"models": ["another/model"]}, {"requests_per_minute": 1000}]
)
def test_a_client_that_is_held_back_has_an_accepted_key(edge: Edge, limits: dict[str, t.Any]) -> None:
    eventually(edge.healthy)
    edge.set_keys({KEY: "team-a"}, {"team-a": limits})
    assert [failures(edge, {KEY: "team-a"}, {}) for _ in range(2)] == [[], []]
