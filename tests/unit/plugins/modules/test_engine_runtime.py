from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.instances.staging import Staging
from ansible_collections.inference.fleet.plugins.modules import engine_runtime

from tests.unit.conftest import RunModule


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, t.Any]:
    return {
        "name": "vllm-1-cpu",
        "lock": "a==1",
        "python": "3.11",
        "uv_requirement": "uv==1",
        "root": str(tmp_path / "runtimes"),
        "min_free_gib": 2,
        "environment": {"UV_HTTP_TIMEOUT": 60},
    }


def test_what_was_done_is_returned(
    run_module: RunModule, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, t.Any]
) -> None:
    specs = []

    def install(spec: engine_runtime.RuntimeSpec) -> list[str]:
        specs.append(spec)
        return ["install 1 packages"]

    monkeypatch.setattr(engine_runtime, "install", install)
    result = run_module("engine_runtime", arguments)
    assert result["changed"]
    assert result["path"] == f"{arguments['root']}/{result['id']}"
    assert specs[0].min_free_bytes == 2 * 1024**3
    assert specs[0].environment == {"UV_HTTP_TIMEOUT": "60"}
    # Until a release with it is staged, nothing else refers to it.
    assert Staging(str(Path(arguments["root"]).parent)).runtimes() == {result["id"]}


def test_check_mode_installs_nothing(
    run_module: RunModule, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, t.Any]
) -> None:
    monkeypatch.setattr(engine_runtime, "install", pytest.fail)
    result = run_module("engine_runtime", arguments, check=True)
    assert result["changed"]
    complete = Path(result["path"])
    (complete / "bin").mkdir(parents=True)
    (complete / "bin" / "python").touch()
    (complete / ".complete.json").write_text("{}")
    assert not run_module("engine_runtime", arguments, check=True)["changed"]


def test_a_failure_is_a_message(
    run_module: RunModule, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, t.Any]
) -> None:
    def refuse(spec: engine_runtime.RuntimeSpec) -> list[str]:
        raise FleetError("the disk is too small")

    monkeypatch.setattr(engine_runtime, "install", refuse)
    result = run_module("engine_runtime", arguments)
    assert result["failed"]
    assert result["msg"] == "the disk is too small"


def test_a_runtime_whose_compiler_is_missing_stops_nothing(
    run_module: RunModule, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, t.Any]
) -> None:
    monkeypatch.setattr(engine_runtime, "install", lambda _spec: [])
    monkeypatch.setenv("PATH", "/nowhere")
    arguments["programs"] = [{"program": "gcc", "why": "Triton compiles with it", "fix": "install gcc"}]
    result = run_module("engine_runtime", arguments)
    assert result["failed"]
    assert result["msg"] == (
        "The host has no gcc: Triton compiles with it. To have it, install gcc. Nothing was stopped."
    )
