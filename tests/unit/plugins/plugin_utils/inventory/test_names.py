from __future__ import annotations

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.inventory.names import (
    Ec2Instance,
    name_hosts,
    state_problems,
)

GROUPS = {"all", "ungrouped", "inference", "gateway"}


def test_a_name_of_its_own_is_the_hosts() -> None:
    naming = name_hosts([Ec2Instance("i-01", "llm-a", "running"), Ec2Instance("i-02", "LLM.b_2", "stopped")], GROUPS)
    assert naming.names == {"i-01": "llm-a", "i-02": "LLM.b_2"}
    assert naming.notes == []


def test_two_that_run_under_one_name_are_two_hosts_and_both_are_named() -> None:
    naming = name_hosts([Ec2Instance("i-02", "llm", "running"), Ec2Instance("i-01", "llm", "running")], GROUPS)
    assert naming.names == {"i-01": "llm_i-01", "i-02": "llm_i-02"}
    assert naming.notes == [
        "2 instances have the Name llm: i-01 (running) is llm_i-01, i-02 (running) is llm_i-02. No host is named llm "
        "now, so host_vars/llm apply to none. With a tag inference:name of its own, a host keeps its name as others "
        "come and go."
    ]


def test_a_host_keeps_its_name_beside_its_stopped_predecessors() -> None:
    instances = [
        Ec2Instance("i-01", "llm", "stopped"),
        Ec2Instance("i-02", "llm", "running"),
        Ec2Instance("i-03", "llm", "shutting-down"),
    ]
    naming = name_hosts(instances, GROUPS)
    assert naming.names == {"i-01": "llm_i-01", "i-02": "llm", "i-03": "llm_i-03"}
    assert "i-02 (running) is llm," in naming.notes[0]


def test_a_name_of_its_own_counts_before_the_shared_one() -> None:
    instances = [
        Ec2Instance("i-01", "llm", "running", own_tag="llm-1"),
        Ec2Instance("i-02", "llm", "running", own_tag="llm-2"),
        Ec2Instance("i-03", "llm", "running"),
    ]
    naming = name_hosts(instances, GROUPS)
    assert naming.names == {"i-01": "llm-1", "i-02": "llm-2", "i-03": "llm"}
    assert naming.notes == []


def test_a_name_of_its_own_stays_plain_beside_others_that_have_it_by_name() -> None:
    instances = [
        Ec2Instance("i-01", "llm", "running"),
        Ec2Instance("i-02", "x", "stopped", own_tag="llm"),
        Ec2Instance("i-03", "llm", "running"),
    ]
    naming = name_hosts(instances, GROUPS)
    assert naming.names == {"i-01": "llm_i-01", "i-02": "llm", "i-03": "llm_i-03"}
    assert len(naming.notes) == 1
    assert "host_vars" not in naming.notes[0]


def test_a_name_that_was_to_be_unique_and_is_not_loses_no_host() -> None:
    instances = [Ec2Instance(f"i-0{n}", "x", "running", own_tag="llm-1") for n in (1, 2)]
    naming = name_hosts(instances, GROUPS)
    assert naming.names == {"i-01": "llm-1_i-01", "i-02": "llm-1_i-02"}
    assert naming.notes[0].startswith("2 instances have the tag inference:name llm-1: i-01 (running) is llm-1_i-01")


def test_a_name_of_its_own_that_cannot_be_used_leaves_name() -> None:
    naming = name_hosts([Ec2Instance("i-01", "llm", "running", own_tag="my host")], GROUPS)
    assert naming.names == {"i-01": "llm"}
    assert naming.notes == [
        "The instance i-01 has the tag inference:name 'my host', which has other characters than letters, digits, "
        "dots, dashes and underscores; its host is named after llm."
    ]


def test_names_of_a_scaling_group_do_not_change_as_it_grows() -> None:
    first, second = (Ec2Instance(f"i-0{n}", "fleet", "running", scaling_group="asg") for n in (1, 2))
    alone, together = name_hosts([first], GROUPS), name_hosts([first, second], GROUPS)
    assert alone.names["i-01"] == together.names["i-01"] == "fleet_i-01"
    assert together.names["i-02"] == "fleet_i-02"
    assert alone.notes == together.notes == []
    named = Ec2Instance("i-03", "fleet", "running", own_tag="fleet-a", scaling_group="asg")
    assert name_hosts([first, named], GROUPS).names == {"i-01": "fleet_i-01", "i-03": "fleet-a"}


def test_a_host_that_joins_keeps_its_name_when_it_has_joined() -> None:
    old = Ec2Instance("i-01", "llm", "stopped")
    for state in ("joining", "running", "leaving"):
        assert name_hosts([old, Ec2Instance("i-02", "llm", state)], GROUPS).names["i-02"] == "llm"


def test_an_unknown_state_is_named_with_its_instance() -> None:
    good = [Ec2Instance(f"i-1{n}", "", "running", state_tag=tag) for n, tag in enumerate(("", "joining", "leaving"))]
    assert state_problems(good) == []
    wrong = Ec2Instance("i-01", "llm", "joinning", state_tag="joinning")
    nameless = Ec2Instance("i-02", "", "stopped", state_tag="gone")
    assert state_problems([*good, nameless, wrong]) == [
        "The instance i-01 (llm) has the tag inference:state with the value 'joinning'; valid are joining and leaving. "
        "Correct the tag, or remove it if the host is a member of the fleet.",
        "The instance i-02 has the tag inference:state with the value 'gone'; valid are joining and leaving. "
        "Correct the tag, or remove it if the host is a member of the fleet.",
    ]


def test_without_a_name_a_host_goes_by_its_instance_id() -> None:
    naming = name_hosts([Ec2Instance("i-01", "", "running"), Ec2Instance("i-02", "", "running")], GROUPS)
    assert naming.names == {"i-01": "i-01", "i-02": "i-02"}
    assert naming.notes == []


@pytest.mark.parametrize(
    ("tag", "why"),
    [
        ("llm a 1", "has other characters"),
        ("llm:a", "has other characters"),
        ("~llm", "has other characters"),
        ("llm,b", "has other characters"),
        ("llm\n", "has other characters"),
        ("gateway", "is the name of a group"),
        ("all", "is the name of a group"),
        ("localhost", "is the name of the controller"),
        ("i-01", "looks like an instance id"),
        ("llm_i-01", "looks like an instance id"),
    ],
)
def test_a_name_that_ansible_cannot_work_with_is_not_used_and_named(tag: str, why: str) -> None:
    naming = name_hosts([Ec2Instance("i-07", tag, "running")], GROUPS)
    assert naming.names == {"i-07": "i-07"}
    assert naming.notes == [n for n in naming.notes if "i-07" in n and repr(tag) in n and why in n]
    assert len(naming.notes) == 1
