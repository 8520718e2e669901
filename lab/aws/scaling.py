"""Auto Scaling on top of moto's: lifecycle hooks, target groups and scale-in as AWS does them."""

from __future__ import annotations

import collections
import json
import threading
import time
import typing as t

from moto.autoscaling import models
from moto.autoscaling.exceptions import ValidationError
from moto.autoscaling.responses import AutoScalingResponse
from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.models.instances import Instance
from moto.elbv2.models import FakeTargetGroup
from moto.events.models import events_backends

from lab.aws.clock import LabClock
from lab.aws.hooks import ABANDON, CONTINUE, LAUNCHING, TERMINATING, LifecycleAction, begin, combine
from lab.aws.target_groups import LabTargetGroups

POLL_SECONDS = 0.1
WAITS_TO_JOIN, WAITS_TO_LEAVE = "Pending:Wait", "Terminating:Wait"
#: States that count as the group's capacity.
CAPACITY = ("Pending", WAITS_TO_JOIN, "Pending:Proceed", "InService")
WORDS = {LAUNCHING: "launch", TERMINATING: "terminate"}
TIMEOUTS = range(30, 7201)

Group = models.FakeAutoScalingGroup
Member = models.InstanceState


class LabAutoScaling:
    """The lifecycles of all groups' instances, and the thread that drives them.

    Args:
        clock: of timeouts.
        targets: the target groups.
    """

    def __init__(self, clock: LabClock, targets: LabTargetGroups) -> None:
        self.clock = clock
        self.targets = targets
        self.lock = threading.RLock()
        self._actions: dict[str, list[LifecycleAction]] = {}
        #: The target groups that an instance was registered with by its group, which happens once.
        self._attached: dict[str, set[str]] = collections.defaultdict(set)

    def run(self) -> None:
        """Drive all groups, for ever."""
        while True:
            for regions in list(models.autoscaling_backends.values()):
                for backend in list(regions.values()):
                    for group in list(backend.autoscaling_groups.values()):
                        self.advance(group)
            time.sleep(POLL_SECONDS / max(1.0, self.clock.speed))

    def advance(self, group: Group) -> None:
        """Go on with everything in the group that has nothing to wait for."""
        with self.lock:
            for member in list(group.instance_states):
                self._advance(group, member)
            self._resize(group)

    def _advance(self, group: Group, member: Member) -> None:
        outcome = combine(self._actions.get(member.instance_id, []), self.clock.now())
        if member.lifecycle_state == WAITS_TO_JOIN and outcome:
            self._actions.pop(member.instance_id)
            if outcome == CONTINUE:
                self._join(group, member)
            else:
                self.terminate(group, member)
        elif member.lifecycle_state == "Terminating" and not self._is_target(group, member):
            self._wait(group, member, TERMINATING)
        elif member.lifecycle_state == WAITS_TO_LEAVE and outcome:
            self._end(group, member)

    def _resize(self, group: Group) -> None:
        present = [member for member in group.instance_states if member.lifecycle_state in CAPACITY]
        missing = (group.desired_capacity or 0) - len(present)
        if missing > 0:
            self._launch(group, missing)
        # The oldest first, as AWS does with one launch template.
        unprotected = [one for one in present if not one.protected_from_scale_in]
        for member in unprotected[: max(0, -missing)]:
            self.terminate(group, member)

    def _launch(self, group: Group, count: int) -> None:
        known = {member.instance_id for member in group.instance_states}
        _launch_instances(group, count, group.get_propagated_tags())
        for member in group.instance_states:
            if member.instance_id not in known:
                self._wait(group, member, LAUNCHING)

    def _wait(self, group: Group, member: Member, transition: str) -> None:
        """Begin the hooks of a transition; without one it is over at once."""
        backend = group.autoscaling_backend
        hooks = [one for one in backend.describe_lifecycle_hooks(group.name) if one.lifecycle_transition == transition]
        if not hooks:
            self._join(group, member) if transition == LAUNCHING else self._end(group, member)
            return
        member.lifecycle_state = WAITS_TO_JOIN if transition == LAUNCHING else WAITS_TO_LEAVE
        now = self.clock.now()
        actions = [begin(one.name, float(one.heartbeat_timeout), one.default_result, now) for one in hooks]
        self._actions[member.instance_id] = actions
        for action in actions:
            detail = {
                "LifecycleActionToken": action.token,
                "AutoScalingGroupName": group.name,
                "LifecycleHookName": action.hook,
                "EC2InstanceId": member.instance_id,
                "LifecycleTransition": transition,
                "Origin": "EC2" if transition == LAUNCHING else "AutoScalingGroup",
                "Destination": "AutoScalingGroup" if transition == LAUNCHING else "EC2",
            }
            put_event(group, f"EC2 Instance-{WORDS[transition]} Lifecycle Action", detail)

    def _join(self, group: Group, member: Member) -> None:
        member.lifecycle_state = "InService"
        self.attach(group)
        _report(group, member, "EC2 Instance Launch Successful")

    def terminate(self, group: Group, member: Member) -> None:
        """Deregister first; the hook comes when the deregistration delay is over."""
        self._actions.pop(member.instance_id, None)
        member.lifecycle_state = "Terminating"
        self.detach(group, member)

    def _end(self, group: Group, member: Member) -> None:
        self._actions.pop(member.instance_id, None)
        self._attached.pop(member.instance_id, None)
        group.instance_states = [one for one in group.instance_states if one is not member]
        group.ec2_backend.terminate_instances([member.instance_id])
        _report(group, member, "EC2 Instance Terminate Successful")

    def attach(self, group: Group) -> None:
        """Register those in service, once: what is deregistered behind the group's back stays so."""
        if any(process["ProcessName"] == "AddToLoadBalancer" for process in group.suspended_processes):
            return
        for target_group in _target_groups(group):
            for member in group.active_instances():
                if target_group.arn not in self._attached[member.instance_id]:
                    self._attached[member.instance_id].add(target_group.arn)
                    self.targets.register(target_group, [{"Id": member.instance_id}])

    def detach(self, group: Group, member: Member) -> None:
        self._attached.pop(member.instance_id, None)
        for target_group in _target_groups(group):
            self.targets.terminate(target_group, [member.instance_id])

    def _is_target(self, group: Group, member: Member) -> bool:
        now = self.targets.clock.now()
        with self.targets.lock:
            tables = [self.targets.table(target_group).current(now) for target_group in _target_groups(group)]
        return any(key[0] == member.instance_id for table in tables for key in table)

    def find_action(self, group: Group, hook: str, instance_id: str | None, token: str | None) -> LifecycleAction:
        """The action that a caller completes or keeps alive, or AWS's error."""
        members = {member.instance_id for member in group.instance_states}
        for ident, actions in self._actions.items():
            for action in actions:
                known = action.token == token if token else ident == instance_id
                if ident in members and action.hook == hook and known and not action.outcome(self.clock.now()):
                    return action
        which = f"token {token}" if token else f"instance ID {instance_id}"
        raise ValidationError(f"No active Lifecycle Action found with {which}")


_launch_instances = models.FakeAutoScalingGroup.replace_autoscaling_group_instances


def _target_groups(group: Group) -> list[FakeTargetGroup]:
    known = group.autoscaling_backend.elbv2_backend.target_groups
    return [known[arn] for arn in group.target_group_arns if arn in known]


def put_event(group: Group, kind: str, detail: dict[str, t.Any]) -> None:
    event = {"Source": "aws.autoscaling", "DetailType": kind, "Detail": json.dumps(detail), "Resources": [group.arn]}
    events_backends[group.account_id][group.region].put_events([event])


def _report(group: Group, member: Member, kind: str) -> None:
    detail = {"AutoScalingGroupName": group.name, "EC2InstanceId": member.instance_id, "StatusCode": "InProgress"}
    put_event(group, kind, detail)


def install(scaling: LabAutoScaling) -> None:
    """Replace moto's parts with ours, in this process."""
    backend_of = models.AutoScalingBackend
    put_hook, protect = backend_of.create_lifecycle_hook, backend_of.set_instance_protection
    create, create_in_stack = AutoScalingResponse.create_auto_scaling_group, Group.create_from_cloudformation_json
    set_capacity, enter = backend_of.set_desired_capacity, backend_of.enter_standby_instances

    def resize(self: Group, new_capacity: int | None) -> None:
        self.desired_capacity = self.min_size if new_capacity is None else new_capacity
        # A group that is still being made has its instances when the backend knows it.
        if self.name in self.autoscaling_backend.autoscaling_groups:
            scaling.advance(self)

    def attach(self: models.AutoScalingBackend, group_name: str) -> None:
        group = self.autoscaling_groups[group_name]
        with scaling.lock:
            scaling.advance(group)
            scaling.attach(group)

    def set_desired_capacity(self: models.AutoScalingBackend, group_name: str, desired_capacity: int | None) -> None:
        group = _find(self, group_name)
        wanted = desired_capacity or 0
        for limit, wrong, word in (
            (group.max_size, wanted > int(group.max_size or 0), "above max"),
            (group.min_size, wanted < int(group.min_size or 0), "below min"),
        ):
            if wrong:
                raise ValidationError(
                    f"New SetDesiredCapacity value {wanted} is {word} value {limit} for the AutoScalingGroup."
                )
        set_capacity(self, group_name, desired_capacity)

    def delete_group(self: models.AutoScalingBackend, group_name: str) -> None:
        group = _find(self, group_name)
        with scaling.lock:
            for member in list(group.instance_states):
                scaling.detach(group, member)
            if group.instance_states:
                self.ec2_backend.terminate_instances([member.instance_id for member in group.instance_states])
            self.autoscaling_groups.pop(group_name)

    def terminate_instance(
        self: models.AutoScalingBackend, instance_id: str, should_decrement: bool
    ) -> models.TerminateInstanceActivity:
        group, member = _find_member(self, instance_id)
        before = group.desired_capacity or 0
        with scaling.lock:
            scaling.terminate(group, member)
            group.desired_capacity = before - 1 if should_decrement else before
            scaling.advance(group)
        instance: Instance = member.instance
        return models.TerminateInstanceActivity(instance, before)

    def lose_instances(self: models.AutoScalingBackend, instance_ids: list[str]) -> None:
        """Instances that somebody terminated are replaced."""
        with scaling.lock:
            for group in list(self.autoscaling_groups.values()):
                for member in [one for one in group.instance_states if one.instance_id in instance_ids]:
                    scaling.detach(group, member)
                    group.instance_states.remove(member)
                scaling.advance(group)

    def create_lifecycle_hook(
        self: models.AutoScalingBackend, name: str, as_name: str, transition: str, timeout: int | None, result: str
    ) -> models.LifecycleHook:
        _find(self, as_name)
        if timeout is not None and timeout not in TIMEOUTS:
            raise ValidationError("Heartbeat timeout must be between 30 and 7200 seconds")
        hook = put_hook(self, name, as_name, transition, timeout, result)
        hook.role_arn = hook.notification_target_arn = ""
        hook.global_timeout = min(172800, hook.heartbeat_timeout * 100)
        return hook

    def set_instance_protection(
        self: models.AutoScalingBackend, group_name: str, instance_ids: list[str], protected_from_scale_in: bool | None
    ) -> None:
        group = _find(self, group_name)
        states = {member.instance_id: member.lifecycle_state for member in group.instance_states}
        for ident in instance_ids:
            if ident not in states:
                raise ValidationError(f"The instance {ident} is not part of Auto Scaling group {group_name}.")
            if states[ident] not in ("InService", "Standby"):
                raise ValidationError(f"The instance {ident} is not in InService or EnteringStandby or Standby.")
        protect(self, group_name, instance_ids, protected_from_scale_in)

    def enter_standby(
        self: models.AutoScalingBackend, group_name: str, instance_ids: list[str], should_decrement: bool
    ) -> list[models.EnterStandbyActivity]:
        group = _find(self, group_name)
        with scaling.lock:
            for member in group.instance_states:
                if member.instance_id in instance_ids:
                    scaling.detach(group, member)
            return enter(self, group_name, instance_ids, should_decrement)

    def add_hooks(backend: models.AutoScalingBackend, group: str, hooks: t.Iterable[dict[str, t.Any]]) -> None:
        """Hooks that a group is made with: they hold its first instances too."""
        for one in hooks:
            timeout = one.get("HeartbeatTimeout")
            put_hook(
                backend,
                one["LifecycleHookName"],
                group,
                one["LifecycleTransition"],
                int(timeout) if timeout else None,
                one.get("DefaultResult") or ABANDON,
            )

    def create_group(self: AutoScalingResponse) -> ActionResult:
        name = self._get_param("AutoScalingGroupName")
        add_hooks(self.autoscaling_backend, name, self._get_param("LifecycleHookSpecificationList", []))
        return create(self)

    def create_group_in_stack(
        resource_name: str, cloudformation_json: t.Any, account_id: str, region_name: str, **more: t.Any
    ) -> Group:
        hooks = cloudformation_json["Properties"].get("LifecycleHookSpecificationList", [])
        add_hooks(models.autoscaling_backends[account_id][region_name], resource_name, hooks)
        return create_in_stack(resource_name, cloudformation_json, account_id, region_name, **more)

    def complete(self: AutoScalingResponse) -> ActionResult:
        group = _find(self.autoscaling_backend, self._get_param("AutoScalingGroupName"))
        result = self._get_param("LifecycleActionResult")
        if result not in (CONTINUE, ABANDON):
            raise ValidationError("LifecycleActionResult must be CONTINUE or ABANDON")
        with scaling.lock:
            _action(scaling, self, group).result = result
            scaling.advance(group)
        return EmptyResult()

    def heartbeat(self: AutoScalingResponse) -> ActionResult:
        group = _find(self.autoscaling_backend, self._get_param("AutoScalingGroupName"))
        with scaling.lock:
            _action(scaling, self, group).beat(scaling.clock.now())
        return EmptyResult()

    parts: dict[type, dict[str, t.Any]] = {
        models.FakeAutoScalingGroup: {
            "set_desired_capacity": resize,
            "create_from_cloudformation_json": staticmethod(create_group_in_stack),
        },
        models.AutoScalingBackend: {
            "create_lifecycle_hook": create_lifecycle_hook,
            "delete_auto_scaling_group": delete_group,
            "enter_standby_instances": enter_standby,
            "notify_terminate_instances": lose_instances,
            "set_desired_capacity": set_desired_capacity,
            "set_instance_protection": set_instance_protection,
            "terminate_instance": terminate_instance,
            "update_attached_target_groups": attach,
        },
        AutoScalingResponse: {
            "create_auto_scaling_group": create_group,
            "complete_lifecycle_action": complete,
            "record_lifecycle_action_heartbeat": heartbeat,
        },
    }
    for owner, members in parts.items():
        for name, member in members.items():
            setattr(owner, name, member)


def _action(scaling: LabAutoScaling, request: AutoScalingResponse, group: Group) -> LifecycleAction:
    hook, instance_id, token = (
        request._get_param(name) for name in ("LifecycleHookName", "InstanceId", "LifecycleActionToken")
    )
    return scaling.find_action(group, hook, instance_id, token)


def _find(backend: models.AutoScalingBackend, name: str) -> Group:
    group = backend.autoscaling_groups.get(name)
    if group is None:
        raise ValidationError("AutoScalingGroup name not found - null")
    return group


def _find_member(backend: models.AutoScalingBackend, instance_id: str) -> tuple[Group, Member]:
    for group in backend.autoscaling_groups.values():
        for member in group.instance_states:
            if member.instance_id == instance_id:
                return group, member
    raise ValidationError(f"Instance Id not found - No managed instance found for instance ID: {instance_id}")
