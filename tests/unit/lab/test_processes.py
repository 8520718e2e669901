"""A process is its pid and its start time; locks end with their process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest

from lab import cgroups, files, processes
from lab.errors import LabError


@pytest.fixture
def sleeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[subprocess.Popen[bytes]]:
    """A process with its record, as ``processes.start`` leaves them; no control groups."""
    monkeypatch.setattr(cgroups, "clear", lambda group: None)
    process = subprocess.Popen(["sleep", "60"])
    record = {"pid": process.pid, "started": processes.start_time(process.pid), "boot": processes.boot_id()}
    (tmp_path / "process.json").write_text(json.dumps(record))
    yield process
    process.kill()
    process.wait()


def test_a_recorded_process_is_found_and_ended(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    found = processes.read(tmp_path / "process.json")
    assert found is not None
    assert found.pid == sleeper.pid
    assert processes.stop(tmp_path, "trial/one") is True
    assert sleeper.wait(timeout=5) == -9
    assert not (tmp_path / "process.json").exists()


def test_with_grace_it_may_end_by_itself(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    assert processes.stop(tmp_path, "trial/one", grace=5) is True
    assert sleeper.wait(timeout=5) == -15


@pytest.mark.parametrize("change", [{"started": 1}, {"boot": "another"}])
def test_a_pid_that_was_used_again_is_left_alone(
    sleeper: subprocess.Popen[bytes], tmp_path: Path, change: dict[str, t.Any]
) -> None:
    path = tmp_path / "process.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert processes.read(path) is None
    assert processes.stop(tmp_path, "trial/one") is False
    assert sleeper.poll() is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}'])
def test_a_broken_record_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "process.json").write_text(content)
    assert processes.read(tmp_path / "process.json") is None


def test_a_process_that_ended_has_no_start_time() -> None:
    process = subprocess.Popen(["true"])
    deadline = time.monotonic() + 5
    while processes.start_time(process.pid) is not None:
        assert time.monotonic() < deadline
    process.wait()
    assert processes.start_time(process.pid) is None


def test_a_lock_waits_and_gives_up(tmp_path: Path) -> None:
    with (
        files.locked(tmp_path / "lock"),
        pytest.raises(LabError, match="has held"),
        files.locked(tmp_path / "lock", 0.2),
    ):
        pass


def test_the_lock_of_a_killed_holder_is_free(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from lab import files
with files.locked(Path({str(tmp_path / "lock")!r})):
    print("held", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(files.__file__).parents[1])
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    holder.kill()
    holder.wait()
    with files.locked(tmp_path / "lock", 5):
        pass


def test_a_lock_whose_file_its_holder_removed_is_taken_again(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with files.locked(path):
        path.unlink()
    with files.locked(path) as descriptor:
        assert os.fstat(descriptor).st_ino == path.stat().st_ino


def test_a_file_is_written_whole_and_only_when_it_differs(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert files.write_changed(path, "one", 0o600) is True
    assert files.write_changed(path, "one", 0o600) is False
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["file"]
