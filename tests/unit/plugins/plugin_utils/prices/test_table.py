from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.gpu.hardware import alternatives, hardware_of
from ansible_collections.inference.fleet.plugins.plugin_utils.prices import table
from ansible_collections.inference.fleet.plugins.plugin_utils.prices.price_list import is_wanted

TABLE = table.load()
ROOT = Path(__file__).parents[5]


def test_every_region_has_a_date_a_source_and_prices_of_known_types() -> None:
    assert "us-east-1" in TABLE
    for name, region in TABLE.items():
        datetime.date.fromisoformat(region.date)
        assert len(region.source) > 20, name
        assert region.prices, name
        assert [kind for kind in region.prices if not is_wanted(kind)] == [], name
        assert min(region.prices.values()) > 0.05, name


def test_the_default_types_are_there_where_the_list_knows_a_region() -> None:
    sizes = {f"g6e.{size}" for size in ("xlarge", "2xlarge", "4xlarge", "8xlarge")} | set(alternatives("g6e.xlarge", 4))
    for name, region in TABLE.items():
        assert sizes <= set(region.prices), name


@pytest.mark.parametrize(
    ("kind", "usd"),
    [("g6e.xlarge", 1.861), ("g6e.12xlarge", 10.49264), ("g6e.48xlarge", 30.13118), ("p5.48xlarge", 55.04)],
)
def test_prices_of_us_east_1_that_other_sources_have_too(kind: str, usd: float) -> None:
    assert TABLE["us-east-1"].prices[kind] == usd


def test_the_sizes_of_a_family_have_one_ratio_between_two_regions() -> None:
    """AWS sets the prices of a family so; a wrong digit breaks it."""
    base = TABLE["us-east-1"].prices
    for name, region in TABLE.items():
        families: dict[str, list[float]] = {}
        for kind, usd in region.prices.items():
            if kind in base and hardware_of(kind):
                families.setdefault(kind.partition(".")[0], []).append(usd / base[kind])
        for family, ratios in families.items():
            assert max(ratios) - min(ratios) < 0.001, (name, family)


def test_a_list_that_is_written_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "ec2.json"
    table.write(TABLE, path)
    assert table.load(path) == TABLE
    assert path.read_text() == table.FILE.read_text()
    assert "on demand" in json.loads(path.read_text())["what"]


@pytest.mark.parametrize("page", ["aws.md", "aws.zh-CN.md"])
def test_the_page_names_every_region_and_its_date(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    assert [name for name, region in TABLE.items() if name not in text or region.date not in text] == []
