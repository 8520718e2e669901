"""The program of the service against the lab's AWS over HTTP: SQS, EventBridge, and Auto Scaling with its hooks.

Its playbooks are a stand-in that does what join.yml and leave.yml do in AWS, because the real ones need a host.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest

from tests import fleet_events
from tests.integration.aws.conftest import Scaled
from tests.unit.lab.aws.conftest import REGION

PATIENCE = 600.0

#: The stand-in for ansible-playbook. What it is to do is in a file: "hang", "fail", "gate", "keep" or nothing.
PLAYBOOK = """\
import json, os, sys, time
import boto3
verb, limit, variables = sys.argv[1], sys.argv[3], json.loads(sys.argv[5])
instance = limit.lstrip("*")
assert variables["fleet_admit"] == instance
with open("runs", "a") as file:
    file.write(f"{verb} {instance} {variables.get('leave_within', '')}\\n")
with open(f"pid-{instance}", "w") as file:
    file.write(str(os.getpid()))
def wish():
    for name in (f"{verb}-{instance}", verb):
        if os.path.exists(name):
            return open(name).read()
    return ""
while wish() == "hang":
    time.sleep(0.1)
if wish() == "fail":
    sys.exit("fatal: [host]: FAILED! => the fleet is held by another run")
url = os.environ["STAND_IN"]
client = boto3.client("autoscaling", "us-east-1", endpoint_url=url, aws_access_key_id="x", aws_secret_access_key="x")
verdict, result = {"join": ("joined", "CONTINUE"), "leave": ("left", "CONTINUE")}[verb]
if wish() == "gate":
    verdict, result = "abandoned", "ABANDON"
if wish() == "keep":
    verdict, result = "kept", ""
if result:
    group = client.describe_auto_scaling_instances(InstanceIds=[instance])["AutoScalingInstances"]
    waits = group and group[0]["LifecycleState"] == {"join": "Pending:Wait", "leave": "Terminating:Wait"}[verb]
    if waits:
        client.complete_lifecycle_action(
            AutoScalingGroupName=group[0]["AutoScalingGroupName"], LifecycleHookName=verb, InstanceId=instance,
            LifecycleActionResult=result,
        )
with open(variables["scaling_outcome"], "w") as file:
    reason = "the golden answer is wrong" if verdict in ("abandoned", "kept") else ""
    json.dump({"verdict": verdict, "reason": reason}, file)
sys.exit(0 if result == "CONTINUE" else 2)
"""


@dataclasses.dataclass
class Service:
    """The program, with its files in a directory."""

    scaled: Scaled
    place: Path
    process: subprocess.Popen[bytes] | None = None

    def settings(self, **further: t.Any) -> Path:
        (self.place / "playbook.py").write_text(PLAYBOOK)
        own = {
            "queue": self.scaled.queue,
            "region": REGION,
            "groups": [self.scaled.name],
            "endpoint": self.scaled.cloud.url,
            "state": str(self.place / "state"),
            "directory": str(self.place),
            "command": [sys.executable, "playbook.py"],
            "playbooks": {"join": "join", "leave": "leave"},
            "sweep": 2,
            "wait": 1,
        }
        return fleet_events.write_settings(self.place, {**own, **further})

    def start(self, **further: t.Any) -> None:
        with (self.place / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, fleet_events.PROGRAM, "--settings", self.settings(**further)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "STAND_IN": self.scaled.cloud.url, "AWS_EC2_METADATA_DISABLED": "true"},
            )

    def check(self, **further: t.Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, fleet_events.PROGRAM, "--settings", self.settings(**further), "--check"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "AWS_EC2_METADATA_DISABLED": "true"},
        )

    def kill(self, number: int = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    def wish(self, name: str, what: str) -> None:
        """What a playbook is to do, for all instances (join, leave) or for one (join-ID)."""
        (self.place / name).write_text(what)

    def runs(self) -> list[str]:
        path = self.place / "runs"
        return [line.strip() for line in path.read_text().splitlines()] if path.exists() else []

    def events(self, *kinds: str) -> list[dict[str, t.Any]]:
        path = self.place / "state" / "journal.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        events = [json.loads(line) for line in lines]
        return [event for event in events if event["event"] in kinds]

    @property
    def log(self) -> str:
        return (self.place / "log").read_text()


@pytest.fixture
def service(scaled: Scaled, tmp_path: Path) -> t.Iterator[Service]:
    own = Service(scaled, tmp_path)
    for name in ("join", "leave"):
        (tmp_path / name).touch()
    try:
        yield own
    finally:
        if own.process is not None and own.process.poll() is None:
            own.process.terminate()
            own.process.wait(60)
        # Playbooks that a killed service left behind.
        for name in ("join", "leave"):
            own.wish(name, "")
        for path in tmp_path.glob("*-i-*"):
            path.write_text("")


def wait_until(look: t.Callable[[], t.Any], service: Service) -> None:
    deadline = time.monotonic() + PATIENCE
    while not look():
        assert time.monotonic() < deadline, service.log
        time.sleep(0.1)


def test_a_host_joins_and_leaves(service: Service) -> None:
    scaled = service.scaled
    service.start()
    instance = scaled.start_one()
    wait_until(lambda: scaled.states() == {instance: "InService"}, service)
    wait_until(lambda: scaled.left() == 0, service)
    scaled.scale(0)
    wait_until(lambda: scaled.states() == {}, service)
    wait_until(lambda: scaled.left() == 0, service)
    assert service.runs() == [f"join {instance}", f"leave {instance}"]
    assert service.kill(signal.SIGTERM) == 0
    assert "Stopping." in service.log


def test_what_no_message_said_is_found_by_the_sweep(service: Service) -> None:
    scaled = service.scaled
    instance = scaled.start_one()
    scaled.sqs.purge_queue(QueueUrl=scaled.queue)
    service.start()
    wait_until(lambda: scaled.states() == {instance: "InService"}, service)


def test_heartbeats_keep_a_hook_waiting_beyond_its_timeout(
    tmp_path: Path, make_scaled: t.Callable[[dict[str, int]], Scaled]
) -> None:
    # The shortest that AWS takes. Without a heartbeat the group would end the instance then, and start another.
    timeout = 30
    service = Service(make_scaled({"join": timeout, "leave": timeout}), tmp_path)
    service.wish("join", "hang")
    service.start()
    began = time.monotonic()
    try:
        instance = service.scaled.start_one()
        wait_until(lambda: service.runs() == [f"join {instance}"], service)
        wait_until(lambda: time.monotonic() - began > 1.5 * timeout, service)
        assert service.scaled.states() == {instance: "Pending:Wait"}
        service.wish("join", "")
        wait_until(lambda: service.scaled.states() == {instance: "InService"}, service)
    finally:
        service.wish("join", "")
        service.kill(signal.SIGTERM)


def test_a_failed_gate_ends_the_instance_and_the_group_starts_another(service: Service) -> None:
    scaled = service.scaled
    service.wish("join", "gate")
    service.start()
    first = scaled.start_one()
    wait_until(lambda: first not in scaled.states() and scaled.states(), service)
    (abandoned, *_others) = service.events("join_abandoned")
    assert abandoned["instance"] == first
    assert "the golden answer is wrong" in abandoned["said"]
    service.wish("join", "")
    wait_until(lambda: set(scaled.states().values()) == {"InService"}, service)


def test_a_kept_host_goes_on_waiting_and_nothing_else_runs_for_it(service: Service) -> None:
    scaled = service.scaled
    service.wish("join", "keep")
    service.start()
    instance = scaled.start_one()
    wait_until(lambda: service.events("join_kept"), service)
    wait_until(lambda: scaled.left() == 0, service)
    looks = len(service.runs())
    wait_until(lambda: scaled.states() == {instance: "Pending:Wait"}, service)
    assert service.runs() == [f"join {instance}"] * looks == [f"join {instance}"]


def test_a_playbook_that_could_not_begin_is_repeated_and_given_up_when_its_time_is_over(service: Service) -> None:
    scaled = service.scaled
    service.wish("join", "fail")
    service.start(give_up=10)
    first = scaled.start_one()
    wait_until(lambda: service.events("abandoned"), service)
    (event, *_others) = service.events("abandoned")
    assert event["instance"] == first
    assert event["said"].startswith(f"{first} of group {scaled.name} is given up. It did not join within")
    assert "the fleet is held by another run" in event["said"]
    wait_until(lambda: first not in scaled.states(), service)


def kill_in_a_join(service: Service) -> str:
    """Kill the service while its playbook lets an instance join, which lives on; the instance's id."""
    service.wish("join", "hang")
    service.start()
    instance = service.scaled.start_one()
    wait_until(lambda: service.runs() == [f"join {instance}"], service)
    service.kill()
    return instance


def test_a_service_that_is_killed_in_a_join_goes_on_at_its_next_start(service: Service) -> None:
    scaled, instance = service.scaled, kill_in_a_join(service)
    # The playbook lives on, as it does not under systemd. A second one beside it would be two changes of one host.
    service.start()
    wait_until(lambda: service.events("trouble"), service)
    assert "still runs" in service.events("trouble")[0]["said"]
    assert service.runs() == [f"join {instance}"]
    assert scaled.states() == {instance: "Pending:Wait"}
    service.wish("join", "")
    wait_until(lambda: scaled.states() == {instance: "InService"}, service)
    wait_until(lambda: scaled.left() == 0, service)


def test_a_service_that_is_killed_together_with_its_playbook_runs_it_again(service: Service) -> None:
    scaled, instance = service.scaled, kill_in_a_join(service)
    os.kill(int((service.place / f"pid-{instance}").read_text()), signal.SIGKILL)
    service.wish("join", "")
    service.start()
    wait_until(lambda: scaled.states() == {instance: "InService"}, service)
    assert service.runs() == [f"join {instance}"] * 2


def test_messages_may_come_twice_late_and_in_another_order(service: Service) -> None:
    scaled = service.scaled
    kinds = {"launch": "EC2 Instance-launch Lifecycle Action", "terminate": "EC2 Instance-terminate Lifecycle Action"}

    def event(kind: str, instance: str) -> str:
        detail = {"EC2InstanceId": instance, "AutoScalingGroupName": scaled.name}
        return json.dumps({"source": "aws.autoscaling", "detail-type": kinds[kind], "detail": detail})

    instance = scaled.start_one()
    for kind in ("terminate", "launch", "launch", "terminate"):
        scaled.send(event(kind, instance))
    # An instance of a group that is none of ours, and one that is gone.
    scaled.send(event("launch", "i-0123456789abcdef0"))
    scaled.send('{"Event": "autoscaling:TEST_NOTIFICATION"}')
    service.start()
    wait_until(lambda: scaled.states() == {instance: "InService"}, service)
    wait_until(lambda: scaled.left() == 0, service)
    scaled.send(event("launch", instance))
    wait_until(lambda: scaled.left() == 0, service)
    assert service.runs() == [f"join {instance}"]


def test_a_message_that_says_nothing_is_named_once_and_goes_to_the_dead_letters(service: Service) -> None:
    scaled = service.scaled
    scaled.send("hello")
    service.start()
    wait_until(lambda: service.events("not_understood"), service)
    # Its other receipts, sooner than the service's visibility would let them come.
    for _time in range(6):
        for one in scaled.sqs.receive_message(QueueUrl=scaled.queue, VisibilityTimeout=0).get("Messages", []):
            scaled.sqs.change_message_visibility(
                QueueUrl=scaled.queue, ReceiptHandle=one["ReceiptHandle"], VisibilityTimeout=0
            )
    instance = scaled.start_one()
    wait_until(lambda: scaled.states() == {instance: "InService"}, service)
    assert len(service.events("not_understood")) == 1
    assert "The message is not JSON: 'hello'" in service.events("not_understood")[0]["said"]


def test_a_spot_notice_lets_the_host_leave_at_once(service: Service) -> None:
    scaled = service.scaled
    service.start()
    instance = scaled.start_one()
    wait_until(lambda: scaled.states() == {instance: "InService"}, service)
    notice = {"detail-type": "EC2 Spot Instance Interruption Warning", "detail": {"instance-id": instance}}
    scaled.send(json.dumps(notice))
    scaled.send(json.dumps(notice))
    wait_until(lambda: f"leave {instance} 90" in service.runs(), service)
    wait_until(lambda: scaled.left() == 0, service)
    assert service.runs() == [f"join {instance}", f"leave {instance} 90"]


def test_several_hosts_join_at_once_but_no_more_than_allowed(service: Service) -> None:
    scaled = service.scaled
    service.wish("join", "hang")
    service.start(parallel=2)
    scaled.scale(3)
    wait_until(lambda: len(service.runs()) == 2, service)
    # Two more turns of the loop, with a sweep.
    last = len(service.runs())
    assert last == 2
    service.wish("join", "")
    wait_until(lambda: list(scaled.states().values()) == ["InService"] * 3, service)
    assert len(service.runs()) == len(set(service.runs())) == 3


def test_aws_out_of_reach_is_said_once_and_ends_nothing(service: Service) -> None:
    scaled = service.scaled
    endpoint = scaled.cloud.url
    # Nothing listens there.
    service.start(endpoint="http://127.0.0.1:9")
    wait_until(lambda: len(service.events("trouble")) >= 2, service)
    said = {event["said"] for event in service.events("trouble")}
    assert len(said) == len(service.events("trouble")), "each once"
    assert all("127.0.0.1:9 cannot be reached" in one for one in said)
    assert service.process is not None
    assert service.process.poll() is None
    service.kill(signal.SIGTERM)
    service.start(endpoint=endpoint)
    instance = scaled.start_one()
    wait_until(lambda: scaled.states() == {instance: "InService"}, service)


def test_the_check_names_what_is_wrong(service: Service, make_scaled: t.Callable[[dict[str, int]], Scaled]) -> None:
    assert service.check().returncode == 0, service.check().stderr
    found = service.check(groups=["nothing"])
    assert found.returncode == 1
    assert f"There is no Auto Scaling group nothing in {REGION}." in found.stderr
    found = service.check(queue=f"{service.scaled.queue}x")
    assert "queue" in found.stderr
    found = service.check(queue=service.scaled.dead)
    assert "has no dead-letter queue" in found.stderr
    found = service.check(groups=[make_scaled({"join": 1200}).name])
    assert "has no hook for autoscaling:EC2_INSTANCE_TERMINATING with a name of fleet_scaling_hooks" in found.stderr
    found = service.check(playbooks={"join": "join.yml", "leave": "leave"})
    assert f"There is no join.yml in {service.place}" in found.stderr


def test_settings_of_another_version_are_refused(service: Service) -> None:
    path = service.settings()
    path.write_text(json.dumps({**json.loads(path.read_text()), "colour": "red"}))
    done = subprocess.run(
        [sys.executable, fleet_events.PROGRAM, "--settings", path],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "of another version: colour differ" in done.stderr
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    done = subprocess.run(
        [sys.executable, fleet_events.PROGRAM, "--settings", path],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "cannot be read: No such file or directory. Run playbooks/fleet_events.yml." in done.stderr
