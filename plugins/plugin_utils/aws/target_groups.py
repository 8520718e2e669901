# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Reads target groups and the health of their targets, registers and deregisters."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.aws_errors import AwsFailure
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.session import AwsService, open_service, own_region
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import (
    VARIABLE,
    BalancedHost,
    GroupTarget,
    Membership,
    TargetGroup,
    match_hosts,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.health import BalancerLook, TargetHealth

#: AWS takes as many targets in one call.
_AT_ONCE = 100
#: What AWS answers for a target that is not in the group; it is where it was wanted to be.
_GONE = ("InvalidTarget",)


class TargetGroups:
    """The target groups of a fleet, in every region of its hosts.

    Args:
        endpoint: the URL of a stand-in for AWS; empty for AWS.
    """

    def __init__(self, endpoint: str = "") -> None:
        self._endpoint = endpoint
        self._open: dict[str, AwsService] = {}

    def look(self, hosts: t.Sequence[BalancedHost]) -> BalancerLook:
        """Which targets the hosts are, and what their groups say of them: one call for each group.

        Raises:
            FleetError: AWS refused it, or did not answer.
        """
        regions = sorted({host.region for host in hosts if host.own and host.ports and host.region})
        known = {region: self._groups(region) for region in regions}
        memberships, problems = match_hosts(hosts, known)
        return self.look_again(BalancerLook(tuple(memberships), {}, tuple(problems)))

    def look_again(self, before: BalancerLook) -> BalancerLook:
        """The same targets, as their groups see them now.

        Raises:
            FleetError: AWS refused it, or did not answer.
        """
        health: dict[tuple[str, GroupTarget], TargetHealth] = {}
        for group in _groups_of(before.memberships):
            health.update(self._health(group))
        return BalancerLook(before.memberships, health, before.problems)

    def register(self, memberships: t.Sequence[Membership]) -> None:
        """Register targets: one call for each group.

        Raises:
            FleetError: AWS refused it, or did not answer.
        """
        for group, targets in _by_group(memberships):
            elbv2 = self._service(group.region)
            about = f"target group {group.name}"
            elbv2.call("register_targets", about, TargetGroupArn=group.arn, Targets=targets)

    def deregister(self, memberships: t.Sequence[Membership]) -> None:
        """Deregister targets, with their ports: one call for each group.

        Raises:
            FleetError: AWS refused it, or did not answer.
        """
        for group, targets in _by_group(memberships):
            elbv2 = self._service(group.region)
            about = f"target group {group.name}"
            try:
                elbv2.call("deregister_targets", about, TargetGroupArn=group.arn, Targets=targets)
            except AwsFailure as failure:
                if failure.code not in _GONE:
                    raise

    def _groups(self, region: str) -> list[TargetGroup]:
        found = self._service(region).pages("describe_target_groups", "TargetGroups")
        return [_group(one, region) for one in found]

    def _health(self, group: TargetGroup) -> dict[tuple[str, GroupTarget], TargetHealth]:
        about = f"target group {group.name}"
        answer = self._service(group.region).call("describe_target_health", about, TargetGroupArn=group.arn)
        return {(group.arn, _target(one["Target"], group)): _state(one) for one in answer["TargetHealthDescriptions"]}

    def _service(self, region: str) -> AwsService:
        if region not in self._open:
            self._open[region] = open_service("elbv2", region, VARIABLE, self._endpoint)
        return self._open[region]


def region_of_shell() -> str:
    """The region of hosts whose variables have none; empty if this shell has none either."""
    return own_region(VARIABLE)


def _group(one: t.Mapping[str, t.Any], region: str) -> TargetGroup:
    return TargetGroup(
        arn=str(one["TargetGroupArn"]),
        name=str(one["TargetGroupName"]),
        region=region,
        vpc=str(one.get("VpcId") or ""),
        kind=str(one.get("TargetType") or "instance"),
        port=int(one["Port"]) if one.get("Port") else None,
        balancers=tuple(one.get("LoadBalancerArns") or ()),
    )


def _target(one: t.Mapping[str, t.Any], group: TargetGroup) -> GroupTarget:
    return GroupTarget(str(one["Id"]), int(one.get("Port") or group.port or 0))


def _state(one: t.Mapping[str, t.Any]) -> TargetHealth:
    health = one.get("TargetHealth") or {}
    return TargetHealth(
        str(health.get("State") or ""), str(health.get("Reason") or ""), str(health.get("Description") or "")
    )


def _groups_of(memberships: t.Iterable[Membership]) -> list[TargetGroup]:
    return list({one.group.arn: one.group for one in memberships}.values())


def _by_group(memberships: t.Sequence[Membership]) -> t.Iterator[tuple[TargetGroup, list[dict[str, t.Any]]]]:
    """The targets of each group, as AWS takes them, in as many parts as it takes at once."""
    for group in _groups_of(memberships):
        own = [one.target for one in memberships if one.group.arn == group.arn]
        targets = [{"Id": target.id, "Port": target.port} for target in dict.fromkeys(own)]
        for start in range(0, len(targets), _AT_ONCE):
            yield group, targets[start : start + _AT_ONCE]
