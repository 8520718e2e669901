from __future__ import annotations

import math
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.instances.ready import Slice
from ansible_collections.inference.fleet.plugins.modules import engine_ready

from tests.unit.conftest import RunModule

INSTANCES = {"instances": [{"unit": "vllm@0.service", "engine_port": 8100}], "timeout": 7}


def test_it_says_how_long_each_took(run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[t.Any] = []

    def ready(*given: t.Any) -> Slice:
        asked.append(given)
        return Slice(1000.0, {"vllm@0.service": 0}, {"vllm@0.service": 1.25}, [])

    monkeypatch.setattr(engine_ready, "wait_a_slice", ready)
    result = run_module("engine_ready", INSTANCES)
    assert asked == [({"vllm@0.service": 8100}, 7, math.inf, None, {})]
    assert result["seconds"] == {"vllm@0.service": 1.2}
    assert result["ready"]
    assert not result["changed"]


def test_a_failure_keeps_reason_and_journal(run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(*_given: t.Any) -> Slice:
        raise FleetError("vllm@0.service ended", reason="out_of_memory", journal=["CUDA out of memory"])

    monkeypatch.setattr(engine_ready, "wait_a_slice", dead)
    result = run_module("engine_ready", INSTANCES)
    assert result["failed"]
    assert result["reason"] == "out_of_memory"
    assert result["journal"] == ["CUDA out of memory"]


def test_check_mode_waits_for_nothing(run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_ready, "wait_a_slice", pytest.fail)
    assert run_module("engine_ready", INSTANCES, check=True)["seconds"] == {}


def test_a_slice_hands_over_where_it_stands(run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[t.Any] = []
    doing = {"unit": "vllm@0.service", "phase": "loading", "text": "loading", "percent": 5, "seconds": 2.0}

    def a_slice(*given: t.Any) -> Slice:
        asked.append(given)
        return Slice(1000.25, {"vllm@0.service": 2}, {}, [doing])

    monkeypatch.setattr(engine_ready, "wait_a_slice", a_slice)
    first = run_module("engine_ready", {**INSTANCES, "slice": 2})
    assert not first["ready"]
    assert first["progress"] == [doing]
    again = {name: first[name] for name in ("since", "restarts")}
    run_module("engine_ready", {**INSTANCES, "slice": 2, **again})
    assert asked == [
        ({"vllm@0.service": 8100}, 7, 2.0, None, {}),
        ({"vllm@0.service": 8100}, 7, 2.0, 1000.25, {"vllm@0.service": 2}),
    ]


def test_a_slice_in_which_all_serve_is_the_last(run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Slice(1000.0, {"vllm@0.service": 0}, {"vllm@0.service": 1.25}, [])
    monkeypatch.setattr(engine_ready, "wait_a_slice", lambda *_given: seen)
    result = run_module("engine_ready", {**INSTANCES, "slice": 2})
    assert result["ready"]
    assert result["seconds"] == {"vllm@0.service": 1.2}
