"""The look at the balancer's settings, as playbooks make it, on moto."""

from __future__ import annotations

import typing as t

import boto3
import pytest
from ansible_collections.inference.fleet.plugins.action.balancer_settings import ActionModule

from tests.unit.plugins.action.balancer_fleet import BalancedFleet
from tests.unit.plugins.plugin_utils.aws.balancers import REGION, launch
from tests.unit.plugins.plugin_utils.aws.cloudwatch import moto

__all__ = ["moto"]

DELAY = "deregistration_delay.timeout_seconds"


@pytest.fixture
def fleet(moto: None) -> BalancedFleet:
    return BalancedFleet()


def wrong(result: dict[str, t.Any]) -> list[tuple[str, str]]:
    return [(row["setting"], row["verdict"]) for row in result["rows"] if row["verdict"] != "ok"]


def test_a_fleet_as_documented_has_a_row_for_each_setting_and_no_finding(fleet: BalancedFleet) -> None:
    result = fleet.ask(ActionModule)
    assert wrong(result) == []
    assert (result["errors"], result["warnings_found"], result["repairs"]) == ([], [], [])
    assert result["groups"] == ["fleet"]
    rows = {row["setting"]: row for row in result["rows"]}
    assert (rows["hosts"]["is"], rows["hosts"]["wanted"]) == ("2 of 2 healthy", "all")
    assert rows["listener"]["is"] == "HTTP:80"
    assert rows["deregistration delay"] == {
        "group": "fleet",
        "setting": "deregistration delay",
        "is": "600 s",
        "wanted": "at least 600 s",
        "why": "",
        "verdict": "ok",
    }


def test_a_finding_has_its_command_and_is_no_failure_by_itself(fleet: BalancedFleet) -> None:
    fleet.set_attribute(DELAY, "300")
    result = fleet.ask(ActionModule)
    assert not result.get("failed")
    assert wrong(result) == [("deregistration delay", "error")]
    (command,) = result["repairs"]
    assert command.endswith(f"--target-group-arn {fleet.made.group} --attributes Key={DELAY},Value=600")
    assert command in result["errors"][0]


def test_the_variables_of_all_hosts_decide_also_of_those_beyond_the_limit(fleet: BalancedFleet) -> None:
    fleet.hosts["gpu-2"].update(edge_drain_timeout="20m", edge_keep_alive_timeout=500, edge_lame_duck="9s")
    result = fleet.ask(ActionModule, ["gpu-1"])
    rows = {row["setting"]: row["wanted"] for row in result["rows"]}
    assert rows["deregistration delay"] == "at least 1200 s"
    assert rows["idle timeout (ALB)"] == "300 s to less than 500 s"
    assert rows["time to unhealthy"] == "less than 9 s"


def test_before_a_rollout_an_error_refuses_it(fleet: BalancedFleet) -> None:
    fleet.set_attribute(DELAY, "300")
    fleet.set_attribute("stickiness.enabled", "true")
    result = fleet.ask(ActionModule, before_rollout=True)
    assert not result.get("failed")
    assert result["refusal"].startswith(
        "Nothing was touched. These settings of the balancer lose requests in a rollout:\n"
    )
    assert "streams longer than 300 s would be cut" in result["refusal"]
    assert result["refusal"].endswith(
        "The whole table: playbooks/balancer.yml. If it cannot wait: -e rollout_accept_balancer_errors=true."
    )
    assert len(result["errors"]) == len(result["warnings_found"]) == 1
    for given in ({"accept_errors": True}, {"check": True}):
        accepted = fleet.ask(ActionModule, before_rollout=True, **given)  # type: ignore[arg-type]
        assert accepted["refusal"] == ""
        assert (accepted["errors"], len(accepted["warnings_found"])) == ([], 2)


def test_before_a_rollout_only_the_tiers_of_the_play_count(fleet: BalancedFleet) -> None:
    fleet.set_attribute(DELAY, "300")
    result = fleet.ask(ActionModule, ["gw-1"], before_rollout=True)
    assert (result["rows"], result["refusal"]) == ([], "")


def test_a_rollout_registers_what_is_not_registered(fleet: BalancedFleet) -> None:
    targets = [{"Id": fleet.hosts["gpu-1"]["aws_instance_id"], "Port": 8000}]
    fleet.elbv2.deregister_targets(TargetGroupArn=fleet.made.group, Targets=targets)
    assert fleet.ask(ActionModule, before_rollout=True)["refusal"] == ""
    (said,) = fleet.ask(ActionModule)["errors"]
    assert "gpu-1 is not in target group fleet (unused, Target.NotRegistered), so no client can reach it" in said


def test_in_mode_health_other_settings_count(fleet: BalancedFleet) -> None:
    fleet.set_for_all(balancer_mode="health", edge_lame_duck=10)
    fleet.set_attribute(DELAY, "0")
    assert wrong(fleet.ask(ActionModule)) == [("time to unhealthy", "error")]


def test_a_group_that_does_not_exist_is_named_with_the_nearest_one(fleet: BalancedFleet) -> None:
    fleet.set_for_all(fleet_target_groups=[{"name": "fleets", "role": "inference"}])
    (said,) = fleet.ask(ActionModule)["errors"]
    assert "There is no target group fleets in us-east-1, where gpu-1 is. Is it fleet?" in said


def test_a_group_of_another_region_is_named(fleet: BalancedFleet) -> None:
    elsewhere = fleet.made.group.replace(REGION, "eu-west-1")
    fleet.set_for_all(fleet_target_groups=[{"name": elsewhere, "role": "inference"}])
    said = fleet.ask(ActionModule)["errors"]
    assert any("every target group of fleet_target_groups for role inference is elsewhere" in one for one in said)


def test_a_host_that_has_stopped_and_one_that_the_inventory_lacks(fleet: BalancedFleet) -> None:
    fleet.hosts["old-1"] = {**fleet.hosts["gpu-1"], "inventory_hostname": "old-1", "fleet_state": "stopped"}
    fleet.hosts["old-1"] |= {"aws_instance_id": launch(fleet.made.subnets[0]), "ansible_host": "10.9.9.9"}
    stranger = launch(fleet.made.subnets[0])
    targets = [{"Id": one, "Port": 8000} for one in (fleet.hosts["old-1"]["aws_instance_id"], stranger)]
    fleet.elbv2.register_targets(TargetGroupArn=fleet.made.group, Targets=targets)
    said = fleet.ask(ActionModule)["warnings_found"]
    assert any("old-1 (stopped) is registered" in one for one in said)
    assert any(f"{stranger} is registered, and the inventory does not have it" in one for one in said)


def test_without_target_groups_nothing_is_asked(fleet: BalancedFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.set_for_all(fleet_target_groups=[])
    monkeypatch.setattr(boto3.session.Session, "client", lambda *_given, **_more: pytest.fail("AWS was asked"))
    assert fleet.ask(ActionModule, before_rollout=True)["rows"] == []


def test_a_listener_for_the_other_tier_is_no_mistake(fleet: BalancedFleet) -> None:
    both = [{"name": "fleet", "role": "inference"}, {"name": "gateways", "role": "gateway"}]
    fleet.set_for_all(fleet_target_groups=both)
    made = fleet.elbv2.create_target_group(Name="gateways", Protocol="HTTP", Port=4000, VpcId=fleet.made.vpc)
    arn = made["TargetGroups"][0]["TargetGroupArn"]
    fleet.elbv2.create_listener(
        LoadBalancerArn=fleet.made.balancer,
        Protocol="HTTP",
        Port=4000,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": arn}],
    )
    assert wrong(fleet.ask(ActionModule, ["gpu-1"], before_rollout=True)) == []
