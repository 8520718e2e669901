"""Target groups by moto, through the action of a task."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path
from unittest import mock

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.action.target_group import ARGUMENTS, ActionModule
from ansible_collections.inference.fleet.plugins.modules import target_group

from tests.unit.plugins.plugin_utils.aws.cloudwatch import REGION, moto
from tests.unit.plugins.plugin_utils.aws.test_target_groups import Cloud

__all__ = ["moto"]

Result = dict[str, t.Any]
PASSED = {"vllm-0": {"at": "2027-01-15T08:00:00Z", "passed": True}}
SERVING = {"index": 0, "name": "vllm-0", "state": "active", "running": 0, "waiting": 0, "limit": 8}
STATUS: Result = {"instances": [SERVING], "edge": {"health": 200}, "drain": None, "gates": PASSED, "rollout": None}


class Fleet:
    """Two hosts of one group, and a gateway in another."""

    def __init__(self, tmp_path: Path) -> None:
        self.cloud = Cloud()
        self.arn = self.cloud.make_group("fleet", listener=80)
        self.cloud.make_group("fleet-gateways", port=4000, listener=81)
        self.journal = tmp_path / "journal.jsonl"
        groups = [{"name": "fleet"}, {"name": "fleet-gateways", "role": "gateway"}]
        self.hosts: dict[str, Result] = {}
        for number, name in enumerate(("gpu-1", "gpu-2", "gw-3"), 1):
            one = self.cloud.start(name)
            self.hosts[name] = {
                "inventory_hostname": name,
                "ansible_host": one.address,
                "aws_instance_id": one.instance_id,
                "aws_vpc_id": one.vpc,
                "fleet_region": REGION,
                "fleet_accelerator": "cpu",
                "fleet_target_groups": groups,
                "number": number,
                "status": {**STATUS},
            }

    def ask(self, state: str, *hosts: str, check: bool = False, **arguments: t.Any) -> Result:
        args = {"state": state, "hosts": list(hosts), "settle": 0, "healthy_timeout": 0, **arguments}
        task = mock.Mock(args=args, async_val=0, check_mode=check, action="inference.fleet.target_group")
        templar = mock.Mock(template=lambda value: value)
        action = ActionModule(task, mock.MagicMock(), mock.Mock(), mock.Mock(), templar, mock.Mock())
        variables = {
            "hostvars": self.hosts,
            "groups": {"inference": ["gpu-1", "gpu-2"], "gateway": ["gw-3"]},
            **self.hosts["gpu-1"],
        }
        return action.run(task_vars=variables)

    def registered(self) -> set[str]:
        found = self.cloud.elbv2.describe_target_health(TargetGroupArn=self.arn)["TargetHealthDescriptions"]
        ids = {str(one["Target"]["Id"]) for one in found if one["TargetHealth"]["State"] == "healthy"}
        return {name for name, own in self.hosts.items() if own["aws_instance_id"] in ids}

    def steps(self) -> list[tuple[str, str]]:
        if not self.journal.exists():
            return []
        events = [json.loads(line) for line in self.journal.read_text().splitlines()]
        return [(event["step"], event["host"]) for event in events if event["event"] == "step"]


@pytest.fixture
def fleet(moto: None, tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def test_hosts_are_registered_once_and_deregistered_in_one_turn(fleet: Fleet) -> None:
    first = fleet.ask("registered", "gpu-1", "gpu-2", journal=str(fleet.journal))
    assert first["changed"]
    assert fleet.registered() == {"gpu-1", "gpu-2"}
    assert first["hosts"]["gpu-1"]["summary"] == "healthy 1/1"
    assert first["diff"]["after"].count("healthy") == 2
    again = fleet.ask("registered", "gpu-1", "gpu-2", journal=str(fleet.journal))
    assert (again["changed"], again["problem"], again["problems"]) == (False, "", {})
    out = fleet.ask("deregistered", "gpu-1", journal=str(fleet.journal))
    assert out["changed"]
    assert out["hosts"]["gpu-1"]["out"]
    assert fleet.registered() == {"gpu-2"}
    assert not fleet.ask("deregistered", "gpu-1")["changed"]
    assert fleet.steps() == [("register", "gpu-1"), ("register", "gpu-2"), ("deregister", "gpu-1")]
    event = json.loads(fleet.journal.read_text().splitlines()[-1])
    assert (event["targets"][0]["group"], event["targets"][0]["port"]) == ("fleet", 8000)
    assert event["targets"][0]["state"] == "healthy"


def test_check_mode_says_what_would_move_and_moves_nothing(fleet: Fleet) -> None:
    answer = fleet.ask("registered", "gpu-1", check=True, journal=str(fleet.journal))
    assert answer["changed"]
    assert answer["diff"]["before"].endswith("unused: Target.NotRegistered\n")
    assert answer["diff"]["after"].endswith("healthy\n")
    assert (fleet.registered(), fleet.steps()) == (set(), [])
    fleet.ask("registered", "gpu-1", "gpu-2")
    answer = fleet.ask("deregistered", "gpu-1", check=True)
    assert answer["changed"]
    assert answer["hosts"]["gpu-1"]["out"]
    assert answer["diff"]["after"].endswith("draining\n")
    assert fleet.registered() == {"gpu-1", "gpu-2"}


def test_each_tier_is_in_its_own_group(fleet: Fleet) -> None:
    looked = fleet.ask("looked", "gpu-1", "gw-3")
    assert {name: [one["group"] for one in host["targets"]] for name, host in looked["hosts"].items()} == {
        "gpu-1": ["fleet"],
        "gw-3": ["fleet-gateways"],
    }
    assert looked["look"]["memberships"]
    assert not looked["changed"]


def test_the_last_healthy_host_stays_unless_that_is_accepted(fleet: Fleet) -> None:
    fleet.ask("registered", "gpu-1")
    refused = fleet.ask("deregistered", "gpu-1")
    assert refused["failed"]
    assert "Target group fleet in us-east-1 would have no healthy target without gpu-1" in refused["msg"]
    assert "-e drain_accept_downtime=true" in refused["msg"]
    assert fleet.registered() == {"gpu-1"}
    fleet.ask("deregistered", "gpu-1", accept_last=True)
    assert fleet.registered() == set()


def test_only_what_serves_and_was_gated_is_registered(fleet: Fleet) -> None:
    fleet.hosts["gpu-1"]["status"]["drain"] = {"state": "drained", "by": "operator"}
    fleet.hosts["gpu-2"]["status"]["gates"] = {}
    done = fleet.ask("registered", "gpu-1", "gpu-2", status="status")
    assert (done["changed"], fleet.registered()) == (False, set())
    fleet.hosts["gpu-1"]["status"]["drain"] = None
    fleet.hosts["gpu-2"]["status"]["gates"] = PASSED
    assert fleet.ask("registered", "gpu-1", "gpu-2", status="status")["changed"]
    assert fleet.registered() == {"gpu-1", "gpu-2"}


def test_a_host_that_another_controllers_rollout_holds_is_left_to_it(fleet: Fleet) -> None:
    claim = {"id": "r", "verb": "site", "who": "a", "controller": "desk:/r", "since": "2027-01-15T08:00:00Z"}
    fleet.hosts["gpu-1"]["status"]["rollout"] = claim
    assert not fleet.ask("registered", "gpu-1", status="status", controller="here:/r")["changed"]
    assert fleet.ask("registered", "gpu-1", status="status", controller="desk:/r", check=True)["changed"]
    assert fleet.ask("registered", "gpu-1", status="status", take_over=True, check=True)["changed"]
    claim["held"] = False  # type: ignore[assignment]
    assert fleet.ask("registered", "gpu-1", status="status", controller="here:/r")["changed"]


def test_an_instance_of_a_port_that_others_serve_leaves_the_group_alone(fleet: Fleet) -> None:
    own = fleet.hosts["gpu-1"]
    own["fleet_instances"] = [{"port": 8000}, {"port": 8000}]
    own["status"]["instances"] = [SERVING, {**SERVING, "index": 1, "name": "vllm-1"}]
    fleet.ask("registered", "gpu-1", "gpu-2")
    left = fleet.ask("deregistered", "gpu-1", instances={"gpu-1": [0]}, status="status")
    assert (left["changed"], left["hosts"]["gpu-1"]["out"]) == (False, False)
    own["status"]["instances"] = [SERVING]
    assert fleet.ask("deregistered", "gpu-1", instances={"gpu-1": [0]}, status="status")["hosts"]["gpu-1"]["out"]


@pytest.mark.parametrize("report", [False, True])
def test_a_misspelt_group_is_said_at_once(fleet: Fleet, report: bool) -> None:
    fleet.hosts["gpu-1"]["fleet_target_groups"] = [{"name": "flete"}]
    result = fleet.ask("deregistered", "gpu-1", report=report, journal=str(fleet.journal))
    said = "There is no target group flete in us-east-1, where gpu-1 is. Is it fleet? Correct fleet_target_groups."
    assert result.get("failed", False) is not report
    assert result["problem" if report else "msg"] == said
    if report:
        assert json.loads(fleet.journal.read_text())["problem"] == said


def test_a_group_without_a_listener_and_a_foreign_port_are_refused(fleet: Fleet) -> None:
    fleet.cloud.make_group("idle", port=8000)
    fleet.hosts["gpu-1"]["fleet_target_groups"] = [{"name": "idle"}]
    assert "is used by no listener (Target.NotInUse)" in fleet.ask("looked", "gpu-1")["msg"]
    target = {"Id": fleet.hosts["gpu-2"]["aws_instance_id"], "Port": 80}
    fleet.cloud.elbv2.register_targets(TargetGroupArn=fleet.arn, Targets=[target])
    assert "gpu-2 is in target group fleet in us-east-1 with port 80" in fleet.ask("looked", "gpu-2")["msg"]


def test_without_groups_or_in_mode_health_nothing_is_done(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "ansible_collections.inference.fleet.plugins.plugin_utils.aws.target_groups.open_service",
        lambda *_given: pytest.fail("AWS was asked"),
    )
    fleet.hosts["gpu-1"]["balancer_mode"] = "health"
    del fleet.hosts["gpu-2"]["fleet_target_groups"]
    for state in ("looked", "deregistered", "registered"):
        done = fleet.ask(state, "gpu-1", "gpu-2")
        assert (done["changed"], done["hosts"], done["problem"]) == (False, {}, "")


def test_a_mode_and_a_host_that_cannot_be_are_refused(fleet: Fleet) -> None:
    fleet.hosts["gpu-1"]["balancer_mode"] = "lame"
    assert "valid are registration, health" in fleet.ask("looked", "gpu-1")["msg"]
    assert fleet.ask("looked", "gpu-9")["msg"] == "hosts names gpu-9, which the inventory does not have."


def test_the_documentation_has_every_option() -> None:
    documented = yaml.safe_load(target_group.DOCUMENTATION)["options"]
    assert documented.keys() == ARGUMENTS.keys()
    for name, option in ARGUMENTS.items():
        assert documented[name]["type"] == option["type"], name
        assert documented[name].get("default") == option.get("default"), name
