# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about gateways; the logic is in plugin_utils/gateway/."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.types import JsonObjects
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.controller import plain
from ansible_collections.inference.fleet.plugins.plugin_utils.gateway import config, front, plan, problems
from ansible_collections.inference.fleet.plugins.plugin_utils.gateway.protection import unprotected


def gateway_unprotected(edges: JsonObjects, ca: str, redis_url: str = "", database_url: str = "") -> list[str]:
    """See gateway_unprotected.yml."""
    try:
        return unprotected(edges, ca, redis_url, database_url)
    except FleetError as error:
        raise AnsibleFilterError(error.message) from error


def gateway_models(wanted: t.Sequence[t.Any], upstreams: JsonObjects) -> JsonObjects:
    """See gateway_models.yml."""
    try:
        return [dataclasses.asdict(one) for one in plan.models(plain(wanted), _upstreams(upstreams))]
    except FleetError as error:
        raise AnsibleFilterError(error.message) from error


def gateway_config(models: JsonObjects, url: str, api_key: str, defaults: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """See gateway_config.yml."""
    found = _models(models)
    return {
        "model_list": config.model_list(found, url, api_key, defaults),
        "fallbacks": config.fallbacks(found),
        "cached": config.cached(found),
        "prices": config.prices(found, defaults),
    }


def gateway_problems(
    wanted: t.Sequence[t.Any],
    upstreams: JsonObjects,
    clients: t.Sequence[t.Any],
    client: str,
    version: str,
    locks: dict[str, t.Any],
    extra_args: t.Mapping[str, t.Any],
    around: t.Mapping[str, t.Any],
) -> list[str]:
    """See gateway_problems.yml."""
    surroundings = problems.Surroundings(bool(around["redis"]), int(around["processes"]), bool(around["priced"]))
    served = _upstreams(upstreams)
    own = plain({"wanted": wanted, "clients": clients, "locks": locks, "extra_args": extra_args})
    return problems.problems(served=served, own_client=client, version=version, around=surroundings, **own)


def front_problems(
    wanted: t.Sequence[t.Any],
    upstreams: JsonObjects,
    clients: t.Sequence[t.Any],
    client: str,
    counters: JsonObjects,
    counting: t.Mapping[str, t.Any],
) -> list[str]:
    """See front_problems.yml."""
    known = [front.CounterPeer(**item) for item in plain(counters)]
    has = front.Counting(str(counting["host"]), str(counting["usage"]), bool(counting["priced"]))
    return front.problems(plain(wanted), _upstreams(upstreams), plain(clients), client, known, has)


def front_prices(
    wanted: t.Sequence[t.Any], upstreams: JsonObjects, defaults: t.Mapping[str, t.Any]
) -> dict[str, t.Any]:
    """See front_prices.yml."""
    try:
        return front.prices(plan.models(plain(wanted), _upstreams(upstreams)), plain(defaults))
    except FleetError as error:
        raise AnsibleFilterError(error.message) from error


def clients_on_tokens(clients: t.Sequence[t.Any]) -> list[str]:
    """See clients_on_tokens.yml."""
    return front.counted_clients(plain(clients))


def _upstreams(items: JsonObjects) -> list[plan.Upstream]:
    return [plan.Upstream(**item) for item in plain(items)]


def _models(items: JsonObjects) -> list[plan.Model]:
    return [plan.Model(**{**item, "upstreams": tuple(_upstreams(item["upstreams"]))}) for item in plain(items)]


class FilterModule:
    """Ansible's view of the filters."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {
            "clients_on_tokens": clients_on_tokens,
            "front_prices": front_prices,
            "front_problems": front_problems,
            "gateway_config": gateway_config,
            "gateway_lock_problems": problems.lock_problems,
            "gateway_models": gateway_models,
            "gateway_options": config.options,
            "gateway_unprotected": gateway_unprotected,
            "gateway_problems": gateway_problems,
        }
