from __future__ import annotations

import stat
from pathlib import Path

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
