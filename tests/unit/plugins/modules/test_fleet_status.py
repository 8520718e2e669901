from __future__ import annotations

import json
import os
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import KINDS

from tests.fakes.engine import FakeEngine
from tests.unit.conftest import Result, RunModule

MANIFEST = {
    "release": "vllm-0123456789ab",
    "engine": "vllm",
    "version": "0.32.0",
    "model": "Qwen/Qwen3-VL-8B-Instruct",
    "revision": "0c351dd01ed87e9c1b53cbc748cba10e6187ff3b",
    "served_name": "Qwen/Qwen3-VL-8B-Instruct",
    "created": "2026-11-22T12:00:00+00:00",
}


class Status(t.Protocol):
    def __call__(self, **options: t.Any) -> Result: ...


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that prints a file and records its calls."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "systemctl"
    shown = tmp_path / "units"
    shown.write_text("")
    program.write_text(f'#!/bin/sh\necho "$*" > {tmp_path}/called\ncat {shown}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return shown


@pytest.fixture
def status(tmp_path: Path, systemctl: Path, run_module: RunModule) -> Status:
    def run(**options: t.Any) -> Result:
        paths = {"engine_root": str(tmp_path / "opt"), "state_dir": str(tmp_path / "var"), "host": "inference-1"}
        dead = {"edge_url": "http://127.0.0.1:9", "first_engine_port": 9, "timeout": 1}
        result = run_module("fleet_status", {**paths, **dead, **options}, check=True)
        assert not result["changed"]
        return result

    return run


def install(root: Path, index: int, manifest: dict[str, t.Any] | None = None) -> None:
    release = root / "opt" / "releases" / "vllm-0123456789ab"
    release.mkdir(parents=True, exist_ok=True)
    (release / "manifest.json").write_text(json.dumps(manifest or MANIFEST))
    instance = root / "opt" / "instances" / str(index)
    instance.mkdir(parents=True)
    (instance / "current").symlink_to("../../releases/vllm-0123456789ab")


def test_a_bare_host_has_a_status(status: Status) -> None:
    result = status()
    assert not result.get("failed", False)
    assert (result["instances"], result["gates"], result["drain"], result["problems"]) == ([], {}, None, [])
    assert result["rows"] == [
        {
            "host": "inference-1",
            "driver": result["driver"],
            "edge": "none",
            "state": "no instance",
            "last_gate": None,
        }
    ]


def test_a_host_that_serves(status: Status, systemctl: Path, tmp_path: Path) -> None:
    install(tmp_path, 0)
    entered = int((time.clock_gettime(time.CLOCK_MONOTONIC) - 90) * 1e6)
    systemctl.write_text(
        "Id=vllm@0.service\nLoadState=loaded\nActiveState=active\nSubState=running\n"
        f"ActiveEnterTimestampMonotonic={entered}\n"
    )
    gates = tmp_path / "var" / "gate"
    gates.mkdir(parents=True)
    (gates / "vllm-0.json").write_text(json.dumps({"at": "2026-11-22T12:30:59+00:00", "passed": True}))
    (gates / ".vllm-0.json.half").write_text("{")
    with FakeEngine() as engine, FakeEngine() as edge:
        result = status(first_engine_port=engine.port, edge_url=edge.url)
    (row,) = result["rows"]
    assert (row["engine"], row["version"], row["state"], row["edge"]) == ("vllm", "0.32.0", "active", "in service")
    assert (row["requests"], row["kv_use"], row["last_gate"]) == ("0/0", "0%", "passed 2026-11-22 12:30")
    since = result["instances"][0]["since"]
    up = time.time() - time.mktime(time.strptime(since[:19], "%Y-%m-%dT%H:%M:%S")) + time.timezone
    assert 85 < up < 100
    asked = (tmp_path / "called").read_text().split()
    assert {f"{kind}@{index}.service" for kind in KINDS for index in ("*", 0)} <= set(asked)


def test_what_cannot_be_read_is_named_and_the_rest_is_there(status: Status, tmp_path: Path) -> None:
    install(tmp_path, 0)
    (tmp_path / "opt" / "releases" / "vllm-0123456789ab" / "manifest.json").write_text("{")
    (tmp_path / "var" / "gate").mkdir(parents=True)
    (tmp_path / "var" / "gate" / "edge.json").write_text("")
    (tmp_path / "var" / "drain.json").write_text(
        '{"state": "drained", "by": "operator", "reason": "", "since": "2026-11-22T12:00:00Z"}'
    )
    result = status()
    assert len(result["problems"]) == 2
    assert "manifest.json is not valid JSON" in result["problems"][1] + result["problems"][0]
    assert result["rows"][0]["edge"] == "drained by operator"
    assert result["instances"][0]["release"] == "vllm-0123456789ab"


def test_an_invalid_drain_record_is_named(status: Status, tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "drain.json").write_text("[1]")
    result = status()
    assert (result["drain"], len(result["problems"])) == (None, 1)
    assert "is not a record of drains" in result["problems"][0]


def test_a_host_without_systemd_says_so(status: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    result = status()
    assert result["problems"] == ["systemd does not answer (FileNotFoundError)."]


def test_an_edge_that_is_held_says_so(status: Status, tmp_path: Path) -> None:
    hold = tmp_path / "hold.map"
    hold.write_text("# title\nkeys 2026-11-29T10:00:00Z\n")
    (tmp_path / "var").mkdir(exist_ok=True)
    (tmp_path / "var" / "presence.json").write_text(json.dumps({"why": "EC2 had stopped it"}))
    held = status(hold_map=str(hold))
    assert held["edge"]["held"] == {"since": "2026-11-29T10:00:00Z", "why": "EC2 had stopped it"}
    assert held["rows"][0]["edge"] == "held since 2026-11-29 10:00"


def test_an_edge_that_is_drained_answers_503(status: Status) -> None:
    with FakeEngine() as edge:
        edge.faults.set("unhealthy")
        assert status(edge_url=edge.url)["rows"][0]["edge"] == "health 503"


def test_an_invalid_url_is_an_error(status: Status, run_module: RunModule) -> None:
    result = run_module("fleet_status", {"edge_url": "nonsense"})
    assert result["failed"]
    assert "'nonsense', which is no base URL" in result["msg"]
