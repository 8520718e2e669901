"""playbooks/balancer.yml, the check before a rollout and the columns of status.yml, against an API, without a host."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import boto3
import pytest

from tests.inventory.conftest import REGION, Answer, Api, run
from tests.unit.plugins.plugin_utils.aws.balancers import Made, launch, make_group

Play = t.Callable[..., Answer]

DELAY = "deregistration_delay.timeout_seconds"
#: No task of a rollout comes before it that asks a host.
LOCKED = "lock | Say who is changing the fleet just now"


class Balanced:
    """Two hosts that do not answer, behind a target group in the API."""

    def __init__(self, api: Api, directory: Path) -> None:
        self.api = api
        self.made: Made = make_group(self.client)
        hosts: dict[str, dict[str, t.Any]] = {}
        for name, subnet in zip(("gpu-1", "gpu-2"), self.made.subnets):
            instance = launch(subnet, self.client)
            hosts[name] = {
                "ansible_host": "127.0.0.1",
                "ansible_port": 1,
                "aws_instance_id": instance,
                "aws_vpc_id": self.made.vpc,
                "fleet_region": REGION,
                "fleet_instance_type": "g6e.xlarge",
                "fleet_state": "running",
            }
            self.client("elbv2").register_targets(
                TargetGroupArn=self.made.group, Targets=[{"Id": instance, "Port": 8000}]
            )
        variables = {"fleet_target_groups": [{"name": "fleet", "role": "inference"}], "fleet_aws_endpoint": api.url}
        groups = {"inference": {"hosts": hosts}, "gateway": {}, "gateway_store": {}, "ring_canary": {}}
        self.source = directory / "hosts.json"
        self.source.write_text(json.dumps({"all": {"vars": variables, "children": groups}}))
        self.home = str(directory)

    def client(self, service: str) -> t.Any:
        make: t.Any = boto3.client
        return make(
            service,
            region_name=REGION,
            endpoint_url=self.api.url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def set_delay(self, seconds: int) -> None:
        self.client("elbv2").modify_target_group_attributes(
            TargetGroupArn=self.made.group, Attributes=[{"Key": DELAY, "Value": str(seconds)}]
        )

    def play(self, playbook: str, *arguments: str) -> Answer:
        settings = {"HOME": self.home, "ANSIBLE_SSH_RETRIES": "0"}
        argv = ("ansible-playbook", "-i", str(self.source), playbook, *arguments)
        return run(*argv, url=self.api.url, **settings)


@pytest.fixture
def balanced(api: Api, tmp_path: Path) -> Balanced:
    return Balanced(api, tmp_path)


def said(answer: Answer) -> str:
    return " ".join((answer.output + answer.said).split())


def test_the_playbook_shows_the_table_and_asks_no_host(balanced: Balanced) -> None:
    answer = balanced.play("playbooks/balancer.yml", "-l", "gpu-1")
    assert answer.status == 0, said(answer)
    rows = [line.split() for line in answer.output.splitlines() if line.startswith("fleet ")]
    assert ["fleet", "matcher", "200", "200", "ok", "-"] in rows
    # The host beyond the limit counts.
    assert ["fleet", "hosts", "2", "of", "2", "healthy", "all", "ok", "-"] in rows
    assert "Errors first" not in answer.output


def test_an_error_fails_the_playbook_and_its_command_repairs_it(balanced: Balanced) -> None:
    balanced.set_delay(300)
    answer = balanced.play("playbooks/balancer.yml")
    assert answer.status != 0
    command = (
        f"aws elbv2 modify-target-group-attributes --region {REGION} --target-group-arn {balanced.made.group} "
        f"--attributes Key={DELAY},Value=600"
    )
    assert command in answer.output.splitlines()
    assert "Requests are lost with these settings: fleet: deregistration delay." in said(answer)


@pytest.mark.parametrize("playbook", ["site.yml", "playbooks/rolling_restart.yml", "playbooks/rollback.yml"])
def test_a_rollout_is_refused_before_a_host_is_asked(balanced: Balanced, playbook: str) -> None:
    balanced.set_delay(300)
    answer = balanced.play(playbook)
    assert answer.status != 0
    assert "Nothing was touched. These settings of the balancer lose requests in a rollout:" in said(answer)
    assert LOCKED not in answer.output


def test_an_error_that_is_accepted_is_shown_and_the_run_goes_on(balanced: Balanced) -> None:
    balanced.set_delay(300)
    answer = balanced.play("playbooks/rolling_restart.yml", "-e", "rollout_accept_balancer_errors=true")
    assert "streams longer than 300 s would be cut" in said(answer)
    assert LOCKED in answer.output


def test_the_status_has_a_column_for_the_balancer_and_one_for_events(balanced: Balanced) -> None:
    answer = balanced.play("playbooks/status.yml")
    head = next(line for line in answer.output.splitlines() if line.startswith("host "))
    assert "balancer" in head
    assert "EC2 events (UTC)" in head
    row = next(line for line in answer.output.splitlines() if line.startswith("gpu-1 "))
    assert row[head.index("balancer") :].startswith("healthy 1/1")


def test_the_status_without_aws_has_neither(balanced: Balanced, tmp_path: Path) -> None:
    document = json.loads(balanced.source.read_text())
    document["all"]["vars"] = {}
    for own in document["all"]["children"]["inference"]["hosts"].values():
        del own["aws_instance_id"]
    balanced.source.write_text(json.dumps(document))
    answer = balanced.play("playbooks/status.yml")
    head = next(line for line in answer.output.splitlines() if line.startswith("host "))
    assert "balancer" not in head
    assert "events" not in head
    empty = balanced.play("playbooks/balancer.yml")
    assert empty.status == 0
    assert "There are no target groups" in said(empty)


def test_an_api_that_does_not_answer_is_a_note_below_the_table(balanced: Balanced) -> None:
    answer = balanced.play("playbooks/status.yml", "-e", "fleet_aws_endpoint=http://127.0.0.1:9")
    assert any(line.startswith("gpu-1 ") for line in answer.output.splitlines())
    assert "127.0.0.1:9 cannot be reached. Check region, proxy and network, then run again." in said(answer)
