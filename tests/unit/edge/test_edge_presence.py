"""The program that holds the edge of a host that was away."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import threading
import time
import types
import typing as t
from pathlib import Path

import pytest

from tests.programs import install_edge, load

LIMIT = 900.0
EARLIER = "i-01 2026-11-01T10:00:00Z"
LATER = "i-01 2026-11-29T10:00:00Z"
OTHER = "i-02 2026-11-29T10:00:00Z"
CLOSED_PORT = "http://127.0.0.1:9"


@pytest.fixture
def program(tmp_path_factory: pytest.TempPathFactory) -> types.ModuleType:
    return load(install_edge(tmp_path_factory.mktemp("haproxy")) / "edge_presence.py")


def presence(**changes: t.Any) -> dict[str, t.Any]:
    return {"boot": "an earlier boot", "started": "", "stopped": False, "why": "", **changes}


@pytest.mark.parametrize(
    ("before", "away", "started", "why"),
    [
        # A reboot, planned or not: the host is back without a person.
        (presence(), 120, "", ""),
        (presence(), LIMIT, "", ""),
        (presence(started=EARLIER), 120, EARLIER, ""),
        # EC2 may press the power button for a reboot; but it did not start the instance again.
        (presence(started=EARLIER, stopped=True), 120, EARLIER, ""),
        # A stop and start, however short; also from an image of the host.
        (presence(started=EARLIER), 120, LATER, "EC2 had stopped it"),
        (presence(started=LATER), 120, OTHER, "EC2 had stopped it"),
        (presence(stopped=True), 5, "", "it was powered off"),
        # The metadata service does not answer.
        (presence(started=EARLIER, stopped=True), 5, "", "it was powered off"),
        (presence(started=EARLIER), 5, "", ""),
        # Too long for a reboot: a rotation may have left it out.
        (presence(), LIMIT + 1, "", "it was away for 15 minutes"),
        (presence(started=EARLIER), 3 * 86400, EARLIER, "it was away for 3 days"),
        # What is not known counts as away.
        (None, 0, "", "nothing says when it ran last"),
        (presence(), -3600, "", "its clock is 3600 seconds behind the time when it ran last"),
        (presence(), -30, "", ""),
    ],
)
def test_who_serves_by_itself(
    program: types.ModuleType, before: dict[str, t.Any] | None, away: float, started: str, why: str
) -> None:
    assert program.reason(before, 1000.0, 1000.0 + away, started, LIMIT) == why


@pytest.fixture
def paths(program: types.ModuleType, tmp_path: Path) -> t.Any:
    files = [str(tmp_path / name) for name in ("presence.json", "hold.map", "decided")]
    return program.PresencePaths(*files[:2], CLOSED_PORT, files[2])


def ran(path: str, seconds_ago: float, **changes: t.Any) -> None:
    Path(path).write_text(json.dumps(presence(**changes)))
    moment = time.time() - seconds_ago
    os.utime(path, (moment, moment))


def test_a_host_that_was_away_is_held_until_its_keys_are_confirmed(
    program: types.ModuleType, paths: t.Any, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(paths.file, 7200)
    program.start(paths, LIMIT)
    assert Path(paths.hold).read_text().splitlines()[1].startswith("keys 20")
    written = json.loads(Path(paths.file).read_text())
    assert written == presence(boot=program.boot_id(), why="it was away for 2 hours")
    assert "The edge is held: it was away for 2 hours" in capsys.readouterr().err
    held = Path(paths.hold).read_bytes()
    # HAProxy starts again in the same boot, and after a short reboot: neither confirms anything.
    program.start(paths, LIMIT)
    ran(paths.file, 60, why="it was away for 2 hours")
    program.start(paths, LIMIT)
    assert Path(paths.hold).read_bytes() == held
    assert json.loads(Path(paths.file).read_text())["why"] == "it was away for 2 hours"


def test_a_host_that_rebooted_serves_by_itself(program: types.ModuleType, paths: t.Any) -> None:
    ran(paths.file, 240)
    program.start(paths, LIMIT)
    assert not os.path.exists(paths.hold)
    assert json.loads(Path(paths.file).read_text()) == presence(boot=program.boot_id())


def test_within_a_boot_nothing_is_decided_again(program: types.ModuleType, paths: t.Any) -> None:
    ran(paths.file, 7200, boot=program.boot_id(), stopped=True)
    program.start(paths, LIMIT)
    assert not os.path.exists(paths.hold)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot": "x"}'])
def test_a_damaged_record_holds_the_edge(program: types.ModuleType, paths: t.Any, text: str) -> None:
    Path(paths.file).write_text(text)
    program.start(paths, LIMIT)
    assert "keys 20" in Path(paths.hold).read_text()
    assert "cannot be read" in json.loads(Path(paths.file).read_text())["why"]


def test_without_a_place_for_the_hold_haproxy_does_not_start(program: types.ModuleType, paths: t.Any) -> None:
    ran(paths.file, 7200)
    with pytest.raises(OSError, match="nowhere"):
        program.start(paths._replace(hold="/nowhere/hold.map"), LIMIT)


class Metadata(http.server.BaseHTTPRequestHandler):
    """The part of the instance metadata service (IMDSv2) that says when EC2 started the instance."""

    started: t.ClassVar[str] = LATER

    def do_PUT(self) -> None:
        self._answer("a-token")

    def do_GET(self) -> None:
        if self.headers["X-aws-ec2-metadata-token"] != "a-token" or "instance-identity" not in self.path:
            self.send_error(401)
            return
        instance, _space, moment = self.started.partition(" ")
        self._answer(json.dumps({"instanceId": instance, "pendingTime": moment, "region": "us-east-1"}))

    def _answer(self, text: str) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_arguments: t.Any) -> None:
        pass


@pytest.fixture
def metadata() -> t.Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_on_ec2_a_stop_and_start_differs_from_a_reboot(program: types.ModuleType, paths: t.Any, metadata: str) -> None:
    ran(paths.file, 60, started=LATER, stopped=True)
    program.start(paths._replace(metadata=metadata), LIMIT)
    assert not os.path.exists(paths.hold)
    ran(paths.file, 60, started=EARLIER)
    program.start(paths._replace(metadata=metadata), LIMIT)
    assert os.path.exists(paths.hold)
    assert json.loads(Path(paths.file).read_text())["started"] == LATER


def test_the_host_says_that_it_runs(
    program: types.ModuleType, paths: t.Any, metadata: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds: list[float] = []

    def sleep(_seconds: float) -> None:
        rounds.append(os.stat(paths.file).st_mtime)
        os.utime(paths.file, (1000, 1000))
        if len(rounds) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(program.time, "sleep", sleep)
    ran(paths.file, 7200, boot=program.boot_id(), stopped=True)
    program.start(paths, LIMIT)
    # As in a container, whose boot systemd's sandbox hides from this service.
    boot = program.boot_id()
    monkeypatch.setattr(program, "boot_id", pytest.fail)
    with pytest.raises(KeyboardInterrupt):
        program.watch(paths._replace(metadata=metadata))
    assert all(moment > time.time() - 60 for moment in rounds)
    assert json.loads(Path(paths.file).read_text()) == presence(boot=boot, started=LATER)
    # What stop has written stays.
    rounds.clear()

    def power_off(_seconds: float) -> None:
        rounds.append(0)
        if len(rounds) == 2:
            raise KeyboardInterrupt
        ran(paths.file, 0, boot=boot, stopped=True)

    monkeypatch.setattr(program.time, "sleep", power_off)
    with pytest.raises(KeyboardInterrupt):
        program.watch(paths)
    assert json.loads(Path(paths.file).read_text())["stopped"] is True
    # Before HAProxy has started in this boot, nothing has been decided yet.
    monkeypatch.setattr(program.time, "sleep", sleep)
    for left in ("the boot before\n", None):
        rounds.clear()
        ran(paths.file, 7200)
        if left:
            Path(paths.decided).write_text(left)
        else:
            os.unlink(paths.decided)
        with pytest.raises(KeyboardInterrupt):
            program.watch(paths)
        assert rounds[0] < time.time() - 7000


@pytest.mark.parametrize(
    ("jobs", "stopped"),
    [
        ("12 poweroff.target start waiting\n13 haproxy.service stop running\n", True),
        ("12 halt.target start waiting\n", True),
        ("12 reboot.target start waiting\n13 inference-presence.service stop running\n", False),
        ("12 inference-presence.service restart running\n", False),
        ("", False),
    ],
)
def test_a_machine_that_is_powered_off_remembers_it(
    program: types.ModuleType, paths: t.Any, monkeypatch: pytest.MonkeyPatch, jobs: str, stopped: bool
) -> None:
    monkeypatch.setattr(program.subprocess, "run", lambda *_words, **_options: subprocess.CompletedProcess([], 0, jobs))
    ran(paths.file, 0, boot=program.boot_id())
    program.start(paths, LIMIT)
    program.stop(paths)
    assert json.loads(Path(paths.file).read_text())["stopped"] is stopped
