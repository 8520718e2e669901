"""Clients spend no more than their budgets, whatever they send at once: with a real Redis."""

from __future__ import annotations

import asyncio
import types
import typing as t

import pytest

from tests.integration.gateway.conftest import Redis
from tests.unit.litellm.conftest import SCHEMA, load

COST = 0.5


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clients() -> types.ModuleType:
    load("client_schema", SCHEMA)
    return load("fleet_clients")


@pytest.fixture
def budgets(clients: types.ModuleType) -> types.ModuleType:
    return load("fleet_budgets")


async def ask(gateway: t.Any, client: t.Any, number: int, amount: float = COST) -> bool:
    """A request that costs what it reserved; whether it was accepted."""
    if await gateway.reserve(client, f"request-{number}", amount) is not None:
        return False
    await asyncio.sleep(0.05)
    await gateway.spend(client, f"request-{number}", COST)
    return True


@pytest.mark.parametrize("gateways", [1, 3])
def test_of_30_requests_at_once_as_many_pass_as_the_budget_is_for(
    budgets: types.ModuleType, clients: types.ModuleType, redis: Redis, gateways: int
) -> None:
    client = clients.Client("a", {"budget": 2 * COST})
    known = [budgets.Budgets(redis) for _ in range(gateways)]

    async def at_once() -> list[bool]:
        return await asyncio.gather(*(ask(known[n % gateways], client, n) for n in range(30)))

    assert sum(asyncio.run(at_once())) == 2


def test_a_client_overspends_by_one_request_at_most(
    budgets: types.ModuleType, clients: types.ModuleType, redis: Redis
) -> None:
    client = clients.Client("a", {"budget": 1.8 * COST})
    gateway = budgets.Budgets(redis)

    async def in_turn() -> list[bool]:
        # Each reserves ten times its cost, so they go one after another.
        return [await ask(gateway, client, n, 10 * COST) for n in range(4)]

    assert asyncio.run(in_turn()) == [True, True, False, False]
    assert float(asyncio.run(redis.ask("HGET", "fleet:spent:a:0", "spent"))) == 2 * COST


def test_what_is_reserved_and_not_spent_is_given_back(
    budgets: types.ModuleType, clients: types.ModuleType, redis: Redis
) -> None:
    client = clients.Client("a", {"budget": COST})
    one, other = budgets.Budgets(redis), budgets.Budgets(redis)

    async def scene() -> None:
        assert await one.reserve(client, "first", COST) is None
        assert await other.reserve(client, "second", COST) is budgets.Refusal.RESERVED
        await one.release("first")
        assert await other.reserve(client, "second", COST) is None
        await other.spend(client, "second", COST)
        assert await one.reserve(client, "third", 0.0) is budgets.Refusal.SPENT

    asyncio.run(scene())
    assert asyncio.run(redis.ask("HKEYS", "fleet:spent:a:0")) == [b"spent"]


def test_reservations_of_a_killed_gateway_end(
    budgets: types.ModuleType, clients: types.ModuleType, redis: Redis
) -> None:
    clock = Clock()
    client = clients.Client("a", {"budget": COST, "budget_seconds": 86400})
    killed, other = budgets.Budgets(redis, clock), budgets.Budgets(redis, clock)

    async def scene() -> None:
        assert await killed.reserve(client, "first", COST) is None
        clock.now += budgets.HELD - 1
        assert await other.reserve(client, "second", COST) is budgets.Refusal.RESERVED
        clock.now += 1
        assert await other.reserve(client, "second", COST) is None

    asyncio.run(scene())


def test_those_of_a_long_request_do_not(
    budgets: types.ModuleType, clients: types.ModuleType, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets, "RENEWAL", 0.02)
    clock = Clock()
    client = clients.Client("a", {"budget": COST})
    one, other = budgets.Budgets(redis, clock), budgets.Budgets(redis, clock)

    async def scene() -> None:
        assert await one.reserve(client, "first", COST) is None
        before = await redis.ask("HGET", "fleet:spent:a:0", "first")
        clock.now += budgets.HELD - 1
        while await redis.ask("HGET", "fleet:spent:a:0", "first") == before:
            await asyncio.sleep(0.01)
        clock.now += budgets.HELD - 1
        assert await other.reserve(client, "second", COST) is budgets.Refusal.RESERVED

    asyncio.run(asyncio.wait_for(scene(), 10))


def test_a_budget_is_forgotten_after_its_period(
    budgets: types.ModuleType, clients: types.ModuleType, redis: Redis
) -> None:
    clock = Clock()
    client = clients.Client("a", {"budget": COST, "budget_seconds": 3600})
    gateway = budgets.Budgets(redis, clock)

    async def scene() -> None:
        begun = client.period(clock.now)
        assert await gateway.reserve(client, "first", COST) is None
        clock.now += 3600
        # It counts where it was let through, and the next period is another one.
        await gateway.spend(client, "first", COST)
        assert float(await redis.ask("HGET", f"fleet:spent:a:{begun}", "spent")) == COST
        assert 7100 < await redis.ask("TTL", f"fleet:spent:a:{begun}") <= 7200
        assert await gateway.reserve(client, "second", COST) is None
        assert 7100 < await redis.ask("TTL", f"fleet:spent:a:{begun + 3600}") <= 7200

    asyncio.run(scene())


class Unsteady:
    """A Redis that can be unavailable."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.away = False
        self.calls = 0

    async def eval(self, script: str, numkeys: int, *words: t.Any) -> t.Any:
        self.calls += 1
        if self.away:
            raise ConnectionError("no Redis")
        return await self._redis.eval(script, numkeys, *words)


def test_while_redis_is_away_each_process_counts_for_itself_and_reports_later(
    budgets: types.ModuleType, clients: types.ModuleType, redis: Redis
) -> None:
    clock, store = Clock(), Unsteady(redis)
    client = clients.Client("a", {"budget": 2 * COST})
    gateway = budgets.Budgets(store, clock)

    async def scene() -> None:
        assert await ask(gateway, client, 0)
        store.away = True
        # What was known, and what is reserved here, still counts.
        assert sum(await asyncio.gather(*(ask(gateway, client, n) for n in range(1, 30)))) == 1
        assert await gateway.reserve(client, "late", COST) is budgets.Refusal.SPENT
        calls = store.calls
        assert await gateway.reserve(client, "late", COST) is budgets.Refusal.SPENT
        assert store.calls == calls
        store.away = False
        clock.now += budgets.PATIENCE
        assert await gateway.reserve(client, "late", COST) is budgets.Refusal.SPENT
        await gateway.spend(client, "late", COST)
        assert float(await redis.ask("HGET", "fleet:spent:a:0", "spent")) == 3 * COST

    asyncio.run(scene())


def test_what_is_reported_late_counts_in_its_own_period(
    budgets: types.ModuleType, clients: types.ModuleType, redis: Redis
) -> None:
    clock, store = Clock(), Unsteady(redis)
    client = clients.Client("a", {"budget": 2 * COST, "budget_seconds": 60})
    gateway = budgets.Budgets(store, clock)

    async def scene() -> None:
        store.away = True
        begun = client.period(clock.now)
        assert await ask(gateway, client, 0)
        store.away = False
        clock.now += 120
        assert await ask(gateway, client, 1)
        for period in (begun, begun + 120):
            assert float(await redis.ask("HGET", f"fleet:spent:a:{period}", "spent")) == COST

    asyncio.run(scene())
