from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.model import sources
from ansible_collections.inference.fleet.plugins.module_utils.model.fetch import MANIFEST, File
from ansible_collections.inference.fleet.plugins.module_utils.model.sources import from_path, select

from tests.unit.plugins.module_utils.model.models import EVERYTHING, SHARDS, model_files, write_files


def names(paths: list[str], include: list[str] | None = None, exclude: list[str] | None = None) -> list[str]:
    selection = {"include": include or [], "exclude": exclude or []}
    return [file.path for file in select([File(path, 1) for path in paths], selection)]


def test_hidden_files_are_left_out() -> None:
    assert names([".gitattributes", ".cache/x", "a/.b", "config.json"]) == ["config.json"]


def test_the_same_weights_in_other_formats_are_left_out() -> None:
    assert names(["model.safetensors", "pytorch_model.bin", "original/c.pth"]) == ["model.safetensors"]
    assert names(["pytorch_model.bin", "config.json"]) == ["config.json", "pytorch_model.bin"]


def test_patterns_choose() -> None:
    paths = ["config.json", "model.safetensors", "consolidated.safetensors", "figures/a.png"]
    assert names(paths, exclude=["consolidated*", "figures/*"]) == ["config.json", "model.safetensors"]
    assert names(paths, include=["*.json"]) == ["config.json"]


def test_a_directory_is_named_after_its_content(tmp_path: Path) -> None:
    first = from_path(str(write_files(tmp_path / "a", model_files())), "", EVERYTHING)
    same = write_files(tmp_path / "b", model_files())
    os.utime(same / "config.json", (1, 1))
    assert from_path(str(same), "", EVERYTHING).revision == first.revision
    assert first.revision.startswith("content-")
    (same / "config.json").write_text("[]")
    assert from_path(str(same), "", EVERYTHING).revision != first.revision
    assert from_path(str(same), "v7", EVERYTHING).revision == "v7"


def test_large_files_are_sampled_at_both_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_SMALL", 1000)
    monkeypatch.setattr(sources, "_SAMPLE", 100)
    directory = write_files(tmp_path / "a", model_files())
    first = from_path(str(directory), "", EVERYTHING)
    with open(directory / SHARDS[0], "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    assert from_path(str(directory), "", EVERYTHING).revision != first.revision


def test_links_to_files_are_followed_as_in_a_hub_cache(tmp_path: Path) -> None:
    real = write_files(tmp_path / "blobs", model_files())
    linked = tmp_path / "snapshot"
    linked.mkdir()
    for path in model_files():
        (linked / path).symlink_to(real / path)
    assert from_path(str(linked), "", EVERYTHING) == from_path(str(real), "", EVERYTHING)


def test_a_directory_without_a_model_is_refused_with_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match=r"no directory on this host"):
        from_path(str(tmp_path / "none"), "", EVERYTHING)
    write_files(tmp_path, {"readme.txt": b""})
    with pytest.raises(FleetError, match=r"There is no model at .*neither config\.json nor params\.json.*readme\.txt"):
        from_path(str(tmp_path), "", EVERYTHING)


def test_a_half_copied_directory_is_refused(tmp_path: Path) -> None:
    files = model_files()
    del files[SHARDS[1]]
    with pytest.raises(FleetError, match=rf"is not whole.*{SHARDS[1]}"):
        from_path(str(write_files(tmp_path, files)), "", EVERYTHING)


def test_a_copied_snapshot_brings_its_hashes(tmp_path: Path) -> None:
    directory = write_files(tmp_path, model_files())
    recorded = {
        "files": [{"path": "config.json", "size": 2, "sha256": "abc"}, {"path": SHARDS[0], "size": 1, "sha256": "d"}]
    }
    (directory / MANIFEST).write_text(json.dumps(recorded))
    known = {file.path: file.sha256 for file in from_path(str(directory), "", EVERYTHING).files}
    assert known["config.json"] == "abc"
    assert known[SHARDS[0]] == "", "another size is another file"
