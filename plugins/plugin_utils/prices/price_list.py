# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Reads the current list prices from AWS's Price List API and rewrites the file beside this one; see script/prices.

The API answers with one product for each instance type of a region once everything else is fixed: operating system,
tenancy, preinstalled software, capacity and the kind of purchase. A type with several different prices is therefore an
error, and so is a region where nothing is found.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime
import importlib
import json
import sys
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.gpu.hardware import hardware_of
from ansible_collections.inference.fleet.plugins.plugin_utils.prices import table
from ansible_collections.inference.fleet.plugins.plugin_utils.prices.hourly import shown

SOURCE = "the AWS Price List API, as read by script/prices"
#: The API is in few regions and knows the prices of all.
_ENDPOINT = "us-east-1"
_SAME = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "capacitystatus": "Used",
    "preInstalledSw": "NA",
    "marketoption": "OnDemand",
}
#: GPU families that gpu/hardware.py does not know, and what gateways usually run on.
_FAMILIES = ("p4d", "p4de")
_GATEWAYS = frozenset(
    f"{family}.{size}" for family in ("c7i", "m7i") for size in ("large", "xlarge", "2xlarge", "4xlarge")
)
_AT_ONCE = 8


def is_wanted(kind: str) -> bool:
    """Whether the list has the price of this instance type."""
    return hardware_of(kind) is not None or kind.partition(".")[0] in _FAMILIES or kind in _GATEWAYS


def read_region(client: t.Any, region: str) -> dict[str, float]:
    """The prices of a region by instance type; none where it offers none of the wanted types.

    Args:
        client: boto3's, of the service pricing.
        region: its name.

    Raises:
        FleetError: the API refused, did not answer, or answered something unexpected.
    """
    errors: t.Any = importlib.import_module("botocore.exceptions")
    filters = [
        {"Type": "TERM_MATCH", "Field": field, "Value": value}
        for field, value in {"regionCode": region, **_SAME}.items()
    ]
    prices: dict[str, float] = {}
    try:
        for page in client.get_paginator("get_products").paginate(ServiceCode="AmazonEC2", Filters=filters):
            for text in page["PriceList"]:
                for kind, usd in _product(text, region):
                    if prices.setdefault(kind, usd) != usd:
                        raise FleetError(f"{kind} has two prices in {region}: {prices[kind]} and {usd}.")
    except errors.ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        raise FleetError(
            f"GetProducts for {region} failed ({code}). The credentials need pricing:GetProducts on *."
        ) from None
    except errors.BotoCoreError as error:
        raise FleetError(f"GetProducts for {region} was not answered: {error}") from None
    return prices


def _product(text: str, region: str) -> t.Iterator[tuple[str, float]]:
    """The instance type of a product, with each of its prices."""
    try:
        product = json.loads(text)
        attributes = product["product"]["attributes"]
        kind = attributes["instanceType"]
        if attributes["regionCode"] != region or attributes.get("locationType", "AWS Region") != "AWS Region":
            return
        if not is_wanted(kind):
            return
        for term in product["terms"]["OnDemand"].values():
            for dimension in term["priceDimensions"].values():
                usd = float(dimension["pricePerUnit"]["USD"])
                # Capacity that was reserved is listed with 0.
                if dimension["unit"] == "Hrs" and usd > 0:
                    yield kind, usd
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FleetError(f"The Price List API answered in an unknown form: {error!r} in {text[:300]}") from None


def refreshed(
    old: table.PriceTable, found: t.Mapping[str, t.Mapping[str, float]], today: datetime.date
) -> table.PriceTable:
    """The list with the prices that were found. A region that was read and has none is left out.

    Raises:
        FleetError: nothing was found in any region.
    """
    if not any(found.values()):
        raise FleetError(f"The Price List API has no prices for {', '.join(sorted(found))}. Nothing was changed.")
    kept = {name: region for name, region in old.items() if name not in found}
    read = {
        name: table.Region(today.isoformat(), SOURCE, dict(sorted(prices.items(), key=lambda one: _order(*one))))
        for name, prices in found.items()
        if prices
    }
    return {**kept, **read}


def _order(kind: str, usd: float) -> tuple[str, float]:
    return kind.partition(".")[0], usd


def changes(old: table.PriceTable, new: table.PriceTable) -> list[str]:
    """A line for each price that differs."""
    before, after = _flat(old), _flat(new)
    return [
        f"{region} {kind}: {shown(before.get((region, kind)))} -> {shown(after.get((region, kind)))}"
        for region, kind in sorted({**before, **after})
        if before.get((region, kind)) != after.get((region, kind))
    ]


def _flat(prices: table.PriceTable) -> dict[tuple[str, str], float]:
    return {(name, kind): usd for name, region in prices.items() for kind, usd in region.prices.items()}


def main(arguments: t.Sequence[str] | None = None) -> int:
    """Read, compare, write; the exit status."""
    parser = argparse.ArgumentParser(
        prog="script/prices",
        description="Read the list prices of EC2 instances from AWS and rewrite the file of prices.",
    )
    parser.add_argument("--region", action="append", help="a region to read; may be repeated (default: all)")
    parser.add_argument("--profile", help="a profile of AWS's configuration")
    parser.add_argument("--check", action="store_true", help="show what would change, and change nothing")
    options = parser.parse_args(arguments)
    try:
        lines = _refresh(options.region, options.profile, options.check)
    except FleetError as error:
        print(f"script/prices: {error.message}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


def _refresh(regions: list[str] | None, profile: str | None, check: bool) -> list[str]:
    session_module: t.Any = importlib.import_module("boto3.session")
    errors: t.Any = importlib.import_module("botocore.exceptions")
    try:
        session = session_module.Session(profile_name=profile)
        client = session.client("pricing", region_name=_ENDPOINT)
    except errors.BotoCoreError as error:
        raise FleetError(f"AWS cannot be used: {error}") from None
    wanted = regions or session.get_available_regions("ec2")
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        found = dict(zip(wanted, pool.map(lambda region: read_region(client, region), wanted)))
    old = table.load()
    new = refreshed(old, found, datetime.datetime.now(datetime.timezone.utc).date())
    if not check:
        table.write(new)
    lines = changes(old, new) or ["No price differs."]
    return [*lines, f"{'Would write' if check else 'Wrote'} {len(_flat(new))} prices of {len(new)} regions."]


if __name__ == "__main__":
    sys.exit(main())
