from __future__ import annotations

import json
from pathlib import Path

from ansible_collections.inference.fleet.plugins.module_utils.model.fetch import MANIFEST, PARTIAL
from ansible_collections.inference.fleet.plugins.module_utils.model.prune import (
    Stored,
    over_budget,
    remove,
    stored,
    unused,
)


def make(root: Path, name: str, completed: str = "") -> Path:
    directory = root / "it" / name
    directory.mkdir(parents=True)
    (directory / "weights").write_bytes(b"x" * 10_000)
    if completed:
        (directory / MANIFEST).write_text(json.dumps({"completed": completed}))
    return directory


def names(snapshots: list[Stored]) -> list[str]:
    return [Path(one.path).name for one in snapshots]


def test_only_snapshots_count(tmp_path: Path) -> None:
    make(tmp_path, "a", "2026-01-01")
    make(tmp_path, "b.partial")
    make(tmp_path, "somebody-elses")
    (tmp_path / "it/link").symlink_to(tmp_path / "it/a")
    (tmp_path / "it/.lock").touch()
    found = stored([str(tmp_path), str(tmp_path / "none")])
    assert [(one.revision, one.completed) for one in found] == [("a", "2026-01-01"), ("b", "")]
    assert all(one.size >= 10_000 for one in found)


def test_configured_used_and_coming_snapshots_stay(tmp_path: Path) -> None:
    for number, name in enumerate(("old", "older", "used", "configured")):
        make(tmp_path, name, f"2026-01-0{9 - number}")
    make(tmp_path, "coming.partial")
    make(tmp_path, "dropped.partial")
    configured, coming = str(tmp_path / "it/configured"), {str(tmp_path / "it/coming")}
    idle = unused(stored([str(tmp_path)]), configured, coming, {str(tmp_path / "it/used")})
    assert names(idle) == ["old", "older", "dropped.partial"]
    assert names(over_budget(idle, 1)) == ["dropped.partial", "older"]
    assert names(over_budget(idle, 9)) == ["dropped.partial"]


def test_what_is_removed_never_passes_for_a_model(tmp_path: Path) -> None:
    directory = make(tmp_path, "a", "2026-01-01")
    make(tmp_path, "a.partial")
    for one in stored([str(tmp_path)]):
        if not one.path.endswith(PARTIAL):
            remove(one)
    assert not directory.exists()
    assert not (tmp_path / "it/a.partial").exists()
