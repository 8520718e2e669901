from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import locked, read_json, write_atomically


def test_a_written_file_has_its_content_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write_atomically(str(path), "{}", mode=0o600)
    assert path.read_text() == "{}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.json"
    path.write_text("old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(str(path), "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["keys.json"]


@pytest.mark.parametrize("content", [b'{"a": ', b"\0\0\0\0", b"\xff\xfe\x17\x03"])
def test_a_corrupt_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(content)
    with pytest.raises(FleetError, match=r"keys\.json is not valid JSON"):
        read_json(str(path))


def test_a_missing_file_is_no_document(tmp_path: Path) -> None:
    assert read_json(str(tmp_path / "none")) is None


def test_a_lock_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match=r"The lock .+ cannot be taken \(Is a directory\)"), locked(str(tmp_path)):
        pass


def test_a_second_holder_of_a_lock_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with locked(path), pytest.raises(FleetError, match="Another process has held the lock"), locked(path, timeout=0.1):
        pass
    with locked(path, timeout=0.1):
        pass
