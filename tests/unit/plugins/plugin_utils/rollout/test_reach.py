from __future__ import annotations

from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.plan import RolloutPlan
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.reach import not_reached, refused_by_groups
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.walk import FleetState

from tests.unit.plugins.plugin_utils.rollout.test_walk import INSTANCES, balanced, well


def fleet(problem: str = "", **states: str) -> FleetState:
    return FleetState(
        well("".join(states)),
        (),
        list(states),
        balancer=balanced(**states),
        balancer_problem=problem,
        instances=dict.fromkeys(states, INSTANCES),
    )


def plan(*waves: list[str]) -> RolloutPlan:
    hosts = {host: {"instances": [{"index": 0}]} for wave in waves for host in wave}
    return RolloutPlan("", list(waves), hosts, {}, [], [], [])


def test_the_first_wave_leaves_a_healthy_target_in_each_group() -> None:
    assert refused_by_groups(plan(["a"], ["b"]), fleet(a="healthy", b="healthy"), False) == []
    (said,) = refused_by_groups(plan(["a"], ["b"]), fleet(a="healthy", b="unhealthy"), False)
    assert said.startswith("Target group fleet in us-east-1 would have no healthy target without a")
    assert "-e rollout_accept_downtime=true" in said
    assert refused_by_groups(plan(["a"], ["b"]), fleet(a="healthy", b="unhealthy"), True) == []
    # By the time of the second one the first one is back.
    assert refused_by_groups(plan(["b"], ["a"]), fleet(a="healthy", b="unhealthy"), False) == []


def test_groups_that_cannot_be_read_refuse_a_rollout_that_changes_something() -> None:
    unread = fleet("No credentials.", a="healthy")
    assert refused_by_groups(plan(["a"]), unread, True) == ["The target groups cannot be read: No credentials."]
    assert refused_by_groups(plan(), unread, False) == []


def test_a_host_that_serves_and_is_not_reached_is_named() -> None:
    assert not_reached(fleet(a="healthy", b="unhealthy")) == [
        "b serves, but is not healthy in its target groups (unhealthy): it does not count as capacity."
    ]
