"""AWS on real hosts of the lab: notices where EC2 has them, requests to registered targets, hosts for a group."""

from __future__ import annotations

import json
import shlex
import time
import typing as t
import urllib.error
import urllib.request

import boto3
import pytest

from tests.integration.lab.conftest import Machine, gone, traces
from tests.project import open_directly

PATIENCE = 180.0
DATA = "http://169.254.169.254/latest/meta-data"
TOKEN = "http://169.254.169.254/latest/api/token"
SERVE = (
    "mkdir -p /srv/www && echo ok > /srv/www/health && "
    "systemd-run --quiet --unit=www --working-directory=/srv/www python3 -m http.server 8000"
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Machine]:
    made = Machine("tw", tmp_path_factory.mktemp("aws") / "state")
    try:
        made("up", "--subnet", "10.216.2.0/24", "--hosts", "1", "--balancer", "registration", "--metadata")
        yield made
    finally:
        made("down")
    assert gone(made), traces(made.name)


def exports(lab: Machine) -> dict[str, str]:
    lines = [line.removeprefix("export ") for line in lab("env").splitlines() if line.startswith("export ")]
    return {name: shlex.split(value)[0] for name, _, value in (line.partition("=") for line in lines)}


def client(lab: Machine, service: str) -> t.Any:
    given = exports(lab)
    connect: t.Any = boto3.client
    return connect(
        service,
        region_name=given["AWS_DEFAULT_REGION"],
        endpoint_url=given["AWS_ENDPOINT_URL"],
        aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
    )


def wait_for(look: t.Callable[[], t.Any], expected: t.Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while (found := look()) != expected:
        assert time.monotonic() < deadline, f"{found} instead of {expected}"
        time.sleep(0.5)


def ask_metadata(lab: Machine, host: str, path: str) -> tuple[str, str]:
    """Status and text, as a program on the host gets them."""
    token = f"$(curl --noproxy '*' -s -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' {TOKEN})"
    get = f"curl --noproxy '*' -s -w '\\n%{{http_code}}' -H \"X-aws-ec2-metadata-token: {token}\" {DATA}/{path}"
    text, _, status = lab.ssh(host, get).rpartition("\n")
    return status, text.strip()


def members(lab: Machine) -> dict[str, str]:
    (group,) = client(lab, "autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=["pool"])[
        "AutoScalingGroups"
    ]
    return {one["InstanceId"]: one["LifecycleState"] for one in group["Instances"]}


def hosts(lab: Machine) -> set[str]:
    """The running hosts that a group has launched."""
    return {line.split()[0] for line in lab("status").splitlines() if line.startswith("i-") and " running " in line}


def test_notices_are_where_ec2_has_them(lab: Machine) -> None:
    without = lab.ssh("inference-1", f"curl --noproxy '*' -s -o /dev/null -w '%{{http_code}}' {DATA}/instance-id")
    assert without == "401"
    assert ask_metadata(lab, "inference-1", "local-ipv4") == ("200", "10.216.2.11")
    assert ask_metadata(lab, "inference-1", "spot/instance-action")[0] == "404"
    lab("announce", "inference-1", "spot", "--in", "90")
    status, text = ask_metadata(lab, "inference-1", "spot/instance-action")
    assert (status, json.loads(text)["action"]) == ("200", "terminate")
    lab("announce", "inference-1", "nothing")
    assert ask_metadata(lab, "inference-1", "spot/instance-action")[0] == "404"


def test_registration_decides_who_gets_requests(lab: Machine) -> None:
    url = exports(lab)["OPENAI_BASE_URL"].removesuffix("/v1") + "/health"

    def ask() -> int:
        try:
            with open_directly(urllib.request.Request(url), timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    lab.ssh("inference-1", SERVE)
    assert ask() == 503
    elb = client(lab, "elbv2")
    group = elb.describe_target_groups(Names=["fleet"])["TargetGroups"][0]["TargetGroupArn"]
    instance = ask_metadata(lab, "inference-1", "instance-id")[1]
    elb.register_targets(TargetGroupArn=group, Targets=[{"Id": instance}])
    wait_for(ask, 200)
    assert "target group fleet: inference-1 port 8000 healthy" in lab("status")
    # A further `up` reloads nothing: the balancer keeps its targets.
    lab("up")
    assert ask() == 200
    elb.deregister_targets(TargetGroupArn=group, Targets=[{"Id": instance}])
    wait_for(ask, 503)


def test_a_group_has_a_host_for_each_instance_until_its_hooks_are_done(lab: Machine) -> None:
    elb, scaling = client(lab, "elbv2"), client(lab, "autoscaling")
    group = elb.describe_target_groups(Names=["fleet"])["TargetGroups"][0]["TargetGroupArn"]
    delay = {"Key": "deregistration_delay.timeout_seconds", "Value": "1"}
    elb.modify_target_group_attributes(TargetGroupArn=group, Attributes=[delay])
    lab("scale", "pool", "2")
    first, second = members(lab)
    wait_for(lambda: hosts(lab), {first, second})
    assert set(members(lab).values()) == {"Pending:Wait"}
    assert {lab.ssh(host, "hostname") for host in (first, second)} == {first, second}
    assert ask_metadata(lab, first, "autoscaling/target-lifecycle-state") == ("200", "InService")

    def complete(hook: str, instance: str) -> None:
        scaling.complete_lifecycle_action(
            AutoScalingGroupName="pool",
            LifecycleHookName=hook,
            InstanceId=instance,
            LifecycleActionResult="CONTINUE",
        )

    complete("join", first)
    complete("join", second)
    lab("scale", "pool", "1")
    wait_for(lambda: sorted(members(lab).values()), ["InService", "Terminating:Wait"])
    (leaving,) = (instance for instance, state in members(lab).items() if state == "Terminating:Wait")
    wait_for(lambda: ask_metadata(lab, leaving, "autoscaling/target-lifecycle-state"), ("200", "Terminated"))
    complete("leave", leaving)
    wait_for(lambda: hosts(lab), {first, second} - {leaving})
