# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A gateway that is HAProxy alone: its service, and what it cannot do. Pure.

Its edge finds the model of a request, checks the client, and leads into the pool of that model. No process is behind
it, so what needs one is refused here, by name, before any change. Tokens are counted by a process beside it.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.clients.schema import LIMITS, Enforcer, Kind
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.types import JsonObjects
from ansible_collections.inference.fleet.plugins.module_utils.core.values import typed
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import GATEWAY, GATEWAY_ENGINE
from ansible_collections.inference.fleet.plugins.module_utils.gateway.clients import limit_problems, model_problems
from ansible_collections.inference.fleet.plugins.plugin_utils.gateway.plan import Model, Upstream, models

#: The kind of a gateway that is HAProxy alone; the other one is what gateways run.
EDGE = "edge"
KINDS = (GATEWAY, EDGE)

DEFAULT_COUNTERS_PORT = 4010

#: Characters of a model's name in HAProxy's configuration and in the list of models, without any quoting.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*")

#: What an item of ``gateway_models`` may have beyond a pool, and what only the other kind does with it.
_NEEDS_A_PROCESS = {
    "fallbacks": "a fallback is another model's name in the body, and HAProxy changes no body",
    "cache": "HAProxy keeps no answers",
    "timeout": "edge_stream_timeout is the one for all models",
    "stream_timeout": "edge_stream_timeout is the one for all models",
    "options": "they are its parameters",
}

#: The limits that need counted tokens; those in amounts need prices, too.
_ON_TOKENS = tuple(limit for limit in LIMITS if limit.enforcer is Enforcer.GATEWAY and limit.is_counted)

#: What a request books where its body does not say it; a host's own variables take precedence.
RESERVED = {"prompt_tokens": 32768, "output_tokens": 4096, "media_tokens": 16384}

_PRICES = ("input_cost_per_token", "output_cost_per_token")


@dataclasses.dataclass(frozen=True)
class Counting:
    """What a gateway has for counting tokens.

    Attributes:
        host: its name in the inventory.
        usage: ``edge_usage``, by which its edge reads what answers used.
        priced: whether there are default prices for models without their own.
    """

    host: str = ""
    usage: str = "all"
    priced: bool = False


@dataclasses.dataclass(frozen=True)
class CounterPeer:
    """Another gateway of this kind, where it tells what its clients have had.

    Attributes:
        name: in HAProxy's form.
        host: in the inventory.
        address: of the host.
        port: of its counters.
        tls: whether its edge uses TLS.
        tls_name: the name in its certificate; empty for its address.
    """

    name: str
    host: str
    address: str
    port: int
    tls: bool = False
    tls_name: str = ""


def choose_kind(value: t.Any) -> str:
    """The validated kind of a gateway.

    Raises:
        FleetError: there is no such kind.
    """
    kind = GATEWAY if value in (None, "") else value
    if kind not in KINDS:
        raise FleetError(f"gateway_kind is {value!r}; valid are {', '.join(KINDS)}.")
    return str(kind)


def service(
    port: int,
    found: t.Sequence[Model],
    peers: JsonObjects,
    own: CounterPeer,
    others: t.Sequence[CounterPeer],
    reserved: t.Mapping[str, int] | None = None,
) -> dict[str, t.Any]:
    """The gateway's service, as role edge takes it.

    Args:
        port: of the edge.
        found: the gateway's models.
        peers: the edges of the other gateways, of either kind.
        own: where this one tells what its clients have had.
        others: the other gateways of this kind.
        reserved: what requests book where their bodies do not say it, like RESERVED.
    """
    return {
        "port": port,
        "kind": "pools",
        "served_name": found[0].name,
        "instances": [],
        "models": [{"name": model.name, "pool": model.pool} for model in found],
        "peers": list(peers),
        "counters": {
            "name": own.name,
            "port": own.port,
            "local_port": own.port + 1,
            "peers": [{name: value for name, value in vars(one).items() if name != "host"} for one in others],
        },
        "accountant": dict(reserved or RESERVED),
    }


def problems(
    wanted: t.Sequence[t.Any],
    served: t.Sequence[Upstream],
    clients: t.Sequence[t.Any],
    own_client: str,
    counters: t.Sequence[CounterPeer],
    counting: Counting,
) -> list[str]:
    """The problems of a gateway of this kind, each with the variable, the value and what to do.

    Args:
        wanted: ``gateway_models``.
        served: the inference hosts.
        clients: ``fleet_clients``.
        own_client: the gateways' client name on the inference hosts.
        counters: all gateways of this kind.
        counting: what this one has for it.
    """
    found = own_client_problems(clients, own_client)
    found += _address_problems(counters)
    try:
        known = models(wanted, served)
    except FleetError as error:
        return [*found, error.message]
    for model in known:
        found += _model_problems(model)
    for client in clients:
        if isinstance(client, dict) and client.get("name"):
            found += limit_problems(client)
            found += model_problems(client, [one.name for one in known])
            found += _counting_problems(client, known, counting)
    return found


def counted_clients(clients: t.Sequence[t.Any]) -> list[str]:
    """The clients with limits on tokens, by name."""
    return [
        str(client["name"])
        for client in clients
        if isinstance(client, dict) and client.get("name") and any(client.get(limit.name) for limit in _ON_TOKENS)
    ]


def prices(found: t.Sequence[Model], defaults: t.Mapping[str, t.Any]) -> dict[str, list[float]]:
    """The prices of a token of the prompt and of the answer, by model; 0 where there is none.

    Args:
        found: the models.
        defaults: the prices of models without their own.
    """
    return {
        model.name: [float(typed(_own_or_default(model, name, defaults)) or 0) for name in _PRICES] for model in found
    }


def _own_or_default(model: Model, name: str, defaults: t.Mapping[str, t.Any]) -> t.Any:
    own = model.settings.get(name)
    return defaults.get(name) if own is None else own


def own_client_problems(clients: t.Sequence[t.Any], own_client: str) -> list[str]:
    """Whether the gateways are a client of the inference hosts."""
    if own_client in [client.get("name") for client in clients if isinstance(client, dict)]:
        return []
    return [
        f"fleet_clients has no client {own_client}, which the gateways are for the inference hosts. Add it, or set "
        "fleet_gateway_client to another one."
    ]


def _address_problems(counters: t.Sequence[CounterPeer]) -> list[str]:
    """Addresses by which gateways cannot know each other: HAProxy would not start while a name cannot be resolved."""
    if len(counters) < 2:
        return []
    return [
        f"The gateway {one.host} has the address {one.address}; gateways of gateway_kind: {EDGE} know each other by IP "
        f"addresses. Set fleet_address for it, or gateway_kind: {GATEWAY}."
        for one in counters
        if not _is_address(one.address)
    ]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _model_problems(model: Model) -> list[str]:
    found = []
    if model.name != model.model:
        found.append(
            f"gateway_models has {model.name} for {model.model}. With gateway_kind: {EDGE} a model has the name under "
            "which its hosts serve it, because HAProxy changes no body. Name it so, set fleet_served_name on its "
            f"hosts, or set gateway_kind: {GATEWAY}."
        )
    if not _PLAIN_NAME.fullmatch(model.name):
        found.append(
            f"gateway_models has the name {model.name!r}. With gateway_kind: {EDGE} it may have letters, digits and "
            "._:/@+- alone. Set fleet_served_name on its hosts to another one."
        )
    for setting, why in _NEEDS_A_PROCESS.items():
        if model.settings.get(setting):
            found.append(
                f"gateway_models has {setting} for {model.name}, which {GATEWAY_ENGINE.title} does: {why}. Remove it, "
                f"or set gateway_kind: {GATEWAY}."
            )
    return found


def _counting_problems(client: t.Mapping[str, t.Any], known: t.Sequence[Model], counting: Counting) -> list[str]:
    """The limits of a client that cannot be counted here."""
    name, found = client["name"], []
    limits = [limit for limit in _ON_TOKENS if client.get(limit.name)]
    if limits and counting.usage == "none":
        found.append(
            f"Client {name} has {', '.join(limit.name for limit in limits)}, and edge_usage of {counting.host} is "
            f"{counting.usage}, so its edge does not read what answers used. Set edge_usage to limited or all, or "
            "remove the limit."
        )
    wanted = client.get("models") or []
    without = sorted(
        model.name
        for model in known
        if (not wanted or model.name in wanted)
        and not counting.priced
        and any(model.settings.get(price) is None for price in _PRICES)
    )
    for limit in limits:
        if limit.kind is Kind.AMOUNT and without:
            found.append(
                f"Client {name} has a {limit.name}, and {', '.join(without)} no price. Set "
                "gateway_input_cost_per_token and gateway_output_cost_per_token, or the model's own in gateway_models."
            )
    return found
