from __future__ import annotations

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.instances.preflight import Listener
from ansible_collections.inference.fleet.plugins.modules import host_preflight

from tests.unit.conftest import RunModule

PORT = {"port": 8000, "purpose": "the edge", "units": ["haproxy.service"], "variable": "edge_port"}


@pytest.fixture(autouse=True)
def good_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_preflight, "read_os_release", lambda: {"ID": "debian", "VERSION_ID": "12"})
    monkeypatch.setattr(host_preflight, "read_text", lambda path: "systemd\n")
    monkeypatch.setattr(host_preflight, "read_listeners", lambda: [Listener(8000, 7, "haproxy", "haproxy.service")])
    monkeypatch.setattr(host_preflight, "free_bytes", lambda path: 10 * 1024**3)


def test_a_good_host_passes(run_module: RunModule) -> None:
    disk = {"path": "/opt/inference", "free_gib": 9.5, "variable": "engine_root"}
    result = run_module("host_preflight", {"systems": {"debian": ["12"]}, "ports": [PORT], "disks": [disk]})
    assert not result.get("failed")
    assert result["system"] == "debian 12"


def test_all_problems_are_in_one_message(run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_preflight, "read_listeners", lambda: [Listener(8000, 7, "nginx", "nginx.service")])
    disk = {"path": "/opt/inference", "free_gib": 12, "variable": "engine_root"}
    result = run_module("host_preflight", {"systems": {"debian": ["13"]}, "ports": [PORT], "disks": [disk]})
    assert result["failed"]
    assert len(result["problems"]) == 3
    assert "in use by nginx (pid 7, unit nginx.service)" in result["msg"]
    assert "/opt/inference has 10.0 GiB free and needs 12.0 GiB" in result["msg"]
    assert "set engine_root" in result["msg"]


def test_room_that_is_used_already_is_not_asked_for_again(run_module: RunModule, tmp_path: object) -> None:
    disk = {"path": "/x", "free_gib": 99, "variable": "v", "unless": f"{tmp_path}*"}
    assert not run_module("host_preflight", {"systems": {"debian": ["12"]}, "disks": [disk]}).get("failed")


def test_a_compiler_that_is_missing_is_a_problem(run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    gcc = {"program": "gcc", "why": "Triton compiles with it", "fix": "install gcc"}
    result = run_module("host_preflight", {"systems": {"debian": ["12"]}, "programs": [gcc]})
    assert result["problems"] == ["The host has no gcc: Triton compiles with it. To have it, install gcc."]
