"""What a host's metrics say of its edge: a real HAProxy's access log, a real journal, and a real node exporter."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import signal
import subprocess
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.engines.metrics import parse
from ansible_collections.inference.fleet.plugins.module_utils.facts.access_log import AccessCounters
from ansible_collections.inference.fleet.plugins.module_utils.facts.journal import JournalPlace, JournalReader

from tests.debian import program
from tests.integration.edge.conftest import KEY, Edge, eventually, free_port
from tests.integration.edge.engine import Recorder
from tests.integration.edge.test_gateway import Gateway, pair  # noqa: F401 - a fixture

REMOTE = "/lib/systemd/systemd-journal-remote"
EDGE = "haproxy.service"
BOOT, NEXT_BOOT = "01234567-89ab-cdef-0123-456789abcdef", "fedcba98-7654-3210-fedc-ba9876543210"
XID = "NVRM: Xid (PCI:0000:30:00): 79, pid=1, GPU has fallen off the bus."


def line(client: str = "team-a", total: int = 100, cause: str = "-") -> str:
    return (
        f"client={client} key=0 from=1:1 for=- method=GET path=/v1/x status=200 instance=engine-0 end=-- queued_ms=0 "
        f"total_ms={total} bytes=1 active=1 queue=0 retries=0 cause={cause} request=1"
    )


class HostJournal:
    """A journal as systemd writes it, without systemd."""

    def __init__(self, directory: Path) -> None:
        if not os.path.exists(REMOTE):
            pytest.skip("needs the package systemd-journal-remote")
        directory.mkdir()
        self.directory = directory
        self._file = 0
        self._microseconds = int(time.time() * 1e6)

    def write(self, *messages: str, unit: str = EDGE, boot: str = BOOT) -> None:
        """Append entries; of the kernel where there is no unit."""
        entries = []
        for message in messages:
            self._microseconds += 1000
            of = (
                f"_TRANSPORT=stdout\n_SYSTEMD_UNIT={unit}\nSYSLOG_IDENTIFIER=haproxy\n_PID=7"
                if unit
                else "_TRANSPORT=kernel\nSYSLOG_IDENTIFIER=kernel"
            )
            entries.append(
                f"__REALTIME_TIMESTAMP={self._microseconds}\n__MONOTONIC_TIMESTAMP={self._microseconds}\n"
                f"_BOOT_ID={boot.replace('-', '')}\n_HOSTNAME=h\n{of}\nMESSAGE={message}\n"
            )
        path = self.directory / f"{self._file}.journal"
        subprocess.run(
            [REMOTE, "-o", path, "-"], input="\n".join([*entries, ""]), text=True, check=True, capture_output=True
        )

    def rotate(self) -> None:
        """Write the next entries into another file."""
        self._file += 1

    def vacuum(self) -> None:
        """Lose all files but the last one."""
        for number in range(self._file):
            (self.directory / f"{number}.journal").unlink(missing_ok=True)


class Follower:
    """A program that looks from time to time, and keeps its place in between."""

    def __init__(self, directory: Path) -> None:
        self._directory = str(directory)
        self.place = JournalPlace()
        self.counters = AccessCounters()
        self.kernel: list[str] = []

    def look(self, boot: str = BOOT, patience: float = 20.0) -> str:
        reader = JournalReader(EDGE, boot, self.kernel.append, self.counters.add, self._directory, patience)
        # As in the file.
        place = JournalPlace.read(json.loads(json.dumps(self.place.document())))
        self.place, missing = reader.go_on(place)
        return missing

    @property
    def requests(self) -> int:
        return sum(count for count, _total in self.counters.served.values())


@pytest.fixture
def log(tmp_path: Path) -> HostJournal:
    return HostJournal(tmp_path / "journal")


@pytest.fixture
def follower(log: HostJournal) -> Follower:
    return Follower(log.directory)


def test_each_line_counts_once(log: HostJournal, follower: Follower) -> None:
    log.write(XID, "usb 1-1: new device", unit="")
    log.write(line(), line())
    # Requests count from the first look on, XIDs from the boot on.
    assert (follower.look(), follower.requests) == ("", 0)
    assert len([one for one in follower.kernel if XID in one]) == 1
    for count in (1, 3, 3, 7):
        log.write(*[line() for _ in range(count - follower.requests)])
        assert (follower.look(), follower.requests) == ("", count)
        assert (follower.look(), follower.requests) == ("", count)
    log.write(line(client="other"), unit="some.service")
    log.write(XID, unit="")
    assert (follower.look(), follower.requests, len(follower.kernel)) == ("", 7, 3)


def test_a_journal_that_was_rotated_goes_on(log: HostJournal, follower: Follower) -> None:
    log.write(line())
    follower.look()
    log.write(line())
    log.rotate()
    log.write(line())
    assert (follower.look(), follower.requests) == ("", 2)


def test_an_entry_that_is_gone_is_named_and_counting_goes_on(log: HostJournal, follower: Follower) -> None:
    log.write(line())
    follower.look()
    log.rotate()
    log.write(line(), line())
    log.vacuum()
    assert "no longer has the last entry" in follower.look()
    assert follower.requests == 2
    assert (follower.look(), follower.requests) == ("", 2)


def test_a_journal_that_is_gone_is_named_until_there_is_one(log: HostJournal, follower: Follower) -> None:
    log.write(line())
    follower.look()
    log.rotate()
    log.vacuum()
    assert "not even the last one" in follower.look()
    log.write(line())
    assert "no longer has the last entry" in follower.look()
    assert follower.requests == 1


def test_a_cursor_that_systemd_does_not_take_begins_anew(log: HostJournal, follower: Follower) -> None:
    log.write(line())
    follower.look()
    follower.place.cursor = "nonsense"
    assert "Failed to seek to cursor" in follower.look()
    assert follower.look() == ""
    log.write(line())
    assert (follower.look(), follower.requests) == ("", 1)


def test_a_boot_is_no_gap(log: HostJournal, follower: Follower) -> None:
    log.write(line())
    log.write(XID, unit="")
    follower.look()
    log.write(line())
    log.write(XID, unit="", boot=NEXT_BOOT)
    log.write(line(), boot=NEXT_BOOT)
    follower.kernel.clear()
    assert (follower.look(NEXT_BOOT), follower.requests) == ("", 2)
    assert len(follower.kernel) == 1


def test_a_clock_that_jumps_back_loses_nothing(log: HostJournal, follower: Follower) -> None:
    log.write(line())
    follower.look()
    log._microseconds -= 86_400_000_000
    log.write(line(), line())
    assert (follower.look(), follower.requests) == ("", 2)
    assert (follower.look(), follower.requests) == ("", 2)


def test_what_takes_too_long_is_given_up_and_named(
    log: HostJournal, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write(line())
    follower.look()
    log.write(*[line() for _ in range(20_000)])
    slow: list[str] = []

    def count(message: str) -> None:
        slow.append(message)
        time.sleep(0.01)

    reader = JournalReader(EDGE, BOOT, follower.kernel.append, count, str(log.directory), 0.3)
    follower.place, missing = reader.go_on(follower.place)
    assert "more came than could be read" in missing
    assert 0 < len(slow) < 20_000
    log.write(line())
    assert (follower.look(), follower.requests) == ("", 1)


def written(edge: Edge, log: HostJournal, count: int) -> None:
    """Put the edge's access log into the journal, once it has so many lines."""
    eventually(lambda: len(edge.access_log()) >= count)
    log.write(*edge.log.read_text().splitlines())


def test_refusals_of_a_real_edge_have_their_causes(
    unstarted: Edge, engines: list[Recorder], log: HostJournal, follower: Follower
) -> None:
    edge = unstarted.start_and_wait(edge_wrong_keys_per_minute=2)
    log.write("started")
    follower.look()
    edge.set_keys({KEY: "team-a"}, {"team-a": {"requests_per_minute": 3, "max_concurrent": 1}})
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", edge.port)) as slow:
        slow.request("GET", "/v1/slow/1", headers={"Authorization": f"Bearer {KEY}"})
        eventually(lambda: any(one.seen for one in engines))
        assert edge.status("/v1/x", KEY) == 429
        slow.getresponse().read()
    assert edge.status("/v1/status/429", KEY) == 429
    assert [edge.status("/v1/x", KEY) for _ in range(2)] == [200, 429]
    assert [edge.status("/v1/x", "sk-wrong") for _ in range(4)][-1] == 429
    edge.configure(edge_queue_limit=0)
    edge.reload()
    assert edge.status("/v1/x", KEY) == 429
    written(edge, log, 10)
    assert follower.look() == ""
    assert follower.counters.rejected == {
        ("team-a", "concurrency_limit_exceeded"): 1,
        ("team-a", "engine"): 1,
        ("team-a", "rate_limit_exceeded"): 1,
        ("", "too_many_wrong_keys"): 2,
        ("team-a", "queue_full"): 1,
    }
    count, milliseconds = follower.counters.served["team-a"]
    assert count == 2
    assert 1000 <= milliseconds < 20_000


def test_a_gateway_that_is_asked_too_much_tells_other_causes(
    pair: tuple[Gateway, Gateway],  # noqa: F811
    log: HostJournal,
    follower: Follower,
) -> None:
    first, _second = pair
    log.write("started")
    follower.look()
    budget = json.dumps({"error": {"message": "spent", "type": "t", "param": None, "code": "budget_exceeded"}}).encode()
    headers = {"method": "POST", "Content_Type": "application/json"}
    assert first.edge.status("/v1/says/429", KEY, body=budget, **headers) == 429
    assert first.edge.status("/v1/status/429", KEY) == 429
    assert first.edge.status("/v1/x", KEY) == 200
    written(first.edge, log, 3)
    follower.look()
    assert follower.counters.rejected == {("team-a", "budget_exceeded"): 1, ("team-a", "gateway"): 1}
    assert follower.counters.served["team-a"][0] == 1


@pytest.fixture
def exporter(tmp_path: Path) -> t.Iterator[tuple[int, Path]]:
    """A node exporter on loopback that reads a directory."""
    directory, port = tmp_path / "metrics", free_port()
    directory.mkdir()
    options = [f"--web.listen-address=127.0.0.1:{port}", "--collector.disable-defaults", "--collector.textfile"]
    process = subprocess.Popen(
        [
            program("prometheus-node-exporter"),
            *options,
            f"--collector.textfile.directory={directory}",
            "--web.disable-exporter-metrics",
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        yield port, directory
    finally:
        process.terminate()
        process.wait(10)


def scrape(port: int) -> dict[str, float]:
    """What a node exporter says; nothing while it does not answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/metrics")
        return {sample.name: sample.value for sample in parse(connection.getresponse().read().decode())}
    except OSError:
        return {}
    finally:
        connection.close()


def test_a_scraper_reads_the_host_through_its_edge_at_every_moment(
    unstarted: Edge, log: HostJournal, exporter: tuple[int, Path], tmp_path: Path
) -> None:
    port, directory = exporter
    key = "sk-the-key-of-monitoring-for-tests-only-0000000"
    unstarted.set_keys({KEY: "team-a", key: "monitoring"})
    edge = unstarted.start_and_wait(edge_node_exporter_port=port)
    log.write("started")
    words = [f"--memory={tmp_path / 'facts.json'}", f"--output={directory}", f"--journal={log.directory}"]
    words += ["--host=gpu-1", f"--state={tmp_path}", f"--root={tmp_path}", f"--keys-map={edge.maps / 'keys.map'}"]
    command = shlex.join(["/usr/bin/python3", "-I", str(edge.install_facts()), *words])
    looking = subprocess.Popen(["/bin/sh", "-c", f"while :; do {command} || exit; done"], start_new_session=True)
    try:
        eventually(lambda: scrape(port).get("fleet_last_look_timestamp_seconds"))
        looks = set()
        for _ in range(100):
            status, _headers, body = edge.ask("/metrics/node", key)
            found = {sample.name: sample.value for sample in parse(body.decode())}
            assert (status, found["node_textfile_scrape_error"]) == (200, 0)
            looks.add(found["fleet_last_look_timestamp_seconds"])
        eventually(lambda: scrape(port)["fleet_last_look_timestamp_seconds"] not in looks)
    finally:
        os.killpg(looking.pid, signal.SIGKILL)
        looking.wait(10)
    assert KEY not in (directory / "facts.prom").read_text()
    # Killed at any moment, it left no other file that the exporter would take.
    assert [path.name for path in directory.glob("*.prom")] == ["facts.prom"]
