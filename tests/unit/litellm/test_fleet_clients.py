from __future__ import annotations

import hashlib
import json
import os
import types
import typing as t
from pathlib import Path

import pytest

from tests.unit.litellm.conftest import FakeRedis, wait

KEY, OTHER = "sk-of-team-a", "sk-of-team-b"


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "clients.json"
    write(path, {KEY: "team-a"})
    return path


def write(path: Path, keys: dict[str, str], **limits: t.Any) -> None:
    """As module edge_keys does: a new file in the place of the old one."""
    new = path.with_suffix(".new")
    by_hash = {digest(key): name for key, name in keys.items()}
    document = {"keys": by_hash, "clients": {name: limits for name in keys.values()}}
    new.write_text(json.dumps(document))
    os.replace(new, path)


def test_a_client_is_known_by_the_hash_of_its_key(clients: types.ModuleType, path: Path) -> None:
    known = clients.Clients(str(path))
    assert known.of(KEY).name == "team-a"
    assert known.of(OTHER) is None
    assert known.of("") is None
    assert known.of(digest(KEY)) is None


def test_the_file_is_read_again_when_it_changes(clients: types.ModuleType, path: Path) -> None:
    known = clients.Clients(str(path))
    assert known.of(OTHER) is None
    write(path, {OTHER: "team-b"}, requests_per_minute=5, models=["m"])
    assert known.of(KEY) is None
    assert known.of(OTHER) == clients.Client("team-b", ("m",), 5)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"keys": {"x": "nobody"}, "clients": {}}', '{"clients": {"a": {"b": 1}}}']
)
def test_who_was_known_stays_known_while_the_file_is_damaged(clients: types.ModuleType, path: Path, text: str) -> None:
    known = clients.Clients(str(path))
    known.of(KEY)
    path.write_text(text)
    assert known.of(KEY).name == "team-a"
    path.unlink()
    assert known.of(KEY).name == "team-a"


def test_without_a_file_nobody_is_known(clients: types.ModuleType, tmp_path: Path) -> None:
    assert clients.Clients(str(tmp_path / "none")).of(KEY) is None


def test_every_model_that_a_request_names_is_found(clients: types.ModuleType) -> None:
    request = {
        "model": "a",
        "fallbacks": [{"a": ["b"]}, "c"],
        "context_window_fallbacks": [{"a": ["d"]}],
        "messages": [{"role": "user", "content": "x"}],
    }
    assert sorted(set(clients.names_in(request))) == ["a", "b", "c", "d"]
    assert clients.names_in({"messages": []}) == []


def test_a_client_expires(clients: types.ModuleType) -> None:
    assert not clients.Client("a").expired(1e12)
    assert not clients.Client("a", expires=100).expired(99)
    assert clients.Client("a", expires=100).expired(100)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_budget_is_spent_by_all_gateways_together(clients: types.ModuleType, redis: FakeRedis) -> None:
    client = clients.Client("a", budget=1.0)
    first, second = clients.Spending(redis), clients.Spending(redis)
    wait(first.add(client, 0.6))
    assert not wait(second.over(client))
    wait(second.add(client, 0.4))
    assert wait(first.over(client))


def test_a_new_period_begins_anew(clients: types.ModuleType, redis: FakeRedis) -> None:
    clock = Clock()
    client = clients.Client("a", budget=1.0, budget_seconds=3600)
    spending = clients.Spending(redis, clock)
    wait(spending.add(client, 2))
    assert wait(spending.over(client))
    assert list(redis.expiry.values()) == [7200]
    clock.now += 3600
    assert not wait(spending.over(client))


def test_what_redis_has_counted_is_not_told_twice(clients: types.ModuleType, redis: FakeRedis) -> None:
    clock = Clock()
    client = clients.Client("a", budget=1.0, budget_seconds=3600)
    spending = clients.Spending(redis, clock)
    redis.forgets_nothing = True
    wait(spending.add(client, 0.25))
    redis.forgets_nothing = False
    clock.now += clients.PATIENCE
    wait(spending.add(client, 0.25))
    assert list(redis.numbers.values()) == [0.5]
    assert list(redis.expiry.values()) == [7200]


def test_what_an_outage_kept_back_is_forgotten_in_its_time_too(clients: types.ModuleType, redis: FakeRedis) -> None:
    clock = Clock()
    client = clients.Client("a", budget=1.0, budget_seconds=60)
    spending = clients.Spending(redis, clock)
    redis.away = True
    wait(spending.add(client, 0.25))
    redis.away = False
    clock.now += 120
    wait(spending.add(client, 0.5))
    assert sorted(redis.numbers.values()) == [0.25, 0.5]
    assert set(redis.expiry) == set(redis.numbers)


def test_without_a_budget_nothing_is_counted(clients: types.ModuleType, redis: FakeRedis) -> None:
    spending = clients.Spending(redis)
    wait(spending.add(clients.Client("a"), 5))
    wait(spending.add(clients.Client("a", budget=1), 0))
    assert not wait(spending.over(clients.Client("a")))
    assert redis.calls == 0


def test_without_redis_a_process_counts_for_itself(clients: types.ModuleType) -> None:
    client = clients.Client("a", budget=1.0)
    spending = clients.Spending(None)
    wait(spending.add(client, 1))
    assert wait(spending.over(client))


def test_requests_go_on_while_redis_is_away_and_it_is_told_later(clients: types.ModuleType, redis: FakeRedis) -> None:
    clock = Clock()
    client = clients.Client("a", budget=1.0)
    spending = clients.Spending(redis, clock)
    wait(spending.add(client, 0.5))
    redis.away = True
    assert not wait(spending.over(client))
    wait(spending.add(client, 0.25))
    calls = redis.calls
    # It is not asked at every request, and what is known and was spent since still counts.
    wait(spending.add(client, 0.25))
    assert wait(spending.over(client))
    assert redis.calls == calls
    redis.away = False
    clock.now += clients.PATIENCE
    wait(spending.add(client, 0.5))
    assert redis.numbers == {"fleet:spent:a:0": 1.5}
    assert wait(spending.over(client))
