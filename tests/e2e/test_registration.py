"""Rollouts on a fleet whose target groups decide who gets requests.

Clients that never retry lose nothing, and each host that serves is registered. With the stand-in for the engines: a
real one adds nothing here, and takes half a minute to start.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import threading
import time
import typing as t
import urllib.parse
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import steps

from lab import ec2, state
from tests.e2e.conftest import Fleet
from tests.e2e.rollouts import PATIENCE, Rollout, Traffic, nothing_was_lost
from tests.e2e.test_rollouts import RESTART
from tests.fakes.standin.lab import StandinLab, inventories

pytestmark = pytest.mark.long

HOSTS = ("inference-1", "inference-2")
REGISTERED = dict.fromkeys(HOSTS, "healthy")
# The last one of an instance only records the result: too short to be hit.
STEPS = [step.name for step in steps.STEPS if step.name != "confirm"]
EXPIRED = b"""<ErrorResponse><Error><Type>Sender</Type><Code>ExpiredToken</Code>
<Message>The security token included in the request is expired</Message></Error></ErrorResponse>"""


class Registered(Fleet):
    """A fleet and its target group."""

    def targets(self) -> dict[str, str]:
        """The state of each host in the target group; one that is not in it is left out."""
        lab = state.require(self.name)
        elb = ec2.client(lab, "elbv2")
        (group,) = elb.describe_target_groups(Names=["fleet"])["TargetGroups"]
        found = elb.describe_target_health(TargetGroupArn=group["TargetGroupArn"])["TargetHealthDescriptions"]
        names = {ec2.find_instance(lab, lab.host(host)): host for host in HOSTS}
        return {names[one["Target"]["Id"]]: one["TargetHealth"]["State"] for one in found}

    def deregister(self, host: str) -> None:
        """What only a person or another program does."""
        lab = state.require(self.name)
        elb = ec2.client(lab, "elbv2")
        (group,) = elb.describe_target_groups(Names=["fleet"])["TargetGroups"]
        targets = [{"Id": ec2.find_instance(lab, lab.host(host))}]
        elb.deregister_targets(TargetGroupArn=group["TargetGroupArn"], Targets=targets)

    def rollout(self, place: Path, *words: str) -> Rollout:
        return Rollout(self.environment, place, *self.inventory, *words)

    def wait_for(self, targets: t.Mapping[str, str]) -> None:
        deadline = time.monotonic() + PATIENCE
        while (found := self.targets()) != targets:
            assert time.monotonic() < deadline, f"{found} instead of {targets}"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def fleet() -> t.Iterator[Registered]:
    with StandinLab("registration", "10.226.0.0/24", hosts=2, balancer="registration") as lab:
        made = Registered(lab.environment, inventories())
        assert made.targets() == {}
        deployed = lab.site()
        assert deployed.code == 0, deployed.output
        made.read_environment()
        yield made


@pytest.fixture
def clients(fleet: Registered, tmp_path: Path) -> t.Iterator[Traffic]:
    """Clients that never retry, through a balancer that never retries."""
    started = Traffic(fleet.environment, tmp_path / "traffic.json", 4, 5)
    yield started
    started.stop()


def processes(fleet: Fleet) -> list[str]:
    return [fleet.process(host) for host in HOSTS]


def test_who_has_passed_the_gate_is_registered_and_a_second_run_changes_nothing(fleet: Registered) -> None:
    assert fleet.targets() == REGISTERED
    again = fleet.playbook("site.yml", "-e", "engine=vllm")
    assert all(counts["changed"] == 0 for counts in again.recap.values()), again.output
    assert fleet.targets() == REGISTERED


def test_a_rolling_restart_takes_each_host_out_of_its_group_and_loses_nothing(
    fleet: Registered, clients: Traffic, tmp_path: Path
) -> None:
    before = processes(fleet)
    restart = fleet.rollout(tmp_path, RESTART)
    for host, other in (HOSTS, reversed(HOSTS)):
        restart.wait_for("step", host=host, step="stop")
        assert fleet.targets() == {host: "draining", other: "healthy"}
    done = restart.wait()
    assert done.code == 0
    assert nothing_was_lost(clients.stop())
    assert all(old != new for old, new in zip(before, processes(fleet), strict=True))
    assert fleet.targets() == REGISTERED


def test_a_changed_option_and_its_rollback_lose_nothing(fleet: Registered, clients: Traffic, tmp_path: Path) -> None:
    done = fleet.rollout(tmp_path, "site.yml", "-e", "engine=vllm", "-e", "vllm_max_num_seqs=40").wait()
    assert done.code == 0
    changed = processes(fleet)
    back = fleet.rollout(tmp_path, "playbooks/rollback.yml").wait()
    assert back.code == 0
    assert nothing_was_lost(clients.stop())
    assert all(old != new for old, new in zip(changed, processes(fleet), strict=True))
    assert fleet.targets() == REGISTERED


def test_a_release_that_fails_its_gate_is_rolled_back_and_registered_again(
    fleet: Registered, clients: Traffic, tmp_path: Path
) -> None:
    untouched = fleet.process("inference-2")
    wrong = json.dumps({"vllm_environment": {"FAKE_ENGINE_WRONG_ANSWER": "1"}})
    done = fleet.rollout(tmp_path, "site.yml", "-e", "engine=vllm", "-e", wrong).wait()
    assert done.code != 0
    assert "It was rolled back to vllm-" in done.text
    assert nothing_was_lost(clients.stop())
    assert fleet.process("inference-2") == untouched
    assert fleet.targets() == REGISTERED


def test_an_operators_drain_takes_the_host_out_and_undrain_brings_it_back(fleet: Registered, clients: Traffic) -> None:
    drained = fleet.playbook("playbooks/drain.yml", "-l", "inference-1")
    assert drained.code == 0, drained.output
    assert fleet.targets() == {"inference-1": "draining", "inference-2": "healthy"}
    # The other one is the last that is healthy now.
    refused = fleet.playbook(RESTART, "-l", "inference-2")
    assert refused.code != 0
    assert "rollout_accept_downtime" in refused.text
    # It stays out whatever runs, because somebody holds it.
    converged = fleet.playbook("site.yml", "-e", "engine=vllm")
    assert converged.code == 0, converged.output
    assert fleet.targets() == {"inference-1": "draining", "inference-2": "healthy"}
    undrained = fleet.playbook("playbooks/undrain.yml", "-l", "inference-1")
    assert undrained.code == 0, undrained.output
    fleet.wait_for(REGISTERED)
    assert nothing_was_lost(clients.stop())


def test_a_host_that_serves_and_is_not_held_is_registered_by_the_next_run(fleet: Registered) -> None:
    fleet.deregister("inference-2")
    assert fleet.targets()["inference-2"] == "draining"
    done = fleet.playbook("site.yml", "-e", "engine=vllm")
    assert done.code == 0, done.output
    fleet.wait_for(REGISTERED)


class Relay:
    """Brings requests to the lab's AWS, until the credentials expire."""

    def __init__(self, endpoint: str) -> None:
        relay, parts = self, urllib.parse.urlsplit(endpoint)
        self.has_expired = False

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if relay.has_expired:
                    self._answer(403, EXPIRED)
                    return
                connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
                with contextlib.closing(connection):
                    connection.request("POST", self.path, body, dict(self.headers.items()))
                    answer = connection.getresponse()
                    self._answer(answer.status, answer.read())

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "text/xml")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> t.Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_credentials_that_expire_in_a_turn_stop_the_rollout_and_the_same_command_goes_on(
    fleet: Registered, clients: Traffic, tmp_path: Path
) -> None:
    with Relay(state.require(fleet.name).ec2_endpoint) as relay:
        command = [RESTART, "-e", f"fleet_aws_endpoint={relay.url}"]
        first, second = processes(fleet)
        stopped = fleet.rollout(tmp_path, *command)
        stopped.wait_for("step", host="inference-1", step="stop")
        relay.has_expired = True
        done = stopped.wait()
        assert done.code != 0
        assert "expired" in done.text
        # The host of the turn serves, but is not registered. The other one is untouched.
        assert fleet.health("inference-1") == "200"
        assert fleet.process("inference-2") == second
        assert fleet.targets()["inference-2"] == "healthy"
        relay.has_expired = False
        again = fleet.rollout(tmp_path, *command).wait()
    assert again.code == 0
    assert nothing_was_lost(clients.stop())
    assert all(old != new for old, new in zip((first, second), processes(fleet), strict=True))
    assert fleet.targets() == REGISTERED


def test_a_controller_that_is_killed_at_any_step_leaves_no_host_out(
    fleet: Registered, clients: Traffic, tmp_path: Path
) -> None:
    for step in STEPS:
        run = fleet.rollout(tmp_path, RESTART, "-l", "inference-1")
        run.wait_for("step", host="inference-1", step=step)
        run.kill()
        assert fleet.targets()["inference-2"] == "healthy"
    last = fleet.rollout(tmp_path, RESTART, "-l", "inference-1").wait()
    assert last.code == 0
    assert nothing_was_lost(clients.stop())
    assert fleet.targets() == REGISTERED
    assert fleet.health("inference-1") == "200"
