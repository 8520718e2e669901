"""Configuring the distribution's node exporter."""

from __future__ import annotations

import socket
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import GATEWAY
from ansible_collections.inference.fleet.plugins.module_utils.facts.exporter import render_exporter

from tests.ports import free_port
from tests.unit.conftest import Result, RunModule
from tests.unit.plugins.modules.conftest import Calls

Install = t.Callable[..., Result]
EXPORTER = "prometheus-node-exporter.service"
CLIENT = "monitoring"


@pytest.fixture
def install(run_module: RunModule, tmp_path: Path, calls: Calls) -> Install:
    port = free_port()

    def run(check: bool = False, **parameters: t.Any) -> Result:
        places = {
            "unit_directory": str(tmp_path / "units"),
            "textfiles": str(tmp_path / "metrics"),
            "keys_map": str(tmp_path / "keys.map"),
            "metrics_client": CLIENT,
            "port": port,
            "host": "gpu-1",
        }
        return run_module("node_exporter", {**places, **parameters}, check=check)

    return run


def settings(tmp_path: Path) -> Path:
    return tmp_path / "units" / f"{EXPORTER}.d" / "inference.conf"


def have_package(tmp_path: Path) -> None:
    """What the package's installation does."""
    (tmp_path / "packages").mkdir(exist_ok=True)
    (tmp_path / "packages" / EXPORTER).touch()
    (tmp_path / "active" / EXPORTER).touch()


def test_it_listens_on_loopback() -> None:
    text = render_exporter(9200, "/m")
    assert "--web.listen-address=127.0.0.1:9200 " in text
    assert "--collector.textfile.directory=/m " in text
    assert f"|{GATEWAY}@.+|" in text
    assert r")\\.service " in text


def test_check_mode_changes_nothing(install: Install, calls: Calls, tmp_path: Path) -> None:
    result = install(check=True)
    assert (result["changed"], result["package"]) == (True, "prometheus-node-exporter")
    assert calls() == []
    assert not settings(tmp_path).exists()
    assert not (tmp_path / "metrics").exists()


def test_turning_it_off_removes_what_is_ours(install: Install, calls: Calls, tmp_path: Path) -> None:
    install()
    have_package(tmp_path)
    calls()
    assert install(state="absent")["changed"]
    assert calls() == [f"disable --quiet --now {EXPORTER}", "daemon-reload"]
    assert not settings(tmp_path).exists()
    # Others' text files stay.
    assert (tmp_path / "metrics").exists()
    assert not install(state="absent")["changed"]


def test_node_exporter_is_wanted_where_somebody_can_read_it(install: Install, tmp_path: Path) -> None:
    assert install(state="auto")["exporter"] == "off"
    (tmp_path / "keys.map").write_text(f"{'a' * 64} v=2|{CLIENT}\n")
    assert install(state="absent")["exporter"] == "off"
    assert install(state="auto", port=0)["exporter"] == "off"
    assert install(state="auto")["package"] == "prometheus-node-exporter"
    # A key that is away for a while removes nothing.
    (tmp_path / "keys.map").write_text("")
    assert install(state="auto")["exporter"] == "absent"


def test_its_settings_are_there_before_it_is(install: Install, calls: Calls, tmp_path: Path) -> None:
    result = install()
    assert (result["exporter"], result["package"]) == ("absent", "prometheus-node-exporter")
    text = settings(tmp_path).read_text()
    assert "--web.listen-address=127.0.0.1:" in text
    assert f"--collector.textfile.directory={tmp_path / 'metrics'} " in text
    assert not any(EXPORTER in call for call in calls())
    have_package(tmp_path)
    again = install()
    assert (again["changed"], again["exporter"], again["package"]) == (False, "ours", "")
    (tmp_path / "active" / EXPORTER).unlink()
    assert install()["actions"] == [f"start {EXPORTER}"]
    # Other settings restart it.
    calls()
    assert install(port=free_port())["changed"]
    assert calls() == ["daemon-reload", f"enable --quiet {EXPORTER}", f"restart {EXPORTER}"]


def test_one_of_somebody_else_is_named_and_stays(install: Install, calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    have_package(tmp_path)
    result = install()
    assert (result["changed"], result["exporter"], result["package"]) == (False, "foreign", "")
    assert f"{EXPORTER} is installed and not configured by this role" in str(result["warnings"])
    assert f"--collector.textfile.directory={tmp_path / 'metrics'}" in str(result["warnings"])
    assert (calls(), settings(tmp_path).exists()) == ([], False)


def test_a_port_of_somebody_else_is_named(install: Install, calls: Calls, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = int(other.getsockname()[1])
        result = install(port=port)
    assert (result["exporter"], result["package"]) == ("foreign", "")
    name = Path("/proc/self/comm").read_text().strip()
    said = str(result["warnings"])
    assert f"port {port} is taken by " in said
    assert name in said or ".service" in said or ".scope" in said
    assert not settings(tmp_path).exists()
