# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The models of a gateway, and the hosts behind each. Pure: models or problems out.

A *pool* is the hosts of one model in the gateway's own edge. LiteLLM reaches a pool under a path of the edge's loopback
port, so adding or removing a host changes the edge and not LiteLLM.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.instances.plan import check_engine

#: The keys of an item of ``gateway_models``, with their types.
_MODEL_KEYS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "model": (str,),
    "engines": (list,),
    "hosts": (list,),
    "fallbacks": (list,),
    "cache": (bool,),
    "input_cost_per_token": (int, float),
    "output_cost_per_token": (int, float),
    "timeout": (int, float),
    "stream_timeout": (int, float),
    "options": (dict,),
}

_NOT_IN_A_PATH = re.compile(r"[^a-z0-9]+")
#: Characters that HAProxy refuses in the name of a server.
NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")


@dataclasses.dataclass(frozen=True)
class Upstream:
    """A port of an inference host's edge.

    Attributes:
        host: the host's name in the inventory.
        address: of the host.
        port: of its edge.
        engine: of the instances there.
        model: the name under which they serve it.
        tls: whether its edge uses TLS.
        tls_name: the name in its certificate; empty for its address.
        gpus: how many GPUs its instances have there; 1 where that is not known.
    """

    host: str
    address: str
    port: int
    engine: str
    model: str
    tls: bool = False
    tls_name: str = ""
    gpus: int = 1


@dataclasses.dataclass(frozen=True)
class Model:
    """A model name that clients use.

    Attributes:
        name: that name.
        model: the name under which the hosts serve it.
        pool: its pool's name.
        upstreams: the hosts behind it.
        settings: the rest of its item in ``gateway_models``.
    """

    name: str
    model: str
    pool: str
    upstreams: tuple[Upstream, ...]
    settings: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)


def models(wanted: t.Sequence[t.Any], served: t.Sequence[Upstream]) -> list[Model]:
    """The models of a gateway.

    Args:
        wanted: ``gateway_models``; empty for every name that the hosts serve.
        served: the hosts.

    Raises:
        FleetError: all problems.
    """
    items = list(wanted) or [{"name": name} for name in dict.fromkeys(one.model for one in served)]
    problems: list[str] = []
    found: list[Model] = []
    for number, item in enumerate(items):
        where = f"gateway_models[{number}]"
        wrong = _item_problems(item, where)
        if wrong:
            problems += wrong
            continue
        try:
            found.append(_model(item, where, served, is_default=not wanted))
        except FleetError as error:
            problems.append(error.message)
    problems += _name_problems(items)
    if not items:
        problems.append(
            "There is no inference host that a gateway could send requests to. The group inference is empty."
        )
    if problems:
        raise FleetError(" ".join(problems))
    return found


def _item_problems(item: t.Any, where: str) -> list[str]:
    valid = ", ".join(_MODEL_KEYS)
    if not isinstance(item, dict) or not item.get("name"):
        return [f"{where} is {item!r}; it must be a dictionary with a name. Valid keys are: {valid}."]
    problems = [
        f"{where} has the unknown key {key}. Valid are: {valid}." for key in sorted(set(item) - set(_MODEL_KEYS))
    ]
    for key, kinds in _MODEL_KEYS.items():
        value = item.get(key)
        if value is not None and (not isinstance(value, kinds) or isinstance(value, bool) != (kinds == (bool,))):
            problems.append(f"{where}.{key} of {item['name']} is {value!r}; it must be {_spoken(kinds)}.")
    return problems


def _spoken(kinds: tuple[type, ...]) -> str:
    words = {str: "a text", list: "a list", bool: "true or false", dict: "a dictionary"}
    return words.get(kinds[0], "a number")


def _model(item: t.Mapping[str, t.Any], where: str, served: t.Sequence[Upstream], is_default: bool) -> Model:
    name = str(item["name"])
    known = sorted({one.model for one in served})
    # A name that hosts serve means them; any other name is an alias, which must name its model where there is a choice.
    model = item.get("model") or (name if name in known else known[0] if len(known) == 1 else "")
    if not model:
        raise FleetError(
            f"{where} does not say which model {name} is: give it model, one of those that the hosts serve: "
            f"{', '.join(known) or 'none'}."
        )
    chosen = [one for one in served if one.model == model]
    if not chosen:
        near = difflib.get_close_matches(model, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise FleetError(
            f"{where}: no inference host serves {model}, which {name} is to be. The hosts serve: "
            f"{', '.join(known) or 'nothing'}.{hint}"
        )
    chosen = _of_engines(item, where, chosen, is_default)
    chosen = _of_hosts(item, where, chosen, served)
    settings = {key: value for key, value in item.items() if key not in ("name", "model", "engines", "hosts")}
    return Model(name, model, pool_name(name), tuple(chosen), settings)


def _of_engines(item: t.Mapping[str, t.Any], where: str, chosen: list[Upstream], is_default: bool) -> list[Upstream]:
    """The hosts of the wanted engine, which must be named where there are several."""
    engines = sorted({one.engine for one in chosen})
    wanted = item.get("engines")
    if wanted is None:
        if len(engines) > 1 and not item.get("hosts"):
            by_engine = "; ".join(
                f"{engine} on {', '.join(one.host for one in chosen if one.engine == engine)}" for engine in engines
            )
            place = "gateway_models" if is_default else where
            raise FleetError(
                f"{item['name']} is served by different engines ({by_engine}), and {place} does not say which are "
                f"meant. Spread it over both, - {{name: {item['name']}, engines: [{', '.join(engines)}]}}, or name one."
            )
        return chosen
    for engine in wanted:
        check_engine(engine, f"{where}.engines")
    found = [one for one in chosen if one.engine in wanted]
    if not found:
        raise FleetError(
            f"{where}: no host serves {item['name']} with {' or '.join(wanted)}; it is served with "
            f"{' and '.join(engines)}."
        )
    return found


def _of_hosts(
    item: t.Mapping[str, t.Any], where: str, chosen: list[Upstream], served: t.Sequence[Upstream]
) -> list[Upstream]:
    wanted = item.get("hosts")
    if not wanted:
        return chosen
    known = {one.host for one in served}
    unknown = [str(host) for host in wanted if host not in known]
    if unknown:
        raise FleetError(
            f"{where}.hosts of {item['name']} names {', '.join(unknown)}, which the group inference does not have. "
            f"It has: {', '.join(sorted(known))}."
        )
    found = [one for one in chosen if one.host in wanted]
    missing = [host for host in wanted if host not in {one.host for one in found}]
    if missing:
        raise FleetError(
            f"{where}.hosts of {item['name']} names {', '.join(missing)}, which serves something else: "
            f"{', '.join(sorted({f'{one.model} ({one.engine})' for one in served if one.host in missing}))}."
        )
    return found


def _name_problems(items: t.Sequence[t.Any]) -> list[str]:
    """The conflicts between models: duplicate names, and fallbacks that lead nowhere."""
    named = [item for item in items if isinstance(item, dict) and isinstance(item.get("name"), str)]
    names = [item["name"] for item in named]
    problems = [
        f"gateway_models has {name} {names.count(name)} times; a name means one pool of hosts: list them in one item."
        for name in sorted(set(names))
        if names.count(name) > 1
    ]
    for item in named:
        for fallback in item.get("fallbacks") or []:
            if fallback == item["name"]:
                problems.append(f"{item['name']} falls back to itself; remove it from its fallbacks.")
            elif fallback not in names:
                problems.append(
                    f"{item['name']} falls back to {fallback}, which is no model of gateway_models. They are: "
                    f"{', '.join(sorted(set(names)))}."
                )
    return problems


def pool_name(name: str) -> str:
    """A model's name as part of a path and of the edge's configuration; it is unique."""
    plain = _NOT_IN_A_PATH.sub("-", name.lower()).strip("-")[:40]
    if plain == name:
        return plain
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
