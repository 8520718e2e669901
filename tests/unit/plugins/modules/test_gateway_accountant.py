"""Installing the accountant."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from tests.unit.conftest import Result, RunModule

Install = t.Callable[..., Result]
URL = "redis://:a-password-of-the-store@10.0.0.9:6379/0"


@pytest.fixture
def install(run_module: RunModule, tmp_path: Path, calls: t.Any) -> Install:
    def run(check: bool = False, **parameters: t.Any) -> Result:
        places = {
            "unit_directory": str(tmp_path / "units"),
            "program_path": str(tmp_path / "etc" / "accountant.pyz"),
            "config_path": str(tmp_path / "etc" / "accountant.json"),
            "keys_map": str(tmp_path / "keys.map"),
            "directory": str(tmp_path / "chroot" / "accountant"),
            "state_directory": str(tmp_path / "state"),
            "socket": str(tmp_path / "admin.sock"),
            "master_socket": str(tmp_path / "master.sock"),
        }
        return run_module("gateway_accountant", {**places, **parameters}, check=check, diff=True)

    return run


def test_it_is_installed_once(install: Install, calls: t.Callable[[], list[str]], tmp_path: Path) -> None:
    wanted = {"gateways": 2, "prices": {"org/a": [0.1, "0.2"]}, "redis_url": URL}
    result = install(**wanted)
    unit, config = tmp_path / "units/inference-accountant.service", tmp_path / "etc/accountant.json"
    assert (result["changed"], result["counting"]) == (True, True)
    assert calls() == [
        "daemon-reload",
        "enable --quiet inference-accountant.service",
        "restart inference-accountant.service",
    ]
    # The password is where root alone reads it, and nowhere else.
    assert json.loads(config.read_text())["redis_url"] == URL
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert "password" not in unit.read_text() + str(result)
    assert json.loads(config.read_text())["prices"] == {"org/a": [0.1, 0.2]}
    assert not install(**wanted)["changed"]
    assert calls() == []
    changed = install(**{**wanted, "gateways": 3})
    assert changed["actions"] == [f"write {config}", "start inference-accountant.service"]
    assert calls() == ["restart inference-accountant.service"]


def test_check_mode_changes_nothing(install: Install, calls: t.Callable[[], list[str]], tmp_path: Path) -> None:
    result = install(check=True)
    assert result["changed"]
    assert "ExecStart=" in result["diff"]["after"]
    assert (calls(), list(tmp_path.glob("etc/*"))) == ([], [])


def test_it_is_removed_and_what_was_used_stays(
    install: Install, calls: t.Callable[[], list[str]], tmp_path: Path
) -> None:
    install()
    calls()
    state = tmp_path / "state" / "accountant.json"
    state.parent.mkdir()
    state.write_text("{}")
    figures = tmp_path / "state" / "metrics" / "accountant.prom"
    figures.parent.mkdir()
    figures.write_text("fleet_accountant_bookings 0\n")
    result = install(state="absent")
    assert (result["changed"], result["counting"]) == (True, False)
    assert "disable --quiet --now inference-accountant.service" in calls()
    assert (list(tmp_path.glob("etc/*")), list(tmp_path.glob("units/*.service"))) == ([], [])
    assert (state.exists(), figures.exists()) == (True, False)
    assert not install(state="absent")["changed"]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"gateways": 0}, "gateways is 0; it must be at least 1"),
        ({"prices": {"a": [1]}}, "The prices of a are [1]"),
        ({"prices": {"a": ["x", 1]}}, "The prices of a are"),
        ({"redis_url": "http://store"}, "gateway_redis_url must be redis://"),
    ],
)
def test_what_is_wrong_is_said(install: Install, parameters: dict[str, t.Any], words: str) -> None:
    result = install(**parameters)
    assert result["failed"]
    assert words in result["msg"]


def test_the_program_runs_without_the_collection(install: Install, tmp_path: Path) -> None:
    install()
    program = tmp_path / "etc" / "accountant.pyz"
    missing = str(tmp_path / "none.json")
    done = subprocess.run(
        [sys.executable, "-I", str(program), "--config", missing], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"The accountant cannot start: {missing} does not exist" in done.stderr
