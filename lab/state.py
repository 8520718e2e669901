"""A lab, and its record."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import os
import re
import socket
import typing as t
import uuid
import zlib
from pathlib import Path

from lab import files, machine
from lab.errors import LabError

DEFAULT_NAME = "lab"
DEFAULT_SUBNET = "10.213.0.0/24"
DEFAULT_INSTANCE_TYPE = "g6e.xlarge"
FIRST_EC2_PORT = 5570
FIRST_BALANCER_PORT = 8080
#: What decides who gets requests: HAProxy's own health checks, or the target groups of the lab's AWS.
BALANCERS = ("health", "registration")
ROOT = Path(__file__).resolve().parent.parent

# The bridge has .1; EC2 reserves the addresses below this one in every subnet.
FIRST_HOST = 11
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?")


def state_root() -> Path:
    """The directory of the labs' records: ``INFERENCE_FLEET_STATE``."""
    return Path(os.environ.get("INFERENCE_FLEET_STATE") or "/var/lib/inference-fleet")


def cache_root() -> Path:
    """The directory that labs share and keep: ``INFERENCE_FLEET_CACHE``."""
    return Path(os.environ.get("INFERENCE_FLEET_CACHE") or "/var/cache/inference-fleet")


def check_name(name: str, what: str) -> str:
    """``name``, if it is valid as a host name and part of a path."""
    if not NAME.fullmatch(name):
        raise LabError(
            f"{name!r} cannot name a {what}: use lower-case letters, digits and inner dashes, 42 characters at most."
        )
    return name


@dataclasses.dataclass
class Host:
    """A machine of the lab. One without a role is scratch: no EC2 instance, and no server behind the balancer."""

    name: str
    number: int
    role: str = ""
    ring: str = ""
    engine: str = ""
    instance_type: str = DEFAULT_INSTANCE_TYPE
    stopped: bool = False
    #: The Auto Scaling group that launched it: the group decides when it ends.
    group: str = ""
    machine_id: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)


@dataclasses.dataclass
class Lab:
    """One lab: a bridge with hosts on it, an EC2 API server and a balancer (the last two not in a bare lab)."""

    name: str
    subnet: str = DEFAULT_SUBNET
    bare: bool = False
    ec2_port: int = FIRST_EC2_PORT
    balancer_port: int = FIRST_BALANCER_PORT
    health_interval: str = "1s"
    balancer: str = "health"
    metadata: bool = False
    hosts: dict[str, Host] = dataclasses.field(default_factory=dict)

    @property
    def directory(self) -> Path:
        return state_root() / self.name

    @property
    def tag(self) -> str:
        """The name in at most eight characters, for interfaces, whose names hold fifteen."""
        return self.name if len(self.name) <= 8 else f"{self.name[:2]}{zlib.crc32(self.name.encode()) & 0xFFFFFF:06x}"

    @property
    def bridge(self) -> str:
        return f"fl-{self.tag}"

    @property
    def gateway(self) -> str:
        return str(ipaddress.ip_network(self.subnet)[1])

    @property
    def key(self) -> Path:
        return self.directory / "ssh" / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "ssh" / "known_hosts"

    @property
    def ec2_endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ec2_port}"

    @property
    def balancer_socket(self) -> Path:
        return self.directory / "balancer" / "admin.sock"

    @property
    def balancer_url(self) -> str:
        return f"http://127.0.0.1:{self.balancer_port}"

    def address(self, host: Host) -> str:
        return str(ipaddress.ip_network(self.subnet)[host.number])

    def port_of(self, host: Host) -> str:
        """The name of the host's network name space, and of its link on the bridge."""
        return f"{self.bridge}-{host.number}"

    def host_directory(self, host: Host) -> Path:
        return self.directory / "hosts" / host.name

    def host(self, name: str) -> Host:
        try:
            return self.hosts[name]
        except KeyError:
            raise LabError(
                f"Lab {self.name} has no host {name!r}. It has: {', '.join(self.hosts) or 'none'}."
            ) from None

    def new_host(self, name: str, **settings: t.Any) -> Host:
        """A host with the lowest free address; the next ``save`` records it."""
        taken = {host.number for host in self.hosts.values()}
        last = ipaddress.ip_network(self.subnet).num_addresses - 2
        number = next((number for number in range(FIRST_HOST, last + 1) if number not in taken), None)
        if number is None:
            raise LabError(f"Subnet {self.subnet} of lab {self.name} has no free address for {name}.")
        host = Host(check_name(name, "host"), number, **settings)
        self.hosts[name] = host
        return host

    def fleet(self) -> list[Host]:
        """The hosts that the EC2 API knows."""
        return [host for host in self.hosts.values() if host.role]

    def save(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        files.write(self.directory / "lab.json", json.dumps(dataclasses.asdict(self), indent=2) + "\n")


def load(name: str) -> Lab | None:
    """The lab of that name, or None where there is none."""
    path = state_root() / check_name(name, "lab") / "lab.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    hosts = {entry["name"]: Host(**entry) for entry in document.pop("hosts").values()}
    return Lab(**document, hosts=hosts)


def require(name: str) -> Lab:
    """The lab of that name, which must exist."""
    lab = load(name)
    if lab is None:
        raise LabError(f"There is no lab {name!r} in {state_root()}. Make it: python -m lab up --name {name}")
    return lab


def every_lab() -> list[Lab]:
    """All labs with their state below ``state_root``."""
    names = sorted(path.parent.name for path in state_root().glob("*/lab.json"))
    return [lab for lab in map(load, names) if lab is not None]


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def check_subnet(subnet: str) -> str:
    """``subnet``, if a lab fits into it."""
    try:
        network = ipaddress.ip_network(subnet)
    except ValueError as error:
        raise LabError(f"--subnet {subnet}: {error}. Give a network such as {DEFAULT_SUBNET}.") from error
    if network.version != 4 or network.num_addresses < 32:
        raise LabError(f"--subnet {subnet}: give an IPv4 network of /27 or larger, such as {DEFAULT_SUBNET}.")
    return subnet


def create(name: str, subnet: str, *, bare: bool) -> Lab:
    """A new lab, with ports that no other lab has. The default ports stay reserved for the default name."""
    network = ipaddress.ip_network(check_subnet(subnet))
    others = every_lab()
    for other in others:
        if network.overlaps(ipaddress.ip_network(other.subnet)):
            raise LabError(f"--subnet {subnet} overlaps {other.subnet} of lab {other.name}. Give another one.")
    lab = Lab(check_name(name, "lab"), subnet, bare)
    if name != DEFAULT_NAME:
        ports = {other.ec2_port for other in others} | machine.ec2_ports(lab.bridge)
        taken = {port - FIRST_EC2_PORT for port in ports}
        free = (step for step in range(1, 200) if step not in taken)
        step = next(step for step in free if _free(FIRST_EC2_PORT + step) and _free(FIRST_BALANCER_PORT + step))
        lab.ec2_port += step
        lab.balancer_port += step
    lab.save()
    return lab
