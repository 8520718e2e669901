"""Installing the watchdog."""

from __future__ import annotations

import socket
import stat
import subprocess
import sys
import typing as t
import zipfile
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.services.archive import build_program
from ansible_collections.inference.fleet.plugins.module_utils.watchdog import watch

from tests.fakes.haproxy import FakeHaproxy
from tests.unit.conftest import Result, RunModule

Install = t.Callable[..., Result]


@pytest.fixture
def install(run_module: RunModule, tmp_path: Path, calls: t.Any) -> Install:
    def run(check: bool = False, **parameters: t.Any) -> Result:
        places = {
            "unit_directory": str(tmp_path / "units"),
            "program_path": str(tmp_path / "etc" / "watchdog.pyz"),
            "state_directory": str(tmp_path / "state"),
            "config_path": str(tmp_path / "haproxy.cfg"),
            "record_path": str(tmp_path / "state" / "drain.json"),
            "claim_path": str(tmp_path / "state" / "rollout.json"),
            "socket": str(tmp_path / "admin.sock"),
            "master_socket": str(tmp_path / "master.sock"),
        }
        return run_module("engine_watchdog", {**places, **parameters}, check=check, diff=True)

    return run


def test_it_is_installed_once(install: Install, calls: t.Callable[[], list[str]], tmp_path: Path) -> None:
    result = install(quiet_seconds=30, stacks="/opt/py-spy")
    unit, program = tmp_path / "units/inference-watchdog.service", tmp_path / "etc/watchdog.pyz"
    assert (result["changed"], result["watching"]) == (True, True)
    assert calls() == [
        "daemon-reload",
        "enable --quiet inference-watchdog.service",
        "restart inference-watchdog.service",
    ]
    text = unit.read_text()
    assert f"-I {program} --mode act --quiet 30 --confirm 15 --idle 60 " in text
    assert "--stacks /opt/py-spy " in text
    assert "WatchdogSec=30\n" in text
    assert [stat.S_IMODE(path.stat().st_mode) for path in (unit, program)] == [0o644, 0o644]
    assert not install(quiet_seconds=30, stacks="/opt/py-spy")["changed"]
    assert calls() == []
    assert install(mode="observe")["changed"]
    assert calls() == ["daemon-reload", "restart inference-watchdog.service"]


def test_turning_it_off_puts_back_what_it_had_taken_out(
    install: Install, calls: t.Callable[[], list[str]], tmp_path: Path
) -> None:
    install()
    calls()
    with FakeHaproxy(tmp_path) as haproxy:
        haproxy.worker.statistics = (
            "# pxname,svname,status,agent_status,\n"
            "instances_8000,engine-0,DOWN (agent),L7STS,\n"
            "instances_8000,engine-1,DOWN,,\n"
            "pool_a,x,DOWN (agent),L7STS,\n"
        )
        result = install(mode="off")
        changes = [command for command in haproxy.worker.commands if command.startswith("set")]
        assert changes == ["set server instances_8000/engine-0 agent up"]
    assert (result["changed"], result["watching"]) == (True, False)
    assert calls() == ["disable --quiet --now inference-watchdog.service", "daemon-reload"]
    assert not install(mode="off")["changed"]


def test_check_mode_says_and_does_nothing(install: Install, calls: t.Callable[[], list[str]], tmp_path: Path) -> None:
    result = install(check=True)
    assert result["changed"]
    assert result["diff"]["before"] == ""
    assert "ExecStart=" in result["diff"]["after"]
    assert calls() == []
    assert not (tmp_path / "units").exists()
    assert not (tmp_path / "etc").exists()


@pytest.mark.parametrize(
    ("option", "value", "least"),
    [("quiet_seconds", 1, "5"), ("confirm_seconds", 0, "5"), ("idle_seconds", -1, "0"), ("max_restarts", 0, "1")],
)
def test_values_that_would_restart_engines_for_nothing_are_refused(
    install: Install, option: str, value: float, least: str
) -> None:
    result = install(**{option: value})
    assert result["failed"]
    assert f"{option} is {value}; it must be at least {least}." in result["msg"]


def cannot_start(tmp_path: Path, *words: str) -> str:
    """What the program prints when it ends at once."""
    program = tmp_path / "watchdog.pyz"
    program.write_bytes(build_program(watch))
    done = subprocess.run(
        [sys.executable, "-I", str(program), "--state", str(tmp_path), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = cannot_start(tmp_path, "--port", str(port))
    assert f"Port {port} of 127.0.0.1" in said
    assert "edge_watchdog_port" in said


def test_a_record_of_a_newer_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "watchdog.json").write_text('{"format": 9, "instances": {}}')
    assert "has format 9" in cannot_start(tmp_path, "--port", "0")


def test_the_program_needs_nothing_but_its_archive(tmp_path: Path) -> None:
    program = tmp_path / "watchdog.pyz"
    program.write_bytes(build_program(watch))
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(program), "--help"], cwd="/", capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "--quiet" in done.stdout
    names = zipfile.ZipFile(program).namelist()
    assert not [name for name in names if "/modules/" in name or "/plugin_utils/" in name]
