"""The shares of their budgets that clients have spent, as Prometheus reads them."""

from __future__ import annotations

import asyncio
import sys
import types
import typing as t

import pytest

from tests.unit.litellm.conftest import Gauge, load, wait


@pytest.fixture
def budgets(clients: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    monkeypatch.setitem(sys.modules, "fleet_budgets", types.ModuleType("fleet_budgets"))
    return load("fleet_budgets")


def spend(budgets: t.Any, client: t.Any, cost: float) -> None:
    async def once() -> None:
        assert await budgets.reserve(client, "request", cost) is None
        await budgets.spend(client, "request", cost)

    asyncio.run(once())


def test_the_share_is_that_of_the_period_and_of_the_budget_now(
    budgets: types.ModuleType, clients: types.ModuleType
) -> None:
    now = [1_000_000.0]
    known = budgets.Budgets(None, lambda: now[0])
    assert known.shares() == {}
    client = clients.Client("a", {"budget": 4.0, "budget_seconds": 3600})
    spend(known, client, 3.0)
    spend(known, clients.Client("free"), 3.0)
    assert known.shares() == {"a": 0.75}
    now[0] += 3600
    assert known.shares() == {"a": 0.0}
    now[0] -= 3600
    # With a larger budget.
    spend(known, clients.Client("a", {"budget": 8.0, "budget_seconds": 3600}), 1.0)
    assert known.shares() == {"a": 0.5}
    # Without one.
    wait(known.reserve(clients.Client("a"), "request", 1.0))
    assert known.shares() == {}


def test_prometheus_reads_a_figure_for_each_client(
    gateway: types.ModuleType, clients: types.ModuleType, gauges: dict[str, Gauge]
) -> None:
    (collector,) = sys.modules["prometheus_client"].REGISTRY.collectors
    (figure,) = collector.collect()
    assert (figure.name, figure.labels, figure.samples) == ("fleet_budget_spent_ratio", ["client"], [])
    for name, cost in (("b", 1.0), ("a", 2.0)):
        spend(gateway.BUDGETS, clients.Client(name, {"budget": 4.0}), cost)
    (figure,) = collector.collect()
    assert figure.samples == [(["a"], 0.5), (["b"], 0.25)]


def test_a_file_that_is_loaded_again_shows_nothing_twice(gateway: types.ModuleType) -> None:
    load("fleet_gateway")
    assert len(sys.modules["prometheus_client"].REGISTRY.collectors) == 1
