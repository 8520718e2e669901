"""What the edge makes of a client's limits."""

from __future__ import annotations

import threading
import time
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core import times

from tests.integration.edge.conftest import KEY, Edge, error_of, eventually
from tests.integration.edge.engine import Recorder

OTHER = "sk-the-key-of-team-b-for-tests-only-000000000"
MODEL = "Qwen/Qwen3-VL-8B-Instruct"
KEYS = {KEY: "team-a", OTHER: "team-b"}


def limit(edge: Edge, **limits: t.Any) -> dict[str, t.Any]:
    return edge.set_keys(KEYS, {"team-a": limits})


def test_requests_a_minute(edge: Edge) -> None:
    limit(edge, requests_per_minute=5)
    assert [edge.status("/v1/x", KEY) for _ in range(5)] == [200] * 5
    answer = edge.ask("/v1/x", KEY)
    assert answer[0] == 429
    assert answer[1]["retry-after"] == "5"
    assert error_of(answer)["code"] == "rate_limit_exceeded"
    assert edge.status("/v1/x", OTHER) == 200
    # The bound moves at once, and what was refused did not count.
    limit(edge, requests_per_minute=6)
    assert [edge.status("/v1/x", KEY) for _ in range(2)] == [200, 429]
    limit(edge)
    assert [edge.status("/v1/x", KEY) for _ in range(20)] == [200] * 20


def test_both_keys_of_a_client_share_its_limit(edge: Edge) -> None:
    edge.set_keys({KEY: "team-a", OTHER: "team-a"}, {"team-a": {"requests_per_minute": 4}})
    told = [edge.status("/v1/x", key) for key in (KEY, OTHER, KEY, OTHER, KEY, OTHER)]
    assert told == [200, 200, 200, 200, 429, 429]


def test_requests_at_once(edge: Edge, engines: list[Recorder]) -> None:
    limit(edge, max_concurrent=2)
    told: list[int] = []
    threads = [threading.Thread(target=lambda: told.append(edge.status("/v1/slow/3", KEY))) for _ in range(2)]
    for thread in threads:
        thread.start()
    eventually(lambda: sum(seen.path.startswith("/v1/slow/") for engine in engines for seen in engine.seen) == 2)
    answer = edge.ask("/v1/x", KEY)
    assert error_of(answer)["code"] == "concurrency_limit_exceeded"
    assert edge.status("/v1/x", OTHER) == 200
    for thread in threads:
        thread.join()
    assert told == [200, 200]
    assert edge.status("/v1/x", KEY) == 200


def test_an_expired_client_is_refused_although_nobody_runs_anything(edge: Edge) -> None:
    limit(edge, expires=times.moment(time.time() + 3))
    assert edge.status("/v1/x", KEY) == 200
    eventually(lambda: edge.status("/v1/x", KEY) == 401)
    answer = edge.ask("/v1/x", KEY)
    assert error_of(answer)["code"] == "expired_api_key"
    assert answer[1]["www-authenticate"] == "Bearer"
    assert edge.status("/v1/x", OTHER) == 200


@pytest.mark.parametrize(
    ("models", "status"),
    [([], 200), ([MODEL], 200), (["another/model", MODEL], 200), (["another/model"], 403), ([f"{MODEL}-more"], 403)],
)
def test_a_client_of_another_model(unstarted: Edge, models: list[str], status: int) -> None:
    unstarted.start_and_wait(edge_served_name=MODEL)
    limit(unstarted, models=models, max_concurrent=100)
    answer = unstarted.ask("/v1/x", KEY)
    assert answer[0] == status
    if status == 403:
        assert error_of(answer)["code"] == "model_not_allowed"
        assert MODEL in error_of(answer)["message"]


def test_limits_are_told_in_words_and_are_idempotent(edge: Edge) -> None:
    limits = {"requests_per_minute": 600, "max_concurrent": 8, "expires": "2127-01-31", "models": [MODEL]}
    first = limit(edge, **limits)
    assert first["changed"]
    (told,) = [action for action in first["actions"] if action.startswith("limit team-a ")]
    assert told.endswith(f"(600 requests/min; 8 at once; until 2127-01-31T00:00:00Z; only {MODEL})")
    assert first["clients"] == ["team-a", "team-b"]
    again = limit(edge, **limits)
    assert not again["changed"]
    assert edge.status("/v1/x", KEY) == 200
    eventually(lambda: any("client=team-a key=" in line for line in edge.access_log()))
