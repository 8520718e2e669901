from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import lock
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.lock import acquire, current, holder_of, release


@pytest.fixture
def other() -> t.Iterator[subprocess.Popen[bytes]]:
    """Another process that lives."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def me() -> lock.LockHolder:
    return holder_of(os.getpid(), "anna@laptop", "site", "now")


def test_the_second_is_refused_with_the_holders_name(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    records = str(tmp_path / "records")
    theirs = holder_of(other.pid, "ben@laptop", "rolling_restart", "2027-01-15T07:00:00Z")
    assert acquire(records, theirs, False) is None
    with pytest.raises(FleetError, match=r"ben@laptop on .* since 2027-01-15T07:00:00Z \(rolling_restart, process"):
        acquire(records, me(), False)
    assert current(records) == theirs
    assert acquire(records, me(), True) == theirs


def test_a_patient_run_waits_for_the_end_of_the_other(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    records = str(tmp_path)
    theirs = holder_of(other.pid, "ben", "site", "now")
    acquire(records, theirs, False)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            release(records, theirs)

    assert lock.acquire_patiently(records, me(), False, 600, pause) is None
    assert current(records) == me()
    assert pauses == [5.0, 5.0, 5.0]


def test_a_run_whose_patience_ends_is_refused_as_busy(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    records = str(tmp_path)
    acquire(records, holder_of(other.pid, "ben", "site", "now"), False)
    for seconds in (0, 0.01):
        with pytest.raises(lock.LockHeld, match="ben on ") as caught:
            lock.acquire_patiently(records, me(), False, seconds)
        assert caught.value.details == {"busy": True}


def test_a_run_may_ask_twice(tmp_path: Path) -> None:
    records = str(tmp_path)
    acquire(records, me(), False)
    assert acquire(records, dataclasses.replace(me(), since="later"), False) is None


def test_the_end_of_a_process_ends_its_lock(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    records = str(tmp_path)
    theirs = holder_of(other.pid, "ben", "site", "now")
    acquire(records, theirs, False)
    other.kill()
    other.wait()
    assert current(records) is None
    assert acquire(records, me(), False) == theirs


def test_a_number_that_another_process_got_later_is_no_holder(tmp_path: Path) -> None:
    records = str(tmp_path)
    acquire(records, dataclasses.replace(me(), started=1, who="ben"), False)
    assert current(records) is None


def test_a_holder_on_another_machine_counts_as_alive(tmp_path: Path) -> None:
    records = str(tmp_path)
    acquire(records, dataclasses.replace(me(), machine="desk", pid=1, started=1), False)
    with pytest.raises(FleetError, match="on desk has been changing"):
        acquire(records, me(), False)


def test_only_the_holder_gives_it_back(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    records = str(tmp_path)
    release(str(tmp_path / "never-made"), me())
    theirs = holder_of(other.pid, "ben", "site", "now")
    acquire(records, theirs, False)
    release(records, me())
    assert current(records) == theirs
    release(records, theirs)
    assert current(records) is None
    assert acquire(records, me(), False) is None
    assert acquire(records, me(), False) is None


def test_rubbish_is_named(tmp_path: Path) -> None:
    (tmp_path / lock.NAME).write_text(json.dumps({"pid": 1}))
    with pytest.raises(FleetError, match="is not a lock"):
        current(str(tmp_path))
