from __future__ import annotations

import typing as t

import yaml
from ansible_collections.inference.fleet.plugins.module_utils.engines.options import render_config
from ansible_collections.inference.fleet.plugins.plugin_utils.gateway import config
from ansible_collections.inference.fleet.plugins.plugin_utils.gateway.plan import Model, Upstream

QWEN = "Qwen/Qwen3-VL-8B-Instruct"


def model(name: str = "qwen3-vl", *upstreams: Upstream, **settings: t.Any) -> Model:
    return Model(name, QWEN, name, upstreams, settings)


def up(host: str, port: int = 8000, tls: bool = False, gpus: int = 1) -> Upstream:
    return Upstream(host, "10.0.0.1", port, "vllm", QWEN, tls, "gpu-2.internal" if tls else "", gpus)


def test_a_pool_has_the_models_hosts() -> None:
    [pool] = config.pools([model("qwen3-vl", up("gpu-1"), up("gpu 2", 8443, True, 4))])
    assert pool == {
        "name": "qwen3-vl",
        "servers": [
            {"name": "gpu-1", "address": "10.0.0.1", "port": 8000, "tls": False, "tls_name": "", "weight": 1},
            {
                "name": "gpu-2",
                "address": "10.0.0.1",
                "port": 8443,
                "tls": True,
                "tls_name": "gpu-2.internal",
                "weight": 4,
            },
        ],
    }


def test_two_ports_of_a_host_are_two_servers() -> None:
    [pool] = config.pools([model("qwen3-vl", up("gpu-1", 8000), up("gpu-1", 8001))])
    assert [server["name"] for server in pool["servers"]] == ["gpu-1-8000", "gpu-1-8001"]


def test_a_model_is_two_deployments_of_the_same_pool() -> None:
    defaults = {"timeout": 600, "stream_timeout": "60", "input_cost_per_token": 1e-12}
    given = model(timeout=30, options={"extra_headers": {"a": "b"}})
    first, second = config.model_list([given], "http://127.0.0.1:4100", "os.environ/K", defaults)
    assert first["model_name"] == second["model_name"] == "qwen3-vl"
    assert first["litellm_params"] == second["litellm_params"]
    assert first["litellm_params"] == {
        "model": f"hosted_vllm/{QWEN}",
        "api_base": "http://127.0.0.1:4100/qwen3-vl/v1",
        "api_key": "os.environ/K",
        "timeout": 30,
        "stream_timeout": 60,
        "extra_headers": {"a": "b"},
    }
    assert first["model_info"].pop("id") != second["model_info"].pop("id")
    assert first["model_info"] == second["model_info"] == {"input_cost_per_token": 1e-12}


def test_a_models_price_is_the_highest_of_those_that_may_answer() -> None:
    defaults = {"input_cost_per_token": "0.000001", "output_cost_per_token": 2e-6}
    given = [
        model("a", fallbacks=["b"]),
        model("b", fallbacks=["c", "a"], output_cost_per_token=1e-6, input_cost_per_token=None),
        model("c", input_cost_per_token=3e-6, options={"output_cost_per_token": 9e-6}),
        model("d"),
    ]
    assert config.prices(given, defaults) == {
        "a": [3e-6, 9e-6],
        "b": [3e-6, 9e-6],
        "c": [3e-6, 9e-6],
        "d": [1e-6, 2e-6],
    }
    assert config.prices([model("a")], {}) == {"a": [0.0, 0.0]}


def test_fallbacks_and_cached_models_are_listed() -> None:
    given = [model("a", fallbacks=["b"]), model("b", cache=True), model("c")]
    assert config.fallbacks(given) == [{"a": ["b"]}]
    assert config.cached(given) == ["b"]


def test_each_instance_listens_on_its_own_port() -> None:
    instances = [{"index": i, "engine_port": 4001 + i, "served_name": "qwen"} for i in (0, 1)]
    first, second = config.options(instances, {"router_settings": {"num_retries": "5"}}, {"A": "b"})
    assert first["options"] == {"router_settings": {"num_retries": 5}}
    assert first["environment"] == {"A": "b", "HOST": "127.0.0.1", "PORT": "4001"}
    assert second["environment"]["PORT"] == "4002"


def test_the_config_keeps_names_and_small_prices() -> None:
    settings = {
        "model_list": [{"litellm_params": {"input_cost_per_token": 2e-07, "output_cost_per_token": 1.5e-12}}],
        "router_settings": {"retry_policy": {"TimeoutErrorRetries": 1}, "note": 'say "1e-07"'},
        "general_settings": None,
    }
    text = render_config("litellm", settings)
    assert yaml.safe_load(text) == {name: value for name, value in settings.items() if value is not None}
