# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Instances of Auto Scaling groups at their hooks: which wait, how long, and their end."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.aws_errors import AwsFailure
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.aws import session
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.members import (
    JOIN,
    LEAVE,
    GroupMember,
    LifecycleHook,
)

CONTINUE, ABANDON = "CONTINUE", "ABANDON"
#: The tag of a host that is not a member of the fleet.
STATE_TAG = "inference:state"

_TRANSITIONS = {JOIN: "autoscaling:EC2_INSTANCE_LAUNCHING", LEAVE: "autoscaling:EC2_INSTANCE_TERMINATING"}
_VALIDATION = "ValidationError"
_NONE_WAITS = "No active Lifecycle Action"


class ScalingGroups:
    """The Auto Scaling groups of a region.

    Args:
        region: its name.
        used_by: what needs it, for messages.
        endpoint: the URL of a stand-in for AWS; empty for AWS.
        hooks: the names of the hooks that are the fleet's; others are left to whatever they belong to.
    """

    def __init__(self, region: str, used_by: str, endpoint: str = "", hooks: t.Collection[str] = ("join", "leave")):
        self._region = region
        self._used_by = used_by
        self._endpoint = endpoint
        self._names = tuple(hooks)
        self._autoscaling = session.open_service("autoscaling", region, used_by, endpoint)
        self._hooks: dict[str, list[LifecycleHook]] = {}

    def members(self, groups: t.Sequence[str]) -> list[GroupMember]:
        """The instances of these groups.

        Raises:
            FleetError: a group does not exist, AWS refused the call or did not answer.
        """
        about = f"group {', '.join(groups)}"
        names = list(groups)
        found = self._autoscaling.pages(
            "describe_auto_scaling_groups", "AutoScalingGroups", about=about, AutoScalingGroupNames=names
        )
        missing = sorted(set(groups) - {str(one["AutoScalingGroupName"]) for one in found})
        if missing:
            raise FleetError(
                f"There is no Auto Scaling group {', '.join(missing)} in {self._region}. Correct name or region."
            )
        return [
            GroupMember(str(one["InstanceId"]), str(group["AutoScalingGroupName"]), str(one["LifecycleState"]))
            for group in found
            for one in group.get("Instances", ())
        ]

    def member(self, instance: str) -> GroupMember | None:
        """The instance in its group; None where it is in none.

        Raises:
            FleetError: AWS refused the call or did not answer.
        """
        answer = self._autoscaling.call("describe_auto_scaling_instances", instance, InstanceIds=[instance])
        for one in answer.get("AutoScalingInstances") or ():
            return GroupMember(str(one["InstanceId"]), str(one["AutoScalingGroupName"]), str(one["LifecycleState"]))
        return None

    def hooks(self, group: str) -> list[LifecycleHook]:
        """The fleet's hooks of a group.

        Raises:
            FleetError: AWS refused the call or did not answer.
        """
        if group not in self._hooks:
            answer = self._autoscaling.call("describe_lifecycle_hooks", f"group {group}", AutoScalingGroupName=group)
            verbs = {transition: verb for verb, transition in _TRANSITIONS.items()}
            self._hooks[group] = [
                LifecycleHook(
                    str(one["LifecycleHookName"]),
                    group,
                    verbs[str(one["LifecycleTransition"])],
                    int(one.get("HeartbeatTimeout") or 3600),
                )
                for one in answer.get("LifecycleHooks", ())
                if str(one["LifecycleHookName"]) in self._names
            ]
        return self._hooks[group]

    def missing_hooks(self, group: str) -> str:
        """What a group lacks, as a sentence; empty where it has a hook for each transition."""
        have = {hook.verb for hook in self.hooks(group)}
        lacking = [verb for verb in _TRANSITIONS if verb not in have]
        if not lacking:
            return ""
        kinds = " and ".join(_TRANSITIONS[verb] for verb in lacking)
        return (
            f"Group {group} has no hook for {kinds} with a name of fleet_scaling_hooks ({', '.join(self._names)}). Its "
            "hosts would not wait for a playbook. Create it, as examples/aws/fleet.yml does, or name yours."
        )

    def beat(self, member: GroupMember) -> bool:
        """Extend the hooks at which the instance waits; whether it waits there.

        Raises:
            FleetError: AWS refused it for another reason, or did not answer.
        """
        return self._each_hook(
            member,
            lambda hook, about: self._autoscaling.call(
                "record_lifecycle_action_heartbeat", about, **_action(member, hook)
            ),
        )

    def complete(self, member: GroupMember, result: str) -> bool:
        """End the wait of an instance; whether it waited. One that does not wait is left alone.

        Args:
            member: the instance.
            result: ``CONTINUE`` or ``ABANDON``.

        Raises:
            FleetError: AWS refused it for another reason, or did not answer.
        """
        return self._each_hook(
            member,
            lambda hook, about: self._autoscaling.call(
                "complete_lifecycle_action", about, **_action(member, hook), LifecycleActionResult=result
            ),
        )

    def _each_hook(self, member: GroupMember, ask: t.Callable[[LifecycleHook, str], t.Any]) -> bool:
        waited = False
        for hook in self.hooks(member.group):
            if hook.verb != member.verb:
                continue
            try:
                ask(hook, f"{member.id} at hook {hook.name} of group {member.group}")
                waited = True
            except AwsFailure as error:
                # It was completed meanwhile, or its time is over: the next look says which.
                if error.code != _VALIDATION or _NONE_WAITS not in error.message:
                    raise
        return waited

    def set_state(self, instance: str, state: str) -> None:
        """Set the instance's tag inference:state, or remove it with an empty ``state``.

        Raises:
            FleetError: AWS refused it, or did not answer.
        """
        ec2 = session.open_service("ec2", self._region, self._used_by, self._endpoint)
        if state:
            ec2.call("create_tags", instance, Resources=[instance], Tags=[{"Key": STATE_TAG, "Value": state}])
        else:
            ec2.call("delete_tags", instance, Resources=[instance], Tags=[{"Key": STATE_TAG}])


def _action(member: GroupMember, hook: LifecycleHook) -> dict[str, str]:
    # Without the token of an event: AWS finds the action by the instance, so none has to be kept.
    return {
        "AutoScalingGroupName": member.group,
        "LifecycleHookName": hook.name,
        "InstanceId": member.id,
    }
