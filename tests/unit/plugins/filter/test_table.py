from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.inference.fleet.plugins.filter.table import FilterModule, table


def test_columns_are_aligned_and_numbers_stand_right() -> None:
    rows = [
        {"host": "inference-1", "engine": "vllm", "waiting": 0},
        {"host": "inference-12", "engine": "sglang", "waiting": 112},
    ]
    assert table(rows, ["host", "engine", "waiting"]) == [
        "host          engine  waiting",
        "inference-1   vllm          0",
        "inference-12  sglang      112",
    ]


def test_titles_dotted_keys_and_missing_values() -> None:
    rows: list[dict[str, t.Any]] = [
        {"host": "a", "driver": {"version": "595.71.05"}, "requests.running": 3, "drained": True},
        {"host": "b", "driver": None, "drained": False},
        {"host": ""},
    ]
    columns: list[t.Any] = ["host", {"key": "driver.version", "title": "driver"}, "requests.running", "drained"]
    assert table(rows, columns) == [
        "host  driver     requests.running  drained",
        "a     595.71.05                 3  yes",
        "b     -                         -  no",
        "-     -                         -  -",
    ]


def test_a_cell_is_one_line_and_as_wide_as_allowed() -> None:
    rows: list[dict[str, t.Any]] = [
        {"reason": "GPU 2:\n fell  off"},
        {"reason": ["a", "b"]},
        {"reason": "a long reason"},
    ]
    assert table(rows, [{"key": "reason", "width": 10}]) == ["reason", "GPU 2: fe…", "a, b", "a long re…"]


def test_alignment_can_be_set() -> None:
    rows = [{"a": "x", "b": 1}, {"a": "long", "b": 22}]
    assert table(rows, [{"key": "a", "align": "right"}, {"key": "b", "align": "left"}]) == [
        "   a  b",
        "   x  1",
        "long  22",
    ]


def test_a_column_without_any_value_stands_left() -> None:
    assert table([{"a": None}], [{"key": "a", "title": "heading"}, "b"]) == ["heading  b", "-        -"]


def test_wide_letters_take_two_places() -> None:
    assert table([{"name": "主机", "x": "y"}, {"name": "host-1", "x": "z"}], ["name", "x"]) == [
        "name    x",
        "主机    y",
        "host-1  z",
    ]


def test_no_rows_is_only_a_header() -> None:
    assert table([], ["host", "verdict"]) == ["host  verdict"]


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([{}], [], "columns is empty"),
        (["text"], ["a"], "row 0 is 'text'"),
        ([{}], [{"title": "x"}], "is not valid"),
        ([{}], [{"key": "a", "align": "middle"}], "is not valid"),
        ([{}], [{"key": "a", "colour": "red"}], "is not valid"),
    ],
)
def test_an_invalid_table_is_reported(rows: list[t.Any], columns: list[t.Any], message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        table(rows, columns)


def test_it_is_a_filter() -> None:
    assert FilterModule().filters() == {"table": table}
