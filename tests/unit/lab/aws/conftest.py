"""The lab's AWS on loopback, whose seconds pass faster."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import boto3
import pytest

from tests.ports import free_port
from tests.project import ROOT

REGION = "us-east-1"
SPEED = 40
PATIENCE = 300.0
#: A minute and a half here: what drains drains as long as a test looks.
LONGEST_DELAY = 3600
#: Instances have addresses of loopback, so that a real server can be behind each of them. Groups take the lowest.
NETWORK = "127.66.0.0/24"


class Cloud:
    """A running server of lab.aws, and what the tests make in it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._numbers = itertools.count(100)
        vpc = self.client("ec2").create_vpc(CidrBlock=NETWORK)["Vpc"]["VpcId"]
        self.vpc = vpc
        self.subnet = self.client("ec2").create_subnet(VpcId=vpc, CidrBlock=NETWORK)["Subnet"]["SubnetId"]

    def client(self, service: str) -> t.Any:
        connect: t.Any = boto3.client
        return connect(
            service, region_name=REGION, endpoint_url=self.url, aws_access_key_id="lab", aws_secret_access_key="lab"
        )

    def instance(self) -> tuple[str, str]:
        """A running instance: its id and its address."""
        address = f"127.66.0.{next(self._numbers)}"
        made = self.client("ec2").run_instances(
            ImageId="ami-0abcdef1234567890", MinCount=1, MaxCount=1, SubnetId=self.subnet, PrivateIpAddress=address
        )
        return str(made["Instances"][0]["InstanceId"]), address

    def group(self, name: str, port: int, *, listener: int = 0, delay: int = LONGEST_DELAY, **settings: t.Any) -> str:
        """A target group's ARN; with a listener on that port of a balancer of its own."""
        elb = self.client("elbv2")
        wanted: dict[str, t.Any] = {
            "Protocol": "HTTP",
            "VpcId": self.vpc,
            "HealthCheckPath": "/health",
            "HealthCheckIntervalSeconds": 5,
            "HealthCheckTimeoutSeconds": 2,
            "HealthyThresholdCount": 2,
            "UnhealthyThresholdCount": 2,
        }
        made = elb.create_target_group(Name=name, Port=port, **{**wanted, **settings})
        arn = str(made["TargetGroups"][0]["TargetGroupArn"])
        self.delay(arn, delay)
        if listener:
            balancer = elb.create_load_balancer(Name=name, Subnets=[self.subnet])["LoadBalancers"][0]
            action = {"Type": "forward", "TargetGroupArn": arn}
            elb.create_listener(
                LoadBalancerArn=balancer["LoadBalancerArn"], Protocol="HTTP", Port=listener, DefaultActions=[action]
            )
        return arn

    def delay(self, group: str, seconds: int) -> None:
        """Set a group's deregistration delay."""
        pair = {"Key": "deregistration_delay.timeout_seconds", "Value": str(seconds)}
        self.client("elbv2").modify_target_group_attributes(TargetGroupArn=group, Attributes=[pair])

    def health(self, group: str, **which: t.Any) -> dict[tuple[str, int], tuple[str, str]]:
        """State and reason of a group's targets."""
        found = self.client("elbv2").describe_target_health(TargetGroupArn=group, **which)["TargetHealthDescriptions"]
        return {
            (one["Target"]["Id"], one["Target"]["Port"]): (
                one["TargetHealth"]["State"],
                one["TargetHealth"].get("Reason", ""),
            )
            for one in found
        }


def wait_for(look: t.Callable[[], t.Any], expected: t.Any) -> None:
    """Look until it is as expected."""
    deadline = time.monotonic() + PATIENCE
    while (found := look()) != expected:
        assert time.monotonic() < deadline, f"{found} instead of {expected}"
        time.sleep(0.02)


@contextlib.contextmanager
def serve(place: Path, *options: str) -> t.Iterator[Cloud]:
    """Run the lab's AWS for a block."""
    port = free_port()
    log = place / "aws.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "lab.aws.server", "--port", str(port), "--speed", str(SPEED), *options],
            cwd=ROOT,
            env={**os.environ, "MOTO_EC2_LOAD_DEFAULT_AMIS": "false"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield Cloud(port)
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Cloud]:
    with serve(tmp_path_factory.mktemp("aws")) as running:
        yield running
