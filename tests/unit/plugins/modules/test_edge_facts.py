"""Installing the timer for a host's metrics, and configuring its node exporter."""

from __future__ import annotations

import socket
import stat
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from tests.unit.conftest import Result, RunModule

Install = t.Callable[..., Result]
TIMER, SERVICE = "inference-facts.timer", "inference-facts.service"
EXPORTER = "prometheus-node-exporter.service"
CLIENT = "monitoring"


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Callable[[], list[str]]:
    """A systemctl that does what the module asks for, and what it was asked for."""
    program, log = tmp_path / "bin" / "systemctl", tmp_path / "systemctl.log"
    program.parent.mkdir()
    (tmp_path / "active").mkdir()
    program.write_text(
        f"""#!/bin/sh
units={tmp_path}/units active={tmp_path}/active
case $1 in
show)
  test -e $active/$4 && echo ActiveState=active || echo ActiveState=inactive
  test -e {tmp_path}/packages/$4 && echo LoadState=loaded || echo LoadState=not-found
  exit;;
enable) mkdir -p $units/timers.target.wants; ln -sf ../$3 $units/timers.target.wants/$3;;
disable) rm -f $units/timers.target.wants/$4 $active/$4;;
restart) touch $active/$2;;
esac
echo "$@" >> {log}
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")

    def read() -> list[str]:
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    return read


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def install(run_module: RunModule, tmp_path: Path, calls: t.Any) -> Install:
    port = free_port()

    def run(check: bool = False, **parameters: t.Any) -> Result:
        places = {
            "unit_directory": str(tmp_path / "units"),
            "program_path": str(tmp_path / "etc" / "facts.pyz"),
            "state_dir": str(tmp_path / "state"),
            "engine_root": str(tmp_path / "opt"),
            "keys_map": str(tmp_path / "keys.map"),
            "metrics_client": CLIENT,
            "node_exporter_port": port,
            "host": "gpu-1",
        }
        return run_module("edge_facts", {**places, **parameters}, check=check, diff=True)

    return run


def settings(tmp_path: Path) -> Path:
    return tmp_path / "units" / f"{EXPORTER}.d" / "inference.conf"


def have_package(tmp_path: Path) -> None:
    """What the package's installation does."""
    (tmp_path / "packages").mkdir(exist_ok=True)
    (tmp_path / "packages" / EXPORTER).touch()
    (tmp_path / "active" / EXPORTER).touch()


def test_the_timer_is_installed_once(install: Install, calls: t.Callable[[], list[str]], tmp_path: Path) -> None:
    result = install(gpus=2)
    assert (result["changed"], result["exporter"], result["package"]) == (True, "unwanted", "")
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


def test_a_timer_that_was_stopped_is_started(
    install: Install, calls: t.Callable[[], list[str]], tmp_path: Path
) -> None:
    install()
    calls()
    (tmp_path / "active" / TIMER).unlink()
    assert install()["actions"] == [f"start {TIMER}"]


def test_check_mode_changes_nothing(install: Install, calls: t.Callable[[], list[str]], tmp_path: Path) -> None:
    result = install(check=True, node_exporter="true")
    assert (result["changed"], result["package"]) == (True, "prometheus-node-exporter")
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


def test_turning_it_off_removes_everything(install: Install, calls: t.Callable[[], list[str]], tmp_path: Path) -> None:
    install(node_exporter="true")
    have_package(tmp_path)
    written = tmp_path / "state" / "metrics" / "facts.prom"
    written.write_text("")
    (written.parent / "watchdog.prom").write_text("")
    calls()
    assert install(state="absent")["changed"]
    assert calls() == [
        f"disable --quiet --now {TIMER}",
        "daemon-reload",
        f"disable --quiet --now {EXPORTER}",
        "daemon-reload",
    ]
    assert [path.name for path in written.parent.iterdir()] == ["watchdog.prom"]
    assert not settings(tmp_path).exists()
    assert not [path for path in (tmp_path / "units").rglob("*facts*") if not path.is_symlink()]
    assert not install(state="absent")["changed"]


def test_node_exporter_is_wanted_where_somebody_can_read_it(install: Install, tmp_path: Path) -> None:
    assert install()["exporter"] == "unwanted"
    (tmp_path / "keys.map").write_text(f"{'a' * 64} v=2|{CLIENT}\n")
    assert install(node_exporter="false")["exporter"] == "unwanted"
    assert install(node_exporter_port=0)["exporter"] == "unwanted"
    assert install()["package"] == "prometheus-node-exporter"
    # A key that is away for a while removes nothing.
    (tmp_path / "keys.map").write_text("")
    assert install()["exporter"] == "absent"


def test_its_settings_are_there_before_it_is(
    install: Install, calls: t.Callable[[], list[str]], tmp_path: Path
) -> None:
    result = install(node_exporter="true")
    assert (result["exporter"], result["package"]) == ("absent", "prometheus-node-exporter")
    text = settings(tmp_path).read_text()
    assert "--web.listen-address=127.0.0.1:" in text
    assert f"--collector.textfile.directory={tmp_path / 'state' / 'metrics'} " in text
    assert not any(EXPORTER in call for call in calls())
    have_package(tmp_path)
    again = install(node_exporter="true")
    assert (again["changed"], again["exporter"], again["package"]) == (False, "ours", "")
    (tmp_path / "active" / EXPORTER).unlink()
    assert install(node_exporter="true")["actions"] == [f"start {EXPORTER}"]
    # Other settings restart it.
    calls()
    assert install(node_exporter="true", node_exporter_port=free_port())["changed"]
    assert calls() == ["daemon-reload", f"enable --quiet {EXPORTER}", f"restart {EXPORTER}"]


def test_one_of_somebody_else_is_named_and_stays(
    install: Install, calls: t.Callable[[], list[str]], tmp_path: Path
) -> None:
    install()
    have_package(tmp_path)
    calls()
    result = install(node_exporter="true")
    assert (result["changed"], result["exporter"], result["package"]) == (False, "foreign", "")
    assert f"{EXPORTER} is installed and not configured by this role" in str(result["warnings"])
    assert f"--collector.textfile.directory={tmp_path / 'state' / 'metrics'}" in str(result["warnings"])
    assert (calls(), settings(tmp_path).exists()) == ([], False)


def test_a_port_of_somebody_else_is_named(install: Install, calls: t.Callable[[], list[str]], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = int(other.getsockname()[1])
        result = install(node_exporter="true", node_exporter_port=port)
    assert (result["exporter"], result["package"]) == ("foreign", "")
    name = Path("/proc/self/comm").read_text().strip()
    said = str(result["warnings"])
    assert f"port {port} is taken by " in said
    assert name in said or ".service" in said or ".scope" in said
    assert not settings(tmp_path).exists()
