"""Installing the timer for a host's metrics."""

from __future__ import annotations

import stat
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from tests.unit.conftest import Result, RunModule
from tests.unit.plugins.modules.conftest import Calls

Install = t.Callable[..., Result]
TIMER, SERVICE = "inference-facts.timer", "inference-facts.service"


@pytest.fixture
def install(run_module: RunModule, tmp_path: Path, calls: Calls) -> Install:
    def run(check: bool = False, **parameters: t.Any) -> Result:
        places = {
            "unit_directory": str(tmp_path / "units"),
            "program_path": str(tmp_path / "etc" / "facts.pyz"),
            "state_dir": str(tmp_path / "state"),
            "engine_root": str(tmp_path / "opt"),
            "host": "gpu-1",
        }
        return run_module("edge_facts", {**places, **parameters}, check=check, diff=True)

    return run


def test_the_timer_is_installed_once(install: Install, calls: Calls, tmp_path: Path) -> None:
    result = install(gpus=2)
    assert result["changed"]
    assert calls() == ["daemon-reload", f"enable --quiet {TIMER}", f"restart {TIMER}"]
    files = [tmp_path / "units" / TIMER, tmp_path / "units" / SERVICE, tmp_path / "etc" / "facts.pyz"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o644] * 3
    assert "--host=gpu-1 --gpus=2 " in files[1].read_text()
    assert stat.S_IMODE((tmp_path / "state" / "metrics").stat().st_mode) == 0o755
    assert (install(gpus=2)["changed"], calls()) == (False, [])
    changed = install(gpus=4)
    assert changed["diff"]["before"] != changed["diff"]["after"]
    assert changed["actions"] == [f"write {files[1]}", f"start {TIMER}"]
    assert calls() == ["daemon-reload", f"restart {TIMER}"]


def test_a_timer_that_was_stopped_is_started(install: Install, calls: Calls, tmp_path: Path) -> None:
    install()
    calls()
    (tmp_path / "active" / TIMER).unlink()
    assert install()["actions"] == [f"start {TIMER}"]


def test_check_mode_changes_nothing(install: Install, calls: Calls, tmp_path: Path) -> None:
    assert install(check=True)["changed"]
    assert calls() == []
    assert not (tmp_path / "units").exists()
    assert not (tmp_path / "state").exists()


def test_the_installed_program_looks_by_itself(install: Install, tmp_path: Path) -> None:
    install()
    program = tmp_path / "etc" / "facts.pyz"
    words = [f"--state={tmp_path / 'state'}", f"--memory={tmp_path / 'm.json'}", f"--output={tmp_path / 'out'}"]
    done = subprocess.run(
        [sys.executable, "-I", str(program), *words, f"--root={tmp_path}", f"--keys-map={tmp_path / 'none'}"],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "fleet_last_look_timestamp_seconds " in (tmp_path / "out" / "facts.prom").read_text()


def test_turning_it_off_removes_everything(install: Install, calls: Calls, tmp_path: Path) -> None:
    install()
    written = tmp_path / "state" / "metrics" / "facts.prom"
    written.write_text("")
    (written.parent / "watchdog.prom").write_text("")
    calls()
    assert install(state="absent")["changed"]
    assert calls() == [f"disable --quiet --now {TIMER}", "daemon-reload"]
    assert [path.name for path in written.parent.iterdir()] == ["watchdog.prom"]
    assert not [path for path in (tmp_path / "units").rglob("*facts*") if not path.is_symlink()]
    assert not install(state="absent")["changed"]
