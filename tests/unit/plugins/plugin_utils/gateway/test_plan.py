from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.gateway import plan

QWEN, OTHER = "Qwen/Qwen3-VL-8B-Instruct", "org/other"


def up(name: str, engine: str = "vllm", model: str = QWEN, port: int = 8000) -> plan.Upstream:
    return plan.Upstream(name, f"10.0.0.{name[-1]}", port, engine, model)


def test_without_a_wish_every_served_name_is_a_model() -> None:
    found = plan.models([], [up("gpu-1"), up("gpu-2"), up("gpu-3", model=OTHER)])
    assert [(model.name, [one.host for one in model.upstreams]) for model in found] == [
        (QWEN, ["gpu-1", "gpu-2"]),
        (OTHER, ["gpu-3"]),
    ]


def test_a_name_of_its_own_means_what_the_hosts_serve() -> None:
    [model] = plan.models([{"name": "qwen3-vl"}], [up("gpu-1")])
    assert (model.name, model.model, model.pool) == ("qwen3-vl", QWEN, "qwen3-vl")


def test_models_are_spread_over_engines_or_one_of_them() -> None:
    served = [up("gpu-1"), up("gpu-2", "sglang")]
    given = [{"name": "a", "engines": ["vllm", "sglang"]}, {"name": "b", "engines": ["sglang"], "fallbacks": ["a"]}]
    both, fast = plan.models(given, served)
    assert [one.host for one in both.upstreams] == ["gpu-1", "gpu-2"]
    assert [one.host for one in fast.upstreams] == ["gpu-2"]
    assert fast.settings == {"fallbacks": ["a"]}


def test_hosts_can_be_named() -> None:
    [model] = plan.models([{"name": "a", "hosts": ["gpu-2"]}], [up("gpu-1"), up("gpu-2", "sglang")])
    assert [one.host for one in model.upstreams] == ["gpu-2"]


SERVED = [up("gpu-1"), up("gpu-2", "sglang"), up("gpu-3", model=OTHER)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], rf"{QWEN} is served by different engines \(sglang on gpu-2; vllm on gpu-1\), and gateway_models does not"),
        ([{"name": QWEN}], r"gateway_models\[0\] does not say which are meant.*engines: \[sglang, vllm\]"),
        ([{"name": "a"}], r"gateway_models\[0\] does not say which model a is"),
        ([{"name": "a", "model": "Qwen/Qwen3-VL-8B"}], r"no inference host serves Qwen/Qwen3-VL-8B.* Did you mean"),
        (
            [{"name": "a", "model": OTHER, "engines": ["sglang"]}],
            "no host serves a with sglang; it is served with vllm",
        ),
        ([{"name": "a", "model": OTHER, "engines": ["tgi"]}], r"gateway_models\[0\].engines is 'tgi'"),
        ([{"name": "a", "model": OTHER, "hosts": ["gpu-9"]}], "names gpu-9, which the group inference does not have"),
        ([{"name": "a", "model": OTHER, "hosts": ["gpu-1"]}], rf"names gpu-1, which serves something else: {QWEN}"),
        ([{"name": OTHER}, {"name": OTHER}], f"gateway_models has {OTHER} 2 times"),
        ([{"name": OTHER, "fallbacks": ["x"]}], f"{OTHER} falls back to x, which is no model"),
        ([{"name": OTHER, "fallbacks": [OTHER]}], f"{OTHER} falls back to itself"),
        (
            [{"name": OTHER, "engine": "vllm"}],
            r"gateway_models\[0\] has the unknown key engine. Valid are: name, model",
        ),
        (
            [{"name": OTHER, "timeout": "long"}],
            r"gateway_models\[0\].timeout of org/other is 'long'; it must be a number",
        ),
        ([{"name": OTHER, "timeout": True}], r"is True; it must be a number"),
        ([{"name": OTHER, "cache": 1}], r"it must be true or false"),
        ([{"name": OTHER, "hosts": "gpu-1"}], r"it must be a list"),
        ([{"model": OTHER}], r"gateway_models\[0\] is .*; it must be a dictionary with a name"),
        (["a"], r"gateway_models\[0\] is 'a'; it must be a dictionary with a name"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(given: list[t.Any], message: str) -> None:
    with pytest.raises(FleetError, match=message):
        plan.models(given, SERVED)


def test_all_errors_are_reported_at_once() -> None:
    with pytest.raises(FleetError) as caught:
        plan.models([{"name": "a", "model": "none"}, {"name": "b", "model": OTHER, "cost": 1}], SERVED)
    assert "serves none" in caught.value.message
    assert "unknown key cost" in caught.value.message


def test_a_fleet_without_hosts_has_no_model() -> None:
    with pytest.raises(FleetError, match="There is no inference host"):
        plan.models([], [])


def test_a_pools_name_is_its_models_and_no_others() -> None:
    names = ["qwen3-vl", "Qwen3-VL", "qwen3_vl", "qwen3/vl", QWEN, "模型", "x" * 80]
    pools = [plan.pool_name(name) for name in names]
    assert len(set(pools)) == len(names)
    assert pools[0] == "qwen3-vl"
    assert all(pool.replace("-", "").isalnum() and pool.isascii() and len(pool) < 50 for pool in pools)
