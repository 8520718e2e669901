# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What the service does next: which playbook to run for which instance, which hooks to keep waiting, which messages are
done. Pure.

All of it follows from AWS's state and from what this process has seen since it began. A new process begins with AWS's
state alone, so nothing is lost when one is killed.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.aws.members import (
    IN_SERVICE,
    JOIN,
    LEAVE,
    PENDING,
    TERMINATING,
    GroupMember,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.events import hints

#: A hook is about to make these wait: the event may be faster than the look.
_SOON = {PENDING: hints.LAUNCH, TERMINATING: hints.TERMINATE}

#: The first pause after a run that failed, and the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 15.0, 300.0
#: How many times heartbeats are sent in the timeout of a hook.
_BEATS = 3


@dataclasses.dataclass(frozen=True)
class EventTask:
    """A playbook for an instance.

    Attributes:
        verb: ``join`` or ``leave``.
        instance: its id.
        group: its group's name.
        within: seconds in which it must be done; 0 for the playbook's own limit.
    """

    verb: str
    instance: str
    group: str
    within: int = 0


@dataclasses.dataclass(frozen=True)
class RunEnd:
    """How a run of a playbook ended.

    Attributes:
        status: of the process.
        verdict: what the playbook said of the host: ``joined``, ``left``, ``abandoned``, ``kept``; empty where it did
            not come that far.
        reason: why, for a person.
    """

    status: int
    verdict: str = ""
    reason: str = ""

    @property
    def well(self) -> bool:
        return self.status == 0


@dataclasses.dataclass
class Trouble:
    """Runs for an instance that failed.

    Attributes:
        since: when the first one began.
        failures: how many.
        again: when the next may begin.
        reason: of the last one.
    """

    since: float
    failures: int
    again: float
    reason: str


@dataclasses.dataclass(frozen=True)
class EventPolicy:
    """The service's settings that decide.

    Attributes:
        parallel: how many playbooks run at once.
        give_up: seconds after which an instance that does not join is given up.
        spot_seconds: how long a host has after a Spot notice.
    """

    parallel: int = 4
    give_up: float = 3600
    spot_seconds: int = 100


@dataclasses.dataclass
class ServiceMemory:
    """What this process has seen.

    Attributes:
        running: the tasks whose playbook runs, by instance.
        trouble: instances whose playbooks failed.
        kept: instances that a person wants to look at (``join_keep_failed``).
        beaten: when the last heartbeat of an instance was sent.
        seen: when an instance was first seen waiting.
        taken_out: instances that a playbook took out of the fleet before they waited at a hook.
    """

    running: dict[str, EventTask] = dataclasses.field(default_factory=dict)
    trouble: dict[str, Trouble] = dataclasses.field(default_factory=dict)
    kept: set[str] = dataclasses.field(default_factory=set)
    beaten: dict[str, float] = dataclasses.field(default_factory=dict)
    seen: dict[str, float] = dataclasses.field(default_factory=dict)
    taken_out: set[str] = dataclasses.field(default_factory=set)

    def forget(self, waiting: t.Collection[str], present: t.Collection[str]) -> None:
        """Forget the instances that wait no more, or are gone."""
        for known in (self.trouble, self.beaten, self.seen):
            for instance in [one for one in known if one not in waiting and one not in self.running]:
                del known[instance]
        self.kept &= set(waiting)
        self.taken_out &= set(present) | set(self.running)


def next_tasks(
    members: t.Iterable[GroupMember],
    notices: t.Collection[str],
    memory: ServiceMemory,
    policy: EventPolicy,
    now: float,
) -> list[EventTask]:
    """The playbooks to start now: those of hosts that leave first, because their time is short.

    Args:
        members: the instances of the groups.
        notices: instances that got a Spot notice.
        memory: what this process has seen.
        policy: the settings.
        now: in seconds.
    """
    wanted = []
    for member in members:
        if member.id in memory.running or member.id in memory.kept:
            continue
        trouble = memory.trouble.get(member.id)
        if trouble and trouble.again > now:
            continue
        if member.verb:
            wanted.append(EventTask(member.verb, member.id, member.group))
        elif member.id in memory.taken_out:
            continue
        elif member.id in notices and member.state == IN_SERVICE:
            wanted.append(EventTask(LEAVE, member.id, member.group, policy.spot_seconds))
        elif member.state == TERMINATING:
            # The group has deregistered it and waits for the deregistration delay. Until then it would look like a
            # member, and a rollout could count on it, or register it again.
            wanted.append(EventTask(LEAVE, member.id, member.group))
    wanted.sort(key=lambda task: (task.verb != LEAVE, memory.seen.get(task.instance, now), task.instance))
    return wanted[: max(0, policy.parallel - len(memory.running))]


def due_heartbeats(
    members: t.Iterable[GroupMember], timeouts: t.Mapping[tuple[str, str], int], memory: ServiceMemory, now: float
) -> list[GroupMember]:
    """The waiting instances whose heartbeat is due: every third of the hook's timeout, whatever they wait for.

    Args:
        members: the instances of the groups.
        timeouts: of the hooks, by group and verb.
        memory: what this process has seen.
        now: in seconds.
    """
    due = []
    for member in members:
        timeout = timeouts.get((member.group, member.verb)) if member.verb else None
        last = memory.beaten.get(member.id)
        if timeout and (last is None or now - last >= timeout / _BEATS):
            due.append(member)
    return due


def after(task: EventTask, outcome: RunEnd, memory: ServiceMemory, policy: EventPolicy, now: float) -> str:
    """What follows from the end of a playbook: the reason to give the instance up for, or an empty text.

    A failure that the playbook did not judge is none of the host's: it began while another run held the fleet, the host
    was out of reach, the run was killed. It is repeated until the instance has had its time.
    """
    if outcome.well:
        memory.trouble.pop(task.instance, None)
        if task.verb == LEAVE:
            memory.taken_out.add(task.instance)
        return ""
    if outcome.verdict == "kept":
        memory.kept.add(task.instance)
        return ""
    if outcome.verdict:
        # The playbook has completed the hook.
        memory.trouble.pop(task.instance, None)
        return ""
    before = memory.trouble.get(task.instance)
    since = before.since if before else memory.seen.get(task.instance, now)
    failures = before.failures + 1 if before else 1
    pause = min(_FIRST_PAUSE * 2 ** (failures - 1), _LONGEST_PAUSE)
    memory.trouble[task.instance] = Trouble(since, failures, now + pause, outcome.reason)
    if now - since < policy.give_up:
        return ""
    return f"It did not {task.verb} within {round(now - since)} s and {failures} attempts. {outcome.reason}"


def is_done(
    hint: hints.Hint, members: t.Mapping[str, GroupMember], memory: ServiceMemory, age: float, patience: float = 120
) -> bool:
    """Whether a message can be deleted: nothing is left to do for its instance.

    Args:
        hint: what it says.
        members: the instances of the groups by id, from a look after the message came.
        memory: what this process has seen.
        age: seconds since the message came.
        patience: how long to wait for a state that the message announces.
    """
    if hint.kind in (hints.TEST, hints.REBALANCE):
        return True
    member = members.get(hint.instance)
    if hint.instance in memory.running:
        return False
    if member is None or hint.instance in memory.kept:
        # Of another group, gone, or left to a person.
        return True
    if hint.kind == hints.SPOT:
        return member.state != IN_SERVICE or hint.instance in memory.taken_out
    if _SOON.get(member.state) == hint.kind:
        return age > patience
    return member.verb != {hints.LAUNCH: JOIN, hints.TERMINATE: LEAVE}[hint.kind]
