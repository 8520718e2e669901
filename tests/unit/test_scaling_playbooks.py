"""join.yml and leave.yml with the lab's AWS, as far as they go without a host of their own. This machine stands for one
that is not fit: the checks read, and nothing on it is changed."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

from tests.integration.aws.conftest import Scaled, scaled, scaling_cloud
from tests.inventory.conftest import ROOT, Answer, copy_for_one_region, run

__all__ = ["scaled", "scaling_cloud"]


AWS = ROOT / "inventories" / "aws"


def play(scaled: Scaled, place: Path, playbook: str, instance: str, **variables: t.Any) -> Answer:
    extra = {
        "fleet_admit": instance,
        "fleet_aws_endpoint": scaled.cloud.url,
        "fleet_rollout_records": str(place / "rollouts"),
        "fleet_key_store": str(place / "keys.json"),
        "scaling_outcome": str(place / "outcome.json"),
        "join_host_keys": "known",
        "ansible_connection": "local",
        "ansible_become": False,
        **variables,
    }
    inventory = copy_for_one_region(AWS, place / "aws")
    words = [f"playbooks/{playbook}.yml", "-l", f"*{instance}", "-e", json.dumps(extra)]
    return run("ansible-playbook", "-i", str(inventory), *words, url=scaled.cloud.url, HOME=str(place))


def read_outcome(place: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((place / "outcome.json").read_text())
    return found


def test_a_host_that_is_not_fit_is_abandoned_with_the_reason(scaled: Scaled, tmp_path: Path) -> None:
    instance = scaled.start_one()
    answer = play(scaled, tmp_path, "join", instance)
    assert answer.status != 0
    assert "Its launch hook was abandoned, so the group ends it." in answer.output + answer.said
    assert scaled.states()[instance].startswith("Terminating")
    assert scaled.tag(instance) == "joining"
    outcome = read_outcome(tmp_path)
    assert outcome["verdict"] == "abandoned"
    assert outcome["reason"]
    (event,) = map(json.loads, (tmp_path / "rollouts" / "scaling.jsonl").read_text().splitlines())
    assert (event["event"], event["instance"], event["reason"]) == ("abandoned", instance, outcome["reason"])
    assert event["host"].endswith(instance)


def test_it_is_kept_for_a_look_if_a_person_wants_that(scaled: Scaled, tmp_path: Path) -> None:
    instance = scaled.start_one()
    answer = play(scaled, tmp_path, "join", instance, join_keep_failed=True)
    assert answer.status != 0
    assert "It is kept for a look, and waits at its hook." in answer.output + answer.said
    assert scaled.states() == {instance: "Pending:Wait"}
    assert read_outcome(tmp_path)["verdict"] == "kept"


def test_a_wrong_variable_is_not_the_hosts_fault(scaled: Scaled, tmp_path: Path) -> None:
    instance = scaled.start_one()
    answer = play(scaled, tmp_path, "join", instance, edge_port="eighty")
    assert answer.status != 0
    assert scaled.states() == {instance: "Pending:Wait"}
    assert not (tmp_path / "outcome.json").exists()


def test_a_host_out_of_reach_leaves_all_the_same(scaled: Scaled, tmp_path: Path) -> None:
    instance = scaled.start_one()
    hook = {"AutoScalingGroupName": scaled.name, "InstanceId": instance, "LifecycleActionResult": "CONTINUE"}
    scaled.autoscaling.complete_lifecycle_action(LifecycleHookName="join", **hook)
    scaled.cloud.client("ec2").delete_tags(Resources=[instance], Tags=[{"Key": "inference:state"}])
    scaled.scale(0)
    # Nothing listens on that port.
    closed = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 9}
    answer = play(scaled, tmp_path, "leave", instance, **closed)
    assert answer.status == 0, answer.output + answer.said
    assert "has left the fleet" in answer.output
    assert instance not in scaled.states() or scaled.states()[instance] == "Terminating"
    outcome = read_outcome(tmp_path)
    assert outcome["verdict"] == "left"
    assert outcome["reason"] == "The host is out of reach."
    assert scaled.tag(instance) == "leaving"


def test_without_one_host_nothing_is_done(scaled: Scaled, tmp_path: Path) -> None:
    instance = scaled.start_one()
    join = ["ansible-playbook", "-i", str(copy_for_one_region(AWS, tmp_path / "aws")), "playbooks/join.yml"]
    answer = run(*join, "-e", f"fleet_admit={instance}", url=scaled.cloud.url, HOME=str(tmp_path))
    assert answer.status != 0
    assert "Say which host: -l HOST -e fleet_admit=INSTANCE_ID." in answer.output + answer.said
    answer = run(*join, "-l", f"*{instance}", url=scaled.cloud.url, HOME=str(tmp_path))
    assert answer.status != 0
    assert "has no host in the group inference" in " ".join(answer.said.split())
    assert scaled.states() == {instance: "Pending:Wait"}
