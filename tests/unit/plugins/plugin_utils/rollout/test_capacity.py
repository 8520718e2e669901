from __future__ import annotations

from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.capacity import fitting, room, serving

from tests.unit.plugins.plugin_utils.rollout.rollouts import status

ONE = [0]


def test_only_what_clients_reach_serves() -> None:
    assert [one.name for one in serving(status(1, 2))] == ["vllm-0", "vllm-1"]
    assert serving(status(1, health=503)) == []
    assert serving(status(1, active=False)) == []
    assert serving(None) == []
    part = serving(status(1, 2, drain={"instances": {"engine-1": {"by": "operator"}}}))
    assert [one.name for one in part] == ["vllm-0"]


def test_an_edge_that_leads_into_the_pools_serves_and_no_change_of_an_instance_takes_it_out() -> None:
    front = status(1)
    front["edge"]["pools"] = {"running": 7, "waiting": 0, "limit": 100_000}
    [one] = serving(front)
    assert (one.name, one.busy, one.limit) == ("edge", 7, 100_000)
    left = room({"a": [one]}, {"a": ONE}, 0.9)
    assert left.enough
    assert not left.is_downtime
    front["edge"]["health"] = 503
    assert serving(front) == []


def test_the_rest_has_to_carry_the_load() -> None:
    fleet = {host: serving(status(busy)) for host, busy in {"a": 6, "b": 4, "c": 8}.items()}
    enough = room(fleet, {"a": ONE}, 0.9)
    assert (enough.busy, enough.limit, enough.left, enough.allowed) == (18, 30, 20, 18)
    assert enough.enough
    assert not room(fleet, {"a": ONE}, 0.8).enough
    assert not room(fleet, {"a": ONE, "b": ONE}, 1.0).enough
    assert room(fleet, {"a": ONE, "b": ONE, "c": ONE}, 1.0).is_downtime


def test_instances_of_one_host_go_one_after_the_other() -> None:
    fleet = {"a": serving(status(5, 5))}
    left = room(fleet, {"a": [0, 1]}, 1.0)
    assert left.left == 10
    assert left.enough
    assert not left.is_downtime


def test_a_host_that_does_not_serve_costs_no_capacity() -> None:
    fleet = {"a": serving(status(0, health=503)), "b": serving(status(9))}
    assert room(fleet, {"a": ONE}, 0.5).enough


def test_as_many_as_fit_go_together() -> None:
    fleet = {host: serving(status(4)) for host in "abcde"}
    everyone = {host: ONE for host in "abcde"}
    assert fitting(fleet, everyone, 1.0) == ["a", "b", "c"]
    assert fitting(fleet, everyone, 0.5) == ["a"]
    assert fitting({host: serving(status(10)) for host in "ab"}, {"a": ONE, "b": ONE}, 1.0) == []
