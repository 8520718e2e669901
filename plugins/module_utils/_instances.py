# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Which instances a host runs: one engine process each, on its own GPUs, behind the edge's port.

Pure: takes what the inventory says and what the host has, gives the instances or the problems.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils._errors import FleetError

#: The engines that this collection can run. A host's ``engine`` is one of these.
ENGINES = ("vllm", "sglang")

#: Those of them that have a role.
INSTALLABLE = ("vllm",)

#: Instance i listens on 127.0.0.1 at this port + i; only the edge and the gate on the host talk to it.
FIRST_ENGINE_PORT = 8100

_KEYS = {"engine", "gpus", "port"}


@dataclasses.dataclass(frozen=True)
class Instance:
    """One engine process.

    Attributes:
        index: position on the host, from 0; the unit is ``<engine>@<index>.service``.
        engine: ``vllm`` or ``sglang``.
        gpus: indices of the GPUs it owns; empty on a host without GPUs.
        port: the edge's port that leads to it; instances of one port share the load.
    """

    index: int
    engine: str
    gpus: tuple[int, ...]
    port: int

    @property
    def name(self) -> str:
        return f"{self.engine}-{self.index}"

    @property
    def unit(self) -> str:
        return f"{self.engine}@{self.index}.service"

    @property
    def engine_port(self) -> int:
        return FIRST_ENGINE_PORT + self.index

    def as_dict(self) -> dict[str, t.Any]:
        return {
            "index": self.index,
            "name": self.name,
            "engine": self.engine,
            "unit": self.unit,
            "gpus": list(self.gpus),
            "port": self.port,
            "engine_port": self.engine_port,
        }


def check_engine(engine: t.Any, where: str = "engine") -> str:
    """The engine's name, checked.

    Raises:
        FleetError: it is not one of ENGINES.
    """
    if engine not in ENGINES:
        raise FleetError(f"{where} is {engine!r}, which is no engine. Valid are: {', '.join(ENGINES)}.")
    return str(engine)


def plan_instances(
    wanted: list[dict[str, t.Any]] | None,
    *,
    engine: str,
    gpu_count: int,
    gpus_per_instance: int = 1,
    edge_port: int = 8000,
) -> list[Instance]:
    """The instances of one host.

    Args:
        wanted: ``fleet_instances``; None or empty means one per GPU (or per group of ``gpus_per_instance``).
        engine: the host's engine, for instances that do not name their own.
        gpu_count: GPUs of the host; 0 on a host without (then the default is one instance).
        gpus_per_instance: tensor parallel size.
        edge_port: the edge's port, for instances that do not name their own.

    Raises:
        FleetError: a key, engine, port or GPU that is wrong, with the place and what is valid.
    """
    check_engine(engine)
    if wanted:
        instances = [_from_item(index, item, engine, gpu_count, edge_port) for index, item in enumerate(wanted)]
        _check_gpus_are_owned_once(instances)
        return instances
    if gpu_count == 0:
        return [Instance(0, engine, (), edge_port)]
    if gpus_per_instance < 1 or gpu_count % gpus_per_instance:
        raise FleetError(
            f"{gpu_count} GPUs cannot be shared out in groups of {gpus_per_instance} (tensor parallel size). "
            f"Choose a divisor of {gpu_count}, or list the instances in fleet_instances."
        )
    return [
        Instance(index, engine, tuple(range(index * gpus_per_instance, (index + 1) * gpus_per_instance)), edge_port)
        for index in range(gpu_count // gpus_per_instance)
    ]


def _from_item(index: int, item: t.Any, engine: str, gpu_count: int, edge_port: int) -> Instance:
    where = f"fleet_instances[{index}]"
    if not isinstance(item, dict):
        raise FleetError(f"{where} is {item!r}; it must be a dictionary with the keys {', '.join(sorted(_KEYS))}.")
    unknown = sorted(set(item) - _KEYS)
    if unknown:
        raise FleetError(f"{where} has the unknown key {', '.join(unknown)}. Valid are: {', '.join(sorted(_KEYS))}.")
    port = _integer(item.get("port", edge_port), f"{where}.port")
    if not 1 <= port <= 65535:
        raise FleetError(f"{where}.port is {port}; a port is 1 to 65535.")
    gpus = tuple(_integer(gpu, f"{where}.gpus") for gpu in item.get("gpus", [index] if gpu_count else []))
    for gpu in gpus:
        if not 0 <= gpu < gpu_count:
            raise FleetError(f"{where}.gpus names GPU {gpu}, but the host has {gpu_count} GPU(s), counted from 0.")
    return Instance(index, check_engine(item.get("engine", engine), f"{where}.engine"), gpus, port)


def _integer(value: t.Any, where: str) -> int:
    if isinstance(value, bool):
        raise FleetError(f"{where} is {value!r}; it must be a whole number.")
    try:
        return int(value)
    except (TypeError, ValueError):
        raise FleetError(f"{where} is {value!r}; it must be a whole number.") from None


def _check_gpus_are_owned_once(instances: list[Instance]) -> None:
    owner: dict[int, int] = {}
    for instance in instances:
        for gpu in instance.gpus:
            if gpu in owner:
                raise FleetError(
                    f"fleet_instances[{owner[gpu]}] and fleet_instances[{instance.index}] both name GPU {gpu}; "
                    "a GPU belongs to one instance."
                )
            owner[gpu] = instance.index


def edge_services(instances: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """The edge's view: for each of its ports the instances behind it, in order."""
    services: dict[int, list[dict[str, t.Any]]] = {}
    for instance in instances:
        services.setdefault(instance["port"], []).append(
            {"name": instance["name"], "index": instance["index"], "port": instance["engine_port"]}
        )
    return [{"port": port, "instances": services[port]} for port in sorted(services)]


def wanted_ports(instances: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """The ports that the edge and the engines of a host listen on, as module host_preflight takes them."""
    edge = [
        {
            "port": port,
            "purpose": "the edge",
            "units": ["haproxy.service"],
            "variable": "edge_port, or fleet_instances[].port",
        }
        for port in sorted({instance["port"] for instance in instances})
    ]
    engines = [
        {
            "port": instance["engine_port"],
            "purpose": f"engine instance {instance['index']}",
            "units": [f"{engine}@{instance['index']}.service" for engine in ENGINES],
            "variable": "it follows from the instance's index, so another service has to move",
        }
        for instance in instances
    ]
    return edge + engines
