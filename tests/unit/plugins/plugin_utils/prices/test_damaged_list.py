"""A list of prices that cannot be read, as a broken merge or a full disk leaves it."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.filter.prices import host_costs, price_notes
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.prices import table


@pytest.fixture(params=["", '{"regions": {"us-east-1": {"date": "2026', "[]", '{"regions": {"us-east-1": {}}}'])
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "ec2.json"
    path.write_text(request.param)
    return path


def test_the_error_names_the_file_and_the_way_out(damaged: Path) -> None:
    with pytest.raises(FleetError, match=rf"{damaged} cannot be read .* script/prices"):
        table.load(damaged)


def test_hosts_are_shown_without_prices_and_a_note_says_why(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "load", functools.partial(table.load, damaged))
    costs = host_costs(["gpu-1"], {"gpu-1": {"fleet_instance_type": "g6e.xlarge", "fleet_region": "us-east-1"}})
    assert [cost["host"] for cost in costs] == ["gpu-1"]
    assert f"The list of prices {damaged} cannot be read" in price_notes(costs)[-1]
