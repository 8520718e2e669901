"""The page as a browser reads it. How it looks was seen in a headless Chromium."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark import page, table

from tests.pages import check_page
from tests.unit.plugins.plugin_utils.benchmark.benchmarks import measured, record


def render(records: list[dict[str, t.Any]], before: list[dict[str, t.Any] | None] | None = None) -> str:
    return page.render_page("20261130T100000Z", "2026-11-30T10:05:00Z", records, before or [None] * len(records))


def test_two_columns_with_their_differences() -> None:
    second = record(host="gpu-2", instance="sglang-0")
    second["measured"] = {"at_64": measured("at_64", "tokens_per_second", 1500.0, 1501.0, 1499.0)}
    text = render([record(), second], [record(measured=second["measured"]), None])
    reader = check_page(text)
    assert "gpu-1 vllm-0, gpu-2 sglang-0" in reader.text
    assert "1000 ±10 -33% worse" in reader.text
    assert "+50% better" in reader.text
    assert "0.50 $ for a million tokens" in reader.text
    lengths = [attributes["width"] for attributes in reader.all("rect")]
    assert lengths == ["66.7", "100.0"]


def test_one_column_has_no_second() -> None:
    reader = check_page(render([record()]))
    assert "Second against first" not in reader.text


def test_nothing_measured_is_a_page_too() -> None:
    reader = check_page(render([record(measured={}, left_out={"long": "no room"})]))
    assert "no room" in reader.text
    assert "At a glance" not in reader.text


@pytest.mark.parametrize("name", ["host", "instance", "model", "version", "profile"])
def test_no_name_becomes_markup(name: str) -> None:
    text = render([record(**{name: '<script>alert("x")</script>'})])
    assert "<script" not in text
    check_page(text)


def test_bars_are_of_one_figure() -> None:
    rows = table.figure_rows([record(), record(measured={})], [None, None])
    [group] = page.bar_groups(rows, "tokens/s")
    assert [(bar.column, bar.length) for bar in group.bars] == [(0, 100.0)]
    assert page.bar_groups(rows, "first token, ms") == []
