# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about what hosts cost; the logic is in plugin_utils/prices."""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.prices import advice, hourly, table

Costs = t.Iterable[t.Mapping[str, t.Any]]


def host_costs(hosts: t.Iterable[str], hostvars: t.Mapping[str, t.Mapping[str, t.Any]]) -> list[dict[str, t.Any]]:
    """See host_costs.yml."""
    prices = _list_prices()[0]
    return [dataclasses.asdict(hourly.cost_of(str(host), hostvars[host], prices)) for host in hosts]


def priced_rows(rows: t.Iterable[t.Mapping[str, t.Any]], costs: Costs) -> list[dict[str, t.Any]]:
    """See priced_rows.yml."""
    return hourly.priced_rows(rows, _read(costs))


def price_notes(costs: Costs) -> list[str]:
    """See price_notes.yml."""
    today = datetime.datetime.now(datetime.timezone.utc).date()
    prices, problems = _list_prices()
    return [*hourly.notes(_read(costs), prices, today), *problems]


def price_advice(costs: Costs, facts: t.Mapping[str, t.Mapping[str, t.Any]]) -> list[str]:
    """See price_advice.yml."""
    instances = {host: own["instances"] for host, own in facts.items() if "instances" in own}
    return advice.advice(_read(costs), instances)


def _list_prices() -> tuple[table.PriceTable, list[str]]:
    """The list prices; without a readable list none, and why: a status has to show the fleet in any case."""
    try:
        return table.load(), []
    except FleetError as error:
        return {}, [str(error)]


def _read(costs: Costs) -> list[hourly.Cost]:
    return [hourly.Cost(**cost) for cost in costs]


class FilterModule:
    """Ansible's view of the filters."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {
            "host_costs": host_costs,
            "price_advice": price_advice,
            "price_notes": price_notes,
            "priced_rows": priced_rows,
        }
