# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What hosts cost per hour: by fleet_hourly_price, else by the list price of their instance type. Pure.

A price that is not known is never a number, so no sum is smaller than it looks.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.gpu.hardware import alternatives, hardware_of
from ansible_collections.inference.fleet.plugins.plugin_utils.prices.table import PriceTable

UNKNOWN = "unknown"
ON_DEMAND = "on-demand"
VARIABLE = "fleet_hourly_price"
_TYPE = re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+")
_OLD = datetime.timedelta(days=365)


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a host costs.

    Attributes:
        host: its name.
        type: its instance type; empty where the inventory has none.
        gpus: how many GPUs that type has; None where that is not known.
        usd: US dollars per hour; None where that is not known.
        source: where the price is from: the variable, or region and date of the list.
        region: its region; empty where the inventory has none.
        problem: why the price is not known, and what to do; empty where it is known.
        single: the cheapest instance type with one GPU of the same kind, by the same prices; empty for none.
        single_usd: its price.
    """

    host: str
    type: str
    gpus: int | None
    usd: float | None = None
    source: str = ""
    region: str = ""
    problem: str = ""
    single: str = ""
    single_usd: float | None = None


def cost_of(host: str, variables: t.Mapping[str, t.Any], table: PriceTable) -> Cost:
    """What a host costs.

    Args:
        host: its name.
        variables: the host's: fleet_hourly_price, fleet_instance_type, fleet_region and fleet_purchase are read.
        table: the list prices.
    """
    kind, region = str(variables.get("fleet_instance_type") or ""), str(variables.get("fleet_region") or "")
    known = hardware_of(kind)
    cost = Cost(host, kind, known.count if known else None, region=region)
    try:
        own = check_hourly_price(variables.get(VARIABLE))
    except FleetError as error:
        return dataclasses.replace(cost, problem=error.message)
    if isinstance(own, float):
        return dataclasses.replace(cost, usd=own, source=VARIABLE)
    if own and kind in own:
        return _priced(cost, own, VARIABLE)
    why = _not_listed(kind, region, str(variables.get("fleet_purchase") or ON_DEMAND), table)
    if why:
        return dataclasses.replace(cost, problem=f"{why} Set {VARIABLE}.")
    return _priced(cost, table[region].prices, f"{region}, {table[region].date}")


def _not_listed(kind: str, region: str, purchase: str, table: PriceTable) -> str:
    if not kind:
        return "its instance type is not in the inventory (fleet_instance_type)."
    if purchase != ON_DEMAND:
        return f"it is {kind} as {purchase}, and the list has prices on demand only."
    if not region:
        return f"it is {kind}, and its region is not in the inventory (fleet_region)."
    if region not in table or kind not in table[region].prices:
        return f"the list has no {kind} in {region}; script/prices may find it."
    return ""


def _priced(cost: Cost, prices: t.Mapping[str, float], source: str) -> Cost:
    listed = [(prices[one], one) for one in alternatives(cost.type, 1) if one in prices]
    usd, single = min(listed, default=(None, ""))
    return dataclasses.replace(cost, usd=prices[cost.type], source=source, single=single, single_usd=usd)


def check_hourly_price(value: t.Any) -> float | dict[str, float] | None:
    """The value of fleet_hourly_price: a price, one for each instance type, or None for the list prices.

    Raises:
        FleetError: it is none of them.
    """
    if value is None or value == "":
        return None
    if not isinstance(value, t.Mapping):
        return _price(value, VARIABLE)
    for kind in value:
        if not _TYPE.fullmatch(str(kind)):
            raise FleetError(f"{VARIABLE} has {str(kind)!r}, which is no instance type, such as g6e.xlarge.")
    return {str(kind): _price(price, f"{VARIABLE}['{kind}']") for kind, price in value.items()}


def _price(value: t.Any, name: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise FleetError(
            f"{name} is {value!r}; it must be US dollars per hour, a number above 0, or one for each instance type: "
            "{g6e.xlarge: 1.43}. Leave it out for the list price."
        )
    return number


def shown(usd: float | None) -> str:
    """A price for a table."""
    if usd is None:
        return UNKNOWN
    return f"{usd:.3f}" if usd >= 0.01 else f"{usd:.2g}"


def total(costs: t.Iterable[Cost]) -> str:
    """The sum for a table; unknown prices are counted beside it."""
    prices = [cost.usd for cost in costs]
    known = [usd for usd in prices if usd is not None]
    missing = len(prices) - len(known)
    if not known:
        return UNKNOWN
    return f"{shown(sum(known))} + {missing} unknown" if missing else shown(sum(known))


def priced_rows(rows: t.Iterable[t.Mapping[str, t.Any]], costs: t.Sequence[Cost]) -> list[dict[str, t.Any]]:
    """The rows of a table with their prices, and one with the sum at the end.

    Args:
        rows: each has its ``host``; a host may have several, and its first one has the price.
        costs: of the hosts that cost something.
    """
    waiting = {cost.host: cost for cost in costs}
    found = []
    for row in rows:
        cost = waiting.pop(row["host"], None)
        found.append({**row, **({"usd": shown(cost.usd), "price_of": cost.source} if cost else {})})
    if costs:
        found.append({"host": f"{len(costs)} host{'s' if len(costs) > 1 else ''}", "usd": total(costs)})
    return found


def notes(costs: t.Sequence[Cost], table: PriceTable, today: datetime.date) -> list[str]:
    """What a reader of the prices has to know: what they are, from when, and why some are missing.

    Args:
        costs: of all hosts in the table.
        table: the list prices.
        today: the day.
    """
    used = {cost.region for cost in costs if cost.usd is not None and cost.source != VARIABLE}
    regions = sorted({region for region in used if region})
    lines = []
    if regions:
        dates = ", ".join(f"{region} of {table[region].date}" for region in regions)
        lines.append(f"$/h: US dollars per hour, list prices on demand, {dates}. {VARIABLE} overrides them.")
    old = [one for one in regions if today - datetime.date.fromisoformat(table[one].date) > _OLD]
    if old:
        lines.append(f"The prices of {', '.join(old)} are over a year old: script/prices reads the current ones.")
    return lines + _problems(costs)


def _problems(costs: t.Iterable[Cost]) -> list[str]:
    """One line for hosts that lack the price for the same reason."""
    hosts: dict[str, list[str]] = {}
    for cost in costs:
        if cost.problem:
            hosts.setdefault(cost.problem, []).append(cost.host)
    return [f"The price of {', '.join(own)} is unknown: {why}" for why, own in hosts.items()]
