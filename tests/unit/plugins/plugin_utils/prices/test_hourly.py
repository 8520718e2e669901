from __future__ import annotations

import datetime
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.prices.hourly import (
    Cost,
    check_hourly_price,
    cost_of,
    notes,
    priced_rows,
    shown,
    total,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.prices.table import Region

TABLE = {
    "us-east-1": Region("2026-07-20", "somewhere", {"g6e.xlarge": 1.861, "g6e.2xlarge": 2.242, "g6e.12xlarge": 10.493}),
    "eu-central-1": Region("2025-08-01", "elsewhere", {"g6e.xlarge": 2.327}),
}
TODAY = datetime.date(2026, 11, 29)


def host(**changes: t.Any) -> dict[str, t.Any]:
    return {
        "fleet_instance_type": "g6e.xlarge",
        "fleet_region": "us-east-1",
        "fleet_purchase": "on-demand",
        **changes,
    }


def cost(name: str = "gpu-1", **changes: t.Any) -> Cost:
    return cost_of(name, host(**changes), TABLE)


def test_the_list_price_with_region_and_date() -> None:
    found = cost()
    assert (found.usd, found.source, found.problem) == (1.861, "us-east-1, 2026-07-20", "")
    assert (cost(fleet_region="eu-central-1").usd, found.gpus) == (2.327, 1)


def test_a_host_of_four_gpus_knows_the_cheapest_type_with_one() -> None:
    found = cost(fleet_instance_type="g6e.12xlarge")
    assert (found.gpus, found.usd, found.single, found.single_usd) == (4, 10.493, "g6e.xlarge", 1.861)


def test_fleet_hourly_price_comes_first() -> None:
    assert cost(fleet_hourly_price=0.7).usd == 0.7
    assert cost(fleet_hourly_price="0.7").source == "fleet_hourly_price"
    assert cost(fleet_hourly_price={"g6e.xlarge": 1.2}, fleet_purchase="spot").usd == 1.2
    # A type that the map lacks has its list price, and prices of both kinds are not compared.
    own = cost(fleet_hourly_price={"g6e.xlarge": 1.2}, fleet_instance_type="g6e.12xlarge")
    assert (own.usd, own.single_usd) == (10.493, 1.861)
    own = cost(fleet_hourly_price={"g6e.12xlarge": 6, "g6e.2xlarge": 1.3}, fleet_instance_type="g6e.12xlarge")
    assert (own.usd, own.single, own.single_usd, own.source) == (6, "g6e.2xlarge", 1.3, "fleet_hourly_price")
    assert cost(fleet_hourly_price=6, fleet_instance_type="g6e.12xlarge").single == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fleet_instance_type": ""}, "its instance type is not in the inventory (fleet_instance_type)."),
        ({"fleet_region": None}, "it is g6e.xlarge, and its region is not in the inventory (fleet_region)."),
        ({"fleet_region": "ap-south-1"}, "the list has no g6e.xlarge in ap-south-1; script/prices may find it."),
        ({"fleet_instance_type": "x9.huge"}, "the list has no x9.huge in us-east-1; script/prices may find it."),
        ({"fleet_purchase": "spot"}, "it is g6e.xlarge as spot, and the list has prices on demand only."),
        ({"fleet_purchase": "dedicated"}, "it is g6e.xlarge as dedicated, and the list has prices on demand only."),
    ],
)
def test_a_price_that_is_not_known_asks_for_it(changes: dict[str, t.Any], said: str) -> None:
    found = cost(**changes)
    assert (found.usd, found.source) == (None, "")
    assert found.problem == f"{said} Set fleet_hourly_price."


def test_a_wrong_price_is_no_price() -> None:
    found = cost(fleet_hourly_price="cheap")
    assert found.usd is None
    assert found.problem.startswith("fleet_hourly_price is 'cheap'; it must be US dollars per hour")


@pytest.mark.parametrize("value", [0, -1, True, "cheap", "", [], float("nan"), float("inf"), "1,20", {"g6e.xlarge": 0}])
def test_what_is_no_price_is_refused(value: t.Any) -> None:
    if value == "":
        assert check_hourly_price(value) is None
        return
    with pytest.raises(FleetError, match="a number above 0") as failed:
        check_hourly_price(value)
    if isinstance(value, dict):
        assert "fleet_hourly_price['g6e.xlarge'] is 0" in failed.value.message


def test_a_map_names_instance_types() -> None:
    assert check_hourly_price({"g6e.xlarge": "1.2", "p5.48xlarge": 40}) == {"g6e.xlarge": 1.2, "p5.48xlarge": 40.0}
    for kind in ("g6e", "gpu 1", "", "us-east-1"):
        with pytest.raises(FleetError, match="which is no instance type"):
            check_hourly_price({kind: 1})


def test_a_table_has_each_price_once_and_the_sum_at_its_end() -> None:
    costs = [cost("a"), cost("b", fleet_instance_type="g6e.12xlarge"), cost("c", fleet_purchase="spot")]
    rows = priced_rows(
        [{"host": "a", "i": 0}, {"host": "a", "i": 1}, {"host": "b"}, {"host": "c"}, {"host": "off"}], costs
    )
    assert [row.get("usd") for row in rows] == ["1.861", None, "10.493", "unknown", None, "12.354 + 1 unknown"]
    assert [row.get("price_of") for row in rows][:3] == ["us-east-1, 2026-07-20", None, "us-east-1, 2026-07-20"]
    assert rows[-1]["host"] == "3 hosts"
    assert priced_rows([{"host": "off"}], []) == [{"host": "off"}]
    assert priced_rows([{"host": "a"}], costs[:1])[-1] == {"host": "1 host", "usd": "1.861"}


def test_unknown_prices_are_never_0() -> None:
    unknown = cost(fleet_region="")
    assert shown(None) == total([unknown, unknown]) == "unknown"
    assert total([cost(), unknown]) == "1.861 + 1 unknown"
    assert shown(0.0004) == "0.0004"


def test_the_notes_say_from_when_prices_are_and_which_are_missing() -> None:
    costs = [cost("a"), cost("b", fleet_region="ap-south-1"), cost("c", fleet_region="ap-south-1")]
    assert notes(costs, TABLE, TODAY) == [
        "$/h: US dollars per hour, list prices on demand, us-east-1 of 2026-07-20. fleet_hourly_price overrides them.",
        "The price of b, c is unknown: the list has no g6e.xlarge in ap-south-1; script/prices may find it. Set "
        "fleet_hourly_price.",
    ]
    assert notes([cost(fleet_hourly_price=1)], TABLE, TODAY) == []
    old = notes([cost(fleet_region="eu-central-1")], TABLE, TODAY)
    assert old[1:] == ["The prices of eu-central-1 are over a year old: script/prices reads the current ones."]
    assert len(notes([cost(fleet_region="eu-central-1")], TABLE, datetime.date(2026, 8, 1))) == 1
