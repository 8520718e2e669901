from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import (
    BalancedHost,
    TargetGroup,
    WantedGroup,
    choose_mode,
    match_hosts,
    read_groups,
)

from tests.unit.plugins.plugin_utils.balancer.fleet import REGION, arn, group, host, member

KNOWN = {REGION: [group()]}


def problem(one: BalancedHost, *known: TargetGroup) -> str:
    memberships, problems = match_hosts([one], {REGION: list(known)})
    assert memberships == []
    (said,) = problems
    return said


@pytest.mark.parametrize(
    ("given", "groups"),
    [
        (None, ()),
        ("", ()),
        ([], ()),
        ([{"name": "fleet"}], (WantedGroup("fleet"),)),
        ([{"name": "gw", "role": "gateway", "port": "4000"}], (WantedGroup("gw", "gateway", 4000),)),
        ('[{"name": "fleet", "port": null}]', (WantedGroup("fleet"),)),
        ([{"name": arn("fleet", "eu-west-1")}], (WantedGroup(arn("fleet", "eu-west-1")),)),
        (
            [{"name": "fleet"}, {"name": "fleet", "port": 8001}],
            (WantedGroup("fleet"), WantedGroup("fleet", port=8001)),
        ),
    ],
)
def test_groups_are_read(given: t.Any, groups: tuple[WantedGroup, ...]) -> None:
    assert read_groups(given) == groups


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("fleet", "fleet_target_groups is 'fleet', which is no list of target groups. For example: "),
        ({"name": "fleet"}, "is no list"),
        (["fleet"], "has 'fleet', which does not name a target group"),
        ([{"role": "gateway"}], "does not name a target group"),
        ([{"name": "fleet", "prot": 1}], r"has prot in .*; valid are name, role, port\."),
        ([{"name": "my fleet"}], "has 'my fleet', which is neither a target group's name"),
        ([{"name": "a" * 33}], "is neither a target group's name"),
        ([{"name": "arn:aws:iam::1:role/x"}], "nor its ARN"),
        ([{"name": "fleet", "role": "monitoring"}], "role 'monitoring'; valid are inference, gateway"),
        ([{"name": "fleet", "port": 0}], "port 0; valid are 1 to 65535"),
        ([{"name": "fleet", "port": 65536}], "port 65536"),
        ([{"name": "fleet", "port": True}], "port True"),
        ([{"name": "fleet", "port": "http"}], "port 'http'"),
        ([{"name": "fleet"}, {"name": "fleet"}], "names target group fleet of role inference twice"),
    ],
)
def test_what_is_no_list_of_groups_is_refused(given: t.Any, said: str) -> None:
    with pytest.raises(FleetError, match=said):
        read_groups(given)


@pytest.mark.parametrize(
    ("given", "role", "mode"),
    [
        ("", "inference", "registration"),
        ("", "gateway", "health"),
        ("registration", "inference", "registration"),
        # A tier without a group has nothing to be registered in.
        ("registration", "gateway", "health"),
        ("health", "inference", "health"),
    ],
)
def test_a_tier_with_groups_is_out_by_registration(given: str, role: str, mode: str) -> None:
    assert choose_mode(given, (WantedGroup("fleet"),), role) == mode


def test_a_mode_that_cannot_be_is_refused() -> None:
    assert choose_mode("", (), "inference") == choose_mode("health", (), "inference") == "health"
    with pytest.raises(FleetError, match="balancer_mode is registration, and fleet_target_groups names no target"):
        choose_mode("registration", (), "inference")
    with pytest.raises(FleetError, match="balancer_mode is 'lame'; valid are registration, health"):
        choose_mode("lame", (), "inference")


def test_an_instance_group_has_the_hosts_id_and_an_ip_group_its_address() -> None:
    found, problems = match_hosts([host(), host("gpu-2")], {REGION: [group(kind="ip")]})
    assert [(one.host, one.target.id, one.target.port) for one in found] == [
        ("gpu-1", "10.0.0.1", 8000),
        ("gpu-2", "10.0.0.2", 8000),
    ]
    found, problems = match_hosts([host()], KNOWN)
    assert (found, problems) == ([member()], [])


def test_a_host_is_in_each_group_of_its_role_and_in_no_other() -> None:
    wanted = (WantedGroup("fleet"), WantedGroup("b", port=8001), WantedGroup("gw", "gateway"))
    known = {REGION: [group(), group("b", port=8001), group("gw", port=4000)]}
    inference = host("gpu-1", *wanted, ports=(8000, 8001))
    gateway = host("gw-2", *wanted, role="gateway", port=4000, ports=(4000,))
    found, problems = match_hosts([inference, gateway], known)
    assert problems == []
    assert [(one.host, one.group.name, one.target.port) for one in found] == [
        ("gpu-1", "fleet", 8000),
        ("gpu-1", "b", 8001),
        ("gw-2", "gw", 4000),
    ]


def test_one_group_may_have_two_ports_of_a_host() -> None:
    one = host("gpu-1", WantedGroup("fleet"), WantedGroup("fleet", port=8001), ports=(8000, 8001))
    found, problems = match_hosts([one], KNOWN)
    assert [item.target.port for item in found] == [8000, 8001]
    assert problems == []


def test_a_host_that_only_computes_for_another_is_in_no_group() -> None:
    assert match_hosts([host(ports=())], KNOWN) == ([], [])


def test_a_name_is_looked_for_in_the_region_of_each_host() -> None:
    known = {REGION: [group()], "eu-west-1": [group(region="eu-west-1")]}
    found, problems = match_hosts([host(), host("gpu-2", region="eu-west-1")], known)
    assert [one.group.region for one in found] == [REGION, "eu-west-1"]
    assert problems == []


def test_an_arn_is_for_the_hosts_of_its_region() -> None:
    wanted = [WantedGroup(arn("fleet")), WantedGroup(arn("fleet", "eu-west-1"))]
    known = {REGION: [group()], "eu-west-1": [group(region="eu-west-1")]}
    found, problems = match_hosts([host("gpu-1", *wanted), host("gpu-2", *wanted, region="eu-west-1")], known)
    assert [(one.host, one.group.region) for one in found] == [("gpu-1", REGION), ("gpu-2", "eu-west-1")]
    assert problems == []


def test_a_misspelt_name_is_said_with_the_one_that_it_may_be() -> None:
    assert problem(host("gpu-1", WantedGroup("flete")), group(), group("other")) == (
        "There is no target group flete in us-east-1, where gpu-1 is. Is it fleet? Correct fleet_target_groups."
    )
    assert "There are abc, other. Correct" in problem(host("gpu-1", WantedGroup("x")), group("other"), group("abc"))
    assert "There is none. Correct" in problem(host())


def test_a_group_of_another_region_is_said() -> None:
    known = {REGION: [], "eu-west-1": [group(region="eu-west-1")]}
    _found, problems = match_hosts([host(), host("gpu-2", region="eu-west-1")], known)
    assert problems == [
        "There is no target group fleet in us-east-1, where gpu-1 is. There is one in eu-west-1, where gpu-1 is not. "
        "Correct fleet_target_groups."
    ]
    _found, problems = match_hosts([host("gpu-1", WantedGroup(arn("fleet", "eu-west-1")))], KNOWN)
    assert problems == [
        "gpu-1 is in us-east-1, and every target group of fleet_target_groups for role inference is elsewhere (fleet "
        "in eu-west-1): no client could reach it. Name a group in us-east-1."
    ]


def test_a_host_without_a_region_is_said() -> None:
    _found, problems = match_hosts([host(region="")], KNOWN)
    assert problems == [
        "The region of gpu-1 is not known, so its target group fleet cannot be found. Set fleet_region, or AWS_REGION "
        "in this shell."
    ]


@pytest.mark.parametrize(
    ("fields", "known", "said"),
    [
        (
            {},
            group(vpc="vpc-2"),
            "gpu-1 is in vpc-1, and target group fleet in us-east-1 in vpc-2. A host must be in the VPC of its group.",
        ),
        (
            {},
            group(kind="lambda"),
            "Target group fleet in us-east-1 has the target type lambda; hosts need instance or ip.",
        ),
        ({}, group(kind="alb"), "has the target type alb"),
        (
            {"instance_id": ""},
            group(),
            "gpu-1 has no aws_instance_id, which target group fleet in us-east-1 needs (target type instance). Use the "
            "inventory of EC2, or a group of target type ip.",
        ),
        ({"address": "gpu-1.example"}, group(kind="ip"), "The address of gpu-1 is 'gpu-1.example', and target group"),
        (
            {},
            group(port=80),
            "Target group fleet in us-east-1 has port 80, and the edge of gpu-1 port 8000. To register its hosts with "
            "8000: fleet_target_groups: [{name: fleet, role: inference, port: 8000}].",
        ),
        (
            {"wanted": (WantedGroup("fleet", port=9000),)},
            group(),
            "Target group fleet in us-east-1 would send requests to port 9000 of gpu-1, whose edge serves 8000. "
            "Correct the port in fleet_target_groups.",
        ),
    ],
)
def test_a_group_that_does_not_fit_the_host_is_said(fields: dict[str, t.Any], known: TargetGroup, said: str) -> None:
    assert said in problem(host(**fields), known)


def test_what_is_not_known_of_a_host_outside_of_ec2_is_no_problem() -> None:
    _found, problems = match_hosts([host(vpc="")], KNOWN)
    assert problems == []
    _found, problems = match_hosts([host(instance_id="", vpc="")], {REGION: [group(kind="ip")]})
    assert problems == []


def test_a_port_in_the_variable_overrides_that_of_the_group() -> None:
    found, problems = match_hosts([host("gpu-1", WantedGroup("fleet", port=8000))], {REGION: [group(port=80)]})
    assert problems == []
    assert [one.target.port for one in found] == [8000]


def test_each_problem_is_said_once() -> None:
    twice = host("gpu-1", WantedGroup("a"), WantedGroup("a", port=8000))
    _found, problems = match_hosts([twice], {REGION: []})
    assert len(problems) == 1
