from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.model import ranges
from ansible_collections.inference.fleet.plugins.module_utils.model.ranges import (
    Record,
    Span,
    length,
    merge,
    missing,
    read_spans,
)

SIZE = 100


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "it.sparse"
    path.write_bytes(bytes(SIZE))
    return path


def read(tmp_path: Path, content: str = "etag", size: int = SIZE, verifiable: bool = True) -> list[Span]:
    return read_spans(str(tmp_path / "it.spans"), str(tmp_path / "it.sparse"), content, size, verifiable)


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], []),
        ([(5, 9), (0, 5)], [(0, 9)]),
        ([(0, 9), (3, 5)], [(0, 9)]),
        ([(6, 9), (0, 5)], [(0, 5), (6, 9)]),
        ([(7, 7), (9, 3)], []),
    ],
)
def test_spans_that_touch_are_one(spans: list[Span], expected: list[Span]) -> None:
    assert merge(spans) == expected
    assert length(spans) == sum(end - start for start, end in expected)


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], [(0, 40), (40, 80), (80, 100)]),
        ([(0, 100)], []),
        ([(10, 90)], [(0, 10), (90, 100)]),
        ([(50, 60), (0, 5)], [(5, 45), (45, 50), (60, 100)]),
    ],
)
def test_what_is_missing_is_split(spans: list[Span], expected: list[Span]) -> None:
    assert missing(spans, SIZE, 40) == expected


def test_an_empty_file_misses_nothing() -> None:
    assert missing([], 0, 40) == []


def test_a_record_is_read_again(tmp_path: Path, data: Path) -> None:
    record = Record(str(tmp_path / "it.spans"), "etag", SIZE, [(0, 10)])
    assert record.prefix == 10
    record.add(20, 30)
    record.add(50, 50)
    assert record.prefix == 10
    record.add(10, 20)
    assert record.prefix == 30
    assert record.missing(SIZE, 50) == [(30, 80), (80, 100)]
    # The process may be killed at any time after an addition: nothing is left to be written.
    assert read(tmp_path) == [(0, 30)]
    record.close()
    assert not (tmp_path / "it.spans.new").exists()
    data.write_bytes(bytes(25))
    assert read(tmp_path) == [(0, 25)]
    data.unlink()
    assert read(tmp_path) == []


def test_a_record_of_another_content_counts_for_nothing(tmp_path: Path, data: Path) -> None:
    Record(str(tmp_path / "it.spans"), "etag", SIZE, [(0, 10)]).close()
    assert read(tmp_path) == [(0, 10)]
    assert read(tmp_path, content="another") == []
    assert read(tmp_path, size=SIZE + 1) == []


def test_after_a_boot_a_record_counts_only_for_what_is_verified(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Record(str(tmp_path / "it.spans"), "etag", SIZE, [(0, 10)]).close()
    assert read(tmp_path, verifiable=False) == [(0, 10)]
    monkeypatch.setattr(ranges, "boot_id", lambda: "the next one")
    assert read(tmp_path) == [(0, 10)]
    assert read(tmp_path, verifiable=False) == []


@pytest.mark.parametrize("spoilt", ["", "{", "[]\n0 10\n", "0 10\n"])
def test_a_spoilt_record_counts_for_nothing(tmp_path: Path, data: Path, spoilt: str) -> None:
    (tmp_path / "it.spans").write_text(spoilt)
    assert read(tmp_path) == []


def test_torn_lines_are_left_out(tmp_path: Path, data: Path) -> None:
    head = json.dumps({"content": "etag", "size": SIZE})
    (tmp_path / "it.spans").write_text(f"{head}\n0 10\n3030 40\n50 6\n70 8")
    assert read(tmp_path) == [(0, 10)]
