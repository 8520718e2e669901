from __future__ import annotations

import stat
import typing as t
from pathlib import Path

from ansible_collections.inference.fleet.plugins.modules import engine_key

from tests.unit.conftest import RunModule


def test_the_key_is_made_once_and_never_shown(run_module: RunModule, tmp_path: Path) -> None:
    path = tmp_path / "etc" / "engine_key.env"
    first = run_module("engine_key", {"path": str(path)})
    assert first["changed"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = path.read_text().strip().removeprefix("ENGINE_API_KEY=")
    assert len(key) > 40
    assert key not in str(first)
    second = run_module("engine_key", {"path": str(path)})
    assert not second["changed"]
    assert second["fingerprint"] == first["fingerprint"]


def test_a_key_that_others_could_read_is_replaced(run_module: RunModule, tmp_path: Path) -> None:
    path = tmp_path / "engine_key.env"
    run_module("engine_key", {"path": str(path)})
    before = path.read_text()
    path.chmod(0o644)
    assert run_module("engine_key", {"path": str(path)})["changed"]
    assert path.read_text() != before


def test_check_mode_makes_nothing(run_module: RunModule, tmp_path: Path) -> None:
    path = tmp_path / "engine_key.env"
    assert run_module("engine_key", {"path": str(path)}, check=True)["changed"]
    assert not path.exists()


def test_it_is_renewed_while_nothing_else_runs(tmp_path: Path) -> None:
    path = tmp_path / "engine_key.env"
    base: dict[str, t.Any] = {"path": str(path), "instance": None, "others": [], "engines": ["vllm"]}
    first = engine_key.run({**base, "state": "present"}, False, lambda index: False)
    renewal = {**base, "state": "renewed", "instance": 0, "others": [1, 2]}
    assert engine_key.run(renewal, True, lambda index: False)["changed"]
    waiting = engine_key.run(renewal, False, lambda index: index == 2)
    assert waiting["changed"]
    assert waiting["fingerprint"] == first["fingerprint"], "instance 2 does not know another one"
    assert "NEXT_KNOWN_BY=0" in path.read_text()
    done = engine_key.run({**renewal, "instance": 2}, False, lambda index: index == 0)
    assert done["fingerprint"] != first["fingerprint"]
    assert "NEXT" not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
