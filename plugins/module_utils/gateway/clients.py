# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The clients as a gateway's LiteLLM knows them: hashes of their keys, and what each client may do. Pure."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import keys as api_keys
from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

#: The file that LiteLLM reads again whenever it changes; it is there on gateways alone.
PATH = "/etc/inference/gateway_clients.json"

#: Limits that are whole numbers, and by which a client cannot be locked out.
COUNTS = ("requests_per_minute", "max_concurrent", "tokens_per_minute")

#: Those that are counted for all gateways together.
SHARED = (*COUNTS, "budget")


def document(items: t.Iterable[t.Mapping[str, t.Any]]) -> dict[str, t.Any]:
    """The file's content.

    Args:
        items: the hashes of all live keys, as module api_key returns them.

    Raises:
        FleetError: a hash is none, or a limit cannot be one.
    """
    items = list(items)
    keys = {one.sha256: one.name for one in api_keys.check_hashes(items)}
    clients = {item["name"]: _allowed(item) for item in items}
    return {
        "keys": {digest: keys[digest] for digest in sorted(keys)},
        "clients": {name: clients[name] for name in sorted(clients)},
    }


def render(content: t.Mapping[str, t.Any]) -> str:
    """The file's text."""
    return json.dumps(content, indent=1) + "\n"


def _allowed(item: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What a client may do; what has no bound is left out."""
    expires, period = item.get("expires") or "", item.get("budget_period") or ""
    allowed: dict[str, t.Any] = {
        "models": sorted(item.get("models") or []),
        **{name: item.get(name) for name in SHARED},
        "budget_seconds": times.duration(period, f"budget_period of client {item['name']}") if period else None,
        "expires": times.seconds(expires) if expires else None,
    }
    return {name: value for name, value in allowed.items() if value}


def problems(
    clients: t.Iterable[t.Any],
    models: t.Collection[str],
    *,
    counts_together: bool,
    processes: int,
    priced: t.Collection[str],
) -> list[str]:
    """What is wrong with ``fleet_clients`` on a gateway, each with client, option and value.

    Args:
        clients: ``fleet_clients``.
        models: the gateway's models.
        counts_together: whether the gateways share a Redis.
        processes: how many LiteLLM processes all gateways have.
        priced: the models that have prices.
    """
    found: list[str] = []
    for client in clients:
        if isinstance(client, dict) and client.get("name"):
            found += _limit_problems(client)
            found += _model_problems(client, models)
            found += _shared_problems(client, models, counts_together, processes, priced)
    return found


def _limit_problems(client: t.Mapping[str, t.Any]) -> list[str]:
    name, found = client["name"], []
    for option in COUNTS:
        value = client.get(option)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            found.append(f"{option} of client {name} is {value!r}; give a whole number of at least 1, or leave it out.")
    budget = client.get("budget")
    if budget is not None and (isinstance(budget, bool) or not isinstance(budget, (int, float)) or budget <= 0):
        found.append(f"budget of client {name} is {budget!r}; give a number above 0, or leave it out.")
    period = client.get("budget_period")
    if period:
        try:
            if times.duration(str(period), f"budget_period of client {name}") < 60:
                found.append(f"budget_period of client {name} is {period!r}; give at least a minute.")
        except FleetError as error:
            found.append(error.message)
        if budget is None:
            found.append(f"Client {name} has a budget_period and no budget. Give it a budget, or remove the period.")
    return found


def _model_problems(client: t.Mapping[str, t.Any], models: t.Collection[str]) -> list[str]:
    wanted = client.get("models") or []
    if not isinstance(wanted, list):
        return [f"models of client {client['name']} is {wanted!r}; give a list."]
    unknown = [str(model) for model in wanted if model not in models]
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
    limits = [option for option in SHARED if client.get(option)]
    if limits and processes > 1 and not counts_together:
        found.append(
            f"Client {name} has {', '.join(limits)}, which {processes} processes of LiteLLM without a Redis would each "
            "count for itself. Put a host into the group gateway_store, or set litellm_redis_url."
        )
    without = sorted(model for model in client.get("models") or models if model not in priced)
    if client.get("budget") and without:
        found.append(
            f"Client {name} has a budget, and {', '.join(without)} no price. Set litellm_input_cost_per_token and "
            "litellm_output_cost_per_token, or the model's own in litellm_models."
        )
    return found
