from __future__ import annotations

import pytest
from ansible_collections.inference.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.inference.fleet.plugins.modules import engine_ready

from tests.unit.conftest import RunModule

INSTANCES = {"instances": [{"unit": "vllm@0.service", "engine_port": 8100}], "timeout": 7}


def test_it_says_how_long_each_took(run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def ready(unit: str, port: int, timeout: float) -> float:
        asked.append((unit, port, timeout))
        return 1.25

    monkeypatch.setattr(engine_ready, "wait_until_ready", ready)
    result = run_module("engine_ready", INSTANCES)
    assert asked == [("vllm@0.service", 8100, 7)]
    assert result["seconds"] == {"vllm@0.service": 1.2}
    assert not result["changed"]


def test_a_failure_keeps_reason_and_journal(run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(unit: str, port: int, timeout: float) -> float:
        raise FleetError(f"{unit} ended", reason="out_of_memory", journal=["CUDA out of memory"])

    monkeypatch.setattr(engine_ready, "wait_until_ready", dead)
    result = run_module("engine_ready", INSTANCES)
    assert result["failed"]
    assert result["reason"] == "out_of_memory"
    assert result["journal"] == ["CUDA out of memory"]


def test_check_mode_waits_for_nothing(run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_ready, "wait_until_ready", pytest.fail)
    assert run_module("engine_ready", INSTANCES, check=True)["seconds"] == {}
