# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The clients in a gateway's LiteLLM: hashes of their keys, and each client's limits. Pure."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.clients import limits as client_limits
from ansible_collections.inference.fleet.plugins.module_utils.clients import schema
from ansible_collections.inference.fleet.plugins.module_utils.clients.schema import Kind, Limit
from ansible_collections.inference.fleet.plugins.module_utils.core import keys as api_keys
from ansible_collections.inference.fleet.plugins.module_utils.core import times

#: The file that LiteLLM reads again on every change; only gateways have it.
PATH = "/etc/inference/gateway_clients.json"


def document(items: t.Iterable[t.Mapping[str, t.Any]]) -> dict[str, t.Any]:
    """The file's content.

    Args:
        items: the hashes of all live keys, as module api_key returns them.

    Raises:
        FleetError: a hash or a limit is invalid.
    """
    items = list(items)
    keys = {one.sha256: one.name for one in api_keys.check_hashes(items)}
    clients = {item["name"]: _allowed(item) for item in items}
    return {
        "version": schema.GATEWAYS_FILE_VERSION,
        "keys": {digest: keys[digest] for digest in sorted(keys)},
        "clients": {name: clients[name] for name in sorted(clients)},
    }


def render(content: t.Mapping[str, t.Any]) -> str:
    """The file's text."""
    return json.dumps(content, indent=1) + "\n"


def _allowed(item: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """The limits of a client, without those that are not set."""
    limits = client_limits.check(item)
    rows = [row for row in schema.LIMITS if row.in_gateways_file and row.name in limits.values]
    return {row.in_gateways_file: _plain(row, limits.get(row.name)) for row in rows}


def _plain(row: Limit, value: t.Any) -> t.Any:
    """A limit in the form that LiteLLM's process needs: times in seconds."""
    if row.kind is Kind.MOMENT:
        return times.seconds(value)
    if row.kind is Kind.PERIOD:
        return times.duration(value, row.name)
    return list(value) if row.kind is Kind.MODELS else value


def problems(
    clients: t.Iterable[t.Any],
    models: t.Collection[str],
    *,
    counts_together: bool,
    processes: int,
    priced: t.Collection[str],
) -> list[str]:
    """The errors in ``fleet_clients`` on a gateway, each with client, option and value.

    Args:
        clients: ``fleet_clients``.
        models: the gateway's models.
        counts_together: whether the gateways share a Redis.
        processes: the number of LiteLLM processes on all gateways.
        priced: the models that have prices.
    """
    found: list[str] = []
    for client in clients:
        if isinstance(client, dict) and client.get("name"):
            found += limit_problems(client)
            found += model_problems(client, models)
            found += _shared_problems(client, models, counts_together, processes, priced)
    return found


def limit_problems(client: t.Mapping[str, t.Any]) -> list[str]:
    """The errors in a client's limits, whatever the gateways are."""
    found = client_limits.problems(client)
    for row in schema.LIMITS:
        if row.period_of and client.get(row.name) and client.get(row.period_of) is None:
            found.append(
                f"Client {client['name']} has a {row.name} and no {row.period_of}. Give it a {row.period_of}, or "
                "remove the period."
            )
    return found


def model_problems(client: t.Mapping[str, t.Any], models: t.Collection[str]) -> list[str]:
    """The models of a client that no gateway has, as a sentence."""
    wanted = client.get("models") or []
    # clients that are not a list are reported with the limits.
    unknown = [str(model) for model in wanted if model not in models] if isinstance(wanted, list) else []
    if not unknown:
        return []
    left = "" if len(unknown) < len(wanted) else " It could use none."
    return [
        f"Client {client['name']} may use {', '.join(unknown)}, which no gateway has.{left} They have: "
        f"{', '.join(sorted(models))}."
    ]


def _shared_problems(
    client: t.Mapping[str, t.Any],
    models: t.Collection[str],
    counts_together: bool,
    processes: int,
    priced: t.Collection[str],
) -> list[str]:
    name, found = client["name"], []
    limits = [row.name for row in schema.LIMITS if row.is_counted and client.get(row.name)]
    if limits and processes > 1 and not counts_together:
        found.append(
            f"Client {name} has {', '.join(limits)}, which {processes} processes of LiteLLM without a Redis would each "
            "count for itself. Put a host into the group gateway_store, or set litellm_redis_url."
        )
    without = sorted(model for model in client.get("models") or models if model not in priced)
    if client.get("budget") and without:
        found.append(
            f"Client {name} has a budget, and {', '.join(without)} no price. Set litellm_input_cost_per_token and "
            "litellm_output_cost_per_token, or the model's own in gateway_models."
        )
    return found
