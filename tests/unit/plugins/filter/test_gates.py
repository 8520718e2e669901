from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.filter.gates import gate_lines

from tests.fakes.engine import MODEL, FakeEngine
from tests.unit.conftest import RunModule

KEY = "sk-0123456789abcdef0123456789abcdef"


def test_what_the_gate_returns_becomes_a_line_for_each_service(run_module: RunModule) -> None:
    with FakeEngine(key=KEY) as engine:
        options: dict[str, t.Any] = {"model": MODEL, "api_key": KEY, "checks": ["models"], "attempts": 1}
        targets = [{"name": name, "url": engine.url} for name in ("edge", "edge-8001")]
        passed = run_module("chat_smoke", {**options, "targets": targets})
        engine.faults.set("reject")
        failed = run_module("chat_smoke", {**options, "targets": targets})
    lines = gate_lines({"gpu-1": passed, "gpu-2": failed, "gpu-3": {}})
    assert [line.split(" (")[0] for line in lines[:2]] == ["gpu-1: edge", "gpu-1: edge-8001"]
    assert lines[2].startswith("gpu-2: The gate failed on edge")
    assert lines[3:] == ["gpu-3: UNREACHABLE"]
