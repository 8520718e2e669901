"""What is scraped, from the facts that fleet_facts works out of an inventory."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.facts import Fleet
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.targets import targets

Host = dict[str, t.Any]


def scraped(
    inference: dict[str, Host], gateway: dict[str, Host] | None = None, dcgm: bool = False, **rings: list[str]
) -> dict[str, list[dict[str, t.Any]]]:
    groups: dict[str, list[str]] = {"inference": list(inference), "gateway": list(gateway or {}), **rings}
    variables = {
        name: {"inventory_hostname": name, "ansible_host": f"10.0.0.{name[-1]}", **own}
        for name, own in {**inference, **(gateway or {})}.items()
    }
    fleet = Fleet(groups, variables)
    return targets({name: fleet.work_out(name).as_dict() for name in variables}, groups, dcgm)


def host(**changes: t.Any) -> Host:
    return {"fleet_served_name": "m", "fleet_instance_type": "g6e.12xlarge", "fleet_engine": "vllm", **changes}


def test_a_host_is_scraped_through_its_edge_and_each_instance_by_the_edges_name_for_it() -> None:
    found = scraped(
        {
            "gpu-1": host(
                fleet_instances=[{"engine": "vllm", "gpus": [0]}, {"engine": "sglang", "gpus": [1], "port": 8001}]
            )
        },
        ring_canary=["gpu-1"],
    )
    labels = {"host": "gpu-1", "kind": "inference", "tier": "front", "ring": "canary", "__scheme__": "http"}
    assert found["edge"] == [{"targets": ["10.0.0.1:8000"], "labels": {**labels, "__metrics_path__": "/metrics"}}]
    assert found["node"] == [{"targets": ["10.0.0.1:8000"], "labels": {**labels, "__metrics_path__": "/metrics/node"}}]
    assert found["engine"] == [
        {
            "targets": ["10.0.0.1:8000"],
            "labels": {**labels, "engine": "vllm", "server": "engine-0", "__metrics_path__": "/metrics/engine-0"},
        },
        {
            "targets": ["10.0.0.1:8001"],
            "labels": {**labels, "engine": "sglang", "server": "engine-1", "__metrics_path__": "/metrics/engine-1"},
        },
    ]
    assert found["dcgm"] == []


def test_gateways_are_the_front_tier_where_there_are_any() -> None:
    found = scraped({"gpu-1": host()}, {"gate-2": {"litellm_instances": 2}}, dcgm=True)
    assert {one["labels"]["host"]: one["labels"]["tier"] for one in found["edge"]} == {
        "gpu-1": "back",
        "gate-2": "front",
    }
    gateway = [one for one in found["engine"] if one["labels"]["host"] == "gate-2"]
    assert [one["labels"]["server"] for one in gateway] == ["engine-0", "engine-1"]
    assert {(one["labels"]["kind"], one["targets"][0]) for one in gateway} == {("gateway", "10.0.0.2:4000")}
    assert [one["labels"]["host"] for one in found["dcgm"]] == ["gpu-1"]


def test_an_edge_with_tls_and_another_address() -> None:
    found = scraped({"gpu-1": host(edge_tls_certificate="/etc/edge.pem", edge_port=8443, fleet_address="10.9.9.9")})
    assert found["edge"][0]["targets"] == ["10.9.9.9:8443"]
    assert found["edge"][0]["labels"]["__scheme__"] == "https"


def test_all_instances_on_another_port() -> None:
    found = scraped({"gpu-1": host(fleet_instances=[{"engine": "vllm", "gpus": [0], "port": 9000}])})
    assert found["edge"][0]["targets"] == ["10.0.0.1:9000"]


def test_a_host_whose_variables_are_wrong_keeps_the_others_scraped() -> None:
    found = scraped({"gpu-1": host(edge_port="many"), "gpu-2": host()})
    assert {one["labels"]["host"] for one in found["edge"]} == {"gpu-2"}


def test_hosts_are_in_order_so_that_nothing_looks_changed() -> None:
    found = scraped({"gpu-2": host(), "gpu-1": host()})
    assert [one["labels"]["host"] for one in found["node"]] == ["gpu-1", "gpu-2"]
