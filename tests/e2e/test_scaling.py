"""A fleet that scales: hosts of an Auto Scaling group join after their gate and leave after their drain, while clients
that never retry lose nothing. The service and its playbooks are the real ones; the engines are the stand-in, because
real ones add nothing here and take half a minute to start.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest

from lab import ec2, settings, state
from tests import fleet_events
from tests.e2e.conftest import Fleet
from tests.e2e.rollouts import PATIENCE, Playbook, Rollout, Traffic, nothing_was_lost
from tests.e2e.test_rollouts import RESTART
from tests.fakes.standin.lab import StandinLab, inventories
from tests.project import ROOT

pytestmark = pytest.mark.long

GROUP = "pool"


class Scaled(Fleet):
    """A fleet with an Auto Scaling group, and the service that lets its hosts join and leave."""

    def __init__(self, environment: dict[str, str], inventory: t.Sequence[str], place: Path) -> None:
        super().__init__(environment, inventory)
        self.place = place
        self.service: subprocess.Popen[bytes] | None = None

    def scale(self, count: int) -> None:
        done = self.lab("scale", "--name", self.name, GROUP, str(count))
        assert done.code == 0, done.output

    def states(self) -> dict[str, str]:
        """The lifecycle states of the group's instances."""
        scaling = ec2.client(state.require(self.name), "autoscaling")
        found = scaling.describe_auto_scaling_instances()["AutoScalingInstances"]
        return {one["InstanceId"]: one["LifecycleState"] for one in found}

    def targets(self) -> dict[str, str]:
        """The states of the group's instances in the target group."""
        elb = ec2.client(state.require(self.name), "elbv2")
        (group,) = elb.describe_target_groups(Names=["fleet"])["TargetGroups"]
        found = elb.describe_target_health(TargetGroupArn=group["TargetGroupArn"])["TargetHealthDescriptions"]
        return {one["Target"]["Id"]: one["TargetHealth"]["State"] for one in found}

    def is_protected(self, instance: str) -> bool:
        """Whether the group may not end it when it scales in."""
        scaling = ec2.client(state.require(self.name), "autoscaling")
        (found,) = scaling.describe_auto_scaling_instances(InstanceIds=[instance])["AutoScalingInstances"]
        return bool(found["ProtectedFromScaleIn"])

    def shorten_deregistration(self, seconds: int) -> None:
        """Have a target that leaves drain for less than the group's five minutes: requests here are short."""
        elb = ec2.client(state.require(self.name), "elbv2")
        (group,) = elb.describe_target_groups(Names=["fleet"])["TargetGroups"]
        delay = {"Key": "deregistration_delay.timeout_seconds", "Value": str(seconds)}
        elb.modify_target_group_attributes(TargetGroupArn=group["TargetGroupArn"], Attributes=[delay])

    def start_service(self) -> None:
        lab = state.require(self.name)
        queue = ec2.client(lab, "sqs").get_queue_url(QueueName=settings.QUEUE)["QueueUrl"]
        own = {
            "queue": queue,
            "region": ec2.REGION,
            "groups": [GROUP],
            "endpoint": lab.ec2_endpoint,
            "state": str(self.place),
            "directory": str(ROOT),
            "command": ["ansible-playbook", *self.inventory, "-e", "engine=vllm"],
            "playbooks": {"join": "playbooks/join.yml", "leave": "playbooks/leave.yml"},
            "sweep": 10,
            "wait": 5,
        }
        path = fleet_events.write_settings(self.place, own)
        with (self.place / "log").open("ab") as log:
            self.service = subprocess.Popen(
                [sys.executable, fleet_events.PROGRAM, "--settings", path],
                env=self.environment,
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def stop_service(self, number: int = signal.SIGTERM) -> None:
        if self.service is not None and self.service.poll() is None:
            self.service.send_signal(number)
            self.service.wait(120)

    def said(self) -> str:
        """What the service said, and the playbooks that it ran."""
        logs = sorted((self.place / "runs").glob("*.log")) if (self.place / "runs").exists() else []
        parts = [path.read_text(errors="replace")[-6000:] for path in logs]
        return "\n".join([(self.place / "log").read_text(errors="replace"), *parts])

    def wait_until(self, look: t.Callable[[], t.Any]) -> t.Any:
        deadline = time.monotonic() + PATIENCE
        while not (found := look()):
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.5)
        return found

    def in_service(self, count: int) -> list[str]:
        """Wait until so many hosts of the group, and no others, are in service and healthy; their ids."""

        def look() -> list[str]:
            states, targets = self.states(), self.targets()
            ready = [one for one, now in states.items() if now == "InService" and targets.get(one) == "healthy"]
            return ready if len(ready) == len(states) == count else []

        return list(self.wait_until(look))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Scaled]:
    with StandinLab("scaling", "10.224.0.0/24", hosts=1, balancer="registration") as lab:
        made = Scaled(lab.environment, inventories(), tmp_path_factory.mktemp("events"))
        deployed = lab.site()
        assert deployed.code == 0, deployed.output
        made.read_environment()
        made.shorten_deregistration(20)
        made.scale(1)
        made.start_service()
        try:
            made.in_service(1)
            yield made
        finally:
            made.stop_service()


def test_hosts_join_after_their_gate_and_leave_after_their_drain(fleet: Scaled, tmp_path: Path) -> None:
    """With the host that no group has, the fleet goes from 2 hosts to 3 and back."""
    before = set(fleet.states())
    clients = Traffic(fleet.environment, tmp_path / "traffic.json", 4, 5)
    fleet.scale(2)
    (new,) = set(fleet.wait_until(lambda: set(fleet.states()) > before and fleet.states())) - before
    assert fleet.targets().get(new) is None, "no requests may come before the gate"
    fleet.in_service(2)
    assert fleet.health(new) == "200"
    gates = fleet.on(new, "ls /var/lib/inference/gate")
    assert gates
    listed = fleet.run("ansible-inventory", *fleet.inventory, "--graph", "inference")
    assert new in listed.output
    fleet.scale(1)
    (stays,) = fleet.in_service(1)
    report = clients.stop()
    assert nothing_was_lost(report)
    (left,) = (before | {new}) - {stays}
    log = (fleet.place / "runs" / f"{left}.leave.log").read_text()
    assert "Nothing was in flight." in log


def test_a_join_that_is_killed_with_its_service_is_done_by_the_next_one(fleet: Scaled, tmp_path: Path) -> None:
    count = len(fleet.states())
    before = set(fleet.states())
    clients = Traffic(fleet.environment, tmp_path / "traffic.json", 2, 5)
    fleet.scale(count + 1)
    (new,) = set(fleet.wait_until(lambda: set(fleet.states()) > before and fleet.states())) - before
    log = fleet.place / "runs" / f"{new}.join.log"
    fleet.wait_until(lambda: log.exists() and "TASK [Prepare it]" in log.read_text())
    fleet.stop_service(signal.SIGKILL)
    fleet.start_service()
    fleet.in_service(count + 1)
    fleet.scale(count)
    fleet.in_service(count)
    assert nothing_was_lost(clients.stop())


def test_a_host_that_fails_its_gate_is_given_up_and_another_one_joins(fleet: Scaled) -> None:
    count = len(fleet.states())
    before = set(fleet.states())
    # By hand, as its first run, with an engine that answers wrong. The service must not be faster.
    fleet.stop_service()
    fleet.scale(count + 1)
    (new,) = set(fleet.wait_until(lambda: set(fleet.states()) > before and fleet.states())) - before
    wrong = json.dumps({"fleet_admit": new, "vllm_environment": {"FAKE_ENGINE_WRONG_ANSWER": "1"}})
    failed = Playbook(
        fleet.environment, fleet.place, *fleet.inventory, "playbooks/join.yml", "-l", f"*{new}", "-e", wrong
    ).wait()
    assert failed.code != 0
    assert "Its launch hook was abandoned, so the group ends it." in failed.output
    # From here on the service has to let it go: its group waits for the other hook.
    fleet.start_service()
    fleet.wait_until(lambda: new not in fleet.states())
    assert fleet.targets().get(new) != "healthy"
    records = state.require(fleet.name).directory / "rollouts" / "scaling.jsonl"
    (event,) = [one for one in map(json.loads, records.read_text().splitlines()) if one["event"] == "abandoned"]
    assert event["instance"] == new
    assert "answer" in event["reason"]
    fleet.in_service(count + 1)
    fleet.scale(count)
    fleet.in_service(count)


def test_a_rollout_protects_its_hosts_from_scale_in_and_any_later_run_takes_that_back(
    fleet: Scaled, tmp_path: Path
) -> None:
    (member, *_others) = fleet.in_service(len(fleet.states()))
    # The group's deregistration delay is short here, for tests that wait for it: a rollout refuses that.
    accepted = ["-e", "rollout_accept_balancer_errors=true"]
    words = [*fleet.inventory, RESTART, "-l", f"*{member}", *accepted]
    whole = Rollout(fleet.environment, tmp_path, *words)
    whole.wait_for("step", host=f"{GROUP}_{member}", step="stop")
    assert fleet.is_protected(member)
    done = whole.wait()
    assert done.code == 0
    assert not fleet.is_protected(member)
    killed = Rollout(fleet.environment, tmp_path, *words)
    killed.wait_for("step", host=f"{GROUP}_{member}", step="stop")
    killed.kill()
    assert fleet.is_protected(member)
    later = fleet.playbook("site.yml", "-e", "engine=vllm", *accepted)
    assert later.code == 0, later.output
    assert not fleet.is_protected(member)
    fleet.in_service(len(fleet.states()))


def test_the_second_run_of_either_playbook_changes_nothing(fleet: Scaled) -> None:
    (member, *_others) = fleet.in_service(len(fleet.states()))
    again = fleet.playbook("playbooks/join.yml", "-l", f"*{member}", "-e", f"fleet_admit={member}")
    assert again.code == 0, again.output
    assert all(counts["changed"] == 0 for counts in again.recap.values()), again.output
    refused = fleet.playbook("playbooks/join.yml", "-e", f"fleet_admit={member}")
    assert refused.code != 0
    assert "Say which host: -l HOST" in refused.output
