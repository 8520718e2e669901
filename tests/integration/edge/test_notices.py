"""The program of inference-notices.service: real HAProxy, real HTTP metadata, and the program as hosts run it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy

from tests.fakes.metadata import FakeMetadata
from tests.integration.edge.conftest import HAPROXY, KEY, Edge, free_port, two_engines, unstarted_edge
from tests.integration.edge.conftest import eventually as eventually_within
from tests.integration.edge.engine import Recorder
from tests.integration.edge.traffic import Stream, Traffic

NONE: list[t.Any] = []
REBALANCE = "events/recommendations/rebalance"


def eventually(condition: t.Callable[[], t.Any]) -> None:
    """A busy machine takes longer."""
    eventually_within(condition, seconds=30)


class Notices:
    """The service's process beside an edge."""

    def __init__(self, edge: Edge, metadata: FakeMetadata) -> None:
        self.edge = edge
        self.metadata = metadata
        self.log = edge.directory / "notices.log"
        self._program = edge.install_notices()
        self._process: subprocess.Popen[bytes] | None = None
        self._arguments: list[str] = []

    def start(self, **options: t.Any) -> Notices:
        """Start it, as systemd does; options replace those of the last start."""
        given = {"lame_duck": 1, "interval": 0.5, **options}
        if options or not self._arguments:
            self._arguments = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
        places = {
            "metadata": self.metadata.url,
            "config": self.edge.config,
            "map": self.edge.maps / "drain.map",
            "record": self.edge.drains,
            "socket": self.edge.socket,
            "master-socket": self.edge.master_socket,
        }
        words = [f"--{name}={value}" for name, value in places.items()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(self._program), *words, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait(10)

    def stop(self) -> int:
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(10)
        finally:
            self._process.kill()

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def said(self, text: str) -> int:
        """How many lines have this text."""
        return sum(text in line for line in self.lines())

    def wait_for_looks(self, count: int = 2) -> None:
        before = len(self.metadata.asked)
        eventually(lambda: len(self.metadata.asked) >= before + count * 4)

    def record(self) -> dict[str, t.Any]:
        try:
            document: dict[str, t.Any] = json.loads(self.edge.drains.read_text())
        except FileNotFoundError:
            return {}
        return document

    def state(self) -> str:
        return str((self.record().get("aws") or {}).get("state", ""))


@pytest.fixture
def metadata() -> t.Iterator[FakeMetadata]:
    with FakeMetadata() as fake:
        yield fake


@pytest.fixture
def notices(edge: Edge, metadata: FakeMetadata) -> t.Iterator[Notices]:
    service = Notices(edge, metadata)
    yield service
    service.kill()
    # A test that fails shows them.
    print(*service.lines(), sep="\n")


def test_a_spot_notice_makes_the_host_a_lame_duck_and_then_drains_it(notices: Notices, edge: Edge) -> None:
    notices.start(lame_duck=3)
    with Traffic(edge, [KEY] * 2) as before:
        notices.wait_for_looks(1)
        moment = notices.metadata.announce_spot(120)
        began = time.monotonic()
        eventually(lambda: not edge.healthy())
        assert time.monotonic() - began < 8
        # A lame duck serves on.
        assert edge.status("/v1/models", KEY) == 200
    assert set(before.answers) == {"200"}
    stream = Stream(edge, KEY, 4)
    eventually(lambda: edge.status("/v1/models", KEY) == 503)
    assert stream.finished_whole()
    reason = f"spot, terminates {moment[11:19]} UTC"
    assert notices.record()["aws"]["reason"] == reason
    assert "state" not in notices.record()
    eventually(lambda: notices.said("Nothing is in flight.") == 1)
    notices.wait_for_looks()
    assert notices.said(f"AWS announces: {reason}. The host is a lame duck for 3 s, then it is drained.") == 1
    assert notices.said(f"AWS announces: {reason}. The host is drained; requests in flight have time until ") == 1
    assert notices.said("Nothing is in flight.") == 1


def test_a_short_notice_leaves_no_time_for_a_lame_duck(notices: Notices, edge: Edge) -> None:
    notices.metadata.announce_spot(10)
    notices.start(lame_duck=60)
    eventually(lambda: edge.status("/v1/models", KEY) == 503)
    assert notices.state() == "drained"


def test_what_is_in_flight_when_time_is_up_is_said(notices: Notices, edge: Edge) -> None:
    stream = Stream(edge, KEY, 20)
    notices.metadata.announce_spot(23)
    notices.start()
    eventually(lambda: notices.said("Time is up and 1 requests are in flight") == 1)
    assert stream.finished_whole()
    notices.wait_for_looks()
    assert notices.said("Time is up") == 1


def test_the_end_in_an_auto_scaling_group_drains(notices: Notices, edge: Edge) -> None:
    notices.start(lame_duck=0)
    notices.metadata.announce("autoscaling/target-lifecycle-state", "InService")
    notices.wait_for_looks()
    assert edge.healthy()
    notices.metadata.announce("autoscaling/target-lifecycle-state", "Terminated")
    eventually(lambda: edge.status("/v1/models", KEY) == 503)
    assert notices.record()["aws"]["reason"] == "asg, the group terminates it"


def test_a_rebalance_recommendation_is_only_noted(notices: Notices, edge: Edge) -> None:
    notices.metadata.announce(REBALANCE, {"noticeTime": "2026-11-29T12:00:00Z"})
    notices.start()
    eventually(lambda: notices.said("That is only noted (edge_on_rebalance).") == 1)
    notices.wait_for_looks()
    assert edge.healthy()
    assert notices.record() == {}
    assert notices.said("rebalance, recommended since 12:00:00 UTC") == 1


def test_a_rebalance_recommendation_drains_where_that_is_wanted_and_its_end_undrains(
    notices: Notices, edge: Edge
) -> None:
    notices.metadata.announce(REBALANCE, {"noticeTime": "2026-11-29T12:00:00Z"})
    notices.start(on_rebalance="drain")
    eventually(lambda: notices.state() == "drained")
    notices.metadata.withdraw(REBALANCE)
    eventually(edge.healthy)
    eventually(lambda: notices.record() == {})
    eventually(lambda: notices.said("AWS announces nothing any more, and the host is back in service.") == 1)


def test_a_maintenance_drains_in_time_and_its_end_undrains(notices: Notices, edge: Edge) -> None:
    notices.start(maintenance_lead=60, lame_duck=0)
    notices.metadata.announce_maintenance(72)
    eventually(lambda: notices.said("The host is drained 60 s before.") == 1)
    assert edge.healthy()
    eventually(lambda: edge.status("/v1/models", KEY) == 503)
    notices.metadata.announce_maintenance(72, State="completed")
    eventually(edge.healthy)
    assert edge.status("/v1/models", KEY) == 200


def test_a_token_that_ended_is_replaced(notices: Notices, edge: Edge) -> None:
    notices.start(lame_duck=0)
    notices.wait_for_looks(1)
    notices.metadata.forget_tokens()
    notices.metadata.announce_spot(120)
    eventually(lambda: not edge.healthy())
    assert notices.metadata.tokens == 2
    assert notices.said("can be read") == 0


@pytest.mark.parametrize("fault", ["silent", "an error", "another page"])
def test_metadata_out_of_reach_changes_nothing_and_is_said_once(notices: Notices, edge: Edge, fault: str) -> None:
    def break_it(broken: bool) -> None:
        notices.metadata.silent = broken and fault == "silent"
        notices.metadata.status = {"an error": 500, "another page": 200}.get(fault, 0) if broken else 0

    notices.start(lame_duck=0)
    notices.wait_for_looks(1)
    break_it(True)
    eventually(lambda: notices.said("Not everything that AWS announces can be read") == 1)
    time.sleep(3)
    assert edge.healthy()
    break_it(False)
    eventually(lambda: notices.said("What AWS announces can be read again.") == 1)
    # Drained, and then out of reach: it stays drained, also over a restart.
    notices.metadata.announce_spot(120)
    eventually(lambda: notices.state() == "drained")
    break_it(True)
    notices.metadata.withdraw("spot/instance-action")
    notices.kill()
    notices.start()
    eventually(lambda: notices.said("Not everything that AWS announces can be read") == 2)
    eventually(lambda: edge.status("/v1/models", KEY) == 503)
    time.sleep(3)
    assert edge.status("/v1/models", KEY) == 503
    assert notices.said("Not everything that AWS announces can be read") == 2
    break_it(False)
    eventually(edge.healthy)


def test_an_operators_drain_is_neither_overwritten_nor_removed(notices: Notices, edge: Edge) -> None:
    edge.drain(state="drained", reason="fan", metrics=NONE)
    notices.metadata.announce_spot(120)
    notices.start()
    eventually(lambda: notices.state() == "drained")
    record = notices.record()
    assert (record["by"], record["reason"], record["state"]) == ("operator", "fan", "drained")
    notices.metadata.withdraw("spot/instance-action")
    eventually(lambda: notices.state() == "")
    assert notices.record()["by"] == "operator"
    assert edge.status("/v1/models", KEY) == 503
    eventually(lambda: notices.said("AWS announces nothing any more, and it stays drained: operator (fan).") == 1)
    edge.drain(state="undrained")
    assert edge.healthy()


def test_an_operator_who_undrains_overrides_what_is_announced(notices: Notices, edge: Edge) -> None:
    notices.start(lame_duck=0)
    notices.metadata.announce_spot(120)
    eventually(lambda: notices.state() == "drained")
    result = edge.drain(state="undrained")
    assert (result["state"], result["overridden"]) == ("serving", True)
    assert result["announced"].startswith("spot, terminates ")
    notices.wait_for_looks(2)
    assert edge.healthy()
    assert notices.said("An operator has put the host back into service all the same, so it serves.") == 1
    notices.kill()
    notices.start()
    notices.wait_for_looks(2)
    assert edge.healthy()
    # Something new counts again.
    notices.metadata.announce("autoscaling/target-lifecycle-state", "Terminated")
    eventually(lambda: edge.status("/v1/models", KEY) == 503)
    notices.metadata.withdraw("autoscaling/target-lifecycle-state")
    notices.metadata.withdraw("spot/instance-action")
    eventually(lambda: notices.record() == {})
    assert edge.healthy()


def test_an_overridden_notice_that_goes_away_leaves_nothing(notices: Notices, edge: Edge) -> None:
    notices.start(lame_duck=0)
    notices.metadata.announce_spot(120)
    eventually(lambda: notices.state() == "drained")
    edge.drain(state="undrained")
    notices.metadata.withdraw("spot/instance-action")
    eventually(lambda: notices.record() == {})
    assert edge.healthy()


def test_a_rollout_does_not_put_back_what_aws_ends(notices: Notices, edge: Edge) -> None:
    edge.drain(state="drained", by="rollout", reason="new release", metrics=NONE)
    notices.metadata.announce_spot(120)
    notices.start()
    eventually(lambda: notices.state() == "drained")
    result = edge.drain(state="undrained", by="rollout")
    assert (result["state"], result["by"], result["held_by"]) == ("drained", "aws", "aws")
    assert edge.status("/v1/models", KEY) == 503
    assert edge.drain(state="drained", by="rollout", lame_duck_seconds=30, metrics=NONE)["lame_duck_seconds"] == 0
    # Its own drain stays when the notice goes away.
    notices.metadata.withdraw("spot/instance-action")
    eventually(lambda: notices.state() == "")
    assert edge.status("/v1/models", KEY) == 503
    edge.drain(state="undrained", by="rollout")
    assert edge.healthy()


def test_a_host_goes_back_only_when_an_instance_answers(notices: Notices, edge: Edge, engines: list[Recorder]) -> None:
    notices.start(lame_duck=0)
    notices.metadata.announce_maintenance(30)
    eventually(lambda: notices.state() == "drained")
    ports = [engine.port for engine in engines]
    for engine in engines:
        engine.stop()
    eventually(lambda: not any(server.up for server in edge.servers() if server.backend.startswith("instances_")))
    notices.metadata.announce("events/maintenance/scheduled", "[]")
    eventually(lambda: notices.said("stays drained until an instance answers") == 1)
    notices.wait_for_looks()
    assert notices.record()["aws"]["reason"] == "nothing is announced any more, and no instance answers yet"
    # Nothing is announced, so a rollout may bring the host back.
    assert edge.drain(check=True, state="undrained", by="rollout")["state"] == "serving"
    engines[0] = Recorder(ports[0])
    eventually(lambda: notices.record() == {})
    eventually(edge.healthy)


def test_after_a_reboot_the_drain_ends_when_nothing_is_announced(notices: Notices, edge: Edge) -> None:
    notices.start(lame_duck=0)
    notices.metadata.announce_maintenance(30)
    eventually(lambda: edge.status("/v1/models", KEY) == 503)
    notices.kill()
    edge.stop()
    # HAProxy starts drained, before anything else runs.
    edge.start()
    assert edge.status("/v1/models", KEY) == 503
    notices.start()
    notices.wait_for_looks()
    assert edge.status("/v1/models", KEY) == 503
    notices.kill()
    edge.stop()
    notices.metadata.announce("events/maintenance/scheduled", "[]")
    edge.start()
    notices.start()
    eventually(edge.healthy)
    eventually(lambda: notices.record() == {})


def test_a_drain_without_haproxy_counts_when_it_starts(unstarted: Edge, metadata: FakeMetadata) -> None:
    notices = Notices(unstarted, metadata)
    metadata.announce_spot(120)
    try:
        notices.start(lame_duck=60)
        eventually(lambda: notices.state() == "drained")
        unstarted.start()
        assert unstarted.status("/v1/models", KEY) == 503
    finally:
        notices.kill()


def test_killed_at_any_moment_it_goes_on(notices: Notices, edge: Edge) -> None:
    """Killed 40 times while notices come and go; in the end the host is what was announced last."""
    notices.start(lame_duck=1)
    ended = threading.Event()

    def announce() -> None:
        while not ended.is_set():
            notices.metadata.announce_spot(120)
            ended.wait(1.1)
            notices.metadata.withdraw("spot/instance-action")
            ended.wait(0.7)

    announcer = threading.Thread(target=announce)
    announcer.start()
    try:
        for number in range(40):
            time.sleep(0.23 + (number * 0.037) % 0.31)
            notices.kill()
            # A record is whole at any moment.
            notices.record()
            notices.start()
    finally:
        ended.set()
        announcer.join()
    notices.metadata.withdraw("spot/instance-action")
    eventually(lambda: edge.healthy() and notices.record() == {})
    notices.metadata.announce_spot(120)
    eventually(lambda: edge.status("/v1/models", KEY) == 503)
    notices.kill()
    notices.metadata.withdraw("spot/instance-action")
    notices.start()
    eventually(lambda: edge.healthy() and notices.record() == {})
    assert not [line for line in notices.lines() if "Traceback" in line]


@pytest.mark.parametrize("step", ["announced", "announced, and then out of reach", "withdrawn"])
def test_a_record_that_haproxy_does_not_know_yet_is_carried_out(notices: Notices, edge: Edge, step: str) -> None:
    """A crash between the record and HAProxy, made by hand."""
    drains = step != "withdrawn"
    if drains:
        notices.metadata.announce_spot(120)
        notices.metadata.silent = step != "announced"
    else:
        edge.drain(state="drained", metrics=NONE)
    mark = {"state": "drained" if drains else "ending", "reason": "spot", "since": "2026-11-29T12:00:00Z"}
    edge.drains.write_text(json.dumps({"aws": {**mark, "notices": ["spot"]}}))
    assert edge.healthy() == drains
    notices.start()
    eventually(lambda: edge.healthy() != drains)


def test_a_damaged_record_is_said_once_and_tried_again(notices: Notices, edge: Edge) -> None:
    edge.drains.write_text("{")
    notices.start(lame_duck=0)
    notices.metadata.announce_spot(120)
    eventually(lambda: notices.said("The edge cannot be changed") == 1)
    notices.wait_for_looks()
    assert notices.said("is not valid JSON") == 1
    edge.drains.unlink()
    eventually(lambda: edge.status("/v1/models", KEY) == 503)


def test_it_ends_at_once_when_it_is_stopped(notices: Notices) -> None:
    notices.start()
    notices.wait_for_looks(1)
    began = time.monotonic()
    assert notices.stop() == 0
    assert time.monotonic() - began < 2


BALANCER = """\
global
  stats socket {socket} mode 600 level admin
defaults
  mode http
  # Like an ALB: it repeats no request, and keeps no idle connection to a host.
  retries 0
  no option redispatch
  http-reuse never
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend balancer
  bind 127.0.0.1:{port}
  default_backend fleet
backend fleet
  balance roundrobin
  option httpchk
  http-check send meth GET uri /health ver HTTP/1.1 hdr host balancer
  http-check expect status 200
  default-server check inter 5s fall 2 rise 1
{servers}
"""


class Balancer:
    """An ALB's stand-in, with the shortest check that an ALB has: every five seconds, twice."""

    def __init__(self, directory: Path, edges: t.Sequence[Edge]) -> None:
        self.port = free_port()
        self._socket = str(directory / "balancer.sock")
        servers = "".join(f"  server host-{number} 127.0.0.1:{edge.port}\n" for number, edge in enumerate(edges))
        config = directory / "balancer.cfg"
        config.write_text(BALANCER.format(socket=self._socket, port=self.port, servers=servers))
        self._process = subprocess.Popen([HAPROXY, "-db", "-f", str(config)])

    def up(self) -> dict[str, bool]:
        """Which hosts get requests; empty before it runs."""
        workers = haproxy.workers(self._socket, "/nowhere")
        return {server.name: server.up for worker in workers for server in worker.servers()}

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(10)


def test_a_spot_notice_under_load_on_one_of_two_hosts_costs_no_request(tmp_path: Path, metadata: FakeMetadata) -> None:
    with contextlib.ExitStack() as stack:
        edges = []
        for name in ("leaves", "stays"):
            (tmp_path / name).mkdir()
            engines = stack.enter_context(two_engines())
            edges.append(stack.enter_context(unstarted_edge(tmp_path / name, engines)).start_and_wait())
        balancer = Balancer(tmp_path, edges)
        stack.callback(balancer.stop)
        eventually(lambda: balancer.up() == {"host-0": True, "host-1": True})
        notices = Notices(edges[0], metadata).start(lame_duck=15, interval=2)
        stack.callback(notices.kill)
        with Traffic(balancer, [KEY] * 4) as traffic:
            streams = [Stream(balancer, KEY, 20) for _ in range(4)]
            notices.wait_for_looks(1)
            metadata.announce_spot(120)
            announced = time.monotonic()
            eventually(lambda: balancer.up() == {"host-0": False, "host-1": True})
            out_after = time.monotonic() - announced
            eventually(lambda: notices.state() == "drained")
            # It refuses by now, and nothing comes any more.
            had = len(edges[0].access_log())
            time.sleep(3)
        assert all(stream.finished_whole() for stream in streams)
        assert set(traffic.answers) == {"200"}
        assert traffic.answers["200"] > 100
        assert out_after < 15
        drained = edges[0].access_log()
        assert not [line for line in drained if " status=503 " in line]
        assert not [line for line in drained[had:] if "/v1/models" in line]
        eventually(lambda: notices.said("Nothing is in flight.") == 1)
