# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What target groups say of the fleet's hosts, and what follows. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import (
    GroupTarget,
    Membership,
    TargetGroup,
)

HEALTHY, INITIAL, DRAINING, UNUSED = "healthy", "initial", "draining", "unused"
UNHEALTHY_DRAINING = "unhealthy.draining"
NOT_REGISTERED, NOT_IN_USE = "Target.NotRegistered", "Target.NotInUse"


@dataclasses.dataclass(frozen=True)
class TargetHealth:
    """A target's state, with AWS's code and words for the reason."""

    state: str
    reason: str = ""
    description: str = ""

    @property
    def said(self) -> str:
        """The state with its reason, as in ``unused: Target.NotInUse``."""
        return f"{self.state}: {self.reason}" if self.reason and self.state not in (HEALTHY, DRAINING) else self.state

    @property
    def is_registered(self) -> bool:
        """Whether it is a target of the group, whatever its health; one that drains is none any more."""
        return self.state not in (DRAINING, UNHEALTHY_DRAINING) and self.reason != NOT_REGISTERED


#: A target that a group does not list.
ABSENT = TargetHealth(UNUSED, NOT_REGISTERED)


@dataclasses.dataclass(frozen=True)
class BalancerLook:
    """What target groups said at one moment.

    Attributes:
        memberships: the targets that the fleet's hosts are.
        health: of every target that a group has, by the group's ARN and the target.
        problems: why hosts cannot be targets of a group.
    """

    memberships: tuple[Membership, ...] = ()
    health: t.Mapping[tuple[str, GroupTarget], TargetHealth] = dataclasses.field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def of(self, hosts: t.Collection[str]) -> list[Membership]:
        """The memberships of hosts."""
        return [one for one in self.memberships if one.host in hosts]

    def health_of(self, one: Membership) -> TargetHealth:
        return self.health.get((one.group.arn, one.target), ABSENT)

    def missing(self, hosts: t.Collection[str]) -> list[Membership]:
        """The memberships of hosts that are not registered."""
        return [one for one in self.of(hosts) if not self.health_of(one).is_registered]

    def is_reachable(self, host: str) -> bool:
        """Whether clients of each of its groups can reach a host; True for one without groups."""
        return all(self.health_of(one).state == HEALTHY for one in self.of([host]))

    def document(self) -> dict[str, t.Any]:
        """As JSON, between two tasks."""
        groups = {one.group.arn: one.group for one in self.memberships}
        return {
            "groups": {
                arn: {**dataclasses.asdict(one), "balancers": list(one.balancers)} for arn, one in groups.items()
            },
            "memberships": [
                {"host": one.host, "group": one.group.arn, **dataclasses.asdict(one.target)} for one in self.memberships
            ],
            "health": [
                {"group": arn, **dataclasses.asdict(target), **dataclasses.asdict(health)}
                for (arn, target), health in self.health.items()
            ],
            "problems": list(self.problems),
        }


def read_look(document: t.Mapping[str, t.Any] | None) -> BalancerLook:
    """A look from its document; an empty one from nothing."""
    given = document or {}
    groups = {
        arn: TargetGroup(**{**one, "balancers": tuple(one["balancers"])})
        for arn, one in (given.get("groups") or {}).items()
    }
    memberships = tuple(
        Membership(one["host"], groups[one["group"]], GroupTarget(one["id"], int(one["port"])))
        for one in given.get("memberships") or ()
    )
    health = {
        (one["group"], GroupTarget(one["id"], int(one["port"]))): TargetHealth(
            one["state"], one["reason"], one["description"]
        )
        for one in given.get("health") or ()
    }
    return BalancerLook(memberships, health, tuple(given.get("problems") or ()))


def summarize(look: BalancerLook, host: str) -> str:
    """A host's state at the balancers, for a table: ``healthy 2/2``, ``draining``, ``unused: Target.NotInUse``.

    Empty for a host that is in no target group.
    """
    states = [look.health_of(one) for one in look.of([host])]
    if not states:
        return ""
    healthy = sum(one.state == HEALTHY for one in states)
    others = list(dict.fromkeys(one.said for one in states if one.state != HEALTHY))
    counted = [f"{HEALTHY} {healthy}/{len(states)}"] if healthy or not others else []
    return ", ".join(counted + others)


def last_ones(look: BalancerLook, out: t.Collection[Membership]) -> list[str]:
    """What taking targets out at once would leave without a healthy target, as a sentence for each group.

    A group that has no healthy target now loses none.

    Args:
        look: what the groups say.
        out: the targets that would be deregistered.
    """
    problems = []
    groups: dict[str, TargetGroup] = {one.group.arn: one.group for one in out}
    for arn, group in groups.items():
        leaving = {one.target for one in out if one.group.arn == arn}
        healthy = {target for (name, target), health in look.health.items() if name == arn and health.state == HEALTHY}
        if healthy and healthy <= leaving:
            hosts = " and ".join(dict.fromkeys(one.host for one in out if one.group.arn == arn))
            others = len({target for name, target in look.health if name == arn} - leaving)
            rest = f"none of its {others} other targets is healthy" if others else "it has no other target"
            problems.append(f"T{group.said[1:]} would have no healthy target without {hosts}: {rest}.")
    return problems


def waiting_for_health(look: BalancerLook, asked: t.Sequence[Membership]) -> list[str]:
    """Which targets are not healthy yet, as sentences."""
    return [
        f"{one.said} is {health.said}{f' ({health.description})' if health.description else ''}"
        for one in asked
        if (health := look.health_of(one)).state != HEALTHY
    ]


def not_usable(look: BalancerLook, hosts: t.Collection[str]) -> list[str]:
    """Groups that no request can come through to a host, as sentences: no listener, or a zone that is not enabled."""
    said: dict[str, list[str]] = {}
    for one in look.of(hosts):
        health = look.health_of(one)
        if not one.group.balancers:
            said.setdefault(
                f"T{one.group.said[1:]} is used by no listener ({NOT_IN_USE}), so no client reaches its hosts. Add it "
                "to a listener of the balancer, or take it out of fleet_target_groups.",
                [],
            )
        elif health.reason == NOT_IN_USE:
            words = health.description or "its zone is not enabled in the balancer"
            said.setdefault(
                f"No client reaches {{}} through {one.group.said} ({NOT_IN_USE}: {words.rstrip('.')}). Enable the "
                "host's zone in the balancer.",
                [],
            ).append(one.host)
    return [text.format(" and ".join(hosts)) if hosts else text for text, hosts in said.items()]


def strangers(look: BalancerLook, addresses: t.Mapping[str, t.Collection[str]]) -> list[str]:
    """Hosts that a group has with a port that is not theirs, as sentences.

    Args:
        look: what the groups say.
        addresses: the instance id and the address of each host.
    """
    known = {(one.group.arn, one.target) for one in look.memberships}
    groups = {one.group.arn: one.group for one in look.memberships}
    problems = []
    for (arn, target), health in look.health.items():
        host = next((name for name, own in addresses.items() if target.id in own), "")
        if host and (arn, target) not in known and health.is_registered and arn in groups:
            group = groups[arn]
            problems.append(
                f"{host} is in {group.said} with port {target.port}, on which it is not balanced by this fleet "
                f"({health.said}). Remove it: aws elbv2 deregister-targets --region {group.region} --target-group-arn "
                f"{arn} --targets Id={target.id},Port={target.port}"
            )
    return problems
