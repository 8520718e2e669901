"""Module serving_counters, with stand-ins for HAProxy and the engine; tests/integration/edge has a real HAProxy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.engine import FakeEngine
from tests.fakes.haproxy import FakeHaproxy
from tests.unit.conftest import RunModule
from tests.unit.plugins.module_utils.rollout.test_counters import SGLANG, VLLM

STATISTICS = """\
# pxname,svname,hrsp_2xx,hrsp_5xx,srv_abrt,
instances_8000,engine-0,90,10,1,
instances_8000,BACKEND,90,10,1,
"""


class CountingEngine(FakeEngine):
    """The stand-in, with an engine's histograms."""

    def metrics(self) -> str:
        return super().metrics() + {"vllm": VLLM, "sglang": SGLANG}[self.engine]


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_edge_and_engine_are_read(tmp_path: Path, run_module: RunModule, engine: str) -> None:
    with FakeHaproxy(tmp_path) as haproxy, CountingEngine(engine=engine) as running:
        haproxy.worker.statistics = STATISTICS
        places = {"socket": haproxy.socket, "master_socket": haproxy.master_socket}
        result = run_module("serving_counters", {**places, "first_engine_port": running.port}, check=True)
    assert not result["changed"]
    assert result["problems"] == []
    assert result["edge"] == {"answers": 100, "errors": 11}
    assert result["instances"]["engine-0"]["ttft"][0] == [1.0, 6.0 if engine == "vllm" else 5.0]
    assert result["at"] > 1.7e9


def test_an_engine_that_does_not_answer_is_named_and_the_edge_is_there(tmp_path: Path, run_module: RunModule) -> None:
    with FakeHaproxy(tmp_path) as haproxy:
        haproxy.worker.statistics = STATISTICS
        places = {"socket": haproxy.socket, "master_socket": haproxy.master_socket}
        result = run_module("serving_counters", {**places, "first_engine_port": 1}, check=False)
    assert not result.get("failed")
    assert result["edge"] == {"answers": 100, "errors": 11}
    assert result["instances"] == {}
    assert "The metrics of engine-0 cannot be read" in result["problems"][0]


def test_without_an_edge_nothing_is_known_and_nothing_fails(tmp_path: Path, run_module: RunModule) -> None:
    places = {"socket": str(tmp_path / "none"), "master_socket": str(tmp_path / "neither")}
    result = run_module("serving_counters", places, check=False)
    assert not result.get("failed")
    assert (result["edge"], result["instances"]) == (None, {})
