from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.facts import Fleet, choose_engine, count_gpus
from ansible_collections.inference.fleet.plugins.plugin_utils.gateway.plan import Upstream

QWEN = "Qwen/Qwen3-VL-8B-Instruct"

Host = dict[str, t.Any]


def host(**changes: t.Any) -> Host:
    """An inference host's variables."""
    return {"fleet_served_name": QWEN, "fleet_instance_type": "g6e.xlarge", **changes}


def fleet(
    inference: dict[str, Host], gateway: dict[str, Host] | None = None, store: dict[str, Host] | None = None
) -> Fleet:
    groups = {"inference": inference, "gateway": gateway or {}, "gateway_store": store or {}}
    variables = {
        name: {"inventory_hostname": name, "ansible_host": f"10.0.0.{name[-1]}", **own}
        for group in groups.values()
        for name, own in group.items()
    }
    return Fleet({name: list(group) for name, group in groups.items()}, variables)


def facts(name: str, *groups: dict[str, Host]) -> dict[str, t.Any]:
    return fleet(*groups).work_out(name).as_dict()


def test_an_inference_host_has_an_instance_for_each_gpu() -> None:
    found = facts("gpu-1", {"gpu-1": host(fleet_instance_type="g6e.12xlarge", edge_port="8443")})
    assert [(one["unit"], one["gpus"], one["port"], one["served_name"]) for one in found["instances"]] == [
        (f"vllm@{index}.service", [index], 8443, QWEN) for index in range(4)
    ]
    assert {name: found[name] for name in ("tier", "is_gateway", "engine", "gpu_count", "model", "problem")} == {
        "tier": "inference",
        "is_gateway": False,
        "engine": "vllm",
        "gpu_count": 4,
        "model": QWEN,
        "problem": "",
    }
    assert found["edge_url"] == "http://127.0.0.1:8443"
    assert found["gate_targets"] == [{"name": "edge", "url": "http://127.0.0.1:8443", "model": QWEN}]
    assert [one["name"] for one in found["edge_services"][0]["instances"]] == [f"engine-{index}" for index in range(4)]
    assert found["engine_urls"] == [f"http://127.0.0.1:{8100 + index}" for index in range(4)]
    assert (found["upstreams"], found["peers"], found["pools"]) == ([], [], [])


def test_gpus_are_shared_by_the_parallel_size_of_the_hosts_engine() -> None:
    sizes = {"vllm_tensor_parallel_size": 4, "sglang_tensor_parallel_size": 2}
    found = facts("gpu-1", {"gpu-1": host(fleet_instance_type="g6e.12xlarge", fleet_engine="sglang", **sizes)})
    assert [one["gpus"] for one in found["instances"]] == [[0, 1], [2, 3]]


def test_further_ports_are_gated_under_their_own_names() -> None:
    instances = [{"gpus": [0]}, {"gpus": [1]}, {"engine": "sglang", "port": 8001, "served_name": "fast", "gpus": [2]}]
    own = host(fleet_instance_type="g6e.12xlarge", fleet_instances=instances, edge_tls_certificate="/etc/x.pem")
    found = facts("gpu-1", {"gpu-1": own})
    assert found["gate_targets"] == [
        {"name": "edge", "url": "https://127.0.0.1:8000", "model": QWEN},
        {"name": "edge-8001", "url": "https://127.0.0.1:8001", "model": "fast"},
    ]
    assert found["edge_urls"] == ["https://127.0.0.1:8000", "https://127.0.0.1:8001"]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "vllm"),
        ({"fleet_engine": "sglang"}, "sglang"),
        ({"fleet_engine": "vllm", "fleet_engine_tag": "sglang"}, "sglang"),
        ({"fleet_engine": "sglang", "fleet_engine_tag": ""}, "sglang"),
        ({"fleet_engine_tag": "vllm", "engine": "sglang"}, "sglang"),
        ({"fleet_engine_tag": "vllm", "engine": ""}, ""),
    ],
)
def test_the_engine_of_the_run_counts_more_than_the_tag_and_the_tag_more_than_the_fleets(
    variables: Host, expected: str
) -> None:
    assert choose_engine(variables) == expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"fleet_instance_type": "g6e.48xlarge"}, 8),
        ({"fleet_instance_type": "g6e.48xlarge", "fleet_gpu_count": "2"}, 2),
        ({"fleet_gpu_count": 3}, 3),
        ({"fleet_instance_type": "g6e.48xlarge", "fleet_accelerator": "cpu"}, 0),
    ],
)
def test_gpus_are_those_of_the_instance_type_or_as_many_as_are_set(variables: Host, expected: int) -> None:
    assert count_gpus(variables) == expected


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"engine": "tgi"}, "engine is 'tgi', which is no engine. Valid are: vllm, sglang."),
        (
            {"fleet_instance_type": "x9.huge"},
            "How many GPUs the instance type 'x9.huge' has is not known. Set fleet_gpu_count for the host, or "
            "fleet_accelerator: cpu when it has none.",
        ),
        ({"fleet_gpu_count": "two"}, "fleet_gpu_count is 'two'; it must be a whole number."),
        ({"fleet_instances": [{"port": 0}]}, "fleet_instances[0].port is 0; a port is 1 to 65535."),
        ({"fleet_instances": ["vllm"]}, "fleet_instances[0] is 'vllm'; it must be a dictionary with the keys"),
        ({"vllm_tensor_parallel_size": "all"}, "vllm_tensor_parallel_size is 'all'; it must be a whole number."),
    ],
)
def test_a_host_without_a_plan_says_why_and_keeps_what_does_not_depend_on_it(variables: Host, problem: str) -> None:
    found = facts("gpu-1", {"gpu-1": host(**variables), "gpu-2": host()})
    assert found["problem"].startswith(problem)
    assert "instances" not in found
    assert "gate_targets" not in found
    assert found["edge_url"] == "http://127.0.0.1:8000"
    assert facts("gpu-2", {"gpu-1": host(**variables), "gpu-2": host()})["problem"] == ""


def test_an_invalid_port_is_named_once() -> None:
    found = facts("gpu-1", {"gpu-1": host(edge_port="80o0")})
    assert found["problem"] == "edge_port is '80o0'; it must be a whole number."
    known = {"tier", "address", "ring", "is_gateway", "gateway_kind", "engine", "has_database", "caches", "affinity"}
    assert set(found) == {*known, "profile", "problem"}


def test_a_host_has_the_ring_of_its_group() -> None:
    own = {name: host(inventory_hostname=name) for name in ("gpu-1", "gpu-2")}
    rings = Fleet({"inference": list(own), "ring_canary": ["gpu-2"], "ring_stable": []}, own)
    assert [rings.work_out(name).ring for name in own] == ["", "canary"]


def test_instances_span_hosts_that_the_inventory_has() -> None:
    own = host(fleet_instances=[{"nodes": ["gpu-1", "gpu-2"], "gpus": [0]}], fleet_node_network="10.0.0.0/24")
    first, second = (facts(name, {"gpu-1": own, "gpu-2": own}) for name in ("gpu-1", "gpu-2"))
    assert [one["instances"][0]["span"]["rank"] for one in (first, second)] == [0, 1]
    assert first["instances"][0]["span"]["addresses"] == ["10.0.0.1", "10.0.0.2"]
    assert (second["gate_targets"], second["edge_urls"], second["engine_urls"]) == ([], [], [])
    assert facts("gpu-1", {"gpu-1": own})["problem"].startswith("fleet_instances[0].nodes names gpu-2, which the group")


def test_a_gateway_lists_hosts_and_peers_and_is_asked_for_its_first_model() -> None:
    gateways = {
        "gw-2": {"gateway_models": [{"name": "a", "model": QWEN}, {"name": "b", "model": QWEN}], "fleet_vcpus": 2},
        "gw-1": {"fleet_gateway_port": 4443, "edge_tls_certificate": "x", "fleet_address": "a.internal"},
    }
    found = facts("gw-2", {"gpu-1": host()}, gateways)
    assert (found["tier"], found["is_gateway"], found["engine"], found["gpu_count"]) == ("gateway", True, "litellm", 0)
    assert [(one["unit"], one["port"], one["served_name"]) for one in found["instances"]] == [
        ("litellm@0.service", 4000, "a"),
        ("litellm@1.service", 4000, "a"),
    ]
    assert found["model"] == "a"
    assert found["upstreams"] == [
        {
            "host": "gpu-1",
            "address": "10.0.0.1",
            "port": 8000,
            "engine": "vllm",
            "model": QWEN,
            "tls": False,
            "tls_name": "",
            "gpus": 1,
        }
    ]
    assert found["peers"] == [{"name": "gw-1", "address": "a.internal", "port": 4443, "tls": True, "tls_name": "gw-1"}]
    assert found["edge_services"][0]["peers"] == found["peers"]
    assert [(pool["name"], [one["name"] for one in pool["servers"]]) for pool in found["pools"]] == [
        ("a", ["gpu-1"]),
        ("b", ["gpu-1"]),
    ]


def test_a_gateway_that_is_haproxy_alone_has_a_service_and_no_instances() -> None:
    gateways: dict[str, dict[str, t.Any]] = {
        "gw-1": {"gateway_kind": "edge", "litellm_database_url": "postgresql://db", "gateway_counters_port": 4999},
        "gw-2": {"gateway_kind": "edge"},
        "gw-3": {},
    }
    found = facts("gw-2", {"gpu-1": host()}, gateways)
    assert (found["gateway_kind"], found["engine"], found["caches"], found["has_database"]) == (
        "edge",
        "edge",
        False,
        False,
    )
    assert (found["instances"], found["engine_urls"], found["problem"]) == ([], [], "")
    assert found["edge_services"] == [found["front"]]
    assert found["gate_targets"] == [{"name": "edge", "url": "http://127.0.0.1:4000", "model": QWEN}]
    # Gateways of either kind take over for each other, and those of this kind count together.
    assert [one["name"] for one in found["peers"]] == ["gw-1", "gw-3"]
    assert [(one["name"], one["port"]) for one in found["front"]["counters"]["peers"]] == [("gw-1", 4999)]
    assert [one["host"] for one in found["counters"]] == ["gw-1", "gw-2"]
    other = facts("gw-3", {"gpu-1": host()}, gateways)
    assert (other["gateway_kind"], other["engine"], other["caches"]) == ("litellm", "litellm", True)
    assert (other["front"], other["counters"], len(other["instances"])) == ({}, [], 1)


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"gateway_kind": "nginx"}, "gateway_kind is 'nginx'; valid are litellm, edge."),
        ({"gateway_kind": "edge", "gateway_counters_port": "x"}, "gw-1: gateway_counters_port is 'x'; it must be"),
        ({"litellm_instances": "many"}, "litellm_instances is 'many'"),
        ({"litellm_instances": 0}, "litellm_instances is 0; give one for each core"),
        (
            {"gateway_models": [{"name": "a", "model": "org/none"}]},
            "gateway_models[0]: no inference host serves org/none",
        ),
        ({"fleet_gateway_port": "4ooo"}, "fleet_gateway_port is '4ooo'; it must be a whole number."),
    ],
)
def test_a_gateway_without_a_plan_says_why(variables: Host, problem: str) -> None:
    found = facts("gw-1", {"gpu-1": host()}, {"gw-1": variables})
    assert found["problem"].startswith(problem)
    assert "pools" not in found


def test_the_problem_of_a_host_is_its_gateways_with_its_name() -> None:
    hosts = {"gpu-1": host(fleet_instances=[{"port": 0}])}
    assert facts("gw-1", hosts, {"gw-1": {}})["problem"].startswith("gpu-1: fleet_instances[0].port is 0")
    gateways = {"gw-1": {}, "gw-2": {"fleet_gateway_port": "4ooo"}}
    found = facts("gw-1", {"gpu-1": host()}, gateways)
    assert found["problem"] == "gw-2: fleet_gateway_port is '4ooo'; it must be a whole number."


def test_a_gateways_affinity_has_a_variable_of_its_own() -> None:
    hosts = {"gpu-1": host(edge_affinity="none", gateway_affinity="client")}
    gateways = {"gw-1": {"gateway_affinity": "client"}, "gw-2": {}, "gw-3": {"edge_affinity": "none"}}
    found = [facts(name, hosts, gateways)["affinity"] for name in ("gpu-1", "gw-1", "gw-2", "gw-3")]
    assert found == ["none", "client", "prefix", "none"]


def test_a_database_is_the_gateways_or_a_stores() -> None:
    def has_database(own: Host, store: Host) -> bool:
        return fleet({"gpu-1": host()}, {"gw-1": own}, {"st-1": store}).work_out("gw-1").has_database is True

    assert not has_database({}, {})
    assert not has_database({"litellm_database_url": ""}, {"gateway_store_database": False})
    assert has_database({"litellm_database_url": "postgresql://db"}, {})
    assert has_database({}, {"gateway_store_database": True})


def upstreams(**hosts: Host) -> list[Upstream]:
    return fleet({name.replace("_", "-"): own for name, own in hosts.items()}).find_upstreams()


def test_an_upstream_is_found_in_its_variables() -> None:
    [found] = upstreams(gpu_1=host(edge_port=8443, edge_tls_certificate="/etc/x.pem"))
    assert found == Upstream("gpu-1", "10.0.0.1", 8443, "vllm", QWEN, True, "gpu-1")
    [named] = upstreams(gpu_1=host(edge_tls_certificate="/etc/x.pem", edge_tls_name="gpu-1.internal"))
    assert named.tls_name == "gpu-1.internal"


def test_the_order_of_the_inventory_is_no_change() -> None:
    found = upstreams(gpu_10=host(), gpu_2=host(), gpu_1=host())
    assert [one.host for one in found] == ["gpu-1", "gpu-2", "gpu-10"]


def test_each_port_of_a_host_is_an_upstream() -> None:
    instances = [{"gpus": [0]}, {"gpus": [1]}, {"engine": "sglang", "port": 8001, "served_name": "fast"}]
    found = upstreams(gpu_1=host(fleet_gpu_count=4, fleet_instances=instances))
    assert [(one.port, one.engine, one.model) for one in found] == [(8000, "vllm", QWEN), (8001, "sglang", "fast")]


def test_a_host_whose_gpus_are_not_known_is_an_upstream() -> None:
    assert [(one.host, one.gpus) for one in upstreams(gpu_1=host(fleet_instance_type=""))] == [("gpu-1", 1)]


def test_an_upstream_has_the_gpus_behind_its_port() -> None:
    instances = [{"gpus": [0, 1]}, {"gpus": [2]}, {"engine": "sglang", "port": 8001, "gpus": [3]}]
    found = upstreams(
        gpu_1=host(fleet_gpu_count=4, fleet_instances=instances),
        gpu_2=host(fleet_gpu_count=8, fleet_instance_type="p5.48xlarge"),
        gpu_3=host(fleet_accelerator="cpu"),
    )
    assert [one.gpus for one in found] == [3, 1, 8, 1]


def test_of_an_instance_that_spans_hosts_the_first_one_is_an_upstream() -> None:
    own = host(fleet_instances=[{"nodes": ["gpu-1", "gpu-2"]}], fleet_node_network="10.0.0.0/24")
    assert [one.host for one in upstreams(gpu_1=own, gpu_2=own, gpu_3=host())] == ["gpu-1", "gpu-3"]


def test_an_upstream_with_an_unknown_engine_is_refused_with_its_name() -> None:
    with pytest.raises(FleetError, match="the engine of gpu-1 is 'tgi', which is no engine"):
        upstreams(gpu_1=host(fleet_engine_tag="tgi"))


def test_without_variables_the_default_model_is_served() -> None:
    assert facts("gpu-1", {"gpu-1": {"fleet_accelerator": "cpu"}})["model"] == QWEN
    assert facts("gpu-1", {"gpu-1": {"fleet_accelerator": "cpu", "fleet_model": "org/m"}})["model"] == "org/m"
