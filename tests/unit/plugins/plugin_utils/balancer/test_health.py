from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer import health
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import GroupTarget, Membership
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.health import BalancerLook, TargetHealth

from tests.unit.plugins.plugin_utils.balancer.fleet import group, member

HEALTHY = TargetHealth("healthy")
DRAINING = TargetHealth("draining", "Target.DeregistrationInProgress")
UNHEALTHY = TargetHealth("unhealthy", "Target.FailedHealthChecks", "Health checks failed")
NO_LISTENER = TargetHealth("unused", "Target.NotInUse", "Target group is not configured to receive traffic")
OTHER = group("other")


def look(*states: tuple[Membership, TargetHealth | None], **fields: t.Any) -> BalancerLook:
    seen = {(one.group.arn, one.target): state for one, state in states if state}
    return BalancerLook(tuple(one for one, _state in states), seen, **fields)


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ([], ""),
        ([HEALTHY], "healthy 1/1"),
        ([HEALTHY, HEALTHY], "healthy 2/2"),
        ([HEALTHY, DRAINING], "healthy 1/2, draining"),
        ([DRAINING, DRAINING], "draining"),
        ([None], "unused: Target.NotRegistered"),
        ([NO_LISTENER, UNHEALTHY], "unused: Target.NotInUse, unhealthy: Target.FailedHealthChecks"),
    ],
)
def test_a_hosts_state_fits_a_table(states: list[TargetHealth | None], said: str) -> None:
    members = [member(of=group(str(number))) for number in range(len(states))]
    assert health.summarize(look(*zip(members, states)), "gpu-1") == said


@pytest.mark.parametrize(
    ("state", "registered"),
    [
        (HEALTHY, True),
        (UNHEALTHY, True),
        (NO_LISTENER, True),
        (TargetHealth("initial", "Elb.RegistrationInProgress"), True),
        (TargetHealth("unused", "Target.InvalidState"), True),
        (TargetHealth("unavailable", "Target.HealthCheckDisabled"), True),
        (DRAINING, False),
        (TargetHealth("unhealthy.draining", "Target.DeregistrationInProgress"), False),
        (None, False),
    ],
)
def test_a_target_that_drains_is_registered_no_more(state: TargetHealth | None, registered: bool) -> None:
    one = member()
    assert look((one, state)).missing(["gpu-1"]) == ([] if registered else [one])


def test_clients_reach_a_host_that_is_healthy_in_all_its_groups() -> None:
    both = (member(), HEALTHY), (member(of=OTHER), HEALTHY)
    assert look(*both).is_reachable("gpu-1")
    assert not look(both[0], (member(of=OTHER), UNHEALTHY)).is_reachable("gpu-1")
    assert not look(both[0], (member(of=OTHER), None)).is_reachable("gpu-1")
    assert look(*both).is_reachable("gpu-without-groups")


def test_the_last_healthy_target_of_a_group_is_not_taken_out() -> None:
    one, two = member(), member("gpu-2")
    assert health.last_ones(look((one, HEALTHY), (two, HEALTHY)), [one]) == []
    assert health.last_ones(look((one, HEALTHY), (two, DRAINING)), [one]) == [
        "Target group fleet in us-east-1 would have no healthy target without gpu-1: none of its 1 other targets is "
        "healthy."
    ]
    assert health.last_ones(look((one, HEALTHY)), [one]) == [
        "Target group fleet in us-east-1 would have no healthy target without gpu-1: it has no other target."
    ]
    assert "without gpu-1 and gpu-2: it has no" in health.last_ones(look((one, HEALTHY), (two, HEALTHY)), [one, two])[0]


def test_each_group_is_judged_for_itself() -> None:
    here, there, second = member(), member(of=OTHER), member("gpu-2")
    said = health.last_ones(look((here, HEALTHY), (there, HEALTHY), (second, HEALTHY)), [here, there])
    assert [text.partition(" in ")[0] for text in said] == ["Target group other"]


def test_a_target_of_another_fleet_counts() -> None:
    one = member()
    foreign = {(one.group.arn, GroupTarget("i-ffff", 8000)): HEALTHY, (one.group.arn, one.target): HEALTHY}
    assert health.last_ones(BalancerLook((one,), foreign), [one]) == []


def test_a_group_without_a_healthy_target_loses_none() -> None:
    one = member()
    assert health.last_ones(look((one, UNHEALTHY)), [one]) == []
    assert health.last_ones(look((one, None)), [one]) == []


def test_what_is_not_healthy_yet_is_named_with_its_reason() -> None:
    one, two = member(), member("gpu-2")
    assert health.waiting_for_health(look((one, HEALTHY), (two, UNHEALTHY)), [one, two]) == [
        "gpu-2 in target group fleet in us-east-1 (port 8000) is unhealthy: Target.FailedHealthChecks (Health checks "
        "failed)"
    ]
    assert "is unused: Target.NotRegistered" in health.waiting_for_health(look((one, None)), [one])[0]


def test_a_group_that_no_listener_uses_is_named_once() -> None:
    idle = group("idle", balancers=())
    states = look((member(of=idle), NO_LISTENER), (member("gpu-2", idle), NO_LISTENER), (member(), HEALTHY))
    (said,) = health.not_usable(states, ["gpu-1", "gpu-2"])
    assert said.startswith("Target group idle in us-east-1 is used by no listener (Target.NotInUse), so no client")


def test_hosts_in_a_zone_that_the_balancer_does_not_have_are_named() -> None:
    state = TargetHealth("unused", "Target.NotInUse", "Target is in an Availability Zone that is not enabled.")
    states = look((member(), state), (member("gpu-2"), state), (member("gpu-3"), HEALTHY))
    assert health.not_usable(states, ["gpu-1", "gpu-2", "gpu-3"]) == [
        "No client reaches gpu-1 and gpu-2 through target group fleet in us-east-1 (Target.NotInUse: Target is in an "
        "Availability Zone that is not enabled). Enable the host's zone in the balancer."
    ]
    assert health.not_usable(states, ["gpu-3"]) == []


def test_a_host_that_is_registered_with_another_port_is_named() -> None:
    one = member()
    wrong = GroupTarget(one.target.id, 80)
    seen = {(one.group.arn, one.target): HEALTHY, (one.group.arn, wrong): UNHEALTHY}
    (said,) = health.strangers(BalancerLook((one,), seen), {"gpu-1": [one.target.id, "10.0.0.1"]})
    assert said.startswith("gpu-1 is in target group fleet in us-east-1 with port 80, on which it is not balanced")
    assert said.endswith(f"--targets Id={one.target.id},Port=80")
    drained = {(one.group.arn, one.target): HEALTHY, (one.group.arn, wrong): DRAINING}
    assert health.strangers(BalancerLook((one,), drained), {"gpu-1": [one.target.id]}) == []
    assert health.strangers(BalancerLook((one,), seen), {"gpu-2": ["i-other"]}) == []


def test_a_look_survives_the_way_between_two_tasks() -> None:
    given = look((member(), HEALTHY), (member("gpu-2", OTHER), None), problems=("It is wrong.",))
    assert health.read_look(json.loads(json.dumps(given.document()))) == given
    assert health.read_look(None) == health.read_look({}) == BalancerLook()
