from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import Membership, WantedGroup
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.health import BalancerLook
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.hosts import (
    balanced_host,
    groups_to_register,
    leaving,
    proven,
)

from tests.unit.plugins.plugin_utils.balancer.fleet import group, host, member

GROUPS = [{"name": "fleet"}, {"name": "gw", "role": "gateway"}]
OWN: dict[str, t.Any] = {
    "fleet_target_groups": GROUPS,
    "fleet_region": "us-east-1",
    "aws_instance_id": "i-1",
    "aws_vpc_id": "vpc-1",
    "ansible_host": "10.0.0.1",
}
FACTS: dict[str, t.Any] = {
    "tier": "inference",
    "edge_port": 8000,
    "edge_services": [{"port": 8000}, {"port": 8001, "answers": False}, {"port": 8002, "answers": True}],
}


def find(own: dict[str, t.Any], facts: dict[str, t.Any] | None = None, role: str = "inference") -> t.Any:
    wanted = groups_to_register(role, own)
    return balanced_host("gpu-1", role, own, wanted, lambda: FACTS if facts is None else facts, lambda: "eu-west-1")


def test_a_host_is_what_the_inventory_says() -> None:
    one = find(OWN)
    assert (one.name, one.role, one.region, one.vpc) == ("gpu-1", "inference", "us-east-1", "vpc-1")
    assert (one.instance_id, one.address, one.port) == ("i-1", "10.0.0.1", 8000)
    # A port whose instances only compute for another host answers nothing.
    assert one.ports == (8000, 8002)
    assert one.own == (WantedGroup("fleet"),)


def test_the_address_of_the_fleet_is_preferred_and_the_region_of_the_shell_is_the_last() -> None:
    one = find({**OWN, "fleet_address": "10.1.1.1", "fleet_region": ""})
    assert (one.address, one.region) == ("10.1.1.1", "eu-west-1")


def test_nothing_more_is_asked_of_a_host_without_groups() -> None:
    def fail() -> t.Any:
        raise AssertionError("asked")

    without: list[dict[str, t.Any]] = [{}, {"fleet_target_groups": []}, {**OWN, "balancer_mode": "health"}]
    for own in without:
        assert balanced_host("gpu-1", "inference", own, groups_to_register("inference", own), fail, fail).own == ()
    only_gateways = (WantedGroup("gw", "gateway"),)
    assert balanced_host("gpu-1", "inference", OWN, only_gateways, fail, fail).own == ()


def test_a_host_whose_variables_are_wrong_says_why() -> None:
    with pytest.raises(FleetError, match="edge_port is 'x'"):
        find(OWN, {"tier": "inference", "problem": "edge_port is 'x'; it must be a whole number."})
    with pytest.raises(FleetError, match="balancer_mode is 'lame'"):
        find({**OWN, "balancer_mode": "lame"})


def instances(*ports: int) -> list[dict[str, t.Any]]:
    return [{"index": index, "name": f"vllm-{index}", "port": port} for index, port in enumerate(ports)]


def status(*states: str, **fields: t.Any) -> dict[str, t.Any]:
    """active, stopped, hung (active and without counters) for each instance."""
    known = [
        {
            "index": index,
            "state": "inactive" if state == "stopped" else "active",
            "running": 0 if state == "active" else None,
        }
        for index, state in enumerate(states)
    ]
    gates = {f"vllm-{index}": {"at": "2027-01-15T08:00:00Z", "passed": True} for index in range(len(states))}
    return {"instances": known, "edge": {"health": 200}, "drain": None, "gates": gates, **fields}


def look(*ports: int) -> BalancerLook:
    return BalancerLook(tuple(member(of=group(f"g{port}"), port=port) for port in ports))


def ports(found: list[Membership]) -> list[int]:
    return [one.target.port for one in found]


@pytest.mark.parametrize(
    ("behind", "states", "out", "gone"),
    [
        ((8000,), ("active",), [0], [8000]),
        # Of two that serve, one goes at a time.
        ((8000, 8000), ("active", "active"), [0, 1], []),
        ((8000, 8000), ("active", "stopped"), [0, 1], [8000]),
        ((8000, 8000), ("active", "stopped"), [1], []),
        ((8000, 8000), ("active", "hung"), [0], [8000]),
        ((8000, 8001), ("active", "active"), [0], [8000]),
        ((8000, 8001), ("active", "active"), [1], [8001]),
        ((8000, 8001), ("active", "active"), [0, 1], [8000, 8001]),
        ((8000, 8000, 8001), ("active", "active", "active"), [0, 2], [8001]),
        ((8000,), ("stopped",), [0], [8000]),
        # An instance that is no longer wanted, behind no port.
        ((8000,), ("active", "active"), [1], []),
        ((8000,), ("active",), [], []),
    ],
)
def test_only_a_port_that_loses_its_last_serving_instance_goes_out(
    behind: tuple[int, ...], states: tuple[str, ...], out: list[int], gone: list[int]
) -> None:
    groups = look(*dict.fromkeys(behind))
    assert ports(leaving(groups, "gpu-1", status(*states), instances(*behind), out)) == gone


def test_a_drained_instance_does_not_count_and_neither_does_a_host_that_does_not_answer() -> None:
    drained = status("active", "active", drain={"instances": {"engine-1": {"state": "drained", "by": "operator"}}})
    assert ports(leaving(look(8000), "gpu-1", drained, instances(8000, 8000), [0])) == [8000]
    assert ports(leaving(look(8000), "gpu-1", None, instances(8000, 8000), [0])) == [8000]
    assert leaving(BalancerLook(), "gpu-1", None, [{"index": 0}], [0]) == []


def test_a_host_that_serves_and_passed_its_gate_may_get_requests() -> None:
    assert ports(proven(look(8000), "gpu-1", status("active"), instances(8000))) == [8000]
    both = status("active", "active")
    assert ports(proven(look(8000, 8001), "gpu-1", both, instances(8000, 8001))) == [8000, 8001]
    one = status("active", "stopped")
    assert ports(proven(look(8000, 8001), "gpu-1", one, instances(8000, 8001))) == [8000]


@pytest.mark.parametrize(
    "fields",
    [
        {"drain": {"state": "drained", "by": "operator"}},
        {"drain": {"state": "drained", "by": "rollout"}},
        {"drain": {"state": "lame_duck", "by": "aws"}},
        {"drain": {"instances": {"engine-0": {"state": "drained", "by": "rollout"}}}},
        {"edge": {"health": 503}},
        {"edge": {"health": None}},
        {"gates": {}},
        {"gates": {"vllm-0": {"at": "2027-01-15T08:00:00Z", "passed": False}}},
        # The gate through the edge came later and failed.
        {
            "gates": {
                "vllm-0": {"at": "2027-01-15T08:00:00Z", "passed": True},
                "edge": {"at": "2027-01-15T08:00:09Z", "passed": False},
            }
        },
    ],
)
def test_what_is_drained_or_not_proven_gets_none(fields: dict[str, t.Any]) -> None:
    assert proven(look(8000), "gpu-1", status("active", **fields), instances(8000)) == []


def test_the_newest_gate_counts() -> None:
    gates = {
        "edge": {"at": "2027-01-14T08:00:00Z", "passed": False},
        "vllm-0": {"at": "2027-01-15T08:00:00Z", "passed": True},
        # Of another port.
        "edge-8001": {"at": "2027-01-16T08:00:00Z", "passed": False},
    }
    assert ports(proven(look(8000), "gpu-1", status("active", gates=gates), instances(8000))) == [8000]


def test_a_host_that_did_not_answer_gets_none() -> None:
    for seen in (None, {}, {"unreachable": True}):
        assert proven(look(8000), "gpu-1", seen, instances(8000)) == []
    assert proven(look(8000), "gpu-1", status("stopped"), instances(8000)) == []
    assert proven(BalancerLook((member("gpu-2"),)), "gpu-1", status("active"), instances(8000)) == []
    assert host().name == "gpu-1"
