"""The stand-in over two nodes: it serves when both are there, and does not notice when one fails."""

from __future__ import annotations

import time
import typing as t
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.unit.fakes import runtimes

NODE_OPTIONS: dict[str, t.Callable[[int, int], dict[str, t.Any]]] = {
    "vllm": lambda rank, port: {
        "nnodes": 2,
        "node-rank": rank,
        "master-addr": "127.0.0.1",
        "master-port": port,
        **({"headless": True} if rank else {}),
    },
    "sglang": lambda rank, port: {"nnodes": 2, "node-rank": rank, "dist-init-addr": f"127.0.0.1:{port}"},
}


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_it_serves_when_both_nodes_are_there(engine: str, tmp_path: Path) -> None:
    runtime = runtimes.make(engine, tmp_path)
    port = free_port()
    places = [tmp_path / "first", tmp_path / "second"]
    for place in places:
        place.mkdir()
    first, second = (
        runtimes.Engine(engine, runtime, place, NODE_OPTIONS[engine](rank, port)) for rank, place in enumerate(places)
    )
    with first:
        # Alone it would serve by now.
        time.sleep(2)
        assert first.get("/health")[0] == 0
        with second:
            first.wait()
            assert second.get("/health")[0] == 0
        assert first.get("/health")[0] == 200
