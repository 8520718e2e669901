from __future__ import annotations

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.inventory.names import Ec2Instance, name_hosts

GROUPS = {"all", "ungrouped", "inference", "gateway"}


def test_a_name_of_its_own_is_the_hosts() -> None:
    naming = name_hosts([Ec2Instance("i-01", "llm-a", "running"), Ec2Instance("i-02", "LLM.b_2", "stopped")], GROUPS)
    assert naming.names == {"i-01": "llm-a", "i-02": "LLM.b_2"}
    assert naming.notes == []


def test_two_that_run_under_one_name_are_two_hosts_and_both_are_named() -> None:
    naming = name_hosts([Ec2Instance("i-02", "llm", "running"), Ec2Instance("i-01", "llm", "running")], GROUPS)
    assert naming.names == {"i-01": "llm_i-01", "i-02": "llm_i-02"}
    assert naming.notes == ["2 instances have the Name llm: i-01 (running) is llm_i-01, i-02 (running) is llm_i-02."]


def test_a_host_keeps_its_name_beside_its_stopped_predecessors() -> None:
    instances = [
        Ec2Instance("i-01", "llm", "stopped"),
        Ec2Instance("i-02", "llm", "running"),
        Ec2Instance("i-03", "llm", "shutting-down"),
    ]
    naming = name_hosts(instances, GROUPS)
    assert naming.names == {"i-01": "llm_i-01", "i-02": "llm", "i-03": "llm_i-03"}
    assert "i-02 (running) is llm," in naming.notes[0]


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
