"""The targets of a group, and Auto Scaling behind it."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import HEALTH
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.targets import state_of

from tests.unit.plugins.plugin_utils.balancer.answers import (
    GROUP,
    HOSTS,
    REGION,
    findings,
    group,
    needs,
    target,
)

UNDRAIN = "ansible-playbook playbooks/undrain.yml -l gpu-1"
STATUS = "ansible-playbook playbooks/status.yml -l gpu-1"


def first(*found: dict[str, t.Any]) -> t.Any:
    """The group with other states of its first host."""
    return group(health=[*found, *(target(host.target) for host in HOSTS[1:])])


def test_hosts_that_are_healthy_are_one_row() -> None:
    (one,) = findings(group(), needs(), "hosts")
    assert (one.found.value, one.found.wanted, one.found.verdict) == ("4 of 4 healthy", "all", "ok")


@pytest.mark.parametrize(
    ("health", "wants", "verdict", "value", "why", "repair"),
    [
        (
            [],
            {},
            "error",
            "gpu-1: unused, Target.NotRegistered",
            "gpu-1 is not in target group fleet (unused, Target.NotRegistered), so no client can reach it",
            UNDRAIN,
        ),
        (
            [],
            {"mode": HEALTH},
            "error",
            "gpu-1: unused, Target.NotRegistered",
            "gpu-1 is not in target group fleet (unused, Target.NotRegistered), so no client can reach it",
            f"aws elbv2 register-targets --region {REGION} --target-group-arn {GROUP} --targets Id=i-1,Port=8000",
        ),
        (
            [],
            {"mode": HEALTH, "rollout": True},
            "warning",
            "gpu-1: unused, Target.NotRegistered",
            "gpu-1 is not in target group fleet (unused, Target.NotRegistered), so no client can reach it",
            f"aws elbv2 register-targets --region {REGION} --target-group-arn {GROUP} --targets Id=i-1,Port=8000",
        ),
        (
            [target("i-1", "unused", "Target.NotInUse")],
            {},
            "error",
            "gpu-1: unused, Target.NotInUse",
            "gpu-1 is unused in target group fleet (Target.NotInUse), so no client can reach it",
            STATUS,
        ),
        (
            [target("i-1", "unused", "Target.InvalidState")],
            {},
            "error",
            "gpu-1: unused, Target.InvalidState",
            "gpu-1 is unused in target group fleet (Target.InvalidState), so no client can reach it",
            STATUS,
        ),
        (
            [target("i-1", "unhealthy", "Target.ResponseCodeMismatch")],
            {},
            "warning",
            "gpu-1: unhealthy, Target.ResponseCodeMismatch",
            "gpu-1 is unhealthy in target group fleet (Target.ResponseCodeMismatch), so it gets no requests",
            STATUS,
        ),
        (
            [target("i-1", "initial", "Elb.RegistrationInProgress")],
            {},
            "warning",
            "gpu-1: initial, Elb.RegistrationInProgress",
            "gpu-1 is initial in target group fleet (Elb.RegistrationInProgress): look again in a minute",
            "",
        ),
        (
            [target("i-1", "draining", "Target.DeregistrationInProgress")],
            {},
            "warning",
            "gpu-1: draining, Target.DeregistrationInProgress",
            "gpu-1 is draining in target group fleet (Target.DeregistrationInProgress): look again in a minute",
            "",
        ),
    ],
)
def test_the_state_of_each_host(
    health: list[dict[str, t.Any]], wants: dict[str, t.Any], verdict: str, value: str, why: str, repair: str
) -> None:
    (one,) = [one.found for one in findings(first(*health), needs(**wants), "hosts")]
    assert (one.verdict, one.value, one.wanted, one.why, one.repair) == (verdict, value, "healthy", why, repair)


def test_a_rollout_registers_what_is_not_registered() -> None:
    found = findings(group(health=[]), needs(rollout=True), "hosts")
    assert [(one.found.value, one.found.verdict) for one in found] == [("0 of 4 healthy", "ok")]


def test_a_group_that_is_not_in_use_has_one_row_for_it_and_not_one_for_each_host() -> None:
    unused = [target(host.target, "unused", "Target.NotInUse") for host in HOSTS]
    assert {one.found.verdict for one in findings(group(health=unused, balancers=()), needs(), "hosts")} == {"ok"}


def test_the_state_of_a_port() -> None:
    health = [target("i-1", port=8000), target("i-1", "draining", "why", port=8001)]
    assert state_of(health, "i-1", 8000) == ("healthy", "")
    assert state_of(health, "i-1", 8001) == ("draining", "why")
    assert state_of(health, "i-1", 8002) == ("unused", "Target.NotRegistered")


@pytest.mark.parametrize(
    ("extra", "wants", "verdict", "value", "wanted", "why", "where"),
    [
        (
            target("i-1", port=80),
            {},
            "error",
            "gpu-1: port 80",
            "port 8000",
            "gpu-1 is registered with port 80, and its edge listens on 8000",
            "Id=i-1,Port=80",
        ),
        (
            target("i-9", "unused", "Target.InvalidState"),
            {"others": {"i-9": "gpu-9 (stopped)"}},
            "warning",
            "i-9: unused",
            "hosts of the fleet that run",
            "gpu-9 (stopped) is registered: it gets requests as soon as it runs, before its gate",
            "Id=i-9,Port=8000",
        ),
        (
            target("i-7"),
            {},
            "warning",
            "i-7: healthy",
            "hosts of the fleet that run",
            "i-7 is registered, and the inventory does not have it: it gets requests while it is healthy",
            "Id=i-7,Port=8000",
        ),
    ],
)
def test_what_should_not_be_registered(
    extra: dict[str, t.Any],
    wants: dict[str, t.Any],
    verdict: str,
    value: str,
    wanted: str,
    why: str,
    where: str,
) -> None:
    reading = group(health=[*(target(host.target) for host in HOSTS), extra])
    (one,) = [one.found for one in findings(reading, needs(**wants), "other targets")]
    assert (one.verdict, one.value, one.wanted, one.why) == (verdict, value, wanted, why)
    assert one.repair == (
        f"aws elbv2 deregister-targets --region {REGION} --target-group-arn {GROUP} --targets {where}"
    )


def test_what_already_leaves_is_no_finding() -> None:
    gone = [target("i-1", "draining", port=80), target("i-9", "draining")]
    assert findings(group(health=[*(target(host.target) for host in HOSTS), *gone]), needs(), "other targets") == []
    assert findings(group(), needs(), "other targets") == []


@pytest.mark.parametrize(
    ("kind", "verdict", "repaired"),
    [("EC2", "ok", ""), (None, "ok", ""), ("ELB", "error", "EC2"), ("EC2,ELB", "error", "EC2"), ("EBS", "ok", "")],
)
def test_auto_scaling_that_follows_the_balancers_health(kind: str | None, verdict: str, repaired: str) -> None:
    reading = group(scaling=[{"AutoScalingGroupName": "gpus", "HealthCheckType": kind}])
    (one,) = [one.found for one in findings(reading, needs(), "Auto Scaling")]
    assert (one.verdict, one.value, one.wanted) == (verdict, f"gpus: {kind or 'EC2'}", "EC2")
    if repaired:
        assert one.why == (
            "Auto Scaling group gpus ends every host that the balancer calls unhealthy: a host that drains would be "
            "replaced in mid-rollout, also with protection from scale-in"
        )
        assert one.repair == (
            f"aws autoscaling update-auto-scaling-group --region {REGION} --auto-scaling-group-name gpus "
            f"--health-check-type {repaired}"
        )


def test_a_zone_that_is_not_enabled_has_a_row_of_its_own() -> None:
    hosts = (dataclasses.replace(HOSTS[0], zone="us-east-1c"), *HOSTS[1:])
    reading = first(target("i-1", "unused", "Target.NotInUse"))
    assert {one.found.verdict for one in findings(reading, needs(hosts=hosts), "hosts")} == {"ok"}
    assert [one.found.verdict for one in findings(reading, needs(hosts=hosts), "zones")] == ["error"]
