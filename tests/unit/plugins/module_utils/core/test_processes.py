from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.processes import (
    parent,
    runs,
    start_ticks,
    started_at,
)


def test_a_process_is_known_by_its_start_time_until_it_has_ended() -> None:
    before = time.time()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        ticks = start_ticks(child.pid)
        assert started_at(child.pid) == pytest.approx(before, abs=1)
        assert runs(child.pid, ticks)
        assert parent(child.pid) == os.getpid()
        assert ticks is not None
        assert not runs(child.pid, ticks + 1), "another process with this pid"
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not runs(child.pid, ticks), "a zombie"
        assert started_at(child.pid) is None
    finally:
        child.kill()
        child.wait()
    assert start_ticks(child.pid) is None
    assert parent(child.pid) == 0
    assert not runs(child.pid, None)


def test_a_name_with_brackets_and_blanks_does_not_confuse() -> None:
    code = "import ctypes, time; ctypes.CDLL(None).prctl(15, b') Z 1 (', 0, 0, 0); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            assert runs(child.pid, start_ticks(child.pid))
            assert started_at(child.pid) == pytest.approx(time.time(), abs=30)
        finally:
            child.kill()
