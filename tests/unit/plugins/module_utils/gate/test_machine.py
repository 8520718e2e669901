from __future__ import annotations

from pathlib import Path

from ansible_collections.inference.fleet.plugins.module_utils.gate.machine import Machine, processors


def test_work_takes_time_and_the_load_is_known_without_an_edge(tmp_path: Path) -> None:
    machine = Machine(socket=str(tmp_path / "admin.sock"))
    assert machine.work_ms() > 0
    load = machine.load()
    assert load["processors"] == processors() > 0
    assert load["load"] >= 0
    assert load["requests"] is None


def test_an_edge_that_does_not_answer_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "admin.sock").write_text("no socket")
    machine = Machine(str(tmp_path / "admin.sock"), str(tmp_path / "master.sock"))
    assert machine.load()["requests"] is None
