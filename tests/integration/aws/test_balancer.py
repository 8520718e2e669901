"""The lab's balancer in a real HAProxy: who is registered decides who gets requests, and nothing is cut."""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
import tempfile
import threading
import typing as t
from pathlib import Path

import pytest

from lab import balancer, ec2, target_groups
from lab.state import Lab
from tests.ports import free_port
from tests.unit.lab.aws.conftest import LONGEST_DELAY, PATIENCE, Cloud, serve, wait_for
from tests.unit.lab.aws.targets import Answering

#: On loopback: a host's address is one that this machine has.
SUBNET = "127.77.0.0/24"


class Balanced:
    """A lab without hosts whose balancer follows the target groups; a test serves in place of the hosts."""

    def __init__(self, lab: Lab, cloud: Cloud) -> None:
        self.lab = lab
        self.cloud = cloud
        self.elb = cloud.client("elbv2")
        self.group = str(self.elb.describe_target_groups(Names=["fleet"])["TargetGroups"][0]["TargetGroupArn"])

    def instance(self, name: str) -> str:
        wanted = [{"Name": "tag:Name", "Values": [name]}]
        found = self.cloud.client("ec2").describe_instances(Filters=wanted)
        return str(found["Reservations"][0]["Instances"][0]["InstanceId"])

    def register(self, name: str) -> None:
        self.elb.register_targets(TargetGroupArn=self.group, Targets=[{"Id": self.instance(name)}])

    def deregister(self, name: str) -> None:
        self.elb.deregister_targets(TargetGroupArn=self.group, Targets=[{"Id": self.instance(name)}])

    def ask(self, path: str = "/") -> str:
        """The address that answered, or the status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.lab.balancer_port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode()
            return body if answer.status == 200 else str(answer.status)

    def answering(self) -> set[str]:
        """Who answers six requests."""
        return {self.ask() for _ in range(6)}


@pytest.fixture
def balanced(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> t.Iterator[Balanced]:
    """The parameter is for how many of AWS's seconds a deregistered target still gets requests."""
    settle = str(getattr(request, "param", 200))
    # A socket's path may have 107 characters, which pytest's own directories exceed.
    with tempfile.TemporaryDirectory(prefix="fl") as name:
        place = Path(name)
        monkeypatch.setenv("INFERENCE_FLEET_STATE", name)
        port = free_port()
        lab = Lab("b", SUBNET, balancer="registration", balancer_port=port)
        for host in ("inference-1", "inference-2"):
            lab.new_host(host, role="inference")
        lab.save()
        config = place / "haproxy.cfg"
        lab.balancer_socket.parent.mkdir()
        config.write_text(balancer.configuration(lab))
        with serve(place, "--balancer", str(lab.balancer_socket), "--settle", settle) as cloud:
            lab.ec2_port = cloud.port
            ec2.register(lab)
            target_groups.ensure(lab)
            process = subprocess.Popen(["haproxy", "-W", "-f", str(config)])
            try:
                made = Balanced(lab, cloud)
                wait_for(lambda: _listens(port), True)
                yield made
            finally:
                process.terminate()
                process.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


class InFlight:
    """A request that the target holds until it is released."""

    def __init__(self, balanced: Balanced, target: Answering) -> None:
        self._result = ""
        self._balanced = balanced
        target.hold.clear()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        wait_for(lambda: "/hold" in target.paths, True)

    def _run(self) -> None:
        try:
            self._result = self._balanced.ask("/hold")
        except (OSError, http.client.HTTPException) as error:
            self._result = type(error).__name__

    def end(self) -> str:
        """The address that answered, or what came instead."""
        self._thread.join(PATIENCE)
        return self._result


def test_registration_decides_who_gets_requests(balanced: Balanced) -> None:
    with Answering("127.77.0.11", 8000) as first, Answering("127.77.0.12", 8000) as second:
        # Both serve, and no target is registered.
        assert balanced.answering() == {"503"}
        balanced.register("inference-1")
        wait_for(balanced.answering, {first.address})
        balanced.register("inference-2")
        wait_for(balanced.answering, {first.address, second.address})
        second.status = 500
        wait_for(balanced.answering, {first.address})
        # If all are unhealthy, all get requests.
        first.status = 501
        wait_for(balanced.answering, {"500", "501"})


# Long enough for a busy machine to ask meanwhile.
@pytest.mark.parametrize("balanced", [1000], indirect=True)
def test_a_deregistered_target_gets_requests_for_a_while_and_finishes_what_it_has(balanced: Balanced) -> None:
    with Answering("127.77.0.11", 8000) as first, Answering("127.77.0.12", 8000) as second:
        balanced.cloud.delay(balanced.group, LONGEST_DELAY)
        balanced.register("inference-1")
        wait_for(balanced.answering, {first.address})
        held = InFlight(balanced, first)
        balanced.register("inference-2")
        wait_for(balanced.answering, {first.address, second.address})
        balanced.deregister("inference-1")
        # Not every part of a balancer knows at once.
        assert first.address in balanced.answering()
        wait_for(balanced.answering, {second.address})
        first.hold.set()
        assert held.end() == first.address
        balanced.register("inference-1")
        wait_for(balanced.answering, {first.address, second.address})


def test_the_end_of_the_deregistration_delay_cuts_what_is_in_flight(balanced: Balanced) -> None:
    balanced.cloud.delay(balanced.group, 100)
    with Answering("127.77.0.11", 8000) as first:
        balanced.register("inference-1")
        wait_for(balanced.answering, {first.address})
        held = InFlight(balanced, first)
        balanced.deregister("inference-1")
        assert held.end() != first.address
        assert balanced.cloud.health(balanced.group) == {}
        first.hold.set()
        assert balanced.ask() == "503"


def test_a_target_that_ends_costs_the_requests_that_it_got(balanced: Balanced) -> None:
    """The balancer never retries. It learns of it from the health checks of the target group."""
    with Answering("127.77.0.12", 8000) as second:
        with Answering("127.77.0.11", 8000) as first:
            balanced.register("inference-1")
            balanced.register("inference-2")
            wait_for(balanced.answering, {first.address, second.address})
        assert "503" in balanced.answering()
        wait_for(balanced.answering, {second.address})
