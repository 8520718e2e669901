"""Which clients and requests get answers from the cache."""

from __future__ import annotations

import types
import typing as t

import pytest

from tests.unit.litellm.conftest import load, wait

SAID = {"model": "cached", "messages": [{"role": "user", "content": "Yes or no?"}]}


@pytest.fixture
def cache() -> types.ModuleType:
    return load("fleet_cache")


def controls(gateway: types.ModuleType, client: str = "team-a", **more: t.Any) -> t.Any:
    """LiteLLM's cache parameters for a request."""
    body = {**SAID, **more}
    # LiteLLM adds to what it passes on, and keeps what the client sent.
    data: dict[str, t.Any] = {**body, "litellm_call_id": str(id(body)), "proxy_server_request": {"body": body}}
    who = types.SimpleNamespace(models=[], key_alias=client, metadata={})
    return t.cast(dict[str, t.Any], wait(gateway.hooks.async_pre_call_hook(who, None, data, "acompletion")))


def namespace(gateway: types.ModuleType, client: str = "team-a", **more: t.Any) -> str:
    return str(controls(gateway, client, **more)["cache"]["namespace"])


def test_the_same_request_of_a_client_is_answered_from_the_cache(gateway: types.ModuleType) -> None:
    assert controls(gateway)["cache"]["use-cache"] is True
    assert namespace(gateway) == namespace(gateway)
    assert namespace(gateway, top_k=1, min_p=0.5) == namespace(gateway, min_p=0.5, top_k=1)


def test_no_client_is_answered_what_another_one_was(gateway: types.ModuleType) -> None:
    assert namespace(gateway, "team-a") != namespace(gateway, "team-b")
    assert namespace(gateway, "team-a").startswith("litellm:team-a:")


@pytest.mark.parametrize(
    "parameter",
    [
        {"min_p": 0.5},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"structured_outputs": {"choice": ["yes"]}},
        {"cache_salt": "x"},
        {"mm_processor_kwargs": {"max_pixels": 1}},
        {"logits_processors": ["a"]},
        {"extra_body": {"top_k": 1}},
        {"something_of_tomorrow": None},
        {"stream": True},
        {"temperature": 0},
        {"messages": [{"role": "user", "content": "Yes or no? "}]},
    ],
)
def test_each_parameter_makes_another_request(gateway: types.ModuleType, parameter: dict[str, t.Any]) -> None:
    assert namespace(gateway, **parameter) != namespace(gateway)


def test_what_no_engine_sees_makes_none(gateway: types.ModuleType) -> None:
    assert namespace(gateway, metadata={"trace": "1"}) == namespace(gateway)


@pytest.mark.parametrize(
    "order",
    [
        {"cache": {"ttl": 10**9}},
        {"cache": {"s-maxage": 10**9, "namespace": "litellm:team-b:x", "use-cache": False}},
        {"cache": "no-store"},
        {"cache_key": "litellm:team-b:x"},
        {"litellm_params": {"preset_cache_key": "litellm:team-b:x"}},
        {"ttl": 10**9, "caching": False, "caching_groups": [["cached", "other"]]},
    ],
)
def test_clients_do_not_steer_the_cache(gateway: types.ModuleType, order: dict[str, t.Any]) -> None:
    data = controls(gateway, **order)
    assert data.pop("cache") == {"use-cache": True, "namespace": namespace(gateway)}
    assert not set(order) & set(data)


@pytest.mark.parametrize("order", [{"use-cache": True}, {"use-cache": True, "namespace": "litellm:team-b:x"}])
def test_nor_have_answers_of_other_models_kept(gateway: types.ModuleType, order: dict[str, t.Any]) -> None:
    assert "cache" not in controls(gateway, model="other", cache=order)


def test_a_client_may_bypass_the_cache(gateway: types.ModuleType) -> None:
    order = controls(gateway, cache={"no-cache": True, "no-store": True, "ttl": 5})["cache"]
    assert order == {"use-cache": True, "namespace": namespace(gateway), "no-cache": True, "no-store": True}


def test_a_request_of_unknown_text_is_not_cached(cache: types.ModuleType) -> None:
    for request in ({}, {"proxy_server_request": None}, {"proxy_server_request": {"body": None}}):
        data = {**SAID, "cache": {"use-cache": True}, **request}
        cache.take_control(data, "team-a", cached=True)
        assert "cache" not in data


def test_no_header_of_a_client_is_sent_on_to_the_hosts(gateway: types.ModuleType) -> None:
    data = controls(gateway, extra_headers={"X-Fleet-Hop": "gw-1"}, headers={"X-Forwarded-For": "10.0.0.1"})
    assert not {"extra_headers", "headers"} & set(data)
