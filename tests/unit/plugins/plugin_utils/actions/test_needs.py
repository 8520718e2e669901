"""What hosts' variables want of a target group."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.needs import (
    DEFAULTS,
    NeededGroup,
    find_groups,
    name_targets,
    work_out_needs,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import (
    HEALTH,
    REGISTRATION,
    BalancedHost,
    WantedGroup,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.readings import BalancerNeeds, TargetHost

from tests.unit.plugins.plugin_utils.balancer.answers import DESCRIBED, GROUP, OTHER, REGION
from tests.unit.plugins.plugin_utils.balancer.fleet import host

ROOT = Path(__file__).parents[5]
HOSTS = [host(f"gpu-{number}") for number in range(1, 9)]


def work_out(
    variables: dict[str, dict[str, t.Any]], hosts: t.Sequence[BalancedHost] = HOSTS, **described: t.Any
) -> BalancerNeeds:
    group = NeededGroup(hosts[0].wanted[0], {**DESCRIBED, **described}, hosts)
    own = {one.name: variables.get(one.name, {}) for one in hosts}
    others = {"i-9": "gpu-9 (stopped)", hosts[0].instance_id: "gpu-1"}
    return work_out_needs(group, own, ["gpu-1"], others, [GROUP], rollout=False)


def test_without_variables_the_roles_defaults_count() -> None:
    needs = work_out({})
    assert (needs.mode, needs.lame_duck, needs.keep_alive, needs.drain) == (REGISTRATION, 15, 620, 600)
    assert (needs.healthy_timeout, needs.tls, needs.rollout, needs.port_given) == (120, False, False, False)
    # A canary, then 1 of 7, up to 2, 4, 6 and 7 of them.
    assert needs.at_once == 2
    assert needs.others == {"i-9": "gpu-9 (stopped)"}
    assert needs.hosts[0] == TargetHost("gpu-1", HOSTS[0].instance_id, 8000, REGION, "", "vpc-1")


@pytest.mark.parametrize(
    ("variables", "name", "value"),
    [
        ({"edge_lame_duck": "8s"}, "lame_duck", 8),
        ({"engine_lame_duck": 3}, "lame_duck", 3),
        ({"edge_keep_alive_timeout": "5m"}, "keep_alive", 300),
        ({"edge_drain_timeout": 900}, "drain", 900),
        ({"engine_drain_timeout": "1h"}, "drain", 3600),
        ({"balancer_healthy_timeout": 60}, "healthy_timeout", 60),
        ({"edge_tls_certificate": "/etc/tls.pem"}, "tls", True),
    ],
)
def test_the_value_that_is_hardest_to_meet_counts(variables: dict[str, t.Any], name: str, value: t.Any) -> None:
    assert getattr(work_out({"gpu-3": variables}), name) == value


def test_mode_waves_port_and_addresses() -> None:
    settings = {"balancer_mode": HEALTH, "rollout_waves": [4, "100%"]}
    needs = work_out({"gpu-1": settings}, [host("gpu-1", WantedGroup("fleet", port=8001)), *HOSTS[1:]], TargetType="ip")
    assert (needs.mode, needs.at_once, needs.port_given) == (HEALTH, 4, True)
    assert (needs.hosts[0].target, needs.hosts[0].port) == ("10.0.0.1", 8001)


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(FleetError, match="edge_lame_duck is 'soon': a time is a number of seconds"):
        work_out({"gpu-1": {"edge_lame_duck": "soon"}})


def test_the_defaults_are_those_of_the_roles() -> None:
    defaults: dict[str, t.Any] = {}
    for path in ROOT.glob("roles/*/defaults/main.yml"):
        defaults.update(yaml.safe_load(path.read_text()) or {})
    assert {name: defaults[name] for name in DEFAULTS} == DEFAULTS


def test_groups_are_found_by_name_or_arn_in_the_region_of_each_host() -> None:
    other = {**DESCRIBED, "TargetGroupArn": OTHER, "TargetGroupName": "old"}
    hosts = [host("gpu-1", WantedGroup("fleet"), WantedGroup(OTHER)), host("gpu-2")]
    found, problems = find_groups(hosts, {REGION: [DESCRIBED, other]})
    assert problems == []
    assert [(one.arn, [member.name for member in one.hosts]) for one in found] == [
        (GROUP, ["gpu-1", "gpu-2"]),
        (OTHER, ["gpu-1"]),
    ]


def test_a_group_that_is_not_there_is_an_error_and_the_others_are_looked_at() -> None:
    wanted = (WantedGroup("flet"), WantedGroup("fleet"))
    found, (problem,) = find_groups([host("gpu-1", *wanted), host("gpu-2", *wanted)], {REGION: [DESCRIBED]})
    assert [one.arn for one in found] == [GROUP]
    assert problem.found.verdict == "error"
    assert problem.said == (
        "Target group -, fleet_target_groups: not found, wanted a target group that exists: There is no target group "
        "flet in us-east-1, where gpu-1 is. Is it fleet? Correct fleet_target_groups."
    )


def test_a_host_that_serves_no_requests_itself_is_in_no_group() -> None:
    assert find_groups([host("gpu-1", ports=())], {REGION: [DESCRIBED]}) == ([], [])


def test_hosts_are_named_by_their_instance_and_their_address() -> None:
    hosts = {
        "gpu-1": {"aws_instance_id": "i-1", "ansible_host": "10.0.0.1", "fleet_state": "stopped"},
        "gpu-2": {"ansible_host": "10.0.0.2"},
    }
    assert name_targets(hosts) == {"i-1": "gpu-1 (stopped)", "10.0.0.1": "gpu-1 (stopped)", "10.0.0.2": "gpu-2"}
