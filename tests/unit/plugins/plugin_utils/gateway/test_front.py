from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.gateway import front
from ansible_collections.inference.fleet.plugins.plugin_utils.gateway.plan import Upstream, models

QWEN, OTHER = "Qwen/Qwen3-VL-8B-Instruct", "org/other"
SERVED = [
    Upstream("gpu-1", "10.0.0.1", 8000, "vllm", QWEN),
    Upstream("gpu-2", "10.0.0.2", 8000, "vllm", OTHER),
]
CLIENTS: list[dict[str, t.Any]] = [{"name": "gate"}, {"name": "gateway"}]


def peer(name: str, address: str = "10.0.1.1") -> front.CounterPeer:
    return front.CounterPeer(name, name, address, 4010)


def problems(**changes: t.Any) -> list[str]:
    given: dict[str, t.Any] = {
        "wanted": [],
        "served": SERVED,
        "clients": CLIENTS,
        "own_client": "gateway",
        "counters": [peer("gw-1")],
        "counting": front.Counting("gw-1"),
    }
    return front.problems(**{**given, **changes})


def test_a_gateway_runs_litellm_unless_it_says_otherwise() -> None:
    assert [front.choose_kind(kind) for kind in (None, "", "litellm", "edge")] == ["litellm"] * 3 + ["edge"]
    with pytest.raises(FleetError, match="gateway_kind is 'nginx'; valid are litellm, edge"):
        front.choose_kind("nginx")


def test_the_service_has_the_models_the_other_gateways_and_their_counters() -> None:
    peers = [{"name": "gw-2", "address": "10.0.1.2", "port": 4000, "tls": False, "tls_name": ""}]
    found = front.service(4000, models([], SERVED), peers, peer("gw-1"), [peer("gw-3", "10.0.1.3")])
    assert (found["port"], found["kind"], found["served_name"], found["instances"]) == (4000, "pools", QWEN, [])
    assert [one["name"] for one in found["models"]] == [QWEN, OTHER]
    assert found["peers"] == peers
    assert (found["counters"]["port"], found["counters"]["local_port"]) == (4010, 4011)
    assert found["counters"]["peers"] == [
        {"name": "gw-3", "address": "10.0.1.3", "port": 4010, "tls": False, "tls_name": ""}
    ]


def test_nothing_is_wrong_with_nothing() -> None:
    limits = {"models": [QWEN], "requests_per_minute": 60, "max_concurrent": 2, "expires": "2027-01-31"}
    prices = {"input_cost_per_token": 0.1, "output_cost_per_token": 0.2}
    clients = [*CLIENTS, {"name": "team-a", **limits}]
    assert problems(clients=clients, wanted=[{"name": QWEN, "hosts": ["gpu-1"], **prices}]) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clients": [{"name": "gate"}]}, "fleet_clients has no client gateway"),
        ({"wanted": [{"name": "a", "model": QWEN}]}, f"gateway_models has a for {QWEN}. With gateway_kind: edge"),
        ({"wanted": [{"name": QWEN}, {"name": OTHER, "fallbacks": [QWEN]}]}, "has fallbacks for org/other"),
        ({"wanted": [{"name": QWEN, "cache": True}]}, f"has cache for {QWEN}, which LiteLLM does"),
        ({"wanted": [{"name": QWEN, "timeout": 5}]}, f"has timeout for {QWEN}"),
        ({"wanted": [{"name": QWEN, "options": {"a": 1}}]}, f"has options for {QWEN}"),
        ({"wanted": [{"name": "none"}]}, "gateway_models[0] does not say which model none is"),
        ({"served": [Upstream("gpu-1", "10.0.0.1", 8000, "vllm", 'a"b')]}, "may have letters, digits"),
        ({"clients": [*CLIENTS, {"name": "a", "models": ["x"]}]}, "Client a may use x, which no gateway has"),
        ({"clients": [*CLIENTS, {"name": "a", "max_concurrent": 0}]}, "max_concurrent of client a is 0"),
        ({"counters": [peer("gw-1"), peer("gw-2", "gw-2.internal")]}, "The gateway gw-2 has the address gw-2.internal"),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, t.Any], words: str) -> None:
    [problem] = problems(**changes)
    assert words in problem


LIMITED: list[dict[str, t.Any]] = [{"tokens_per_minute": 1000}, {"budget": 5}, {"budget": 5, "budget_period": "1d"}]


@pytest.mark.parametrize("limit", LIMITED)
def test_a_limit_on_tokens_needs_a_way_to_count_them(limit: dict[str, t.Any]) -> None:
    clients = [*CLIENTS, {"name": "team-a", **limit}]
    assert problems(clients=clients, counting=front.Counting("gw-1", "limited", priced=True)) == []
    [problem] = problems(clients=clients, counting=front.Counting("gw-1", "none", priced=True))
    assert problem == (
        f"Client team-a has {next(iter(limit))}, and edge_usage of gw-1 is none, so its edge does not read what "
        "answers used. Set edge_usage to limited or all, or remove the limit."
    )
    assert front.counted_clients(clients) == ["team-a"]


def test_a_budget_needs_prices() -> None:
    clients = [*CLIENTS, {"name": "team-a", "budget": 5}]
    [problem] = problems(clients=clients)
    assert problem == (
        f"Client team-a has a budget, and {QWEN}, {OTHER} no price. Set gateway_input_cost_per_token and "
        "gateway_output_cost_per_token, or the model's own in gateway_models."
    )
    own = {"input_cost_per_token": 0, "output_cost_per_token": 1e-6}
    assert problems(clients=clients, wanted=[{"name": QWEN, **own}, {"name": OTHER, **own}]) == []
    mine = [*CLIENTS, {"name": "team-a", "budget": 5, "models": [QWEN]}]
    assert problems(clients=mine, wanted=[{"name": QWEN, **own}, {"name": OTHER}]) == []
    [problem] = problems(clients=[*CLIENTS, {"name": "team-a", "budget_period": "1d"}])
    assert "has a budget_period and no budget" in problem


def test_a_model_costs_its_own_price_or_the_default_one() -> None:
    found = models([{"name": QWEN, "input_cost_per_token": 0.5}, {"name": OTHER}], SERVED)
    assert front.prices(found, {"input_cost_per_token": "1.5", "output_cost_per_token": None}) == {
        QWEN: [0.5, 0.0],
        OTHER: [1.5, 0.0],
    }


def test_the_service_says_what_requests_reserve() -> None:
    found = front.service(4000, models([], SERVED), [], peer("gw-1"), [])
    assert found["accountant"] == {"prompt_tokens": 32768, "output_tokens": 4096, "media_tokens": 16384}


def test_a_gateway_alone_may_have_a_name_for_an_address() -> None:
    assert problems(counters=[peer("gw-1", "gw-1.internal")]) == []
