# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A gateway's models, as its edge's and its LiteLLM's configuration have them. Pure."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.values import typed
from ansible_collections.inference.fleet.plugins.module_utils.engines.litellm import PROVIDER
from ansible_collections.inference.fleet.plugins.plugin_utils.gateway.plan import NOT_IN_A_NAME, Model, Upstream

#: Settings of a model that are LiteLLM's parameters of a deployment.
_PARAMETERS = ("timeout", "stream_timeout")

#: Settings that are LiteLLM's model info. It also accepts prices among the parameters, but then registers them again at
#: each request and discards its look-ups, which takes 4 of 31 ms.
_INFORMATION = ("input_cost_per_token", "output_cost_per_token")


def pools(found: t.Iterable[Model]) -> list[dict[str, t.Any]]:
    """The pools as role edge takes them."""
    return [
        {
            "name": model.pool,
            "servers": [
                {
                    "name": _server_name(one, model.upstreams),
                    "address": one.address,
                    "port": one.port,
                    "tls": one.tls,
                    "tls_name": one.tls_name,
                    "weight": one.gpus,
                }
                for one in model.upstreams
            ],
        }
        for model in found
    ]


def _server_name(one: Upstream, others: t.Sequence[Upstream]) -> str:
    """The host's name in HAProxy's form, with the port where the host has several."""
    alone = sum(other.host == one.host for other in others) == 1
    return NOT_IN_A_NAME.sub("-", one.host if alone else f"{one.host}-{one.port}")


def model_list(
    found: t.Iterable[Model], url: str, api_key: str, defaults: t.Mapping[str, t.Any]
) -> list[dict[str, t.Any]]:
    """The models in LiteLLM's configuration.

    Each has two identical deployments: LiteLLM waits before it retries a model with only one, and does not where there
        is another. The edge chooses the host.

    Args:
        found: the models.
        url: of the edge's loopback port.
        api_key: what LiteLLM sends there.
        defaults: settings of models without their own.
    """
    deployments = []
    for model in found:
        settings = {**defaults, **{key: value for key, value in model.settings.items() if value is not None}}
        for number in (1, 2):
            deployments.append(
                {
                    "model_name": model.name,
                    "litellm_params": {
                        "model": f"{PROVIDER}/{model.model}",
                        "api_base": f"{url}/{model.pool}/v1",
                        "api_key": api_key,
                        **_given(settings, _PARAMETERS),
                        **settings.get("options", {}),
                    },
                    "model_info": {"id": f"{model.pool}-{number}", **_given(settings, _INFORMATION)},
                }
            )
    return deployments


def _given(settings: t.Mapping[str, t.Any], names: t.Iterable[str]) -> dict[str, t.Any]:
    return {name: typed(settings[name]) for name in names if settings.get(name) is not None}


def fallbacks(found: t.Iterable[Model]) -> list[dict[str, list[str]]]:
    """The fallbacks of models whose own hosts cannot answer, in LiteLLM's configuration."""
    return [{model.name: list(model.settings["fallbacks"])} for model in found if model.settings.get("fallbacks")]


def cached(found: t.Iterable[Model]) -> list[str]:
    """The models with a cache that requests need not ask for."""
    return [model.name for model in found if model.settings.get("cache")]


def prices(found: t.Sequence[Model], defaults: t.Mapping[str, t.Any]) -> dict[str, list[float]]:
    """The highest price of a token of the prompt and of the answer, by model: its fallbacks may answer for it.

    Args:
        found: the models.
        defaults: settings of models without their own.
    """
    own = {
        model.name: [float(typed({**defaults, **_settings(model)}.get(name) or 0)) for name in _INFORMATION]
        for model in found
    }
    answering = {model.name: [model.name] for model in found}
    for names in answering.values():
        for name in names:
            further = next(list(model.settings.get("fallbacks") or []) for model in found if model.name == name)
            names += [other for other in further if other not in names]
    return {name: [max(own[one][kind] for one in names) for kind in (0, 1)] for name, names in answering.items()}


def _settings(model: Model) -> dict[str, t.Any]:
    """The settings of a model; its options are LiteLLM's parameters, and take precedence."""
    given = {key: value for key, value in model.settings.items() if value is not None}
    return {**given, **(given.get("options") or {})}


def options(
    instances: t.Iterable[t.Mapping[str, t.Any]], shared: t.Mapping[str, t.Any], environment: t.Mapping[str, t.Any]
) -> list[dict[str, t.Any]]:
    """The options and the environment of each instance, as module engine_release takes them.

    Args:
        instances: of one gateway, as ``Instance.as_dict`` gives them.
        shared: LiteLLM's configuration.
        environment: what they share.
    """
    return [
        {
            "index": instance["index"],
            "served_name": instance["served_name"],
            "options": {section: _typed(value) for section, value in shared.items()},
            "environment": {**environment, "HOST": "127.0.0.1", "PORT": str(instance["engine_port"])},
        }
        for instance in instances
    ]


def _typed(value: t.Any) -> t.Any:
    """Typed settings from the command line, which are always text; lists hold names and are not changed."""
    if isinstance(value, t.Mapping):
        return {key: _typed(item) for key, item in value.items()}
    return typed(value)
