# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The instances of a host: one engine process each, on its own GPUs, behind the edge's port.

Pure: the inventory's variables and the host's GPUs in, the instances or the problems out.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.edge.state import server_name
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import (
    GATEWAY,
    GATEWAY_ENGINE,
    check_engine,
    kind,
    kind_of_unit,
    units,
)
from ansible_collections.inference.fleet.plugins.module_utils.instances.span import InstanceSpan, Nodes, plan_span

_KEYS = {"engine", "gpus", "nodes", "port", "served_name"}


@dataclasses.dataclass(frozen=True)
class Instance:
    """One engine process.

    Attributes:
        index: position on the host, from 0; the unit is ``<engine>@<index>.service``.
        engine: one of KINDS.
        gpus: indices of the GPUs it owns; empty on a host without GPUs.
        port: the edge's port that leads to it; instances of one port share the load.
        served_name: the model name that clients use.
        span: this host's place in an instance that spans hosts.
    """

    index: int
    engine: str
    gpus: tuple[int, ...]
    port: int
    served_name: str = ""
    span: InstanceSpan | None = None

    @property
    def name(self) -> str:
        return f"{self.engine}-{self.index}"

    @property
    def unit(self) -> str:
        return f"{self.engine}@{self.index}.service"

    @property
    def engine_port(self) -> int:
        return kind(self.engine).launch.first_port + self.index

    @property
    def health_path(self) -> str:
        return health_path(self.unit)

    @property
    def serves(self) -> bool:
        """Whether requests come to this host; in an instance that spans hosts, the first one gets them all."""
        return self.span is None or self.span.rank == 0

    def as_dict(self) -> dict[str, t.Any]:
        return {
            "index": self.index,
            "name": self.name,
            "engine": self.engine,
            "unit": self.unit,
            "gpus": list(self.gpus),
            "port": self.port,
            "engine_port": self.engine_port,
            "health_path": self.health_path,
            "served_name": self.served_name,
            "serves": self.serves,
            "span": self.span.as_dict() if self.span else {},
        }


def health_path(unit: str) -> str:
    """The path of the health check."""
    return kind_of_unit(unit).launch.health_path


def plan_instances(
    wanted: list[dict[str, t.Any]] | None,
    *,
    engine: str,
    gpu_count: int,
    gpus_per_instance: int = 1,
    edge_port: int = 8000,
    served_name: str = "",
    nodes: Nodes | None = None,
) -> list[Instance]:
    """The instances of one host.

    Args:
        wanted: ``fleet_instances``; None or empty means one per GPU (or per group of ``gpus_per_instance``).
        engine: the host's engine, for instances that do not name their own.
        gpu_count: GPUs of the host; 0 on a host without (then the default is one instance).
        gpus_per_instance: tensor parallel size.
        edge_port: the edge's port, for instances that do not name their own.
        served_name: the model name that clients use, for instances that do not name their own.
        nodes: the hosts that instances may span.

    Raises:
        FleetError: an invalid key, engine, port or GPU, with its place and what is valid.
    """
    check_engine(engine)
    if wanted:
        defaults = Instance(0, engine, (), edge_port, served_name)
        instances = [_from_item(i, item, gpu_count, defaults, nodes or Nodes()) for i, item in enumerate(wanted)]
        _check_gpus_are_owned_once(instances)
        _check_ports_are_of_one_model(instances)
        return instances
    if gpu_count == 0:
        return [Instance(0, engine, (), edge_port, served_name)]
    if gpus_per_instance < 1 or gpu_count % gpus_per_instance:
        raise FleetError(
            f"{gpu_count} GPUs cannot be shared out in groups of {gpus_per_instance} (tensor parallel size). "
            f"Choose a divisor of {gpu_count}, or list the instances in fleet_instances."
        )
    return [
        Instance(
            index,
            engine,
            tuple(range(index * gpus_per_instance, (index + 1) * gpus_per_instance)),
            edge_port,
            served_name,
        )
        for index in range(gpu_count // gpus_per_instance)
    ]


def plan_gateway(count: int, *, edge_port: int = 4000, served_name: str = "") -> list[Instance]:
    """The instances of a gateway: each uses one core, so there are several on a larger host.

    Args:
        count: how many.
        edge_port: the edge's port.
        served_name: the model for its gate.

    Raises:
        FleetError: the number is 0 or too large.
    """
    if not 1 <= count <= 64:
        raise FleetError(
            f"{GATEWAY}_instances is {count}; give one for each core that {GATEWAY_ENGINE.title} shall use, 1 to 64."
        )
    return [Instance(index, GATEWAY, (), edge_port, served_name) for index in range(count)]


def _from_item(index: int, item: t.Any, gpu_count: int, defaults: Instance, nodes: Nodes) -> Instance:
    where = f"fleet_instances[{index}]"
    if not isinstance(item, dict):
        raise FleetError(f"{where} is {item!r}; it must be a dictionary with the keys {', '.join(sorted(_KEYS))}.")
    unknown = sorted(set(item) - _KEYS)
    if unknown:
        raise FleetError(f"{where} has the unknown key {', '.join(unknown)}. Valid are: {', '.join(sorted(_KEYS))}.")
    own_engine = check_engine(item.get("engine", defaults.engine), f"{where}.engine")
    port = _integer(item.get("port", defaults.port), f"{where}.port")
    if not 1 <= port <= 65535:
        raise FleetError(f"{where}.port is {port}; a port is 1 to 65535.")
    gpus = tuple(_integer(gpu, f"{where}.gpus") for gpu in item.get("gpus", [index] if gpu_count else []))
    if gpu_count and not gpus:
        raise FleetError(f"{where}.gpus is empty; an instance needs a GPU of its own, and the host has {gpu_count}.")
    for gpu in gpus:
        if not 0 <= gpu < gpu_count:
            raise FleetError(
                f"{where} ({own_engine}-{index}) wants GPU {gpu}, but the host has {gpu_count} GPU(s), counted from 0. "
                f"It has room for {gpu_count} instance(s) with a GPU each."
            )
    span = plan_span(index, item, nodes) if "nodes" in item else None
    return Instance(index, own_engine, gpus, port, str(item.get("served_name") or defaults.served_name), span)


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


def _check_ports_are_of_one_model(instances: list[Instance]) -> None:
    """Instances behind one port share its requests, so they must look the same to a client."""
    first: dict[int, Instance] = {}
    engine_ports = {instance.engine_port: instance for instance in instances}
    for instance in instances:
        if instance.port in engine_ports:
            owner = engine_ports[instance.port]
            first_port = owner.engine_port - owner.index
            raise FleetError(
                f"fleet_instances[{instance.index}].port is {instance.port}, on which the engine of {owner.name} "
                f"listens. Choose one outside of {first_port} to {first_port + len(instances) - 1}."
            )
        other = first.setdefault(instance.port, instance)
        if (other.engine, other.served_name) != (instance.engine, instance.served_name):
            free = next(port for port in range(instance.port + 1, 65536) if port not in {i.port for i in instances})
            raise FleetError(
                f"{other.name} (serves {other.served_name or 'the model'}) and {instance.name} (serves "
                f"{instance.served_name or 'the model'}) both want port {instance.port}, whose requests would go to "
                f"either. Give one another port: fleet_instances[{instance.index}].port: {free}."
            )


def edge_services(
    instances: list[dict[str, t.Any]],
    peers: t.Sequence[t.Mapping[str, t.Any]] = (),
    front: t.Mapping[str, t.Any] | None = None,
) -> list[dict[str, t.Any]]:
    """The edge's view: for each of its ports the instances behind it, in order; one without a port is behind none.

    Where a host only computes for another one, no instance listens there, so the edge reports that it does not serve;
    ``answers`` is then in the service, and false.

    Args:
        instances: of one host.
        peers: on a gateway, the edges of the others.
        front: on a gateway whose edge leads into the pools by itself, its only service; instances that are still there
            get no requests any more.
    """
    if front:
        return [dict(front)]
    services: dict[int, dict[str, t.Any]] = {}
    for instance in (one for one in instances if one["port"]):
        service = services.setdefault(
            instance["port"],
            {"port": instance["port"], "served_name": instance["served_name"], "instances": []},
        )
        server = {"name": server_name(instance["index"]), "index": instance["index"], "port": instance["engine_port"]}
        # By default all weigh the same.
        if len(instance.get("gpus", ())) > 1:
            server["weight"] = len(instance["gpus"])
        service["instances"].append(server)
        # The default path is /health.
        if instance.get("health_path", "/health") != "/health":
            service["health_path"] = instance["health_path"]
        if instance["engine"] == GATEWAY:
            service.update(kind="gateway", peers=list(peers))
    for port, service in services.items():
        if not any(instance["serves"] for instance in instances if instance["port"] == port):
            service["answers"] = False
    return [services[port] for port in sorted(services)]


def edge_targets(
    services: list[dict[str, t.Any]], scheme: str = "http", main_port: int = 8000
) -> list[dict[str, t.Any]]:
    """The services as targets of module chat_smoke on their own host, without those that do not answer there.

    Args:
        services: as ``edge_services`` gives them.
        scheme: ``http`` or ``https``.
        main_port: of the service with the name ``edge``; others have their port in their name.
    """
    return [
        {
            "name": "edge" if service["port"] == main_port else f"edge-{service['port']}",
            "url": f"{scheme}://127.0.0.1:{service['port']}",
            **({"model": service["served_name"]} if service["served_name"] else {}),
        }
        for service in services
        if service.get("answers", True)
    ]


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
            "purpose": f"{_process(instance)} instance {instance['index']}",
            "units": units(index=instance["index"]),
            "variable": "it follows from the instance's index, so another service has to move",
        }
        for instance in instances
    ]
    meetings = [
        {
            "port": instance["span"][port],
            "purpose": f"the nodes of instance {instance['index']}",
            "units": units(index=instance["index"]),
            "variable": "it follows from the instance's index, so another service has to move",
        }
        for instance in instances
        if instance.get("span") and instance["serves"]
        for port in ("link_port", "meeting_port")
    ]
    return edge + engines + meetings


def _process(instance: dict[str, t.Any]) -> str:
    return GATEWAY_ENGINE.title if instance["engine"] == GATEWAY else "engine"
