from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.modules import engine_read_ahead

from tests.page_cache import drop
from tests.unit.conftest import Result, RunModule


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, t.Any]:
    release = tmp_path / "releases/vllm-1"
    release.mkdir(parents=True)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_bytes(os.urandom(3 << 20))
    manifest = {"engine": "vllm", "runtime": "r", "model_path": str(tmp_path / "model"), "draft_path": ""}
    (release / "manifest.json").write_text(json.dumps(manifest))
    drop(tmp_path)
    (tmp_path / "meminfo").write_text("MemTotal: 16000000 kB\nMemAvailable: 10240 kB\n")
    monkeypatch.setattr(engine_read_ahead, "MEMINFO", str(tmp_path / "meminfo"))
    return {"root": str(tmp_path), "index": 0, "release": "vllm-1", "reserve_mib": 4}


def figures(result: Result) -> tuple[int, int, int, bool]:
    return result["present_mib"], result["read_mib"], result["left_mib"], result["changed"]


def test_it_reads_once_and_changes_nothing(run_module: RunModule, arguments: dict[str, t.Any]) -> None:
    assert figures(run_module("engine_read_ahead", arguments)) == (0, 3, 0, False)
    assert figures(run_module("engine_read_ahead", arguments)) == (3, 0, 0, False)


def test_check_mode_reads_nothing(run_module: RunModule, arguments: dict[str, t.Any]) -> None:
    assert figures(run_module("engine_read_ahead", arguments, check=True)) == (0, 0, 3, False)
    assert figures(run_module("engine_read_ahead", arguments)) == (0, 3, 0, False)


def test_it_leaves_the_reserve_to_programs(run_module: RunModule, arguments: dict[str, t.Any]) -> None:
    assert figures(run_module("engine_read_ahead", {**arguments, "reserve_mib": 8})) == (0, 0, 3, False)


def test_a_release_that_is_not_there_yet_reads_nothing(run_module: RunModule, arguments: dict[str, t.Any]) -> None:
    assert figures(run_module("engine_read_ahead", {**arguments, "release": "vllm-2"}, check=True)) == (0, 0, 0, False)
