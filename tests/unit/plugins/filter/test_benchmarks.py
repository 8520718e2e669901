"""The filter of the tables of status.yml and plan.yml; the logic is tested in plugin_utils/benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.filter.benchmarks import FilterModule
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark import records

from tests.unit.plugins.plugin_utils.benchmark.benchmarks import record


def test_the_place_may_be_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    records.write(str(tmp_path / "benchmarks"), record(), 10)
    rows = [{"host": "gpu-1", "version": "0.32.0", "release": "1"}]
    [row] = FilterModule().filters()["benchmarked_rows"](rows, "~/benchmarks")
    assert row["usd_per_million"] == "0.50"
