from __future__ import annotations

import re
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.gateway import problems as gateway_problems
from ansible_collections.inference.fleet.plugins.plugin_utils.gateway.plan import Upstream
from ansible_collections.inference.fleet.plugins.plugin_utils.gateway.problems import (
    COMPROMISED,
    Surroundings,
    lock_problems,
)

QWEN = "Qwen/Qwen3-VL-8B-Instruct"
LOCKS: dict[str, dict[str, t.Any]] = {
    "litellm-1.108.7": {"engine": "litellm", "version": "1.108.7", "accelerator": "any"},
    "vllm-0.32.0-cpu": {"engine": "vllm", "version": "0.32.0", "accelerator": "cpu"},
}
CLIENTS: list[dict[str, t.Any]] = [{"name": "gate"}, {"name": "gateway"}]
HASH = f"    --hash=sha256:{'a' * 64}\n"


def problems(**changes: t.Any) -> list[str]:
    given: dict[str, t.Any] = {
        "wanted": [],
        "served": [Upstream("gpu-1", "10.0.0.1", 8000, "vllm", QWEN)],
        "clients": CLIENTS,
        "own_client": "gateway",
        "version": "1.108.7",
        "locks": LOCKS,
        "extra_args": {},
        "around": Surroundings(redis=True, processes=2, priced=True),
    }
    return gateway_problems.problems(**{**given, **changes})


def test_nothing_is_wrong_with_nothing() -> None:
    assert problems() == []


@pytest.mark.parametrize("version", COMPROMISED)
def test_a_version_of_an_attacker_is_refused_by_name(version: str) -> None:
    locks = {**LOCKS, "litellm-x": {"engine": "litellm", "version": version, "accelerator": "any"}}
    [problem] = problems(version=version, locks=locks)
    assert f"litellm_version is {version}, which was published by an attacker" in problem
    assert all(other in problem for other in COMPROMISED)


def test_a_version_without_a_lock_names_those_that_there_are() -> None:
    [problem] = problems(version="1.99.0")
    assert "litellm_version is '1.99.0', for which there is no lock" in problem
    assert "Valid are: 1.108.7" in problem


def test_the_gateways_own_client_has_to_be_there() -> None:
    [problem] = problems(clients=[{"name": "gate"}])
    assert "fleet_clients has no client gateway" in problem


def test_errors_of_models_and_of_the_rest_are_reported_together() -> None:
    found = problems(wanted=[{"name": "a", "model": "none"}], version="1.82.7")
    assert len(found) == 2


@pytest.mark.parametrize(
    ("extra_args", "message"),
    [
        ({"router_settings": {"num_retries": 1}}, "sets router_settings.num_retries.*: set litellm_retries"),
        ({"general_settings": {"master_key": "sk-x"}}, "sets general_settings.master_key"),
        ({"litellm_settings": {"callbacks": []}}, "sets litellm_settings.callbacks"),
        ({"model_list": []}, "has model_list: .*; it must be a dictionary of settings by section: general_settings"),
        ({"router_settings": 1}, "has router_settings: 1; it must be"),
    ],
)
def test_what_is_the_collections_cannot_be_set_by_hand(extra_args: dict[str, t.Any], message: str) -> None:
    [problem] = problems(extra_args=extra_args)
    assert re.search(message, problem)


def test_other_settings_may_be_set() -> None:
    assert problems(extra_args={"litellm_settings": {"success_callback": ["otel"]}}) == []


@pytest.mark.parametrize(
    ("client", "message"),
    [
        ({"requests_per_minute": "many"}, "requests_per_minute of client a is 'many'. Give a whole number"),
        ({"max_concurrent": 0}, "max_concurrent of client a is 0"),
        ({"tokens_per_minute": True}, "tokens_per_minute of client a is True"),
        ({"budget": "5"}, "budget of client a is '5'. Give a number above 0"),
        ({"budget": 5, "budget_period": "month"}, "budget_period of client a is 'month'. Give a number with its unit"),
        ({"budget": 5, "budget_period": "5s"}, "budget_period of client a is '5s'. Give at least 1m, such as 30d."),
        ({"budget_period": "30d"}, "Client a has a budget_period and no budget"),
        ({"models": [QWEN, "x"]}, f"Client a may use x, which no gateway has. They have: {QWEN}"),
        ({"models": ["x"]}, "which no gateway has. It could use none."),
        ({"models": "x"}, "models of client a is 'x'. Give a list"),
    ],
)
def test_an_invalid_limit_is_reported_with_client_and_value(client: dict[str, t.Any], message: str) -> None:
    [problem] = problems(clients=[*CLIENTS, {"name": "a", **client}])
    assert message in problem


def test_limits_need_a_redis_where_several_processes_count() -> None:
    clients = [*CLIENTS, {"name": "a", "requests_per_minute": 5, "budget": 1}]
    [problem] = problems(clients=clients, around=Surroundings(redis=False, processes=2, priced=True))
    assert "Client a has requests_per_minute, budget, which 2 processes of LiteLLM without a Redis" in problem
    assert problems(clients=clients, around=Surroundings(redis=False, processes=1, priced=True)) == []


def test_a_budget_needs_prices() -> None:
    clients = [*CLIENTS, {"name": "a", "budget": 1}]
    around = Surroundings(redis=True, processes=2, priced=False)
    [problem] = problems(clients=clients, around=around)
    assert f"Client a has a budget, and {QWEN} no price" in problem
    priced = [{"name": QWEN, "input_cost_per_token": 1e-7, "output_cost_per_token": 2e-7}]
    assert problems(clients=clients, around=around, wanted=priced) == []


def test_a_lock_is_what_it_says_and_has_hashes() -> None:
    good = f"litellm==1.108.7 \\\n{HASH}openai==1.0 \\\n{HASH}"
    assert lock_problems(good, "1.108.7") == []
    [other] = lock_problems(good.replace("1.108.7", "1.82.7"), "1.108.7")
    assert "installs 1.82.7" in other
    [bare] = lock_problems(f"litellm==1.108.7 \\\n{HASH}openai==1.0\n", "1.108.7")
    assert "has no hash for openai==1.0" in bare
    [none] = lock_problems(f"openai==1.0 \\\n{HASH}", "1.108.7")
    assert "installs no litellm" in none
