from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import types
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.gateway import litellm_keys

from tests.unit.litellm.conftest import ProxyException, UserAPIKeyAuth, load, wait
from tests.unit.litellm.test_fleet_clients import KEY, OTHER, write

CHAT = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def known(tmp_path: Path) -> Path:
    path = tmp_path / "clients.json"
    write(path, {KEY: "team-a"})
    return path


def ask(gateway: types.ModuleType, key: str = KEY, path: str = CHAT) -> UserAPIKeyAuth:
    request = types.SimpleNamespace(url=types.SimpleNamespace(path=path))
    return t.cast(UserAPIKeyAuth, wait(gateway.auth(request, key)))


def refused(gateway: types.ModuleType, key: str = KEY, path: str = CHAT) -> tuple[str, str]:
    """Status and code of the refusal."""
    with pytest.raises(ProxyException) as caught:
        ask(gateway, key, path)
    return caught.value.code, caught.value.to_dict()["code"]


def test_litellm_gets_a_client_with_its_limits(gateway: types.ModuleType, known: Path) -> None:
    write(known, {KEY: "team-a"}, requests_per_minute=5, tokens_per_minute=100, max_concurrent=2, models=["m"])
    who = ask(gateway)
    assert (who.key_alias, who.user_role, who.models) == ("team-a", "internal_user", ["m"])
    assert (who.rpm_limit, who.tpm_limit, who.max_parallel_requests) == (5, 100, 2)
    assert KEY not in repr(who)


def test_two_keys_of_a_client_are_one_to_its_limits(gateway: types.ModuleType, known: Path) -> None:
    write(known, {KEY: "team-a", OTHER: "team-a"})
    assert ask(gateway, KEY).api_key == ask(gateway, OTHER).api_key


def test_with_a_database_keys_are_distinct_and_limits_are_the_clients(
    gateway: types.ModuleType, known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.fleet_history, "WRITTEN", True)
    write(known, {KEY: "team-a", OTHER: "team-a"}, requests_per_minute=5, tokens_per_minute=100, budget=1.0)
    one, other = ask(gateway, KEY), ask(gateway, OTHER)
    assert one.api_key == hashlib.sha256(KEY.encode()).hexdigest() != other.api_key
    assert (one.team_id, one.team_alias) == (other.team_id, other.team_alias) == ("fleet-team-a", "team-a")
    assert (one.team_rpm_limit, one.team_tpm_limit) == (5, 100)
    assert (one.rpm_limit, one.tpm_limit) == (None, None)
    assert one.metadata.pop("request") != other.metadata.pop("request")
    assert one.metadata == other.metadata == {"budget": 1.0, "budget_seconds": None}


def test_the_team_is_the_one_that_module_litellm_key_makes(
    gateway: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.fleet_history, "WRITTEN", True)
    assert ask(gateway, KEY).team_id == litellm_keys.team_id("team-a")


@pytest.mark.parametrize("key", ["", "sk-wrong", "sk-of-the-host-itselF"])
def test_any_other_key_is_refused(gateway: types.ModuleType, key: str) -> None:
    assert refused(gateway, key) == ("401", "invalid_api_key")


def test_the_hosts_own_gate_gets_in(gateway: types.ModuleType) -> None:
    assert ask(gateway, "sk-of-the-host-itself").key_alias == "engine"


def test_without_a_key_of_the_host_an_empty_one_is_none(
    gateway: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ENGINE_API_KEY")
    assert refused(gateway, "") == ("401", "invalid_api_key")


def test_a_client_expires(gateway: types.ModuleType, known: Path) -> None:
    write(known, {KEY: "team-a"}, expires=1)
    assert refused(gateway) == ("401", "expired_api_key")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/a/b", "/v1/embeddings", "/v1/responses", "/metrics"])
def test_what_clients_call_is_open(gateway: types.ModuleType, path: str) -> None:
    assert ask(gateway, path=path).key_alias == "team-a"


@pytest.mark.parametrize("path", ["/key/generate", "/model/new", "/v1/files", "/v1/model/info", "/v1", "/"])
def test_all_else_is_not_there(gateway: types.ModuleType, path: str) -> None:
    assert refused(gateway, path=path) == ("404", "unknown_url")


def hook(gateway: types.ModuleType, models: list[str], **data: t.Any) -> dict[str, t.Any]:
    who = types.SimpleNamespace(models=models, key_alias="team-a", metadata={})
    return t.cast(dict[str, t.Any], wait(gateway.hooks.async_pre_call_hook(who, None, data, "completion")))


def test_a_client_uses_the_models_that_it_may(gateway: types.ModuleType) -> None:
    assert hook(gateway, ["a", "b"], model="a", fallbacks=["b"])["model"] == "a"
    assert hook(gateway, [], model="anything")["model"] == "anything"


@pytest.mark.parametrize("data", [{"model": "c"}, {"model": "a", "fallbacks": [{"a": ["c"]}]}, {"model": "a,c"}])
def test_and_no_others_also_not_as_a_fallback(gateway: types.ModuleType, data: dict[str, t.Any]) -> None:
    with pytest.raises(ProxyException) as caught:
        hook(gateway, ["a"], **data)
    assert (caught.value.code, caught.value.to_dict()["code"], caught.value.param) == (
        "403",
        "model_not_allowed",
        "model",
    )


def request(gateway: types.ModuleType, who: UserAPIKeyAuth, **more: t.Any) -> dict[str, t.Any]:
    """Pass a request through the hook; return what LiteLLM passes on."""
    data = {"model": "m", "messages": [], **more}
    return t.cast(dict[str, t.Any], wait(gateway.hooks.async_pre_call_hook(who, None, data, "acompletion")))


def event(who: UserAPIKeyAuth, cost: float | None, place: str = "metadata") -> dict[str, t.Any]:
    metadata = {"user_api_key_alias": who.key_alias, "user_api_key_metadata": who.metadata}
    return {"litellm_params": {"metadata": {}, place: metadata}, "response_cost": cost}


def spend(gateway: types.ModuleType, who: UserAPIKeyAuth, cost: float | None, place: str = "metadata") -> None:
    wait(gateway.hooks.async_log_success_event(event(who, cost, place), None, None, None))


def turned_away(gateway: types.ModuleType, **more: t.Any) -> tuple[str, str]:
    """Status and code of the refusal of a request."""
    with pytest.raises(ProxyException) as caught:
        request(gateway, ask(gateway), **more)
    return caught.value.code, caught.value.to_dict()["code"]


def test_a_budget_that_is_spent_is_an_answer_of_openais(gateway: types.ModuleType, known: Path) -> None:
    write(known, {KEY: "team-a"}, budget=1.0, budget_seconds=86400)
    spend(gateway, ask(gateway), 0.75)
    spend(gateway, ask(gateway), None)
    spend(gateway, ask(gateway), 0.5, "litellm_metadata")
    assert turned_away(gateway) == ("429", "budget_exceeded")
    assert ask(gateway, path="/v1/models").key_alias == "team-a"


def test_of_30_requests_at_once_as_many_pass_as_the_budget_is_for(gateway: types.ModuleType, known: Path) -> None:
    write(known, {KEY: "team-a"}, budget=1.0)

    async def one() -> str:
        who = await gateway.auth(types.SimpleNamespace(url=types.SimpleNamespace(path=CHAT)), KEY)
        try:
            await gateway.hooks.async_pre_call_hook(who, None, {"model": "m", "max_tokens": 500}, "acompletion")
        except ProxyException as error:
            return str(error.to_dict()["code"])
        await asyncio.sleep(0.05)
        await gateway.hooks.async_log_success_event(event(who, 0.5), None, None, None)
        return "passed"

    async def at_once() -> list[str]:
        return await asyncio.gather(*(one() for _ in range(30)))

    answers = asyncio.run(at_once())
    assert (answers.count("passed"), answers.count("budget_reserved")) == (2, 28)
    assert turned_away(gateway) == ("429", "budget_exceeded")


def test_a_request_that_failed_gives_its_reservation_back(gateway: types.ModuleType, known: Path) -> None:
    write(known, {KEY: "team-a"}, budget=1.0)
    failed = ask(gateway)
    request(gateway, failed, max_tokens=5000)
    assert turned_away(gateway) == ("429", "budget_reserved")
    wait(gateway.hooks.async_post_call_failure_hook({}, RuntimeError(), failed))
    request(gateway, ask(gateway))


def test_so_does_one_that_ends_without_a_word(
    gateway: types.ModuleType, known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "SETTLEMENT", 0.0)
    write(known, {KEY: "team-a"}, budget=1.0)

    async def cancelled() -> None:
        who = await gateway.auth(types.SimpleNamespace(url=types.SimpleNamespace(path=CHAT)), KEY)
        await gateway.hooks.async_pre_call_hook(who, None, {"model": "m", "max_tokens": 5000}, "acompletion")
        await asyncio.sleep(60)

    async def scene() -> None:
        task = asyncio.create_task(cancelled())
        while not gateway.BUDGETS.reserved:
            await asyncio.sleep(0)
        task.cancel()
        while gateway.BUDGETS.reserved:
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(scene(), 10))
    request(gateway, ask(gateway))


def test_embeddings_reserve_no_answer(gateway: types.ModuleType, known: Path) -> None:
    write(known, {KEY: "team-a"}, budget=0.05)
    for _ in range(2):
        data = {"model": "m", "input": "a"}
        wait(gateway.hooks.async_pre_call_hook(ask(gateway), None, data, "aembedding"))
    request(gateway, ask(gateway))
    assert turned_away(gateway) == ("429", "budget_reserved")


def test_who_has_no_budget_reserves_nothing(gateway: types.ModuleType) -> None:
    who = ask(gateway)
    assert "request" not in who.metadata
    request(gateway, who)
    spend(gateway, who, 5)
    wait(gateway.hooks.async_log_success_event({"litellm_params": {}}, None, None, None))
    assert not gateway.BUDGETS.reserved


def test_both_of_litellms_copies_of_the_module_count_together(gateway: types.ModuleType, known: Path) -> None:
    write(known, {KEY: "team-a"}, budget=1.0)
    other = load("fleet_gateway")
    spend(other, ask(gateway), 2)
    assert other.BUDGETS is gateway.BUDGETS
    assert turned_away(gateway)[1] == "budget_exceeded"


def test_the_cached_models_are_named_in_the_environment(gateway: types.ModuleType) -> None:
    assert json.loads('["cached"]') == sorted(gateway.CACHED)


def test_litellm_sends_on_the_edges_name_of_the_request(gateway: types.ModuleType) -> None:
    received = {"headers": {"X-Fleet-Request": "from-the-edge.0", "X-Fleet-Affinity": "0123", "x-other": "a"}}
    asked = {"num_retries": 99, "max_retries": 9, "extra_headers": {"X-Fleet-Request": "mine.0"}, "headers": {"a": "b"}}
    given = hook(gateway, [], model="a", proxy_server_request=received, **asked)
    assert given["headers"] == {"x-fleet-request": "from-the-edge.0", "x-fleet-affinity": "0123"}
    assert not {"num_retries", "max_retries", "extra_headers"} & set(given)
    assert "headers" not in hook(gateway, [], model="a", **asked)


def look(gateway: types.ModuleType, **data: t.Any) -> dict[str, t.Any]:
    return t.cast(
        dict[str, t.Any], wait(gateway.hooks.async_pre_call_hook(ask(gateway), None, {"messages": [], **data}, "x"))
    )


@pytest.mark.parametrize("model", ["org/none", "", "M"])
def test_a_model_that_is_not_there_is_reported_as_not_found(
    gateway: types.ModuleType, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "MODELS", frozenset({"m"}))
    with pytest.raises(ProxyException) as caught:
        look(gateway, model=model)
    assert (caught.value.code, caught.value.to_dict()["code"]) == ("404", "model_not_found")
    assert caught.value.param == "model"
    assert look(gateway, model="m")["model"] == "m"


def nested(levels: int) -> list[t.Any]:
    value: list[t.Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "data", [{"model": ["m"]}, {"model": {"m": 1}}, {"model": 1}, {"model": "m", "messages": nested(2000)}]
)
def test_what_no_client_means_is_its_own_fault(
    gateway: types.ModuleType, known: Path, data: dict[str, t.Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """https://github.com/BerriAI/litellm/issues/30459."""
    who = ask(gateway)
    who.metadata.update(budget=1e9, budget_seconds=None, request="r")
    with pytest.raises(ProxyException) as caught:
        wait(gateway.hooks.async_pre_call_hook(who, None, data, "acompletion"))
    assert (caught.value.code, caught.value.to_dict()["code"]) == ("400", "bad_request")


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"model": "hosted_vllm/org/m", "prompt": [1, 2]}, "text-completion-openai/org/m"),
        ({"model": "hosted_vllm/org/m", "prompt": "a"}, "text-completion-openai/org/m"),
        ({"model": "hosted_vllm/org/m", "messages": []}, "hosted_vllm/org/m"),
        ({"model": "openai/org/m", "prompt": "a"}, "openai/org/m"),
    ],
)
def test_completions_are_not_made_messages_of(gateway: types.ModuleType, given: dict[str, t.Any], sent: str) -> None:
    made = wait(gateway.hooks.async_pre_call_deployment_hook(given, None))
    assert made == {**given, "model": sent}


def test_slow_bodies_hold_no_place_at_a_gateway(gateway: t.Any) -> None:
    assert sys.modules["request_guard"].guarded == [False]
