"""The attributes of a target group, one by one."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import HEALTH

from tests.unit.plugins.plugin_utils.balancer.answers import HOSTS, ON_ATTRIBUTES, findings, group, needs, nlb

CUTS = "target_health_state.unhealthy.connection_termination.enabled"
ROUTING = "target_group_health.unhealthy_state_routing.minimum_healthy_targets"
DNS = "target_group_health.dns_failover.minimum_healthy_targets"
MINIMUM = "3 at most, percentage off or 75 at most"
DRAINING = "below that the balancer sends requests to all targets, also to the hosts that drain, which refuse them"
LEAVES = "below that the zone leaves the balancer's DNS name, and clients that have its address get no answer"


@pytest.mark.parametrize(
    ("setting", "attributes", "wants", "verdict", "value", "wanted", "why", "repair"),
    [
        (
            "deregistration delay",
            {"deregistration_delay.timeout_seconds": "300"},
            {},
            "error",
            "300 s",
            "at least 600 s",
            "streams longer than 300 s would be cut: set deregistration_delay.timeout_seconds to 600",
            f"{ON_ATTRIBUTES} Key=deregistration_delay.timeout_seconds,Value=600",
        ),
        (
            "deregistration delay",
            {},
            {"drain": 7200},
            "error",
            "600 s",
            "at least 7200 s",
            "streams longer than 600 s would be cut, and AWS allows 3600 s at most",
            "edge_drain_timeout and engine_drain_timeout: 3600 at most, in group_vars, then site.yml",
        ),
        (
            "stickiness",
            {"stickiness.enabled": "true"},
            {},
            "warning",
            "on",
            "off",
            "a client stays with one host, so load is not shared, and a host that comes back gets little of it",
            f"{ON_ATTRIBUTES} Key=stickiness.enabled,Value=false",
        ),
        (
            "slow start (ALB)",
            {"slow_start.duration_seconds": "30", "load_balancing.algorithm.type": "least_outstanding_requests"},
            {},
            "error",
            "30 s with least_outstanding_requests",
            "0 s, or not with least_outstanding_requests",
            "AWS does not do both: a host that has just become healthy has the fewest requests, and would get all new "
            "ones",
            f"{ON_ATTRIBUTES} Key=slow_start.duration_seconds,Value=0",
        ),
        (
            "minimum healthy targets, routing",
            {f"{ROUTING}.count": "4"},
            {"mode": HEALTH},
            "error",
            "4, percentage off",
            MINIMUM,
            f"a wave leaves 3 of 4 hosts; {DRAINING}",
            f"{ON_ATTRIBUTES} Key={ROUTING}.count,Value=1 Key={ROUTING}.percentage,Value=off",
        ),
        (
            "minimum healthy targets, routing",
            {f"{ROUTING}.percentage": "76"},
            {"mode": HEALTH},
            "error",
            "1, percentage 76",
            MINIMUM,
            f"a wave leaves 3 of 4 hosts; {DRAINING}",
            f"{ON_ATTRIBUTES} Key={ROUTING}.count,Value=1 Key={ROUTING}.percentage,Value=off",
        ),
        (
            "minimum healthy targets, routing",
            {f"{ROUTING}.count": "3"},
            {"at_once": 2},
            "warning",
            "3, percentage off",
            "2 at most, percentage off or 50 at most",
            f"a wave leaves 2 of 4 hosts; {DRAINING}",
            f"{ON_ATTRIBUTES} Key={ROUTING}.count,Value=1 Key={ROUTING}.percentage,Value=off",
        ),
        (
            "minimum healthy targets, DNS",
            {f"{DNS}.count": "4"},
            {"mode": HEALTH},
            "error",
            "4, percentage off",
            MINIMUM,
            f"a wave leaves 3 of 4 hosts; {LEAVES}",
            f"{ON_ATTRIBUTES} Key={DNS}.count,Value=1 Key={DNS}.percentage,Value=off",
        ),
    ],
)
def test_an_attribute_is_judged(
    setting: str,
    attributes: dict[str, str],
    wants: dict[str, t.Any],
    verdict: str,
    value: str,
    wanted: str,
    why: str,
    repair: str,
) -> None:
    (one,) = [one.found for one in findings(group(attributes=attributes), needs(**wants), setting)]
    assert (one.verdict, one.value, one.wanted, one.why, one.repair) == (verdict, value, wanted, why, repair)
    assert {one.found.verdict for one in findings(group(), needs(mode=needs(**wants).mode), setting)} == {"ok"}


@pytest.mark.parametrize(
    ("attributes", "wants"),
    [
        ({f"{ROUTING}.count": "3", f"{ROUTING}.percentage": "75"}, {"mode": HEALTH}),
        # Deregistered targets have no part in the percentage.
        ({f"{ROUTING}.percentage": "100"}, {}),
        # One host cannot be spared with any setting; the rollout refuses that by itself.
        ({}, {"mode": HEALTH, "hosts": HOSTS[:1]}),
        ({}, {"mode": HEALTH, "at_once": 4}),
        ({f"{DNS}.count": "off"}, {"mode": HEALTH}),
    ],
)
def test_a_minimum_that_a_wave_leaves_is_right(attributes: dict[str, str], wants: dict[str, t.Any]) -> None:
    for setting in ("minimum healthy targets, routing", "minimum healthy targets, DNS"):
        (one,) = findings(group(attributes=attributes), needs(**wants), setting)
        assert one.found.verdict == "ok", one


@pytest.mark.parametrize(
    ("mode", "verdict", "who"),
    [
        (HEALTH, "error", "a host that drains"),
        ("registration", "warning", "a host that drains by itself (a Spot notice)"),
    ],
)
def test_an_nlb_that_cuts_unhealthy_targets(mode: str, verdict: str, who: str) -> None:
    (one,) = findings(nlb(**{CUTS: "true"}), needs(mode=mode), "cut of unhealthy targets (NLB)")
    assert (one.found.verdict, one.found.value, one.found.wanted) == (verdict, "true", "false")
    assert one.found.why == f"{who} answers /health with 503, and the balancer then cuts all of its streams at once"
    assert one.found.repair == f"{ON_ATTRIBUTES} Key={CUTS},Value=false"
    (one,) = findings(nlb(), needs(mode=mode), "cut of unhealthy targets (NLB)")
    assert one.found.verdict == "ok"
    # AWS's default, where an answer lacks it.
    (one,) = findings(nlb(**{CUTS: ""}), needs(mode=mode), "cut of unhealthy targets (NLB)")
    assert one.found.verdict == verdict


def test_settings_of_the_other_kind_of_balancer_are_left_out() -> None:
    assert findings(group(), needs(), "cut of unhealthy targets (NLB)") == []
    assert findings(nlb(), needs(), "slow start (ALB)") == []


@pytest.mark.parametrize(
    "attributes",
    [
        {"slow_start.duration_seconds": "30"},
        {"load_balancing.algorithm.type": "least_outstanding_requests"},
        {"slow_start.duration_seconds": "30", "load_balancing.algorithm.type": "weighted_random"},
    ],
)
def test_slow_start_and_least_outstanding_requests_alone_are_right(attributes: dict[str, str]) -> None:
    (one,) = findings(group(attributes=attributes), needs(), "slow start (ALB)")
    assert one.found.verdict == "ok"


def test_in_mode_health_nothing_is_deregistered() -> None:
    short = {"deregistration_delay.timeout_seconds": "0"}
    assert findings(group(attributes=short), needs(mode=HEALTH), "deregistration delay") == []


def test_an_attribute_that_the_answer_lacks_has_awss_default() -> None:
    (one,) = findings(group(attributes={"deregistration_delay.timeout_seconds": ""}), needs(), "deregistration delay")
    assert (one.found.value, one.found.verdict) == ("300 s", "error")
