# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Protects instances of Auto Scaling groups from scale-in, and takes that back."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.aws_errors import AwsFailure
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.members import IN_SERVICE
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.session import open_service

#: DescribeAutoScalingInstances and SetInstanceProtection take as many at once.
_AT_ONCE = 50
#: What AWS answers for an instance that is no longer in service in the group.
_GONE = "ValidationError"


@dataclasses.dataclass(frozen=True)
class ScaledInstance:
    """An instance of an Auto Scaling group.

    Attributes:
        id: its id.
        group: the group's name.
        state: its lifecycle state.
        protected: whether the group keeps it when it scales in.
    """

    id: str
    group: str
    state: str
    protected: bool


class ScaleInProtection:
    """The protection of instances in one region.

    Args:
        region: its name.
        used_by: what needs it, for messages.
        endpoint: the URL of a stand-in for AWS; empty for AWS.
    """

    def __init__(self, region: str, used_by: str, endpoint: str = "") -> None:
        self._autoscaling = open_service("autoscaling", region, used_by, endpoint)

    def look(self, instances: t.Sequence[str]) -> dict[str, ScaledInstance]:
        """The instances that an Auto Scaling group has, by their ids.

        Raises:
            FleetError: AWS refused it, or did not answer.
        """
        found = {}
        for start in range(0, len(instances), _AT_ONCE):
            ids = list(instances[start : start + _AT_ONCE])
            for one in self._autoscaling.pages(
                "describe_auto_scaling_instances", "AutoScalingInstances", InstanceIds=ids
            ):
                found[str(one["InstanceId"])] = ScaledInstance(
                    str(one["InstanceId"]),
                    str(one["AutoScalingGroupName"]),
                    str(one.get("LifecycleState") or ""),
                    bool(one.get("ProtectedFromScaleIn")),
                )
        return found

    def set(self, instances: t.Iterable[ScaledInstance], protected: bool) -> list[str]:
        """Protect instances, or take that back: one call for each group.

        Args:
            instances: of any groups. Those that are not in service, or are as wanted, are left alone.
            protected: the wanted state.

        Returns:
            The ids of the instances that changed.

        Raises:
            FleetError: AWS refused it, or did not answer.
        """
        changed: dict[str, list[str]] = {}
        for one in instances:
            if one.state == IN_SERVICE and one.protected != protected:
                changed.setdefault(one.group, []).append(one.id)
        done: list[str] = []
        for group, ids in changed.items():
            for start in range(0, len(ids), _AT_ONCE):
                part = ids[start : start + _AT_ONCE]
                try:
                    self._autoscaling.call(
                        "set_instance_protection",
                        f"Auto Scaling group {group}",
                        AutoScalingGroupName=group,
                        InstanceIds=part,
                        ProtectedFromScaleIn=protected,
                    )
                    done += part
                except AwsFailure as failure:
                    # One that has left the group meanwhile needs no protection any more.
                    if failure.code != _GONE or protected:
                        raise
        return done
