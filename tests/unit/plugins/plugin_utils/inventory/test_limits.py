from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.inventory.limits import (
    inventory_problems,
    limit_problems,
    option_problems,
)

GROUPS = {
    "all": ["a-1", "a-2", "gw", "old", "watch", "new", "end"],
    "ungrouped": [],
    "inference": ["a-1", "a-2"],
    "ring_canary": [],
    "gateway": ["gw"],
    "monitoring": ["watch"],
    "not_running": ["old"],
    "joining": ["new"],
    "leaving": ["end"],
}
TIERS = ["inference", "gateway"]


@pytest.mark.parametrize(
    ("options", "problems"),
    [
        ({"tags": ["all"], "skip_tags": [], "start_at_task": None, "step": False}, []),
        ({"tags": ["all", "edge"]}, []),
        ({"tags": ["edge", "always"]}, ["--tags always,edge"]),
        ({"skip_tags": ["always"]}, ["--skip-tags always"]),
        ({"skip_tags": ["molecule-notest", "notest", "molecule-idempotence-notest"]}, []),
        ({"start_at_task": "Deploy"}, ["--start-at-task 'Deploy'"]),
        ({"step": True, "tags": ["x"]}, ["--tags x", "--step"]),
    ],
)
def test_options_that_carry_out_a_part(options: dict[str, t.Any], problems: list[str]) -> None:
    assert option_problems(options, "linear") == problems


@pytest.mark.parametrize(
    ("strategy", "problems"),
    [
        ("ansible.builtin.linear", []),
        ("ansible.builtin.debug", []),
        ("free", ["strategy = free"]),
        ("ansible.builtin.host_pinned", ["strategy = ansible.builtin.host_pinned"]),
    ],
)
def test_a_strategy_in_which_hosts_do_not_wait_for_each_other(strategy: str, problems: list[str]) -> None:
    assert option_problems({}, strategy) == problems


@pytest.mark.parametrize(
    "limit",
    [
        [],
        ["a-1"],
        ["a-1", "gw"],
        ["all"],
        ["inference", "ring_canary"],
        ["inference", "!a-2"],
        ["!a-2"],
        ["inference", "&a-1"],
        ["a-*"],
        ["~a-[12]"],
        ["inference[0]"],
        ["inference[0:1]"],
        ["inference[1:]"],
        ["localhost", "a-1"],
        ["gat?way"],
    ],
)
def test_a_limit_whose_every_word_means_something(limit: list[str]) -> None:
    assert limit_problems(limit, GROUPS, TIERS) == []


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (
            ["a-1", "a-7"],
            "--limit names a-7, which the inventory does not have. Its hosts are: a-1, a-2, gw, old, watch, new, end.",
        ),
        (["a-1", "!a-7"], "--limit names a-7, which the inventory does not have."),
        (["inference", "&ring_canery"], "--limit names ring_canery, which the inventory does not have."),
        (["a-1", "b-*"], "--limit names b-*, which matches nothing"),
        (["a-1", "~b.*"], "--limit names ~b.*, which matches nothing"),
        (["~("], "regular expression '(', which is none"),
        (["inference[0:2]"], "--limit names inference[0:2], and inference has 2 hosts"),
        (["inference[2]"], "and inference has 2 hosts, counted from 0"),
        (["a-1", "old"], "--limit names old, which does not run. Start it first."),
        (["new"], "--limit names new, which is joining (tag inference:state), so it is no member of the fleet."),
        (["a-1", "end"], "--limit names end, which is leaving (tag inference:state)"),
        (["leaving"], "in this run: -e fleet_admit=INSTANCE_ID."),
        (["a-1", "watch"], "--limit names watch, which has no host of inference, gateway"),
        (["monitoring"], "--limit names monitoring, which has no host of inference, gateway"),
        (["a-1", "!inference"], "--limit a-1,!inference leaves no host of inference, gateway."),
        (["ring_canary"], "--limit ring_canary leaves no host of inference, gateway."),
        (["localhost"], "--limit localhost leaves no host"),
    ],
)
def test_a_limit_that_misses_hosts_is_refused(limit: list[str], said: str) -> None:
    problems = limit_problems(limit, GROUPS, TIERS)
    assert len(problems) == 1
    assert said in problems[0]


def test_every_problem_is_named_at_once() -> None:
    assert len(limit_problems(["a-7", "a-8", "old"], GROUPS, TIERS)) == 3


def test_a_playbook_for_the_controller_takes_no_limit() -> None:
    assert limit_problems([], GROUPS, []) == []
    assert "works on no host" in limit_problems(["a-1"], GROUPS, [])[0]


def test_an_inventory_without_hosts_is_refused_with_its_source() -> None:
    problems = inventory_problems({**GROUPS, "inference": []}, TIERS, ["inventories/aws"])
    assert problems[0].startswith("The inventory inventories/aws has no host in the group inference.")
    assert inventory_problems(GROUPS, TIERS, ["x"]) == []
    assert inventory_problems(GROUPS, ["gateway_store"], ["x"])[0].startswith(
        "The inventory x has no host in the group g"
    )


@pytest.mark.parametrize("name", ["gpu 1", "gateway", "gpu,1"])
def test_a_host_that_no_limit_can_name_is_refused(name: str) -> None:
    problems = inventory_problems({**GROUPS, "inference": [name]}, TIERS, ["x"])
    assert len(problems) == 1
    assert repr(name) in problems[0]
