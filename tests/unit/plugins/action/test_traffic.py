"""The task that starts, reads and stops the traffic driver, with real drivers."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path
from unittest import mock

import pytest
from ansible_collections.inference.fleet.plugins.action.traffic import ActionModule
from ansible_collections.inference.fleet.plugins.module_utils.core import processes
from ansible_collections.inference.fleet.plugins.plugin_utils.traffic.config import pid_path

from tests.fakes.engine import FakeEngine

Result = dict[str, t.Any]

ROOT = Path(__file__).resolve().parents[4]
KEY = "sk-test-0123456789-0123456789"


@pytest.fixture
def engine() -> t.Iterator[FakeEngine]:
    with FakeEngine(key=KEY, token=0.005) as running:
        yield running


@pytest.fixture
def path(tmp_path: Path) -> t.Iterator[Path]:
    """The path of the report; a driver that a test has left running is stopped."""
    report = tmp_path / "watch" / "traffic.json"
    yield report
    pid = driver(report)
    if pid:
        os.kill(pid, signal.SIGKILL)


def driver(report: Path) -> int | None:
    try:
        record = json.loads(Path(pid_path(str(report))).read_text())
    except FileNotFoundError:
        return None
    return record["pid"] if processes.runs(record["pid"], record["started"]) else None


def act(args: dict[str, t.Any], check: bool = False) -> Result:
    task = mock.Mock(args=args, async_val=0, check_mode=check, action="inference.fleet.traffic")
    action = ActionModule(task, mock.MagicMock(), mock.Mock(), mock.Mock(), mock.Mock(), mock.Mock())
    result: Result = action.run(task_vars={})
    return result


def started(engine: FakeEngine, path: Path, **more: t.Any) -> dict[str, t.Any]:
    given = {"url": engine.url, "api_key": KEY, "model": engine.model, "owner_pid": os.getpid(), "stream_tokens": 40}
    return {"state": "started", "path": str(path), **given, **more}


def until(path: Path, condition: t.Callable[[Result], object]) -> Result:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        report: Result = json.loads(path.read_text())
        if condition(report):
            return report
        time.sleep(0.05)
    raise AssertionError(path.read_text())


def test_a_watch_from_its_beginning_to_its_end(engine: FakeEngine, path: Path) -> None:
    result = act(started(engine, path, streams=3, requests_per_second=10))
    assert result["changed"]
    assert result["running"]
    assert not result["complete"]
    assert result["path"] == str(path)
    assert result["pid"] == driver(path)
    assert result["report"]["first_answer"] == {"ok": True, "what": ""}
    assert os.getsid(result["pid"]) == result["pid"], "what ends this session does not end it"

    again = act(started(engine, path))
    assert not again["changed"]
    assert again["pid"] == result["pid"]

    until(path, lambda report: report["streams"]["whole"] >= 3 and report["requests"]["ok"] >= 10)
    seen = act({"state": "read", "path": str(path)})
    assert not seen["changed"]
    assert seen["report"]["streams"]["whole"] >= 3

    last = act({"state": "stopped", "path": str(path)})
    assert last["changed"]
    assert (last["running"], last["pid"], last["complete"]) == (False, 0, True)
    assert last["report"]["errors"] == []
    assert last["report"]["ended_because"] == "stopped"
    assert driver(path) is None
    for file in path.parent.iterdir():
        assert KEY not in file.read_text()

    after = act({"state": "stopped", "path": str(path)})
    assert not after["changed"]
    assert after["report"] == last["report"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"reject": True}, "gave 401 Unauthorized: Unauthorized. Give the URL of a gateway"),
        ({"status": 503}, "gave 503 Service Unavailable: the fake is set to fail."),
        ({"echo_key": True}, "gave 500 Internal Server Error: no session for Bearer sk-…"),
    ],
)
def test_a_server_that_does_not_answer_is_named(
    engine: FakeEngine, path: Path, fault: dict[str, t.Any], words: str
) -> None:
    for name, value in fault.items():
        engine.faults.set(name, value)
    result = act(started(engine, path))
    assert result["failed"]
    assert result["msg"].startswith(f"The traffic driver's first request to {engine.url} gave ")
    assert words in result["msg"]
    assert KEY not in json.dumps(result)
    assert driver(path) is None
    assert len(engine.requests) == 1


def test_nothing_listens(path: Path) -> None:
    with FakeEngine() as gone:
        pass
    result = act(started(gone, path))
    assert "gave connection refused." in result["msg"]
    assert "rollout_watch_url" in result["msg"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"url": "inference-1:8000"}, "url is 'inference-1:8000', which is no base URL"),
        ({"url": f"http://me:{KEY}@127.0.0.1"}, "The URL holds a user name or password"),
        ({"streams": 0, "requests_per_second": 0}, "streams is 0 and requests_per_second is 0"),
        ({"model": None, "url": ""}, "With state started, url and model cannot be empty."),
        ({"owner_pid": None}, "With state started, owner_pid cannot be empty."),
        (
            {"url": "https://127.0.0.1:1", "ca_path": "/none.pem"},
            "ended with status 2 as it started: ca_path is /none.pem",
        ),
    ],
)
def test_wrong_options_are_named(engine: FakeEngine, path: Path, change: dict[str, t.Any], words: str) -> None:
    result = act({**started(engine, path), **change})
    assert result["failed"]
    assert words in result["msg"]
    assert engine.requests == []
    assert driver(path) is None


def test_a_path_that_cannot_be_written_is_named(engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = act(started(engine, tmp_path / "file" / "traffic.json"))
    assert result["msg"] == f"{tmp_path}/file cannot be read or written (File exists). Give another path."


def test_a_missing_library_is_named(engine: FakeEngine, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    act(started(engine, path))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "aiohttp" else find(name))
    assert act({"state": "stopped", "path": str(path)})["complete"], "stopping one needs no library"
    result = act(started(engine, path))
    assert result["failed"]
    assert f"needs the Python library aiohttp, which {sys.executable} does not have" in result["msg"]
    assert f"`{sys.executable} -m pip install aiohttp`" in result["msg"]


def test_check_mode_starts_and_stops_nothing(engine: FakeEngine, path: Path) -> None:
    result = act(started(engine, path), check=True)
    assert result["changed"]
    assert not path.parent.exists()
    assert engine.requests == []
    pid = act(started(engine, path))["pid"]
    assert not act(started(engine, path), check=True)["changed"]
    assert act({"state": "stopped", "path": str(path)}, check=True)["changed"]
    assert driver(path) == pid
    act({"state": "stopped", "path": str(path)})


def test_another_process_with_the_pid_is_left_alone(engine: FakeEngine, path: Path) -> None:
    other = subprocess.Popen(["sleep", "300"])
    try:
        ticks = processes.start_ticks(other.pid)
        assert ticks is not None
        path.parent.mkdir()
        path.write_text('{"ended": null, "first_answer": {"ok": true, "what": ""}}')
        Path(pid_path(str(path))).write_text(json.dumps({"pid": other.pid, "started": ticks - 1}))
        result = act({"state": "stopped", "path": str(path)})
        assert not result["changed"]
        assert not result["complete"]
        assert other.poll() is None
        # An earlier driver's report must not count as the new one's first answer.
        engine.faults.set("reject")
        assert "401" in act(started(engine, path))["msg"]
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_the_report_of_a_killed_driver_is_its_last_one(engine: FakeEngine, path: Path) -> None:
    pid = act(started(engine, path))["pid"]
    until(path, lambda report: report["requests"]["ok"] >= 3)
    os.kill(pid, signal.SIGKILL)
    result = act({"state": "stopped", "path": str(path)})
    assert not result["complete"]
    assert result["report"]["requests"]["ok"] >= 3
    assert act(started(engine, path))["pid"] not in (0, pid)
    act({"state": "stopped", "path": str(path)})


def test_nothing_was_ever_started(path: Path) -> None:
    result = act({"state": "stopped", "path": str(path)})
    assert (result["changed"], result["report"], result["complete"]) == (False, None, False)


PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - inference.fleet.traffic:
        state: started
        path: {path}
        url: {url}
        api_key: {key}
        model: {model}
        owner_pid: {owner}
        requests_per_second: 10
"""


def test_it_outlives_the_playbook_that_has_begun_it(engine: FakeEngine, path: Path) -> None:
    play = path.parent.with_suffix(".yml")
    play.write_text(PLAY.format(path=path, url=engine.url, key=KEY, model=engine.model, owner=os.getpid()))
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", "no-such-host.invalid,", play, "-v"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert KEY not in done.stdout + done.stderr
    before = json.loads(path.read_text())["requests"]["ok"]
    until(path, lambda report: report["requests"]["ok"] >= before + 10 and report["streams"]["whole"] >= 2)
    command = Path(f"/proc/{driver(path)}/cmdline").read_text()
    assert KEY not in command
    result = act({"state": "stopped", "path": str(path)})
    assert result["complete"]
    assert result["report"]["errors"] == []
    assert Path(f"{path}.log").read_text() == ""
