"""Instances that span hosts: which are valid, and the options of each node's engine."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.engines.options import engine_options, engine_problems
from ansible_collections.inference.fleet.plugins.module_utils.instances.plan import (
    edge_services,
    edge_targets,
    plan_instances,
    wanted_ports,
)
from ansible_collections.inference.fleet.plugins.module_utils.instances.releases import Release
from ansible_collections.inference.fleet.plugins.module_utils.instances.span import Nodes, known_nodes

ITEM: dict[str, t.Any] = {"gpus": [0, 1], "nodes": ["a", "b"]}


def nodes(host: str = "a", network: str = "10.0.8.0/24", **changes: dict[str, t.Any]) -> Nodes:
    hosts: list[dict[str, t.Any]] = [
        {
            "inventory_hostname": name,
            "fleet_node_address": f"10.0.8.{number}",
            "fleet_instances": [ITEM],
            **changes.get(name, {}),
        }
        for number, name in enumerate("ab", 1)
    ]
    return Nodes(host, known_nodes(hosts), network)


def planned(host: str = "a", engine: str = "vllm", item: dict[str, t.Any] = ITEM, **known: t.Any) -> dict[str, t.Any]:
    [instance] = plan_instances([item], engine=engine, gpu_count=2, served_name="m", nodes=nodes(host, **known))
    return instance.as_dict()


def settings(host: str, engine: str, **options: t.Any) -> dict[str, t.Any]:
    [one] = engine_options([planned(host, engine)], options, {})
    return one


def test_the_first_node_serves_and_the_others_do_not() -> None:
    assert [planned(host)["serves"] for host in "ab"] == [True, False]
    assert planned("b")["span"] == {
        "rank": 1,
        "nodes": ["a", "b"],
        "addresses": ["10.0.8.1", "10.0.8.2"],
        "link_port": 29400,
        "meeting_port": 29500,
        "node_port": 8200,
    }


def test_a_node_that_takes_no_requests_is_no_target() -> None:
    services = {host: edge_services([planned(host)]) for host in "ab"}
    assert [services[host][0].get("answers") for host in "ab"] == [None, False]
    assert edge_targets(services["a"])
    assert edge_targets(services["b"]) == []


def test_the_first_node_needs_the_ports_where_they_meet() -> None:
    ports = {host: [one["port"] for one in wanted_ports([planned(host)])] for host in "ab"}
    assert ports == {"a": [8000, 8100, 29400, 29500], "b": [8000, 8100]}


def test_vllm_gets_its_rank_and_the_first_nodes_address() -> None:
    shared = {
        "port": 8100,
        "served-model-name": "m",
        "tensor-parallel-size": 2,
        "pipeline-parallel-size": 2,
        "nnodes": 2,
        "master-addr": "10.0.8.1",
        "master-port": 29500,
    }
    assert settings("a", "vllm")["options"] == {**shared, "node-rank": 0}
    assert settings("b", "vllm")["options"] == {**shared, "node-rank": 1, "headless": True}
    assert settings("b", "vllm")["environment"] == {"CUDA_VISIBLE_DEVICES": "0,1", "VLLM_HOST_IP": "10.0.8.2"}


def test_sglang_gets_its_rank_and_the_first_nodes_address() -> None:
    options = settings("b", "sglang")["options"]
    assert options == {
        "port": 8200,
        "served-model-name": "m",
        "tp-size": 2,
        "pp-size": 2,
        "nnodes": 2,
        "node-rank": 1,
        "dist-init-addr": "10.0.8.1:29500",
    }
    environment = settings("b", "sglang")["environment"]
    assert environment["SGLANG_HOST_IP"] == "10.0.8.2"
    assert environment["SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE"] == "", "a file is of one host"


def test_all_gpus_may_share_each_layer() -> None:
    options = settings("a", "vllm", pipeline_parallel_size=1)["options"]
    assert (options["tensor-parallel-size"], options["pipeline-parallel-size"]) == (4, 1)


def test_tensor_parallelism_is_counted_over_all_nodes() -> None:
    def problems(**options: t.Any) -> str:
        return " ".join(engine_problems({}, "vllm", "1", "cuda", {}, options, [planned("a")]))

    assert "4 GPUs" not in problems(tensor_parallel_size=2)
    assert "vllm_tensor_parallel_size is 4, and vllm-0 has 4 GPUs" in problems(tensor_parallel_size=4)
    assert "cannot be shared out over 3 pipeline stages" in problems(pipeline_parallel_size=3)


@pytest.mark.parametrize("option", ["nnodes", "node_rank", "headless"])
def test_options_that_follow_from_the_nodes_cannot_be_set(option: str) -> None:
    problems = engine_problems({option: 1}, "vllm", "1", "cuda", {})
    assert any("fleet_instances[].nodes" in problem for problem in problems)


@pytest.mark.parametrize(
    ("item", "known", "message"),
    [
        ({"nodes": ["a"]}, {}, "must name two hosts or more"),
        ({"nodes": "a"}, {}, "must name two hosts or more"),
        ({"nodes": ["a", "a"]}, {}, "each once"),
        ({"nodes": ["a", "x"]}, {}, "names x, which the group inference does not have"),
        (ITEM, {"host": "c"}, "c is none of them"),
        (ITEM, {"b": {"fleet_instances": []}}, "for b it says nothing. Say the same for each"),
        (ITEM, {"b": {"fleet_instances": [{"gpus": [0], "nodes": ["a", "b"]}]}}, "for b it says {'gpus': [0]"),
        (ITEM, {"network": ""}, "set fleet_node_network to its private range"),
        (ITEM, {"network": "0.0.0.0/0"}, "set fleet_node_network"),
        (ITEM, {"network": "8.8.8.0/24"}, "set fleet_node_network"),
        (ITEM, {"network": "10.0.8.1/24"}, "set fleet_node_network"),
        (ITEM, {"b": {"fleet_node_address": "10.0.9.2"}}, "names b, whose address is 10.0.9.2: it is not in"),
        (ITEM, {"b": {"fleet_node_address": ""}}, "names b, whose address is not known"),
        (ITEM, {"b": {"fleet_node_address": "10.0.8.1"}}, "have one address"),
    ],
)
def test_what_cannot_span_is_refused_with_what_to_do(
    item: dict[str, t.Any], known: dict[str, t.Any], message: str
) -> None:
    with pytest.raises(FleetError) as caught:
        planned(**{"host": "a", "item": item, **known})
    assert message in caught.value.message
    assert "fleet_instances[0]" in caught.value.message


def test_an_address_is_looked_for_where_inventories_have_it() -> None:
    hosts: list[dict[str, t.Any]] = [
        {"inventory_hostname": "a", "ansible_host": "10.0.0.1", "private_ip_address": "10.0.8.1"},
        {"inventory_hostname": "b", "ansible_host": "10.0.0.2"},
        {"inventory_hostname": "c", "ansible_host": "10.0.0.3", "fleet_node_address": "10.0.8.3"},
    ]
    assert [one["address"] for one in known_nodes(hosts).values()] == ["10.0.8.1", "10.0.0.2", "10.0.8.3"]


def release(host: str, **options: t.Any) -> Release:
    one = settings(host, "vllm", **options)
    return Release(
        0, "vllm", "1", "runtime", "m", "/m", "", "r", "m", one["options"], one["environment"], "", span=one["span"]
    )


def test_nodes_agree_where_only_their_places_differ() -> None:
    first, second = release("a"), release("b")
    assert first.name != second.name
    assert first.agreement == second.agreement
    assert release("b", max_model_len=1).agreement != first.agreement
