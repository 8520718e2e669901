from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.modules import engine_memory

from tests.unit.conftest import Result, RunModule

SAYS = "(EngineCore pid=7) INFO GPU KV cache size: 149,008 tokens\\nAvailable KV cache memory: 20.46 GiB"


class Host:
    """A host with instance 0 of vLLM, whose process is this one."""

    def __init__(self, tmp_path: Path, run_module: RunModule) -> None:
        self.place = tmp_path
        self._run = run_module
        release = tmp_path / "opt" / "releases" / "vllm-1"
        release.mkdir(parents=True)
        manifest = {"engine": "vllm", "version": "0.32.0", "model": "m", "model_path": "/m", "options": {}}
        (release / "manifest.json").write_text(json.dumps(manifest))
        (tmp_path / "run" / "0").mkdir(parents=True)
        (tmp_path / "run" / "0" / "release").write_text("vllm-1\n")
        self.program("nvidia-smi", "echo NVIDIA L40S")
        self.runs(True)

    def program(self, name: str, text: str) -> None:
        path = self.place / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def runs(self, running: bool, says: str = SAYS) -> None:
        state = f"ActiveState=active\\nMainPID={os.getpid()}" if running else "ActiveState=inactive"
        self.program("systemctl", f"printf '{state}\\n'")
        self.program("journalctl", f"printf '{says}\\n'")

    def look(self, check: bool = False) -> Result:
        arguments: dict[str, t.Any] = {
            "instances": [{"index": 0, "name": "vllm-0", "unit": "vllm@0.service", "gpus": [0]}],
            "root": str(self.place / "opt"),
            "record_dir": str(self.place / "memory"),
        }
        return self._run("engine_memory", arguments, check=check)


@pytest.fixture
def host(tmp_path: Path, run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(engine_memory, "RUN_DIRECTORY", str(tmp_path / "run"))
    return Host(tmp_path, run_module)


def test_memory_figures_are_kept_when_the_journal_is_gone(host: Host) -> None:
    [found] = host.look()["instances"]
    assert found["record"]["memory"] == {"kv_cache_gib": 20.46, "kv_cache_tokens": 149008}
    assert (found["record"]["release"], found["record"]["gpu"]) == ("vllm-1", "NVIDIA L40S")
    assert json.loads(Path(found["path"]).read_text()) == found["record"]
    host.runs(True, says="nothing")
    assert host.look()["instances"] == [found]
    host.runs(False)
    assert host.look()["instances"] == [found]


def test_check_mode_reads_and_writes_nothing(host: Host) -> None:
    result = host.look(check=True)
    assert result["instances"][0]["record"]["memory"]["kv_cache_tokens"] == 149008
    assert not (host.place / "memory").exists()
    assert result["changed"] is False


def test_without_gpu_and_without_words_there_is_nothing(host: Host) -> None:
    host.program("nvidia-smi", "exit 9")
    assert host.look(check=True)["instances"][0]["record"]["gpu"] == ""
    host.runs(True, says="nothing")
    assert host.look()["instances"][0]["record"] is None


def test_an_invalid_record_is_named(host: Host) -> None:
    (host.place / "memory").mkdir()
    (host.place / "memory" / "vllm-0.json").write_text("{")
    result = host.look()
    assert result["failed"]
    assert "vllm-0.json" in result["msg"]
