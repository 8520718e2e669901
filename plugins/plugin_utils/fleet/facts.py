# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What each host of the fleet runs, derived from the inventory. Pure: variables in, facts or a problem out."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.types import JsonObjects
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import DEFAULT_ENGINE, GATEWAY
from ansible_collections.inference.fleet.plugins.module_utils.gpu.hardware import expected_hardware
from ansible_collections.inference.fleet.plugins.module_utils.instances.plan import (
    Instance,
    check_engine,
    edge_services,
    edge_targets,
    plan_gateway,
    plan_instances,
)
from ansible_collections.inference.fleet.plugins.module_utils.instances.span import Nodes, known_nodes
from ansible_collections.inference.fleet.plugins.plugin_utils.gateway import front
from ansible_collections.inference.fleet.plugins.plugin_utils.gateway.config import pools
from ansible_collections.inference.fleet.plugins.plugin_utils.gateway.plan import NOT_IN_A_NAME, Upstream, models

DEFAULT_MODEL = "Qwen/Qwen3-VL-8B-Instruct"
DEFAULT_EDGE_PORT = 8000
DEFAULT_GATEWAY_PORT = 4000
DEFAULT_AFFINITY = "prefix"

# What the names of the rings' groups begin with.
_RING = "ring_"

#: A host's variables, without those that are not set.
Variables = t.Mapping[str, t.Any]
_T = t.TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class HostPlan:
    """What a host runs, where its variables are valid.

    Attributes:
        model: the name of the requested model; on a gateway that of its first model.
        gpu_count: GPUs of the host.
        instances: as ``Instance.as_dict`` gives them.
        edge_services: the edge's ports with the instances behind each.
        gate_targets: name, url and model of each port for the gate.
        edge_urls: those of the gate's targets.
        engine_urls: of the instances that serve requests, on the host itself.
        upstreams: on a gateway, the ports behind which the inference hosts serve.
        peers: on a gateway, the edges of the others.
        pools: on a gateway, the hosts of each model as role edge takes them.
        front: on a gateway whose edge leads into the pools by itself, its service; else empty.
        counters: the gateways of that kind, where they tell what their clients have had.
    """

    model: str
    gpu_count: int
    instances: JsonObjects
    edge_services: JsonObjects
    gate_targets: JsonObjects
    edge_urls: list[str]
    engine_urls: list[str]
    upstreams: JsonObjects
    peers: JsonObjects
    pools: JsonObjects
    front: dict[str, t.Any]
    counters: JsonObjects


@dataclasses.dataclass(frozen=True)
class HostFacts:
    """The facts of one host, derived from the inventory.

    Attributes:
        tier: ``inference`` or ``gateway``; the hosts of one are changed together.
        ring: its ring in rollouts, ``canary`` for a host of the group ``ring_canary``; empty for none.
        is_gateway: whether it is a gateway.
        gateway_kind: what serves its clients; empty for an inference host.
        engine: what its instances run unless one names its own; of a gateway without instances, its kind.
        edge_port: the port of its edge.
        edge_url: the edge's URL on the host itself.
        address: where other hosts reach it.
        has_database: whether the gateways record spending.
        caches: whether its answers may come from a cache of whole answers.
        affinity: how a request finds the instance, or on a gateway the host, that may have its beginning in the cache.
        profile: of its engines' settings; a measured one with a digest of its file, which decides what the host runs.
        plan: what it runs.
        problem: why some of this is None; empty where nothing is.
    """

    tier: str
    ring: str
    is_gateway: bool
    gateway_kind: str
    engine: str | None
    edge_port: int | None
    edge_url: str | None
    address: str
    has_database: bool | None
    caches: bool
    affinity: str
    profile: str
    plan: HostPlan | None
    problem: str

    def as_dict(self) -> dict[str, t.Any]:
        """All of them in one dictionary; unknown ones are left out."""
        own = dataclasses.asdict(self)
        plan = own.pop("plan") or {}
        return {name: value for name, value in {**own, **plan}.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Fleet:
    """The inventory.

    Attributes:
        groups: the hosts of each group.
        variables: those of each host.
        name_profile: the name of the profile that a host's variables select, with a digest where it is in a file.
    """

    groups: t.Mapping[str, t.Sequence[str]]
    variables: t.Mapping[str, Variables]
    name_profile: t.Callable[[Variables], str] = lambda own: str(own.get("engine_profile") or "")

    def work_out(self, host: str) -> HostFacts:
        """The facts of one host. An unknown one does not affect the others."""
        own = self.variables[host]
        is_gateway = host in self.groups.get("gateway", ())
        kind = ""
        problems: list[str] = []

        def attempt(work: t.Callable[[], _T]) -> _T | None:
            try:
                return work()
            except FleetError as error:
                problems.append(error.message)
                return None

        if is_gateway:
            kind = attempt(lambda: front.choose_kind(own.get("gateway_kind"))) or GATEWAY
        return HostFacts(
            tier="gateway" if is_gateway else "inference",
            ring=self._ring(host),
            is_gateway=is_gateway,
            gateway_kind=kind,
            engine=kind if is_gateway else attempt(lambda: choose_engine(own)),
            edge_port=attempt(lambda: _port(own, is_gateway)),
            edge_url=attempt(lambda: _url(own, is_gateway)),
            address=_address(own),
            has_database=attempt(lambda: self._has_database(own)),
            caches=kind == GATEWAY,
            affinity=_affinity(own, is_gateway),
            profile="" if is_gateway else attempt(lambda: self.name_profile(own)) or "",
            plan=attempt(lambda: self._plan_gateway(host) if is_gateway else self._plan_inference(host)),
            problem=" ".join(dict.fromkeys(problems)),
        )

    def _ring(self, host: str) -> str:
        rings = sorted(name for name, hosts in self.groups.items() if name.startswith(_RING) and host in hosts)
        return rings[0][len(_RING) :] if rings else ""

    def _plan_inference(self, host: str) -> HostPlan:
        own = self.variables[host]
        gpu_count = count_gpus(own)
        return _plan(own, _served_name(own), gpu_count, self._instances(host, gpu_count), _port(own))

    def _plan_gateway(self, host: str) -> HostPlan:
        own = self.variables[host]
        upstreams = self.find_upstreams()
        served = models(own.get("gateway_models") or [], upstreams)
        model, port = served[0].name, _port(own, is_gateway=True)
        gateway = {
            "upstreams": [dataclasses.asdict(upstream) for upstream in upstreams],
            "peers": self.find_peers(host),
            "pools": pools(served),
        }
        if front.choose_kind(own.get("gateway_kind")) != front.EDGE:
            instances = plan_gateway(_count_processes(own), edge_port=port, served_name=model)
            return _plan(own, model, 0, instances, port, gateway)
        counters = self.find_counters()
        mine = next(one for one in counters if one.host == host)
        others = [one for one in counters if one is not mine]
        gateway["counters"] = [dataclasses.asdict(one) for one in counters]
        reserved = {name: _reserved(own, name, default) for name, default in front.RESERVED.items()}
        service = front.service(port, served, gateway["peers"], mine, others, reserved)
        return _plan(own, model, 0, [], port, gateway, service)

    def _instances(self, host: str, gpu_count: int) -> list[Instance]:
        own = self.variables[host]
        engine = choose_engine(own)
        return plan_instances(
            own.get("fleet_instances"),
            engine=engine,
            gpu_count=gpu_count,
            gpus_per_instance=_integer(own, f"{engine}_tensor_parallel_size", 1),
            edge_port=_port(own),
            served_name=_served_name(own),
            nodes=Nodes(host, known_nodes(self._nodes(own)), str(own.get("fleet_node_network") or "")),
        )

    def _nodes(self, own: Variables) -> list[Variables]:
        """The hosts that instances span, if any."""
        wanted = [item["nodes"] for item in own.get("fleet_instances") or [] if "nodes" in _mapping(item)]
        named = {str(name) for nodes in wanted if isinstance(nodes, (list, tuple)) for name in nodes}
        return [self.variables[name] for name in self.groups.get("inference", ()) if name in named]

    def find_upstreams(self) -> list[Upstream]:
        """The ports behind which the inference hosts serve, in the order of the hosts' names.

        Raises:
            FleetError: a host's instances are invalid.
        """
        found: list[Upstream] = []
        for host in sorted(self.groups.get("inference", ()), key=_by_number):
            own = self.variables[host]
            check_engine(choose_engine(own), f"the engine of {host}")
            with _naming(host):
                # Its ports do not depend on its GPUs, unless its instances name theirs.
                instances = self._instances(host, count_gpus(own) if own.get("fleet_instances") else 0)
            services: dict[int, list[Instance]] = {}
            for instance in instances:
                if instance.serves:
                    services.setdefault(instance.port, []).append(instance)
            for port, those in sorted(services.items()):
                one, gpus = those[0], _gpus(own, those)
                found.append(Upstream(host, _address(own), port, one.engine, one.served_name, **_tls(own), gpus=gpus))
        return found

    def find_peers(self, host: str) -> JsonObjects:
        """The edges of the other gateways, in the order of their names.

        Raises:
            FleetError: a port is invalid.
        """
        found: JsonObjects = []
        for name in sorted(set(self.groups.get("gateway", ())) - {host}, key=_by_number):
            own = self.variables[name]
            with _naming(name):
                port = _port(own, is_gateway=True)
            found.append({"name": NOT_IN_A_NAME.sub("-", name), "address": _address(own), "port": port, **_tls(own)})
        return found

    def find_counters(self) -> list[front.CounterPeer]:
        """The gateways whose edges lead into the pools by themselves, in the order of their names.

        Raises:
            FleetError: a port is invalid.
        """
        found = []
        for name in sorted(self.groups.get("gateway", ()), key=_by_number):
            own = self.variables[name]
            if own.get("gateway_kind") == front.EDGE:
                with _naming(name):
                    port = _integer(own, "gateway_counters_port", front.DEFAULT_COUNTERS_PORT)
                found.append(front.CounterPeer(NOT_IN_A_NAME.sub("-", name), name, _address(own), port, **_tls(own)))
        return found

    def _has_database(self, own: Variables) -> bool:
        if own.get("gateway_kind") == front.EDGE:
            return False
        stores = [self.variables[name] for name in self.groups.get("gateway_store", ())]
        return bool(own.get("litellm_database_url") or any(one.get("gateway_store_database") for one in stores))


@contextlib.contextmanager
def _naming(host: str) -> t.Iterator[None]:
    """Put the other host's name in front of its problem."""
    try:
        yield
    except FleetError as error:
        raise FleetError(f"{host}: {error.message}") from error


def choose_engine(own: Variables) -> str:
    """The engine of an inference host: that of the run, else its tag's, else the fleet's."""
    if "engine" in own:
        return str(own["engine"])
    return str(own.get("fleet_engine_tag") or own.get("fleet_engine") or DEFAULT_ENGINE)


def count_gpus(own: Variables) -> int:
    """How many GPUs an inference host has.

    Raises:
        FleetError: its instance type does not determine it.
    """
    if own.get("fleet_accelerator", "cuda") == "cpu":
        return 0
    kind = str(own.get("fleet_instance_type") or "")
    known = expected_hardware(kind, _integer(own, "fleet_gpu_count", 0) or None).count
    if known is None:
        raise FleetError(
            f"How many GPUs the instance type {kind!r} has is not known. Set fleet_gpu_count for the host, or "
            "fleet_accelerator: cpu when it has none."
        )
    return known


def _plan(
    own: Variables,
    model: str,
    gpu_count: int,
    instances: t.Sequence[Instance],
    port: int,
    gateway: t.Mapping[str, JsonObjects] | None = None,
    service: t.Mapping[str, t.Any] | None = None,
) -> HostPlan:
    plain = [instance.as_dict() for instance in instances]
    facts = {"upstreams": [], "peers": [], "pools": [], "counters": [], **(gateway or {})}
    services = edge_services(plain, facts["peers"], service)
    targets = edge_targets(services, _scheme(own), port)
    return HostPlan(
        model=model,
        gpu_count=gpu_count,
        instances=plain,
        edge_services=services,
        gate_targets=targets,
        edge_urls=[target["url"] for target in targets],
        engine_urls=[f"http://127.0.0.1:{one.engine_port}" for one in instances if one.serves],
        front=dict(service or {}),
        **facts,
    )


def _gpus(own: Variables, instances: t.Sequence[Instance]) -> int:
    """How many GPUs some instances of a host have; 1 where that is not known. It only decides on their share."""
    named = sum(len(instance.gpus) for instance in instances)
    if named:
        return named
    try:
        return max(1, count_gpus(own))
    except FleetError:
        return 1


def _count_processes(own: Variables) -> int:
    wanted = own.get("litellm_instances", own.get("fleet_vcpus") or 1)
    try:
        return int(wanted)
    except (TypeError, ValueError) as error:
        raise FleetError(f"litellm_instances is {wanted!r}: {error}") from error


def _served_name(own: Variables) -> str:
    return str(own.get("fleet_served_name") or own.get("fleet_model") or DEFAULT_MODEL)


def _affinity(own: Variables, is_gateway: bool) -> str:
    return str((own.get("gateway_affinity") if is_gateway else "") or own.get("edge_affinity") or DEFAULT_AFFINITY)


def _port(own: Variables, is_gateway: bool = False) -> int:
    """The port of a host's edge."""
    if is_gateway:
        return _integer(own, "fleet_gateway_port", DEFAULT_GATEWAY_PORT)
    return _integer(own, "edge_port", DEFAULT_EDGE_PORT)


def _reserved(own: Variables, name: str, default: int) -> int:
    """What a request books; the variables of the other kind of gateway hold for this one, too."""
    return _integer(own, f"gateway_reserved_{name}", _integer(own, f"litellm_reserved_{name}", default))


def _url(own: Variables, is_gateway: bool) -> str:
    return f"{_scheme(own)}://127.0.0.1:{_port(own, is_gateway)}"


def _integer(own: Variables, name: str, default: int) -> int:
    value = own.get(name)
    if value is None or value == "":
        return default
    try:
        return int(value)
    except (TypeError, ValueError):
        raise FleetError(f"{name} is {value!r}; it must be a whole number.") from None


def _scheme(own: Variables) -> str:
    return "https" if own.get("edge_tls_certificate") else "http"


def _tls(own: Variables) -> dict[str, t.Any]:
    """Whether a host's edge uses TLS, and the name in its certificate."""
    if not own.get("edge_tls_certificate"):
        return {"tls": False, "tls_name": ""}
    return {"tls": True, "tls_name": str(own.get("edge_tls_name") or own["inventory_hostname"])}


def _address(own: Variables) -> str:
    return str(own.get("fleet_address") or own.get("ansible_host") or own["inventory_hostname"])


def _mapping(item: t.Any) -> t.Mapping[str, t.Any]:
    return item if isinstance(item, t.Mapping) else {}


def _by_number(host: str) -> list[str]:
    """Numbers in order: EC2 lists instances in any order, which must not look like a change."""
    return [part.zfill(8) for part in re.split(r"(\d+)", host)]
