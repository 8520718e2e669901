from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.exposition import render
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.history import (
    FORMAT,
    GAVE_UP,
    HUNG,
    HistoryFile,
    InstanceHistory,
    NewerFormat,
)


def test_what_is_kept_is_read_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "watchdog.json"
    history = InstanceHistory().hung().restarted(100.0, 3600).out(HUNG, "why", 90.0)
    HistoryFile(str(path)).keep(1, history)
    again = HistoryFile(str(path))
    assert again.of(1) == history
    assert again.of(0) == InstanceHistory()


def test_the_time_out_of_service_counts_from_its_beginning() -> None:
    history = InstanceHistory().out(HUNG, "a", 10.0).out(GAVE_UP, "b", 20.0, "gate")
    assert (history.since, history.reason, history.kind) == (10.0, "b", "gate")
    assert history.back() == InstanceHistory()


def test_old_restarts_are_counted_and_forgotten() -> None:
    history = InstanceHistory().restarted(0.0, 100).restarted(50.0, 100).restarted(140.0, 100)
    assert history.restarts == (50.0, 140.0)
    assert history.restarts_total == 3


@pytest.mark.parametrize("content", ["", "[]", '{"format": 1}', '{"format": 1, "instances": {"x": 1}}', "\x00\xff"])
def test_a_corrupt_file_is_named_and_a_new_one_begins(tmp_path: Path, content: str) -> None:
    path = tmp_path / "watchdog.json"
    path.write_bytes(content.encode("latin-1"))
    file = HistoryFile(str(path))
    assert "cannot be read" in file.problem
    file.keep(0, InstanceHistory().hung())
    assert HistoryFile(str(path)).of(0).hangs == 1


def test_a_newer_file_is_refused_with_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "watchdog.json"
    path.write_text(json.dumps({"format": FORMAT + 1, "instances": {}}))
    with pytest.raises(NewerFormat, match=f"has format {FORMAT + 1}, and this version .* reads format {FORMAT}"):
        HistoryFile(str(path))


def test_a_full_disk_is_named_and_what_is_remembered_stays(tmp_path: Path) -> None:
    file = HistoryFile(str(tmp_path / "nowhere" / "watchdog.json"))
    file.keep(0, InstanceHistory().hung())
    assert "cannot be written" in file.problem
    assert file.of(0).hangs == 1


def test_the_metrics_say_verdict_restarts_and_who_was_given_up() -> None:
    given_up = InstanceHistory(hangs=2).restarted(1796007516.4, 100).out(GAVE_UP, "its gate", 1796007520.0, "gate")
    lines = render("act", {0: ("ok", InstanceHistory()), 1: ("hang", given_up)}, 1234.6).splitlines()
    assert 'fleet_watchdog_verdict{instance="0"} 0' in lines
    assert 'fleet_watchdog_verdict{instance="1"} 3' in lines
    assert 'fleet_watchdog_gave_up{instance="1"} 1' in lines
    assert 'fleet_watchdog_restarts_total{instance="1"} 1' in lines
    assert 'fleet_watchdog_last_restart_timestamp_seconds{instance="1"} 1796007516' in lines
    assert not [line for line in lines if line.startswith("fleet_watchdog_last_restart") and 'instance="0"' in line]
    assert 'fleet_watchdog_mode{mode="act"} 1' in lines
    assert "fleet_watchdog_last_look_timestamp_seconds 1235" in lines
    names = {line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")}
    assert names == {line.split()[2] for line in lines if line.startswith("# TYPE")}
