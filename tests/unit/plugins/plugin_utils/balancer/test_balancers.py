"""The settings of a balancer and its listeners, one by one."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from tests.unit.plugins.plugin_utils.balancer.answers import (
    ALB,
    ALB_ATTRIBUTES,
    BALANCER,
    GROUP,
    HOSTS,
    HTTP_LISTENER,
    LISTENER,
    ON_ATTRIBUTES,
    ON_BALANCER,
    OTHER,
    REGION,
    RULE,
    balancer,
    findings,
    forward,
    group,
    listener,
    needs,
    nlb,
)

IDLE = "idle_timeout.timeout_seconds"
REDIRECT: dict[str, t.Any] = {"Type": "redirect", "RedirectConfig": {"Protocol": "HTTPS", "StatusCode": "HTTP_301"}}
FIXED: dict[str, t.Any] = {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "404"}}


@pytest.mark.parametrize(
    ("idle", "keep_alive", "verdict", "wanted", "why", "repair"),
    [
        ("600", 620, "ok", "300 s to less than 620 s", "", ""),
        ("300", 620, "ok", "300 s to less than 620 s", "", ""),
        ("619", 620, "ok", "300 s to less than 620 s", "", ""),
        (
            "60",
            620,
            "warning",
            "300 s to less than 620 s",
            "answers that send nothing for 60 s end as 504",
            f"{ON_BALANCER} Key={IDLE},Value=600",
        ),
        (
            "620",
            620,
            "error",
            "300 s to less than 620 s",
            "the edge closes idle connections after 620 s (edge_keep_alive_timeout), before the balancer does: a "
            "request that arrives at that moment ends as 502",
            f"{ON_BALANCER} Key={IDLE},Value=600",
        ),
        (
            "4000",
            400,
            "error",
            "300 s to less than 400 s",
            "the edge closes idle connections after 400 s (edge_keep_alive_timeout), before the balancer does: a "
            "request that arrives at that moment ends as 502",
            f"{ON_BALANCER} Key={IDLE},Value=380",
        ),
        (
            "60",
            65,
            "warning",
            "300 s to less than 65 s",
            "answers that send nothing for 60 s end as 504",
            "edge_keep_alive_timeout: 620 in group_vars, then site.yml",
        ),
    ],
)
def test_the_idle_timeout(idle: str, keep_alive: int, verdict: str, wanted: str, why: str, repair: str) -> None:
    reading = group(balancers=(balancer(attributes={**ALB_ATTRIBUTES, IDLE: idle}),))
    (one,) = [one.found for one in findings(reading, needs(keep_alive=keep_alive), "idle timeout (ALB)")]
    assert (one.verdict, one.value, one.wanted) == (verdict, f"{idle} s", wanted)
    assert (one.why, one.repair) == (why, repair)


def test_an_idle_timeout_that_the_answer_lacks_is_awss_default() -> None:
    (one,) = findings(group(balancers=(balancer(attributes={}),)), needs(), "idle timeout (ALB)")
    assert (one.found.value, one.found.verdict) == ("60 s", "warning")
    assert findings(nlb(), needs(), "idle timeout (ALB)") == []


ALONE = (*HOSTS[:2], dataclasses.replace(HOSTS[2]))
TWO_ALONE = (HOSTS[0], HOSTS[2])


@pytest.mark.parametrize(
    ("attributes", "hosts", "verdict", "why"),
    [
        ("false", HOSTS, "ok", ""),
        ("true", ALONE, "ok", ""),
        ("use_load_balancer_configuration", ALONE, "ok", ""),
        (
            "false",
            ALONE,
            "error",
            "us-east-1b has one host: while it is out, requests that come to the balancer there fail",
        ),
        (
            "false",
            TWO_ALONE,
            "error",
            "us-east-1a, us-east-1b have one host each: while it is out, requests that come to the balancer in its "
            "zone fail",
        ),
    ],
)
def test_cross_zone_with_one_host_in_a_zone(attributes: str, hosts: t.Any, verdict: str, why: str) -> None:
    reading = group(attributes={"load_balancing.cross_zone.enabled": attributes})
    (one,) = [one.found for one in findings(reading, needs(hosts=hosts), "cross-zone")]
    assert (one.verdict, one.wanted, one.why) == (verdict, "on, or two hosts in each zone", why)
    assert one.value == ("off" if attributes == "false" else "on")
    repair = f"{ON_ATTRIBUTES} Key=load_balancing.cross_zone.enabled,Value=true"
    assert one.repair == (repair if verdict == "error" else "")


def test_a_zone_of_hosts_that_is_not_enabled() -> None:
    (one,) = [one.found for one in findings(group(), needs(), "zones")]
    assert (one.verdict, one.value, one.wanted) == ("ok", "us-east-1a, us-east-1b", "those of the hosts")
    moved = [dataclasses.replace(host, zone="us-east-1c") for host in HOSTS[2:]]
    (one,) = [one.found for one in findings(group(), needs(hosts=(*HOSTS[:2], *moved)), "zones")]
    assert (one.verdict, one.value, one.wanted) == ("error", "us-east-1a, us-east-1b", "us-east-1c, too")
    assert one.why == ("gpu-3, gpu-4 are in us-east-1c, in which fleet takes no requests, so no client can reach them")
    assert one.repair == (
        f"aws elbv2 set-subnets --region {REGION} --load-balancer-arn {BALANCER} --subnets subnet-a subnet-b "
        "SUBNET_IN_us-east-1c"
    )


def test_zones_that_are_not_known_are_no_finding() -> None:
    unknown = [dataclasses.replace(host, zone="") for host in HOSTS]
    (one,) = findings(group(), needs(hosts=unknown), "zones")
    assert one.found.verdict == "ok"
    quiet = group(balancers=(balancer(described={**ALB, "AvailabilityZones": []}),))
    assert findings(quiet, needs(), "zones") == []


def test_cross_zone_is_off_for_an_nlb_that_says_nothing() -> None:
    quiet = dataclasses.replace(nlb(), balancers=(balancer(described={**ALB, "Type": "network"}, attributes={}),))
    (one,) = findings(quiet, needs(hosts=ALONE), "cross-zone")
    assert (one.found.value, one.found.verdict) == ("off", "error")
    # A fleet of one host cannot spare it in any case.
    assert findings(quiet, needs(hosts=HOSTS[:1]), "cross-zone") == []


@pytest.mark.parametrize(
    ("listeners", "verdict", "value", "why", "repair"),
    [
        ((listener(forward()),), "ok", "HTTPS:443", "", ""),
        (
            (listener(REDIRECT, arn=HTTP_LISTENER, port=80), listener(forward(), arn=LISTENER)),
            "ok",
            "HTTPS:443",
            "",
            "",
        ),
        (
            (listener(FIXED, rules=[{"RuleArn": RULE, "Actions": [forward()]}]),),
            "ok",
            "HTTPS:443",
            "",
            "",
        ),
        (
            (listener(forward(OTHER)),),
            "error",
            "none",
            "no listener forwards to the group (Target.NotInUse), so no client can reach its hosts",
            f"aws elbv2 modify-listener --region {REGION} --listener-arn {LISTENER} --default-actions "
            f"Type=forward,TargetGroupArn={GROUP}",
        ),
        (
            (listener(forward(weight=0)),),
            "warning",
            "HTTPS:443, weight 0",
            "with weight 0 the group gets no requests",
            f"aws elbv2 modify-listener --region {REGION} --listener-arn {LISTENER} --default-actions "
            f"Type=forward,TargetGroupArn={GROUP}",
        ),
        (
            (listener(FIXED, rules=[{"RuleArn": RULE, "Actions": [forward(weight=0)]}]),),
            "warning",
            "HTTPS:443, weight 0",
            "with weight 0 the group gets no requests",
            f"aws elbv2 modify-rule --region {REGION} --rule-arn {RULE} --actions Type=forward,TargetGroupArn={GROUP}",
        ),
    ],
)
def test_the_listener(listeners: t.Any, verdict: str, value: str, why: str, repair: str) -> None:
    (one,) = [one.found for one in findings(group(balancers=(balancer(listeners=listeners),)), needs(), "listener")]
    assert (one.verdict, one.value, one.wanted) == (verdict, value, "one that forwards to it")
    assert (one.why, one.repair) == (why, repair)


def test_a_group_without_a_balancer_gets_the_command_with_its_own_arn() -> None:
    (one,) = findings(group(balancers=()), needs(), "listener")
    assert one.found.verdict == "error"
    assert one.found.repair == (
        f"aws elbv2 create-listener --region {REGION} --load-balancer-arn LOAD_BALANCER_ARN --protocol HTTPS "
        f"--port 443 --certificates CertificateArn=CERTIFICATE_ARN --default-actions "
        f"Type=forward,TargetGroupArn={GROUP}"
    )
    (one,) = findings(dataclasses.replace(nlb(), balancers=()), needs(), "listener")
    assert "--protocol TCP --port 443 --default-actions" in one.found.repair


def test_a_listener_that_uses_none_of_the_groups() -> None:
    both = (listener(forward()), listener(forward(OTHER), arn=HTTP_LISTENER, port=80))
    (one,) = [one.found for one in findings(group(balancers=(balancer(listeners=both),)), needs(), "other listeners")]
    assert (one.verdict, one.value, one.wanted) == ("warning", "HTTP:80 to old", "the fleet's target groups")
    assert one.why == (
        "listener HTTP:80 of fleet uses no target group of fleet_target_groups: what comes there does not reach the "
        "fleet"
    )
    assert one.repair == (
        f"aws elbv2 modify-listener --region {REGION} --listener-arn {HTTP_LISTENER} --default-actions "
        f"Type=forward,TargetGroupArn={GROUP}"
    )


@pytest.mark.parametrize(
    "other",
    [
        listener(REDIRECT, arn=HTTP_LISTENER, port=80),
        listener(FIXED, arn=HTTP_LISTENER, port=80),
        listener(forward(OTHER), arn=HTTP_LISTENER, port=80, rules=[{"RuleArn": RULE, "Actions": [forward()]}]),
    ],
)
def test_a_listener_that_redirects_or_reaches_the_fleet_by_a_rule_is_right(other: t.Any) -> None:
    reading = group(balancers=(balancer(listeners=(listener(forward()), other)),))
    assert findings(reading, needs(), "other listeners") == []


def test_a_listener_of_two_groups_of_the_fleet_is_in_the_rows_of_one() -> None:
    both = balancer(
        listeners=(
            listener(forward(), forward(OTHER)),
            listener(forward("arn:aws:x:y:1:targetgroup/third/1"), arn=HTTP_LISTENER, port=80),
        )
    )
    own = needs(groups=(GROUP, OTHER))
    second = group({"TargetGroupArn": OTHER, "TargetGroupName": "old"}, balancers=(both,))
    found = [findings(reading, own, "other listeners") for reading in (group(balancers=(both,)), second)]
    assert sorted(map(len, found)) == [0, 1]


def test_the_balancer_is_named_by_its_arn_in_each_command_about_it() -> None:
    assert BALANCER in ON_BALANCER
