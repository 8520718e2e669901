"""One bridge per lab, one network name space per host; hosts can reach out, but cannot be reached from outside."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import shutil
import socket
import zlib
from pathlib import Path

from lab import machine, shell
from lab.errors import LabError
from lab.state import Host, Lab

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
NAMESPACES = Path("/run/netns")


def ensure(lab: Lab) -> None:
    """Create the bridge and its rules, or repair them."""
    mtu = _mtu()
    length = ipaddress.ip_network(lab.subnet).prefixlen
    if not _exists(lab.bridge):
        refuse_overlap(lab.subnet)
    batch = [] if _exists(lab.bridge) else [f"link add {lab.bridge} type bridge"]
    # A fixed address: by default a bridge takes the lowest of its ports, and changes it with them.
    octets = zlib.crc32(lab.bridge.encode()).to_bytes(4, "big")
    batch += [
        f"link set {lab.bridge} address 02:f1:{':'.join(f'{octet:02x}' for octet in octets)} mtu {mtu} up",
        f"address replace {lab.gateway}/{length} dev {lab.bridge}",
    ]
    _ip(batch)
    _forward(lab)
    _rules(lab)


def _mtu() -> int:
    """The MTU of the outgoing route: hosts that send larger packets would depend on path MTU discovery."""
    routes = json.loads(shell.run(["ip", "-json", "-4", "route", "show", "default"]).stdout or "[]")
    if not routes:
        return 1500
    links = json.loads(shell.run(["ip", "-json", "link", "show", "dev", routes[0]["dev"]]).stdout)
    return int(links[0]["mtu"])


def _exists(interface: str) -> bool:
    return interface in _interfaces()


def _interfaces() -> list[str]:
    return sorted(name for _, name in socket.if_nameindex())


def refuse_overlap(subnet: str) -> None:
    """Raise an error where this machine already reaches a part of ``subnet`` in another way."""
    network = ipaddress.ip_network(subnet)
    for route in json.loads(shell.run(["ip", "-json", "-4", "route", "show"]).stdout or "[]"):
        if route["dst"] != "default" and network.overlaps(ipaddress.ip_network(route["dst"])):
            raise LabError(
                f"Subnet {subnet} overlaps {route['dst']}, which this machine reaches by {route.get('dev')}. "
                "Give the lab a free one with --subnet."
            )


def _ip(batch: list[str], namespace: str = "") -> None:
    shell.run(["ip", *(["-n", namespace] if namespace else []), "-batch", "-"], stdin="\n".join([*batch, ""]))


def _forward(lab: Lab) -> None:
    """Enable forwarding, recording that it was off, and that there were no name spaces before the first lab."""
    with machine.held():
        machine.note(lab.bridge, lab.ec2_port)
        if not NAMESPACES.exists():
            machine.mark("no-namespaces-before")
        if FORWARDING.read_text(encoding="ascii").strip() == "0":
            machine.mark("forwarding-was-off")
            FORWARDING.write_text("1", encoding="ascii")


def _table(lab: Lab) -> str:
    return f"fleet_{lab.tag.replace('-', '_')}"


def _rules(lab: Lab) -> None:
    """Hosts reach out under this machine's address; nothing outside this machine reaches them."""
    if shutil.which("nft"):
        table = f"inet {_table(lab)}"
        rules = f"""table {table}
delete table {table}
table {table} {{
  chain out {{
    type nat hook postrouting priority srcnat;
    ip saddr {lab.subnet} oifname != "{lab.bridge}" masquerade
  }}
  chain in {{
    type filter hook forward priority filter;
    oifname "{lab.bridge}" iifname != "{lab.bridge}" ct state new drop
  }}
}}
"""
        result = shell.run(["nft", "-f", "-"], stdin=rules, check=False)
        if result.returncode == 0:
            _ensure_iptables(_accept_rules(lab) if _default_drops() else [])
            return
    if not shutil.which("iptables"):
        raise LabError("Neither nft nor iptables works on this machine: the hosts would have no way out.")
    _ensure_iptables([*_accept_rules(lab), *_nat_rules(lab)])


def _default_drops() -> bool:
    """Whether another firewall (Docker's, for one) drops forwarded packets unless a rule of iptables accepts them."""
    if not shutil.which("iptables"):
        return False
    return "-P FORWARD DROP" in shell.run(["iptables", "-S", "FORWARD"], check=False).stdout


def _nat_rules(lab: Lab) -> list[tuple[str, list[str]]]:
    masquerade = ["POSTROUTING", "-s", lab.subnet, "!", "-o", lab.bridge, "-j", "MASQUERADE"]
    drop = ["FORWARD", "-o", lab.bridge, "!", "-i", lab.bridge, "-m", "conntrack", "--ctstate", "NEW", "-j", "DROP"]
    return [("nat", masquerade), ("filter", drop)]


def _accept_rules(lab: Lab) -> list[tuple[str, list[str]]]:
    back = ["FORWARD", "-o", lab.bridge, "-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"]
    return [("filter", ["FORWARD", "-i", lab.bridge, "-j", "ACCEPT"]), ("filter", back)]


def _ensure_iptables(rules: list[tuple[str, list[str]]]) -> None:
    for table, rule in rules:
        base = ["iptables", "--wait", "-t", table]
        if shell.run([*base, "-C", *rule], check=False).returncode != 0:
            shell.run([*base, "-I", *rule])


def ensure_host(lab: Lab, host: Host) -> None:
    """Create the host's network name space with its link to the bridge, or repair them."""
    name = lab.port_of(host)
    mtu = _mtu()
    length = ipaddress.ip_network(lab.subnet).prefixlen
    if shell.run(["ip", "-n", name, "link", "show", "lo"], check=False).returncode != 0:
        # A killed `ip netns add` leaves a name whose name space is not mounted.
        if (NAMESPACES / name).exists():
            shell.run(["ip", "netns", "delete", name])
        shell.run(["ip", "netns", "add", name])
    batch = [] if _exists(name) else [f"link add {name} mtu {mtu} type veth peer name host0 mtu {mtu} netns {name}"]
    _ip([*batch, f"link set {name} master {lab.bridge} up"])
    _ip(
        [
            "link set lo up",
            f"address replace {lab.address(host)}/{length} dev host0",
            "link set host0 up",
            f"route replace default via {lab.gateway}",
        ],
        namespace=name,
    )


def remove_host(lab: Lab, host: Host) -> None:
    """Remove the host's name space; the link goes with it."""
    name = lab.port_of(host)
    if _exists(name):
        shell.run(["ip", "link", "delete", name])
    if (NAMESPACES / name).exists():
        shell.run(["ip", "netns", "delete", name])


def remove(lab: Lab) -> None:
    """Remove everything that ``ensure`` and ``ensure_host`` created for this lab, recorded or not."""
    port = re.compile(rf"{re.escape(lab.bridge)}-\d+")
    for name in filter(port.fullmatch, _interfaces()):
        shell.run(["ip", "link", "delete", name])
    for path in sorted(NAMESPACES.glob(f"{lab.bridge}-*")):
        if port.fullmatch(path.name):
            shell.run(["ip", "netns", "delete", path.name])
    if _exists(lab.bridge):
        shell.run(["ip", "link", "delete", lab.bridge])
    if shutil.which("nft"):
        shell.run(["nft", "delete", "table", "inet", _table(lab)], check=False)
    if shutil.which("iptables"):
        for table, rule in [*_accept_rules(lab), *_nat_rules(lab)]:
            shell.run(["iptables", "--wait", "-t", table, "-D", *rule], check=False)
    _restore_machine(lab)


def _restore_machine(lab: Lab) -> None:
    """With the machine's last lab, restore what ``_forward`` recorded."""
    with machine.held():
        machine.forget(lab.bridge)
        if not machine.alone(lab.bridge):
            return
        if machine.unmark("forwarding-was-off"):
            FORWARDING.write_text("0", encoding="ascii")
        # `ip netns` makes the directory a mount of its own and leaves it.
        if machine.unmark("no-namespaces-before") and NAMESPACES.is_dir() and not any(NAMESPACES.iterdir()):
            shell.run(["umount", str(NAMESPACES)], check=False)
            with contextlib.suppress(OSError):
                NAMESPACES.rmdir()
