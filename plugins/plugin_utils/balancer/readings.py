# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What AWS says about a target group and its balancer, and what the fleet needs of them. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import REGISTRATION

#: A part of an answer, as boto3 returns it.
Described = t.Mapping[str, t.Any]

#: The protocols of target groups of an ALB, and of an NLB.
APPLICATION = ("HTTP", "HTTPS")
NETWORK = ("TCP", "TLS", "UDP", "TCP_UDP", "QUIC", "TCP_QUIC")


@dataclasses.dataclass(frozen=True)
class ListenerReading:
    """A listener of a balancer.

    Attributes:
        described: the listener.
        rules: its rules; the default one among them.
    """

    described: Described
    rules: t.Sequence[Described] = ()

    @property
    def said(self) -> str:
        """The listener for a person, such as ``HTTPS:443``."""
        return f"{self.described.get('Protocol', '?')}:{self.described.get('Port', '?')}"


@dataclasses.dataclass(frozen=True)
class BalancerReading:
    """A load balancer.

    Attributes:
        described: the balancer.
        attributes: its attributes.
        listeners: its listeners.
    """

    described: Described
    attributes: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    listeners: t.Sequence[ListenerReading] = ()

    @property
    def arn(self) -> str:
        return str(self.described["LoadBalancerArn"])

    @property
    def name(self) -> str:
        return str(self.described.get("LoadBalancerName") or self.arn)

    @property
    def zones(self) -> list[str]:
        """The zones in which it takes requests."""
        return sorted(str(zone["ZoneName"]) for zone in self.described.get("AvailabilityZones", ()))


@dataclasses.dataclass(frozen=True)
class GroupReading:
    """A target group.

    Attributes:
        described: the group.
        attributes: its attributes.
        health: its targets with their states.
        balancers: the balancers that use it.
        scaling: the Auto Scaling groups that register their instances in it.
    """

    described: Described
    attributes: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    health: t.Sequence[Described] = ()
    balancers: t.Sequence[BalancerReading] = ()
    scaling: t.Sequence[Described] = ()

    @property
    def arn(self) -> str:
        return str(self.described["TargetGroupArn"])

    @property
    def name(self) -> str:
        return str(self.described.get("TargetGroupName") or self.arn)

    @property
    def region(self) -> str:
        return self.arn.split(":")[3]

    @property
    def is_application(self) -> bool:
        """Whether it is for an ALB."""
        return self.described.get("Protocol") in APPLICATION

    @property
    def is_network(self) -> bool:
        """Whether it is for an NLB."""
        return self.described.get("Protocol") in NETWORK


@dataclasses.dataclass(frozen=True)
class TargetHost:
    """A host as a target.

    Attributes:
        name: its name in the inventory.
        target: its id as a target of the group: the instance id, or the address for groups of type ip.
        port: the port that clients' requests come to.
        region: its region; empty where it is not known.
        zone: its zone; empty where it is not known.
        vpc: its VPC; empty where it is not known.
    """

    name: str
    target: str
    port: int
    region: str = ""
    zone: str = ""
    vpc: str = ""


@dataclasses.dataclass(frozen=True)
class BalancerNeeds:
    """What the fleet needs of a target group. Times are in seconds.

    Attributes:
        mode: ``registration``, where rollouts deregister hosts, or ``health``, where the balancer finds out.
        hosts: all running hosts that belong into the group, also those beyond --limit.
        tls: whether their edges use TLS.
        lame_duck: the shortest time that they serve after their ``/health`` has turned 503.
        keep_alive: the shortest time that their edges keep an idle connection.
        drain: the longest time that a drain waits for requests in flight.
        healthy_timeout: how long a rollout waits until a registered host is healthy.
        at_once: how many of them a wave takes out at most.
        others: the names of further hosts of the inventory, by their ids as targets.
        groups: the ARNs of all target groups of the fleet.
        port_given: whether fleet_target_groups names the port, with which hosts are registered then.
        rollout: whether this is the check before a rollout, which registers the hosts that it finds serving.
    """

    mode: str
    hosts: t.Sequence[TargetHost]
    tls: bool = False
    lame_duck: float = 15
    keep_alive: float = 620
    drain: float = 600
    healthy_timeout: float = 120
    at_once: int = 1
    others: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    groups: t.Collection[str] = ()
    port_given: bool = False
    rollout: bool = False

    @property
    def registers(self) -> bool:
        """Whether rollouts register and deregister hosts."""
        return self.mode == REGISTRATION

    @property
    def ports(self) -> list[int]:
        """The ports of the hosts, each once."""
        return sorted({host.port for host in self.hosts})
