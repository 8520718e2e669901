from __future__ import annotations

import multiprocessing
from pathlib import Path

from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import journal


def write_many(path: str, who: int) -> None:
    for number in range(50):
        journal.append(path, "step", who=who, number=number, padding="x" * 2000)


def test_many_writers_lose_and_mix_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "journal.jsonl")
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(path, who)) for who in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    events = journal.read(path)
    assert len(events) == 200
    for who in range(4):
        assert [event["number"] for event in events if event["who"] == who] == list(range(50))


def test_half_a_line_costs_that_line_only(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal.append(str(path), "begin", id="r1")
    with path.open("a") as file:
        file.write('{"at": 1, "event": "st')
    journal.append(str(path), "resume", who="anna")
    assert [event["event"] for event in journal.read(str(path))] == ["begin", "resume"]
    assert journal.parse(path.read_text())[1] == {"event": journal.BROKEN_LINE, "line": 2}


def test_no_journal_is_an_empty_one(tmp_path: Path) -> None:
    path = str(tmp_path / "none")
    assert journal.read(path) == []
    assert journal.size(path) == 0


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal.append(str(path), "begin", odd={1, 2}.__class__)
    assert path.stat().st_mode & 0o777 == 0o600
    assert journal.size(str(path)) == path.stat().st_size
