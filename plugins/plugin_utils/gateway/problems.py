# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The problems of a gateway's variables, reported before any change. Pure."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import GATEWAY
from ansible_collections.inference.fleet.plugins.module_utils.gateway import clients as gateway_clients
from ansible_collections.inference.fleet.plugins.plugin_utils.gateway.front import own_client_problems
from ansible_collections.inference.fleet.plugins.plugin_utils.gateway.plan import Upstream, models

#: Compromised releases of LiteLLM. They steal what they find on a host.
COMPROMISED = ("1.82.7", "1.82.8", "1.107.0")

#: The sections of LiteLLM's configuration that a user may extend, and the reserved settings in them.
_SECTIONS: dict[str, dict[str, str]] = {
    "general_settings": {
        "custom_auth": "the collection decides who may call; add clients to fleet_clients",
        "database_url": "set litellm_database_url",
        "master_key": "it is made on the host",
    },
    "litellm_settings": {
        "cache": "set litellm_redis_url",
        "cache_params": "set litellm_redis_url and litellm_cache_ttl",
        "callbacks": "the collection counts with them; use success_callback and failure_callback",
    },
    "router_settings": {
        "disable_cooldowns": "a model has one pool; taking that out would be an outage",
        "fallbacks": "set fallbacks in gateway_models",
        "num_retries": "set litellm_retries",
    },
}


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """The environment of a gateway's models.

    Attributes:
        redis: whether there is one.
        processes: the number of LiteLLM processes on all gateways.
        priced: whether there are default prices for models without their own.
    """

    redis: bool
    processes: int
    priced: bool


def problems(
    wanted: t.Sequence[t.Any],
    served: t.Sequence[Upstream],
    clients: t.Sequence[t.Any],
    own_client: str,
    version: str,
    locks: dict[str, dict[str, t.Any]],
    extra_args: t.Mapping[str, t.Any],
    around: Surroundings,
) -> list[str]:
    """The problems of a gateway's variables, each with the variable, the value and what to do.

    Args:
        wanted: ``gateway_models``.
        served: the inference hosts.
        clients: ``fleet_clients``.
        own_client: the gateways' client name on the inference hosts.
        version: of LiteLLM.
        locks: the content of locks.yml.
        extra_args: ``litellm_extra_args``.
        around: the environment of the models.
    """
    found = _version_problems(version, locks) + _section_problems(extra_args)
    found += own_client_problems(clients, own_client)
    try:
        known = models(wanted, served)
    except FleetError as error:
        return [*found, error.message]
    prices = ("input_cost_per_token", "output_cost_per_token")
    priced = [one.name for one in known if around.priced or all(one.settings.get(name) is not None for name in prices)]
    found += gateway_clients.problems(
        clients,
        [one.name for one in known],
        counts_together=around.redis,
        processes=around.processes,
        priced=priced,
    )
    return found


def _version_problems(version: str, locks: dict[str, dict[str, t.Any]]) -> list[str]:
    if version in COMPROMISED:
        return [
            f"litellm_version is {version}, which was published by an attacker and steals what it finds. Never install "
            f"it; the same holds for {', '.join(bad for bad in COMPROMISED if bad != version)}. If a host had it, "
            "rotate every key that was on it."
        ]
    versions = sorted(str(lock["version"]) for lock in locks.values() if lock["engine"] == GATEWAY)
    if version in versions:
        return []
    return [
        f"litellm_version is {version!r}, for which there is no lock. Valid are: {', '.join(versions) or 'none'}. "
        "script/lock makes locks for further versions."
    ]


def _section_problems(extra_args: t.Mapping[str, t.Any]) -> list[str]:
    found = []
    for section, settings in extra_args.items():
        if section not in _SECTIONS or not isinstance(settings, t.Mapping):
            found.append(
                f"litellm_extra_args has {section}: {settings!r}; it must be a dictionary of settings by section: "
                f"{', '.join(_SECTIONS)}."
            )
            continue
        found += [
            f"litellm_extra_args sets {section}.{name}, which the collection sets itself: {_SECTIONS[section][name]}."
            for name in settings
            if name in _SECTIONS[section]
        ]
    return found


def lock_problems(text: str, version: str) -> list[str]:
    """The problems of a lock of LiteLLM: another version in it, or a package without a hash."""
    problems = []
    found = re.findall(r"^litellm(?:\[[^\]]*\])?==([^\s;\\]+)", text, re.MULTILINE)
    if found != [version]:
        problems.append(
            f"The lock of LiteLLM {version} installs {', '.join(found) or 'no litellm'}. Generate it again."
        )
    requirements = re.split(r"\n(?=[a-zA-Z0-9])", text)
    bare = [one.split()[0] for one in requirements if re.match(r"[a-zA-Z0-9]", one) and "--hash=sha256:" not in one]
    if bare:
        problems.append(
            f"The lock of LiteLLM {version} has no hash for {', '.join(bare[:5])}. Make it with script/lock: without "
            "hashes, a compromised index or mirror can run its code on the gateways."
        )
    return problems
