# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What the fleet needs of each of its target groups, from the variables of its hosts. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import (
    INSTANCE,
    VARIABLE,
    BalancedHost,
    TargetGroup,
    WantedGroup,
    choose_mode,
    match_hosts,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.readings import (
    BalancerNeeds,
    Described,
    TargetHost,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.table import SettingFinding
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.verdicts import ERROR, SettingVerdict
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import waves
from ansible_collections.inference.fleet.plugins.plugin_utils.variables import units

HostVariables = t.Mapping[str, t.Any]

_DRAIN = ("edge_drain_timeout", "engine_drain_timeout")
#: The defaults of the roles that have the variables.
DEFAULTS: dict[str, t.Any] = {
    "balancer_healthy_timeout": 120,
    "edge_drain_timeout": 600,
    "edge_keep_alive_timeout": 620,
    "edge_lame_duck": 15,
    "engine_drain_timeout": 300,
    "rollout_waves": [1, "25%", "50%", "75%", "100%"],
}


@dataclasses.dataclass(frozen=True)
class NeededGroup:
    """A target group of the fleet in a region.

    Attributes:
        wanted: the item of fleet_target_groups.
        described: the group, as DescribeTargetGroups returns it.
        hosts: those that belong into it.
    """

    wanted: WantedGroup
    described: Described
    hosts: t.Sequence[BalancedHost]

    @property
    def arn(self) -> str:
        return str(self.described["TargetGroupArn"])


def find_groups(
    hosts: t.Sequence[BalancedHost], known: t.Mapping[str, t.Sequence[Described]]
) -> tuple[list[NeededGroup], list[SettingFinding]]:
    """The target groups of hosts, and what cannot be found.

    Args:
        hosts: all hosts of the tiers that run.
        known: all target groups of each region, as DescribeTargetGroups returns them.
    """
    found: dict[tuple[str, WantedGroup], list[BalancedHost]] = {}
    # One host of each region speaks for the others.
    lost: dict[tuple[str, tuple[WantedGroup, ...]], BalancedHost] = {}
    for host in hosts:
        own = [one for one in host.own if host.ports and one.region in ("", host.region)]
        for wanted in own:
            described = _find(wanted, known.get(host.region, ()))
            if described is not None:
                found.setdefault((str(described["TargetGroupArn"]), wanted), []).append(host)
        missing = tuple(one for one in own if _find(one, known.get(host.region, ())) is None)
        if missing or (host.ports and host.own and not own):
            kept = missing or host.own
            lost.setdefault((host.region, kept), dataclasses.replace(host, wanted=kept))
    by_arn = {str(one["TargetGroupArn"]): one for groups in known.values() for one in groups}
    needed = [NeededGroup(wanted, by_arn[arn], members) for (arn, wanted), members in found.items()]
    there = {region: [_group(one, region) for one in groups] for region, groups in known.items()}
    return needed, [_not_found(problem) for problem in match_hosts(lost.values(), there)[1]]


def _find(wanted: WantedGroup, known: t.Iterable[Described]) -> Described | None:
    return next((one for one in known if wanted.name in (one["TargetGroupName"], one["TargetGroupArn"])), None)


def _group(one: Described, region: str) -> TargetGroup:
    kind = str(one.get("TargetType"))
    return TargetGroup(
        str(one["TargetGroupArn"]), str(one["TargetGroupName"]), region, str(one.get("VpcId")), kind, one.get("Port")
    )


def _not_found(problem: str) -> SettingFinding:
    return SettingFinding("-", VARIABLE, SettingVerdict("not found", "a target group that exists", ERROR, problem))


def work_out_needs(
    group: NeededGroup,
    variables: t.Mapping[str, HostVariables],
    canary: t.Collection[str],
    others: t.Mapping[str, str],
    groups: t.Collection[str],
    rollout: bool,
) -> BalancerNeeds:
    """What the fleet needs of a group: of several values the one that is hardest to meet.

    Args:
        group: the group.
        variables: of each host.
        canary: the hosts of the canary ring.
        others: hosts of the inventory, by their ids as targets.
        groups: the ARNs of all target groups of the fleet.
        rollout: whether this is the check before a rollout.

    Raises:
        FleetError: a variable is invalid.
    """
    own = [variables[host.name] for host in group.hosts]
    names = [host.name for host in group.hosts]
    is_instance = group.described.get("TargetType") == INSTANCE
    hosts = [_target(host, variables[host.name], group.wanted, is_instance) for host in group.hosts]
    sizes = [len(wave) for wave in waves.split(names, canary, _value(own[0], "rollout_waves"))]
    targets = {host.target for host in hosts}
    return BalancerNeeds(
        mode=choose_mode(str(own[0].get("balancer_mode") or ""), group.hosts[0].wanted, group.wanted.role),
        hosts=hosts,
        tls=any(one.get("edge_tls_certificate") for one in own),
        lame_duck=min(_lame_duck(one) for one in own),
        keep_alive=min(_seconds(one, "edge_keep_alive_timeout") for one in own),
        drain=max(_seconds(one, name) for one in own for name in _DRAIN),
        healthy_timeout=min(_seconds(one, "balancer_healthy_timeout") for one in own),
        at_once=max(sizes),
        others={target: name for target, name in others.items() if target not in targets},
        groups=groups,
        port_given=group.wanted.port is not None,
        rollout=rollout,
    )


def _target(host: BalancedHost, own: HostVariables, wanted: WantedGroup, is_instance: bool) -> TargetHost:
    placement = own.get("aws_placement") or {}
    return TargetHost(
        name=host.name,
        target=host.instance_id if is_instance else host.address,
        port=wanted.port or host.port,
        region=host.region,
        zone=str(placement.get("availability_zone") or ""),
        vpc=host.vpc,
    )


def _lame_duck(own: HostVariables) -> float:
    edge = _seconds(own, "edge_lame_duck")
    return min(edge, _seconds(own, "engine_lame_duck", edge))


def _seconds(own: HostVariables, name: str, default: float | None = None) -> float:
    value = _value(own, name) if default is None else own.get(name, default)
    try:
        found = units.seconds(value)
    except ValueError as error:
        raise FleetError(f"{name} is {value!r}: {error}.") from None
    return float(0 if found is None else found)


def _value(own: HostVariables, name: str) -> t.Any:
    value = own.get(name)
    return DEFAULTS[name] if value in (None, "") else value


def name_targets(hosts: t.Mapping[str, HostVariables]) -> dict[str, str]:
    """Hosts with their states, for people, by their ids as targets: instance id and address."""
    found: dict[str, str] = {}
    for name, own in hosts.items():
        state = str(own.get("fleet_state") or "")
        for target in (own.get("aws_instance_id"), own.get("ansible_host")):
            if target:
                found[str(target)] = f"{name} ({state})" if state else name
    return found
