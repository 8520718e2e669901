from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.report import files

from tests.unit.plugins.plugin_utils.rollout.rollout_journals import good_run, unreachable


def written(directory: Path, text: str) -> str:
    directory.mkdir(parents=True)
    (directory / "journal.jsonl").write_text(text)
    return str(directory)


def test_record_and_page_are_made_from_the_journal(tmp_path: Path) -> None:
    directory = written(tmp_path / "1", good_run().text)
    record = files.write(directory, alive=True)
    assert record["outcome"] == "finished"
    assert json.loads((tmp_path / "1" / "record.json").read_text()) == record
    assert (tmp_path / "1" / "index.html").read_text().startswith("<!DOCTYPE html>")
    for name in ("record.json", "index.html"):
        assert stat.S_IMODE(os.stat(tmp_path / "1" / name).st_mode) == 0o600
    assert sorted(path.name for path in (tmp_path / "1").iterdir()) == ["index.html", "journal.jsonl", "record.json"]


def test_the_page_is_made_again_each_time(tmp_path: Path) -> None:
    journal = good_run()
    directory = written(tmp_path / "1", journal.text[:-30])
    assert files.write(directory, alive=False)["outcome"] == "broken off"
    (tmp_path / "1" / "journal.jsonl").write_text(journal.text)
    assert files.write(directory, alive=False)["outcome"] == "finished"
    assert "✓ finished" in (tmp_path / "1" / "index.html").read_text()


def test_a_journal_may_hold_any_bytes(tmp_path: Path) -> None:
    directory = written(tmp_path / "1", good_run().text)
    with open(tmp_path / "1" / "journal.jsonl", "ab") as file:
        file.write(b'\xff\xfe\x00{"event": "\r\n')
    record = files.write(directory, alive=True)
    assert record["outcome"] == "finished"
    assert len(record["warnings"]) == 1


def test_without_a_journal_there_is_nothing_to_make(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.write(str(tmp_path), alive=True)


def test_reading_prefers_the_journal(tmp_path: Path) -> None:
    directory = written(tmp_path / "1", unreachable().text)
    (tmp_path / "1" / "record.json").write_text('{"outcome": "old"}')
    assert [(files.read(directory, alive) or {})["outcome"] for alive in (True, False)] == ["running", "broken off"]
    (tmp_path / "1" / "journal.jsonl").unlink()
    assert files.read(directory) == {"outcome": "old"}
    (tmp_path / "1" / "record.json").write_text("[]")
    assert files.read(directory) is None
    (tmp_path / "1" / "record.json").write_text("{")
    with pytest.raises(FleetError, match="is not valid JSON"):
        files.read(directory)
    assert files.read(str(tmp_path / "2")) is None


def test_the_newest_comes_first_and_what_is_no_rollout_not_at_all(tmp_path: Path) -> None:
    ids = ["20261122T153000Z-site", "20261123T080000Z-rollback", "20250101T000000Z-rolling_restart"]
    for name in ids:
        written(tmp_path / name, good_run().text)
    (tmp_path / "29990101T000000Z-site").mkdir()
    (tmp_path / ".lock").write_text("")
    assert [Path(path).name for path in files.newest(str(tmp_path))] == sorted(ids, reverse=True)
    assert files.newest(str(tmp_path / "nowhere")) == []
