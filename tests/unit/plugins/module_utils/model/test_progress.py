from __future__ import annotations

import json
from pathlib import Path

from ansible_collections.inference.fleet.plugins.module_utils.model.progress import restoring

GIB = 1024**3


def _document(folder: Path, name: str, state: str, done: int, rate: int = 0) -> None:
    document = {"state": state, "done_bytes": done, "total_bytes": 16 * GIB, "rate": rate}
    (folder / f"{name}.json").write_text(json.dumps(document))


def test_downloads_are_summed_up(tmp_path: Path) -> None:
    _document(tmp_path, "one", "fetching", 4 * GIB, 100 * 1024**2)
    _document(tmp_path, "two", "fetching", 12 * GIB + 1, 28 * 1024**2)
    _document(tmp_path, "three", "complete", 0)
    (tmp_path / "four.json").write_text("{")
    found = restoring(str(tmp_path))
    assert (found.phase, found.percent) == ("downloading", 50)
    assert found.text == "downloading the weights, 16.0 GiB of 32.0 GiB, 128.0 MiB/s"


def test_without_a_download_they_are_checked(tmp_path: Path) -> None:
    _document(tmp_path, "one", "verifying", 4 * GIB)
    assert restoring(str(tmp_path)).phase == "checking"
    assert restoring(str(tmp_path / "nothing")).phase == "checking"


def test_an_unknown_size_has_no_percentage(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps({"state": "fetching"}))
    assert restoring(str(tmp_path)).percent is None
