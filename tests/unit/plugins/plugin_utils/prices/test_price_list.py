"""The Price List API by botocore's Stubber: moto does not have it. The form of the answers is AWS's documented one."""

from __future__ import annotations

import datetime
import json
import typing as t
from pathlib import Path

import boto3
import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.prices import price_list, table
from ansible_collections.inference.fleet.plugins.plugin_utils.prices.table import Region
from botocore.exceptions import EndpointConnectionError
from botocore.stub import ANY, Stubber

TODAY = datetime.date(2026, 11, 29)
FIELDS = ("regionCode", "operatingSystem", "tenancy", "capacitystatus", "preInstalledSw", "marketoption")


def product(kind: str, *usd: str, region: str = "us-east-1", **attributes: str) -> str:
    """An entry of PriceList: a text with JSON in it, whose prices are texts."""
    dimensions = {
        f"SKU.JRTCKXETXF.{number}": {
            "unit": "Hrs",
            "endRange": "Inf",
            "description": f"${price} per On Demand Linux {kind} Instance Hour",
            "appliesTo": [],
            "rateCode": f"SKU.JRTCKXETXF.{number}",
            "beginRange": "0",
            "pricePerUnit": {"USD": price},
        }
        for number, price in enumerate(usd)
    }
    term = {"priceDimensions": dimensions, "sku": "SKU", "effectiveDate": "2026-07-01T00:00:00Z", "termAttributes": {}}
    return json.dumps(
        {
            "product": {
                "productFamily": "Compute Instance",
                "attributes": {
                    "instanceType": kind,
                    "regionCode": region,
                    "locationType": "AWS Region",
                    "operatingSystem": "Linux",
                    **attributes,
                },
                "sku": "SKU",
            },
            "serviceCode": "AmazonEC2",
            "terms": {"OnDemand": {"SKU.JRTCKXETXF": term}, "Reserved": {"SKU.X": {"priceDimensions": {}}}},
            "version": "20260717000000",
            "publicationDate": "2026-07-17T00:00:00Z",
        }
    )


@pytest.fixture
def client() -> t.Any:
    return boto3.client("pricing", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")


def answer(stub: Stubber, products: list[str], more: bool = False, **asked: t.Any) -> None:
    page = {"FormatVersion": "aws_v1", "PriceList": products, **({"NextToken": "next"} if more else {})}
    stub.add_response("get_products", page, {"ServiceCode": "AmazonEC2", "Filters": ANY, **asked})


def test_the_prices_of_a_region_over_several_pages(client: t.Any) -> None:
    with Stubber(client) as stub:
        answer(stub, [product("g6e.xlarge", "1.8610000000"), product("m5.large", "0.0960000000")], more=True)
        answer(stub, [product("g6e.12xlarge", "10.4926400000", "0.0000000000")], NextToken="next")
        assert price_list.read_region(client, "us-east-1") == {"g6e.xlarge": 1.861, "g6e.12xlarge": 10.49264}
        stub.assert_no_pending_responses()


def test_what_is_asked_for_leaves_one_price_for_each_type(client: t.Any) -> None:
    asked = []
    client.meta.events.register(
        "provide-client-params.pricing.GetProducts", lambda params, **_more: asked.append(params["Filters"])
    )
    with Stubber(client) as stub:
        answer(stub, [product("g6e.xlarge", "2.3270000000", region="eu-central-1")])
        assert price_list.read_region(client, "eu-central-1") == {"g6e.xlarge": 2.327}
    assert {one["Field"]: one["Value"] for one in asked[0]} == dict(
        zip(FIELDS, ("eu-central-1", "Linux", "Shared", "Used", "NA", "OnDemand"))
    )
    assert {one["Type"] for one in asked[0]} == {"TERM_MATCH"}


def test_zones_outside_of_the_region_and_other_regions_do_not_count(client: t.Any) -> None:
    with Stubber(client) as stub:
        local = product("g6e.xlarge", "2.5", locationType="AWS Local Zone")
        answer(stub, [local, product("g6e.xlarge", "9.9", region="us-east-2"), product("g6e.xlarge", "1.861")])
        assert price_list.read_region(client, "us-east-1") == {"g6e.xlarge": 1.861}


@pytest.mark.parametrize(
    ("products", "said"),
    [
        ([product("g6e.xlarge", "1.861"), product("g6e.xlarge", "1.9")], "g6e.xlarge has two prices in us-east-1"),
        (["{}"], "answered in an unknown form: KeyError"),
        (["no JSON"], "answered in an unknown form"),
        ([product("g6e.xlarge", "free")], "answered in an unknown form"),
    ],
)
def test_an_answer_that_cannot_be_right_is_an_error(client: t.Any, products: list[str], said: str) -> None:
    with Stubber(client) as stub:
        answer(stub, products)
        with pytest.raises(FleetError, match=said):
            price_list.read_region(client, "us-east-1")


def test_a_missing_right_is_named(client: t.Any) -> None:
    with Stubber(client) as stub:
        stub.add_client_error("get_products", "AccessDeniedException", "not authorized")
        with pytest.raises(FleetError, match=r"\(AccessDeniedException\)\. The credentials need pricing:GetProducts"):
            price_list.read_region(client, "us-east-1")


def test_an_api_out_of_reach_is_an_error(client: t.Any) -> None:
    def fail(**_more: t.Any) -> None:
        raise EndpointConnectionError(endpoint_url="https://api.pricing.us-east-1.amazonaws.com/")

    client.meta.events.register("before-call.pricing.GetProducts", fail)
    with pytest.raises(FleetError, match="GetProducts for us-east-1 was not answered: Could not connect"):
        price_list.read_region(client, "us-east-1")


def test_regions_that_were_read_are_replaced_and_the_others_stay() -> None:
    old = {name: Region("2025-01-01", "before", {"g6e.xlarge": 2.0}) for name in ("a", "b", "c")}
    new = price_list.refreshed(old, {"a": {"g6e.12xlarge": 8.0, "g6e.xlarge": 1.5, "g5.xlarge": 3.0}, "b": {}}, TODAY)
    assert new == {
        "a": Region("2026-11-29", price_list.SOURCE, {"g5.xlarge": 3.0, "g6e.xlarge": 1.5, "g6e.12xlarge": 8.0}),
        "c": old["c"],
    }
    assert list(new["a"].prices) == ["g5.xlarge", "g6e.xlarge", "g6e.12xlarge"]
    assert price_list.changes(old, new) == [
        "a g5.xlarge: unknown -> 3.000",
        "a g6e.12xlarge: unknown -> 8.000",
        "a g6e.xlarge: 2.000 -> 1.500",
        "b g6e.xlarge: 2.000 -> unknown",
    ]
    with pytest.raises(FleetError, match=r"has no prices for a, b\. Nothing was changed"):
        price_list.refreshed(old, {"a": {}, "b": {}}, TODAY)


@pytest.mark.parametrize("check", [True, False])
def test_the_command_writes_the_list_unless_it_only_checks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], check: bool
) -> None:
    path = tmp_path / "ec2.json"
    old = {"us-east-1": Region("2025-01-01", "before", {"g6e.xlarge": 2.0})}
    table.write(old, path)
    monkeypatch.setattr(table, "load", lambda: old)
    write = table.write
    monkeypatch.setattr(table, "write", lambda prices: write(prices, path))
    monkeypatch.setattr(price_list, "read_region", lambda _client, region: {"g6e.xlarge": 1.5} if region else {})
    assert price_list.main(["--region", "us-east-1", *(["--check"] if check else [])]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "us-east-1 g6e.xlarge: 2.000 -> 1.500"
    assert lines[1] == f"{'Would write' if check else 'Wrote'} 1 prices of 1 regions."
    usd = json.loads(path.read_text())["regions"]["us-east-1"]["prices"]["g6e.xlarge"]
    assert usd == (2.0 if check else 1.5)


def test_the_command_says_what_failed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert price_list.main(["--profile", "no-such-profile"]) == 1
    assert "script/prices: AWS cannot be used: The config profile (no-such-profile)" in capsys.readouterr().err
