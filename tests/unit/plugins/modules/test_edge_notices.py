"""Installing the service for what AWS announces."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import typing as t
import zipfile
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.notices import watch
from ansible_collections.inference.fleet.plugins.module_utils.services.archive import build_program

from tests.fakes.metadata import FakeMetadata
from tests.unit.conftest import Result, RunModule

Install = t.Callable[..., Result]
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def metadata() -> t.Iterator[FakeMetadata]:
    with FakeMetadata() as fake:
        yield fake


@pytest.fixture
def install(run_module: RunModule, tmp_path: Path, calls: t.Any) -> Install:
    def run(url: str, check: bool = False, **parameters: t.Any) -> Result:
        places = {
            "unit_directory": str(tmp_path / "units"),
            "program_path": str(tmp_path / "etc" / "notices.pyz"),
            "config_path": str(tmp_path / "haproxy.cfg"),
            "map_path": str(tmp_path / "maps" / "drain.map"),
            "record_path": str(tmp_path / "state" / "drain.json"),
            "socket": str(tmp_path / "admin.sock"),
            "master_socket": str(tmp_path / "master.sock"),
        }
        return run_module("edge_notices", {"metadata_url": url, **places, **parameters}, check=check, diff=True)

    return run


def test_on_an_instance_it_is_installed_once(
    install: Install, metadata: FakeMetadata, calls: t.Callable[[], list[str]], tmp_path: Path
) -> None:
    result = install(metadata.url, on_rebalance="drain", maintenance_lead=90)
    unit = tmp_path / "units/inference-notices.service"
    program = tmp_path / "etc/notices.pyz"
    assert (result["changed"], result["watching"], result["reason"]) == (True, True, "the metadata answers")
    assert calls() == [
        "daemon-reload",
        "enable --quiet inference-notices.service",
        "restart inference-notices.service",
    ]
    text = unit.read_text()
    assert f"-I {program} --on-rebalance drain --maintenance-lead 90 --lame-duck 15 --metadata {metadata.url} " in text
    assert f"ReadWritePaths={tmp_path}/maps {tmp_path}/state\n" in text
    assert [stat.S_IMODE(path.stat().st_mode) for path in (unit, program)] == [0o644, 0o644]
    again = install(metadata.url, on_rebalance="drain", maintenance_lead=90)
    assert (again["changed"], again["watching"], calls()) == (False, True, [])
    # A changed setting restarts it.
    assert install(metadata.url, on_rebalance="note", maintenance_lead=90)["changed"]
    assert calls() == ["daemon-reload", "restart inference-notices.service"]


def test_elsewhere_it_costs_nothing(install: Install, calls: t.Callable[[], list[str]], tmp_path: Path) -> None:
    result = install(NOWHERE)
    assert (result["changed"], result["watching"], calls()) == (False, False, [])
    assert "connection refused" in result["reason"]
    assert not (tmp_path / "units").exists()


def test_metadata_out_of_reach_removes_nothing(
    install: Install, metadata: FakeMetadata, calls: t.Callable[[], list[str]]
) -> None:
    install(metadata.url)
    calls()
    metadata.silent = True
    result = install(metadata.url)
    assert (result["changed"], result["watching"]) == (False, True)


def test_it_can_be_turned_on_where_no_metadata_answers(install: Install) -> None:
    result = install(NOWHERE, watch="true")
    assert (result["changed"], result["watching"]) == (True, True)
    assert "the metadata does not answer" in str(result["warnings"])


def test_it_is_started_again_where_it_does_not_run(
    install: Install, metadata: FakeMetadata, calls: t.Callable[[], list[str]], tmp_path: Path
) -> None:
    install(metadata.url)
    calls()
    (tmp_path / "active" / "inference-notices.service").unlink()
    assert install(metadata.url)["actions"] == ["start inference-notices.service"]
    assert calls() == ["restart inference-notices.service"]


def test_turning_it_off_removes_it_and_its_drain(
    install: Install, metadata: FakeMetadata, calls: t.Callable[[], list[str]], tmp_path: Path
) -> None:
    install(metadata.url)
    calls()
    record = tmp_path / "state/drain.json"
    record.parent.mkdir()
    mark = {"state": "drained", "reason": "spot", "since": "2026-11-29T12:00:00Z", "notices": ["spot"]}
    record.write_text(json.dumps({"aws": mark}))
    result = install(metadata.url, watch="false")
    assert (result["changed"], result["watching"]) == (True, False)
    assert calls() == ["disable --quiet --now inference-notices.service", "daemon-reload"]
    assert not list((tmp_path / "etc").iterdir())
    assert not record.exists()
    assert not install(metadata.url, watch="false")["changed"]


def test_check_mode_says_and_does_nothing(
    install: Install, metadata: FakeMetadata, calls: t.Callable[[], list[str]], tmp_path: Path
) -> None:
    result = install(metadata.url, check=True)
    assert result["changed"]
    assert result["diff"]["before"] == ""
    assert "ExecStart=" in result["diff"]["after"]
    assert calls() == []
    assert not (tmp_path / "units").exists()
    assert not (tmp_path / "etc").exists()


def test_the_program_needs_nothing_but_its_archive(tmp_path: Path) -> None:
    program = tmp_path / "notices.pyz"
    program.write_bytes(build_program(watch))
    assert build_program(watch) == program.read_bytes()
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(program), "--help"], cwd="/", capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "--maintenance-lead" in done.stdout
    names = zipfile.ZipFile(program).namelist()
    assert [name for name in names if name.endswith("/edge/drain.py")]
    assert not [name for name in names if "/modules/" in name or "/plugin_utils/" in name]
