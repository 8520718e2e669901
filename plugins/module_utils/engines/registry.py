# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The registry of engines: the only list of their names.

A new engine is a module beside this one and a line in ENGINES. Tests register their own in the same dictionary.
"""

from __future__ import annotations

import collections
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.engines import litellm, sglang, vllm
from ansible_collections.inference.fleet.plugins.module_utils.engines.base import Engine

#: The engines that a host can run, by the values of ``engine``. The first is the default.
ENGINES: dict[str, Engine] = {engine.name: engine for engine in (vllm.ENGINE, sglang.ENGINE)}

DEFAULT_ENGINE = next(iter(ENGINES))

#: What the instances of a gateway run.
GATEWAY_ENGINE = litellm.ENGINE
GATEWAY = GATEWAY_ENGINE.name

#: Everything that an instance can run, by the names of its releases and its units.
KINDS: t.Mapping[str, Engine] = collections.ChainMap({GATEWAY: GATEWAY_ENGINE}, ENGINES)


def kind(name: t.Any) -> Engine:
    """The record of an engine.

    Raises:
        FleetError: it is unknown, so that it is not taken for another one.
    """
    if name not in KINDS:
        raise FleetError(f"{name!r} is nothing that an instance can run. Known are: {', '.join(KINDS)}.")
    return KINDS[name]


def kind_of_unit(unit: str) -> Engine:
    """The record of a unit's engine, as ``vllm@0.service``.

    Raises:
        FleetError: the unit runs no known engine.
    """
    return kind(unit.partition("@")[0])


def check_engine(name: t.Any, where: str = "engine") -> str:
    """The validated name of an engine that a host can run.

    Raises:
        FleetError: there is no such engine.
    """
    if name not in ENGINES:
        raise FleetError(f"{where} is {name!r}, which is no engine. Valid are: {', '.join(ENGINES)}.")
    return str(name)


def units(engines: t.Iterable[str] | None = None, index: t.Any = "*") -> list[str]:
    """The units of instances, or the patterns that match those of every index.

    Args:
        engines: names; None for everything that an instance can run.
        index: of the instance.
    """
    return [f"{name}@{index}.service" for name in (KINDS if engines is None else engines)]
