# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The service's loop: it receives hints, looks at the groups, runs playbooks, and keeps hooks and messages waiting.

Whatever fails is said once, and tried again until it works. Nothing is kept that a new process would need: it finds
from AWS's state what is left to do.
"""

from __future__ import annotations

import dataclasses
import os
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.lifecycle import ABANDON, CONTINUE, ScalingGroups
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.members import JOIN, GroupMember
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.queue import EventQueue, QueueMessage
from ansible_collections.inference.fleet.plugins.plugin_utils.events import decide, hints
from ansible_collections.inference.fleet.plugins.plugin_utils.events.children import Children, StillRunning
from ansible_collections.inference.fleet.plugins.plugin_utils.events.settings import USED_BY, EventSettings
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import journal

#: How long nothing else receives a message that this process has; it is extended at half of that.
VISIBILITY = 60
#: A poll waits for so long while playbooks run, and a look is this old at most while messages wait.
_BUSY_WAIT, _BUSY_LOOK = 2, 5.0
#: The pause after a failure.
_PAUSE = 5.0
#: A playbook is stopped this long after its instance would be given up.
_BEYOND = 300.0


@dataclasses.dataclass
class _Held:
    message: QueueMessage
    hint: hints.Hint
    since: float
    extended: float


class EventService:
    """The service.

    Args:
        settings: of the service.
        say: writes a line for a person to the journal of the system.
        is_outdated: whether the program on disk is another one than this, so that it has to start again.
    """

    def __init__(
        self,
        settings: EventSettings,
        say: t.Callable[[str], None],
        is_outdated: t.Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings = settings
        self._say = say
        self._is_outdated = is_outdated
        self._queue = EventQueue(settings.queue, settings.region, USED_BY, settings.endpoint)
        self._groups = self._open_groups()
        self._children = Children(settings, settings.give_up + _BEYOND)
        self._memory = decide.ServiceMemory()
        self._members: dict[str, GroupMember] = {}
        self._timeouts: dict[tuple[str, str], int] = {}
        self._looked = self._swept = float("-inf")
        self._held: dict[str, _Held] = {}
        self._given_up: dict[str, str] = {}
        self._troubles: dict[str, str] = {}
        self._named: set[str] = set()
        self._stopping = False

    def problems(self) -> list[str]:
        """What is wrong with queue and groups, as sentences."""
        found = []
        try:
            if not self._queue.dead_letters():
                found.append(
                    f"Queue {self._settings.queue} has no dead-letter queue: what cannot be handled would come back "
                    "for ever. Give it a RedrivePolicy with a maxReceiveCount of 5."
                )
        except FleetError as error:
            found.append(error.message)
        try:
            self._groups.members(self._settings.groups)
            found += [said for group in self._settings.groups if (said := self._groups.missing_hooks(group))]
        except FleetError as error:
            found.append(error.message)
        found += [
            f"There is no {path} in {self._settings.directory}. Run {USED_BY} again."
            for path in self._settings.playbooks.values()
            if not os.path.exists(os.path.join(self._settings.directory, path))
        ]
        return found

    def run(self) -> None:
        """Work until ``stop``, or until a new version of the program is there and no playbook runs."""
        settings = self._settings
        self._note("started", f"Watching {', '.join(settings.groups)} through {settings.queue}.", pid=os.getpid())
        while not self._stopping:
            self.turn()
            # After a sweep, once a minute.
            if self._swept == self._looked and not self._memory.running and self._is_outdated():
                self._say("The program has changed on disk: it starts again.")
                return

    def stop(self) -> None:
        """End the playbooks that run. The next start continues."""
        self._stopping = True
        self._children.stop()

    def turn(self) -> None:
        """One turn of the loop."""
        ended = self._reap()
        received = self._receive()
        now = time.monotonic()
        sweep = now - self._swept >= self._settings.sweep
        stale = now - self._looked >= _BUSY_LOOK and bool(self._held or self._memory.running)
        if (ended or received or sweep or stale) and not self._look(sweep):
            # Without a look nothing is decided, except that messages must not come back meanwhile.
            self._keep_messages()
            self._pause()
            return
        self._give_up()
        self._beat()
        self._start()
        self._keep_messages()
        if "the queue" in self._troubles:
            self._pause()

    def _reap(self) -> bool:
        ended = self._children.ended()
        for task, end in ended:
            self._memory.running.pop(task.instance, None)
            reason = decide.after(task, end, self._memory, self._settings.policy, time.monotonic())
            if reason:
                self._given_up[task.instance] = reason
            what = end.verdict or ("done" if end.well else "failed")
            self._note(f"{task.verb}_{what}", f"{task.verb} of {task.instance}: {what}. {end.reason}", task)
        return bool(ended)

    def _receive(self) -> bool:
        now = time.monotonic()
        busy = bool(self._held or self._memory.running or self._memory.trouble)
        wait = _BUSY_WAIT if busy else max(0, min(self._settings.wait, self._swept + self._settings.sweep - now))
        try:
            messages = self._queue.receive(int(wait), VISIBILITY)
        except FleetError as error:
            self._failed("the queue", error)
            return False
        self._works("the queue")
        return any([self._take(message) for message in messages])

    def _take(self, message: QueueMessage) -> bool:
        """Whether a message is new and says something."""
        now = time.monotonic()
        held = self._held.get(message.id)
        if held:
            held.message, held.extended = message, now
            return False
        try:
            hint = hints.read_hint(message.body)
        except hints.NotAHint as error:
            # Not deleted: the queue moves it to the dead letters, where a person finds it.
            if message.id not in self._named:
                self._named.add(message.id)
                self._note("not_understood", f"Message {message.id}: {error.message} The queue sets it aside.")
            return False
        self._held[message.id] = _Held(message, hint, now, now)
        if hint.kind == hints.REBALANCE:
            self._note("rebalance", f"EC2 recommends to replace {hint.instance}: it may be interrupted soon.")
        return True

    def _look(self, sweep: bool) -> bool:
        """Read the groups; whether that was possible."""
        settings = self._settings
        try:
            if sweep:
                # With the credentials of now, and with hooks that may have changed.
                self._groups = self._open_groups()
            members = self._groups.members(settings.groups)
            hooks = [hook for group in settings.groups for hook in self._groups.hooks(group)]
        except FleetError as error:
            self._failed("the groups", error)
            return False
        self._works("the groups")
        now = time.monotonic()
        self._members = {member.id: member for member in members}
        self._timeouts = {(hook.group, hook.verb): hook.timeout for hook in hooks}
        self._looked = now
        self._swept = now if sweep else self._swept
        waiting = {member.id for member in members if member.verb}
        asked = {held.hint.instance for held in self._held.values()}
        self._memory.forget(waiting | asked | set(self._memory.trouble) & set(self._members), set(self._members))
        for instance in waiting:
            self._memory.seen.setdefault(instance, now)
        return True

    def _start(self) -> None:
        notices = {held.hint.instance for held in self._held.values() if held.hint.kind == hints.SPOT}
        policy = self._settings.policy
        members = self._members.values()
        for task in decide.next_tasks(members, notices, self._memory, policy, time.monotonic()):
            if task.instance in self._given_up:
                continue
            try:
                log = self._children.start(task)
            except StillRunning:
                self._later(task, "An earlier process of this service left its playbook behind, and it still runs.", 10)
            except OSError as error:
                self._later(task, f"{self._settings.command[0]} cannot be started: {error.strerror}.", 60)
            else:
                self._memory.running[task.instance] = task
                self._works(f"the start for {task.instance}")
                self._note(f"{task.verb}_started", f"{task.verb} of {task.instance} of group {task.group}: {log}", task)

    def _later(self, task: decide.EventTask, reason: str, seconds: float) -> None:
        now = time.monotonic()
        known = self._memory.trouble.get(task.instance)
        failures = known.failures if known else 0
        since = known.since if known else self._memory.seen.get(task.instance, now)
        self._memory.trouble[task.instance] = decide.Trouble(since, failures, now + seconds, reason)
        self._failed(f"the start for {task.instance}", FleetError(reason))

    def _beat(self) -> None:
        now = time.monotonic()
        for member in decide.due_heartbeats(self._members.values(), self._timeouts, self._memory, now):
            if member.id in self._given_up:
                continue
            try:
                self._groups.beat(member)
            except FleetError as error:
                self._failed("a heartbeat", error)
                return
            self._memory.beaten[member.id] = now
            self._works("a heartbeat")

    def _give_up(self) -> None:
        for instance, reason in list(self._given_up.items()):
            member = self._members.get(instance)
            if member and member.verb:
                try:
                    self._groups.complete(member, ABANDON if member.verb == JOIN else CONTINUE)
                except FleetError as error:
                    self._failed(f"the end of the wait of {instance}", error)
                    continue
                word = "abandoned" if member.verb == JOIN else "let_go"
                self._note(word, f"{instance} of group {member.group} is given up. {reason}", member)
                self._looked = float("-inf")
            del self._given_up[instance]
            self._memory.trouble.pop(instance, None)
            self._works(f"the end of the wait of {instance}")

    def _keep_messages(self) -> None:
        for held in list(self._held.values()):
            now = time.monotonic()
            # A look that is older than the message says nothing about it.
            looked = self._looked >= held.since
            try:
                if looked and decide.is_done(held.hint, self._members, self._memory, now - held.since):
                    self._queue.delete(held.message)
                    del self._held[held.message.id]
                elif now - held.extended >= VISIBILITY / 2:
                    held.extended = now
                    if not self._queue.extend(held.message, VISIBILITY):
                        # It comes again; the sweep does not depend on it.
                        del self._held[held.message.id]
            except FleetError as error:
                self._failed("the queue", error)
                return

    def _open_groups(self) -> ScalingGroups:
        settings = self._settings
        return ScalingGroups(settings.region, USED_BY, settings.endpoint, settings.hooks)

    def _failed(self, what: str, error: FleetError) -> None:
        """Say what does not work, once."""
        if self._troubles.get(what) != error.message:
            self._troubles[what] = error.message
            self._note("trouble", f"{what[0].upper()}{what[1:]}: {error.message} It is tried again.")

    def _works(self, what: str) -> None:
        if self._troubles.pop(what, None) is not None:
            self._note("works_again", f"{what[0].upper()}{what[1:]}: it works again.")

    def _pause(self) -> None:
        time.sleep(_PAUSE)

    def _note(
        self, event: str, said: str, about: decide.EventTask | GroupMember | None = None, **fields: t.Any
    ) -> None:
        said = " ".join(said.split())
        self._say(said)
        fields |= {"group": about.group} if about else {}
        if isinstance(about, decide.EventTask):
            fields["instance"] = about.instance
        elif about:
            fields["instance"] = about.id
        os.makedirs(self._settings.state, mode=0o700, exist_ok=True)
        # A full disk must not end the service.
        for problem in journal.note(os.path.join(self._settings.state, journal.NAME), event, said=said, **fields):
            self._say(problem)
