from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.instances.plan import (
    edge_services,
    edge_targets,
    health_path,
    plan_gateway,
    plan_instances,
    wanted_ports,
)


def test_a_host_gets_one_instance_per_gpu() -> None:
    planned = plan_instances(None, engine="vllm", gpu_count=4)
    assert [(i.unit, i.gpus, i.port, i.engine_port) for i in planned] == [
        ("vllm@0.service", (0,), 8000, 8100),
        ("vllm@1.service", (1,), 8000, 8101),
        ("vllm@2.service", (2,), 8000, 8102),
        ("vllm@3.service", (3,), 8000, 8103),
    ]


def test_tensor_parallelism_groups_the_gpus() -> None:
    planned = plan_instances([], engine="sglang", gpu_count=4, gpus_per_instance=2)
    assert [i.gpus for i in planned] == [(0, 1), (2, 3)]


def test_a_host_without_gpus_runs_one_instance() -> None:
    assert [i.gpus for i in plan_instances(None, engine="vllm", gpu_count=0)] == [()]


def test_two_engines_share_a_host_on_two_ports() -> None:
    planned = plan_instances(
        [{"gpus": [0]}, {"engine": "sglang", "gpus": [1], "port": 8001}], engine="vllm", gpu_count=2
    )
    assert edge_services([i.as_dict() for i in planned]) == [
        {"port": 8000, "served_name": "", "instances": [{"name": "engine-0", "index": 0, "port": 8100}]},
        {"port": 8001, "served_name": "", "instances": [{"name": "engine-1", "index": 1, "port": 8101}]},
    ]


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (None, {"engine": "tgi"}, r"engine is 'tgi', which is no engine. Valid are: vllm, sglang"),
        ([{"engine": "vlm"}], {}, r"fleet_instances\[0\].engine is 'vlm'"),
        ([{"gpu": [0]}], {}, r"unknown key gpu. Valid are: engine, gpus, nodes, port, served_name"),
        (
            [{"gpus": [1]}],
            {"gpu_count": 1},
            r"fleet_instances\[0\] \(vllm-0\) wants GPU 1, but the host has 1 GPU\(s\).*room for 1 instance",
        ),
        ([{"gpus": [0]}, {"gpus": [0]}], {"gpu_count": 2}, r"both name GPU 0"),
        ([{"gpus": []}], {"gpu_count": 1}, r"fleet_instances\[0\].gpus is empty"),
        ([{}, {}], {"gpu_count": 1}, r"fleet_instances\[1\] \(vllm-1\) wants GPU 1"),
        (
            [{}, {"engine": "sglang"}],
            {},
            r"vllm-0 .* and sglang-1 .* both want port 8000.*fleet_instances\[1\].port: 8001",
        ),
        (
            [{"served_name": "a"}, {"served_name": "b"}],
            {},
            r"vllm-0 \(serves a\) and vllm-1 \(serves b\) both want port",
        ),
        ([{}, {"port": 8100}], {}, r"fleet_instances\[1\].port is 8100, on which the engine of vllm-0 listens"),
        ([{"port": 99999}], {}, r"a port is 1 to 65535"),
        ([{"port": "http"}], {}, r"must be a whole number"),
        (["vllm"], {}, r"must be a dictionary"),
        (None, {"gpu_count": 4, "gpus_per_instance": 3}, r"4 GPUs cannot be shared out in groups of 3"),
    ],
)
def test_what_cannot_be_is_refused_with_the_place(
    given: list[t.Any] | None, options: dict[str, t.Any], message: str
) -> None:
    with pytest.raises(FleetError, match=message):
        plan_instances(given, **{"engine": "vllm", "gpu_count": 0, **options})


def test_a_removed_instance_stays_behind_its_port_and_one_without_a_port_does_not() -> None:
    [kept] = plan_instances(None, engine="vllm", gpu_count=0, served_name="m")
    leaving = {**kept.as_dict(), "index": 1, "engine_port": 8101, "served_name": "older"}
    lost = {**leaving, "index": 2, "port": 0}
    assert edge_services([kept.as_dict(), leaving, lost]) == [
        {
            "port": 8000,
            "served_name": "m",
            "instances": [
                {"name": "engine-0", "index": 0, "port": 8100},
                {"name": "engine-1", "index": 1, "port": 8101},
            ],
        }
    ]


def test_instances_weigh_as_much_as_they_have_gpus() -> None:
    planned = plan_instances([{"gpus": [0, 1]}, {"gpus": [2]}], engine="vllm", gpu_count=3)
    [service] = edge_services([i.as_dict() for i in planned])
    assert [one.get("weight", 1) for one in service["instances"]] == [2, 1]


def test_each_service_of_a_host_is_a_target_with_its_own_model() -> None:
    planned = plan_instances(
        [{}, {"engine": "sglang", "port": 8001, "served_name": "fast"}], engine="vllm", gpu_count=0
    )
    services = edge_services([instance.as_dict() for instance in planned])
    assert edge_targets(services, "https") == [
        {"name": "edge", "url": "https://127.0.0.1:8000"},
        {"name": "edge-8001", "url": "https://127.0.0.1:8001", "model": "fast"},
    ]


def test_a_gateway_has_a_process_for_each_core() -> None:
    planned = plan_gateway(2)
    assert [(i.name, i.unit, i.port, i.engine_port) for i in planned] == [
        ("litellm-0", "litellm@0.service", 4000, 4001),
        ("litellm-1", "litellm@1.service", 4000, 4002),
    ]
    assert [i.health_path for i in planned] == ["/health/liveliness"] * 2
    assert health_path("vllm@0.service") == "/health"


@pytest.mark.parametrize("count", [0, -1, 65])
def test_a_gateway_has_some_and_not_hundreds(count: int) -> None:
    with pytest.raises(FleetError, match=f"litellm_instances is {count}"):
        plan_gateway(count)


def test_a_gateways_edge_lists_the_others() -> None:
    peers = [{"name": "gateway-2", "address": "10.0.0.2", "port": 4000, "tls": False}]
    [service] = edge_services([i.as_dict() for i in plan_gateway(1)], peers)
    assert service == {
        "port": 4000,
        "served_name": "",
        "kind": "gateway",
        "health_path": "/health/liveliness",
        "peers": peers,
        "instances": [{"name": "engine-0", "index": 0, "port": 4001}],
    }


def test_its_ports_are_named_by_their_purpose() -> None:
    ports = wanted_ports([i.as_dict() for i in plan_gateway(1)])
    assert [(port["port"], port["purpose"]) for port in ports] == [(4000, "the edge"), (4001, "LiteLLM instance 0")]
    assert "litellm@0.service" in ports[1]["units"]
