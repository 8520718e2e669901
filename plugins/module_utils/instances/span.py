# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""An instance that spans hosts, its nodes: one engine on all of them, started and stopped as one.

The first node serves the requests; the others only compute. Pure: the inventory in, places or problems out.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

#: On the first node, plus the instance's index: the ports on which its nodes and the engine's processes meet.
FIRST_LINK_PORT = 29400
FIRST_MEETING_PORT = 29500

#: On the other nodes, plus the index: where an engine may report the health of the node alone, on the loopback
#: interface.
FIRST_NODE_PORT = 8200

_NETWORK = "fleet_node_network"
_ADDRESS = "fleet_node_address"


@dataclasses.dataclass(frozen=True)
class InstanceSpan:
    """A node's place in an instance that spans hosts.

    Attributes:
        index: the instance's, the same on each node.
        rank: this node's, from 0, which is the node that serves requests.
        nodes: the names of all of them, by rank.
        addresses: theirs in their private network, by rank.
    """

    index: int
    rank: int
    nodes: tuple[str, ...]
    addresses: tuple[str, ...]

    def as_dict(self) -> dict[str, t.Any]:
        return {
            "rank": self.rank,
            "nodes": list(self.nodes),
            "addresses": list(self.addresses),
            "link_port": FIRST_LINK_PORT + self.index,
            "meeting_port": FIRST_MEETING_PORT + self.index,
            "node_port": FIRST_NODE_PORT + self.index,
        }


@dataclasses.dataclass(frozen=True)
class Nodes:
    """The hosts that an instance may span.

    Attributes:
        host: the host of the instances.
        known: the address of each host, and its ``fleet_instances``.
        network: ``fleet_node_network``.
    """

    host: str = ""
    known: t.Mapping[str, t.Mapping[str, t.Any]] = dataclasses.field(default_factory=dict)
    network: str = ""


def known_nodes(hosts: t.Iterable[t.Mapping[str, t.Any]]) -> dict[str, dict[str, t.Any]]:
    """The data about hosts for instances that span them.

    Args:
        hosts: their variables.
    """
    return {
        str(host["inventory_hostname"]): {
            "address": str(host.get(_ADDRESS) or host.get("private_ip_address") or host.get("ansible_host") or ""),
            "instances": host.get("fleet_instances") or [],
        }
        for host in hosts
    }


def plan_span(index: int, item: t.Mapping[str, t.Any], nodes: Nodes) -> InstanceSpan:
    """A host's place in the instance that ``item`` of its ``fleet_instances`` describes.

    Raises:
        FleetError: invalid nodes, nodes that do not agree, or no private network.
    """
    where = f"fleet_instances[{index}].nodes"
    wanted = item["nodes"]
    if not isinstance(wanted, (list, tuple)) or len(wanted) < 2 or len(set(map(str, wanted))) < len(wanted):
        raise FleetError(f"{where} is {wanted!r}; it must name two hosts or more, each once.")
    names = tuple(map(str, wanted))
    unknown = [name for name in names if name not in nodes.known]
    if unknown:
        raise FleetError(f"{where} names {', '.join(unknown)}, which the group inference does not have.")
    if nodes.host not in names:
        raise FleetError(
            f"{where} is {', '.join(names)}, and {nodes.host} is none of them. "
            "Set these fleet_instances for the nodes only."
        )
    for name in names:
        theirs = nodes.known[name]["instances"]
        other = theirs[index] if len(theirs) > index else None
        if other != item:
            raise FleetError(
                f"fleet_instances[{index}] of {nodes.host} spans {', '.join(names)}, and for {name} it says "
                f"{other or 'nothing'}. Say the same for each of them, best in variables of a group of theirs."
            )
    return InstanceSpan(index, names.index(nodes.host), names, _addresses(where, names, nodes))


def _addresses(where: str, names: tuple[str, ...], nodes: Nodes) -> tuple[str, ...]:
    """The nodes' addresses, all in their private network."""
    try:
        network = ipaddress.ip_network(nodes.network)
    except ValueError:
        network = None
    if network is None or not network.is_private or network.prefixlen == 0:
        raise FleetError(
            f"{where} needs a network that nothing else reaches, because what engines send each other on it is neither "
            f"encrypted nor proved: set {_NETWORK} to its private range, such as 10.0.8.0/24; it is {nodes.network!r}."
        )
    addresses = tuple(str(nodes.known[name]["address"]) for name in names)
    for name, address in zip(names, addresses):
        try:
            inside = ipaddress.ip_address(address) in network
        except ValueError:
            inside = False
        if not inside:
            raise FleetError(
                f"{where} names {name}, whose address is {address or 'not known'}: it is not in {_NETWORK} "
                f"({network}). Set {_ADDRESS} for the host."
            )
    if len(set(addresses)) < len(addresses):
        raise FleetError(f"{where}: two of {', '.join(names)} have one address ({', '.join(addresses)}).")
    return addresses
