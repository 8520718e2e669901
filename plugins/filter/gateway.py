# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about gateways; the logic is in module_utils/_gateway.py."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.inference.fleet.plugins.module_utils import _gateway, _gateway_config, _gateway_problems
from ansible_collections.inference.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils._instances import plan_gateway
from ansible_collections.inference.fleet.plugins.module_utils.net.protection import unprotected
from ansible_collections.inference.fleet.plugins.plugin_utils.controller_action import plain

Items = list[dict[str, t.Any]]


def gateway_hosts(hosts: t.Iterable[t.Mapping[str, t.Any]], engine: str = "") -> Items:
    """See gateway_hosts.yml."""
    try:
        return [dataclasses.asdict(one) for one in _gateway.upstreams(hosts, engine)]
    except FleetError as error:
        raise AnsibleFilterError(error.message) from error


def gateway_peers(hosts: t.Iterable[t.Mapping[str, t.Any]]) -> Items:
    """See gateway_peers.yml."""
    return _gateway.peers(hosts)


def gateway_unprotected(edges: Items, ca: str, redis_url: str = "", database_url: str = "") -> list[str]:
    """See gateway_unprotected.yml."""
    try:
        return unprotected(edges, ca, redis_url, database_url)
    except FleetError as error:
        raise AnsibleFilterError(error.message) from error


def gateway_instances(count: t.Any, edge_port: int = 4000, served_name: str = "") -> Items:
    """See gateway_instances.yml."""
    try:
        planned = plan_gateway(int(count), edge_port=int(edge_port), served_name=served_name)
    except (FleetError, ValueError) as error:
        raise AnsibleFilterError(getattr(error, "message", f"litellm_instances is {count!r}: {error}")) from error
    return [one.as_dict() for one in planned]


def gateway_models(wanted: t.Sequence[t.Any], upstreams: Items) -> Items:
    """See gateway_models.yml."""
    try:
        return [dataclasses.asdict(one) for one in _gateway.models(plain(wanted), _upstreams(upstreams))]
    except FleetError as error:
        raise AnsibleFilterError(error.message) from error


def gateway_pools(models: Items) -> Items:
    """See gateway_pools.yml."""
    return _gateway_config.pools(_models(models))


def gateway_config(models: Items, url: str, api_key: str, defaults: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """See gateway_config.yml."""
    found = _models(models)
    return {
        "model_list": _gateway_config.model_list(found, url, api_key, defaults),
        "fallbacks": _gateway_config.fallbacks(found),
        "cached": _gateway_config.cached(found),
        "prices": _gateway_config.prices(found, defaults),
    }


def gateway_problems(
    wanted: t.Sequence[t.Any],
    upstreams: Items,
    clients: t.Sequence[t.Any],
    client: str,
    version: str,
    locks: dict[str, t.Any],
    extra_args: t.Mapping[str, t.Any],
    around: t.Mapping[str, t.Any],
) -> list[str]:
    """See gateway_problems.yml."""
    surroundings = _gateway_problems.Surroundings(
        bool(around["redis"]), int(around["processes"]), bool(around["priced"])
    )
    served = _upstreams(upstreams)
    own = plain({"wanted": wanted, "clients": clients, "locks": locks, "extra_args": extra_args})
    return _gateway_problems.problems(served=served, own_client=client, version=version, around=surroundings, **own)


def _upstreams(items: Items) -> list[_gateway.Upstream]:
    return [_gateway.Upstream(**item) for item in plain(items)]


def _models(items: Items) -> list[_gateway.Model]:
    return [_gateway.Model(**{**item, "upstreams": tuple(_upstreams(item["upstreams"]))}) for item in plain(items)]


class FilterModule:
    """Ansible's view of the filters."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {
            "gateway_config": gateway_config,
            "gateway_hosts": gateway_hosts,
            "gateway_instances": gateway_instances,
            "gateway_lock_problems": _gateway_problems.lock_problems,
            "gateway_models": gateway_models,
            "gateway_options": _gateway_config.options,
            "gateway_peers": gateway_peers,
            "gateway_unprotected": gateway_unprotected,
            "gateway_pools": gateway_pools,
            "gateway_problems": gateway_problems,
        }
