"""rollout_stop_on_alarms in a playbook's run, against a CloudWatch API: what ends it before a host is asked."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import boto3
import pytest

from tests.inventory.conftest import REGION, Answer, Api, run
from tests.unit.plugins.plugin_utils.aws.cloudwatch import METRIC

Play = t.Callable[..., Answer]

#: The first task after the look at the alarms; no host has been asked before it.
LOCKED = "lock | Say who is changing the fleet just now"


@pytest.fixture
def play(api: Api, tmp_path: Path) -> Play:
    """A playbook on two hosts that do not answer, in the region of the API."""
    gone = {"ansible_host": "127.0.0.1", "ansible_port": 1, "fleet_region": REGION}
    groups = {"inference": {"hosts": {"gpu-1": gone, "gpu-2": gone}}, "gateway": {}, "gateway_store": {}}
    source = tmp_path / "hosts.json"
    source.write_text(json.dumps({"all": {"children": groups}}))

    def play(playbook: str, alarms: t.Any, **variables: str) -> Answer:
        given = json.dumps({"rollout_stop_on_alarms": alarms})
        settings = {"AWS_ENDPOINT_URL": api.url, "HOME": str(tmp_path), "ANSIBLE_SSH_RETRIES": "0"}
        return run(
            "ansible-playbook", "-i", str(source), playbook, "-e", given, url=api.url, **{**settings, **variables}
        )

    return play


def make_alarm(api: Api, name: str) -> None:
    boto3.client(
        "cloudwatch",
        region_name=REGION,
        endpoint_url=api.url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    ).put_metric_alarm(AlarmName=name, **METRIC)


def said(answer: Answer) -> str:
    return " ".join((answer.output + answer.said).split())


@pytest.mark.parametrize("playbook", ["site.yml", "playbooks/rolling_restart.yml"])
def test_an_alarm_that_does_not_exist_ends_the_run_before_a_host_is_asked(api: Api, play: Play, playbook: str) -> None:
    make_alarm(api, "fleet-5xx")
    answer = play(playbook, ["fleet-5xx", "fleet-5x"])
    assert answer.status != 0
    assert "CloudWatch has no alarm fleet-5x in us-east-1. Correct rollout_stop_on_alarms" in said(answer)
    assert LOCKED not in answer.output


def test_alarms_that_exist_end_nothing(api: Api, play: Play) -> None:
    make_alarm(api, "fleet-5xx")
    answer = play("site.yml", ["fleet-5xx"])
    assert LOCKED in answer.output
    assert "CloudWatch" not in said(answer)


def test_a_rollback_looks_at_no_alarm(play: Play) -> None:
    answer = play("playbooks/rollback.yml", ["fleet-5x"])
    assert "CloudWatch" not in said(answer)
    assert LOCKED in answer.output


def test_what_is_no_list_of_names_is_refused_with_the_other_variables(play: Play) -> None:
    answer = play("site.yml", "fleet-5xx")
    assert "rollout_stop_on_alarms is 'fleet-5xx', which is no list of alarms' names." in said(answer)
    assert LOCKED not in answer.output


def test_a_cloudwatch_out_of_reach_ends_the_run_before_a_host_is_asked(play: Play) -> None:
    answer = play("site.yml", ["fleet-5xx"], AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert "DescribeAlarms in us-east-1 was not answered (EndpointConnectionError)." in said(answer)
    assert LOCKED not in answer.output
