# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries out a step of the change of an instance; documented as module engine_change."""

from __future__ import annotations

import dataclasses
import time
import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.paths import ENGINE_ROOT
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.controller import Result, plain
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import change as changes
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import journal
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.change import (
    Call,
    CallError,
    Change,
    JournalEntry,
)

BEGIN, PROVE, FOLLOW, CONFIRM, JUDGE = "begin", "prove", "follow", "confirm", "judge"
TRIAL, CONCLUDE = "trial", "conclude"

#: Steps that change the host, or whose begin is recorded.
STEPS: dict[str, t.Callable[[Change], changes.ChangeStep]] = {
    "drain": changes.drain,
    TRIAL: changes.trial,
    "measure": changes.measure,
    "stop": changes.stop,
    "start": changes.start,
    "gate": changes.gate,
    "undrain": changes.undrain,
    "edge_gate": changes.edge_gate,
}

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "step": {"type": "str", "required": True, "choices": [BEGIN, *STEPS, CONCLUDE, PROVE, FOLLOW, CONFIRM, JUDGE]},
    "change": {"type": "dict", "default": {}},
    "release": {"type": "str", "default": ""},
    "staged": {"type": "dict"},
    "instances": {"type": "list", "elements": "dict", "default": []},
    "root": {"type": "str", "default": ENGINE_ROOT},
    "edge_url": {"type": "str", "default": "http://127.0.0.1:8000"},
    "journal": {"type": "str", "default": ""},
    "rollout": {"type": "str", "default": ""},
    "lame_duck_seconds": {"type": "float", "default": 0},
    "drain_seconds": {"type": "float", "default": 0},
    "forget_previous": {"type": "bool", "default": False},
    "keep_releases": {"type": "int", "default": 3},
    "edge_later": {"type": "bool", "default": False},
    "measures": {"type": "bool", "default": False},
    "task": {"type": "str", "default": ""},
    "reason": {"type": "str", "default": ""},
}


class ActionModule(ActionBase):
    """See module engine_change."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> Result:
        result: Result = super().run(tmp, task_vars)
        needed = [("step", BEGIN, ("staged",)), ("step", TRIAL, ("release",)), ("step", CONCLUDE, ("release",))]
        _validated, given = self.validate_argument_spec(argument_spec=ARGUMENTS, required_if=needed)
        variables = task_vars or {}
        arguments = plain(given)
        step = arguments["step"]
        if step == BEGIN:
            return {**result, **_as_result(self._begin(arguments, variables))}
        change = changes.read(arguments["change"])
        if step in STEPS:
            change = dataclasses.replace(change, step=step)
        if step == TRIAL:
            change = dataclasses.replace(change, trial=arguments["release"])
        work = _Work(self._execute, change.settings, writes=not self._task.check_mode)
        try:
            change = self._act(step, change, arguments, variables, work)
        except (CallError, FleetError) as error:
            result.update(failed=True, msg=str(error))
        warnings = {"warnings": work.warnings} if work.warnings else {}
        return {**result, **_as_result(change), "changed": work.changed, **warnings}

    def _begin(self, arguments: dict[str, t.Any], variables: dict[str, t.Any]) -> Change:
        before = arguments["change"]
        if before.get("outcome") not in (None, "", changes.DONE):
            # After a failed instance the host's others are left unchanged.
            return dataclasses.replace(changes.read(before), attempt=0)
        names = {field.name for field in dataclasses.fields(changes.Settings)} & set(arguments)
        host = str(variables["inventory_hostname"])
        settings = changes.Settings(host=host, **{name: arguments[name] for name in names})
        return changes.begin(arguments["staged"], arguments["instances"], settings, time.time())

    def _act(
        self, step: str, change: Change, arguments: dict[str, t.Any], variables: dict[str, t.Any], work: _Work
    ) -> Change:
        if step in STEPS:
            return work.carry_out(STEPS[step](change), variables)
        if step == CONCLUDE:
            return changes.conclude(change, arguments["release"], time.time())
        if step == CONFIRM:
            return work.carry_out(changes.confirm(change, time.time()), variables)
        if step == JUDGE:
            return work.carry_out(changes.judge(change, _failure(arguments)), variables)
        if step == PROVE:
            return changes.prove(change)
        span = change.subject.get("span")
        first = variables["hostvars"][span["nodes"][0]].get("engine_change") if span else None
        return changes.follow(change, plain(first or {}))

    def _execute(self, call: Call, variables: dict[str, t.Any]) -> Result:
        # Ansible adds arguments of its own to the dictionary that it is given.
        result: Result = self._execute_module(
            module_name=call.module, module_args=dict(call.arguments), task_vars=variables
        )
        return result


class _Work:
    """Runs the calls of steps, and writes their events to the rollout's journal.

    Attributes:
        changed: whether a call changed anything.
        warnings: from the calls, and for a journal that cannot be written.
    """

    def __init__(
        self, execute: t.Callable[[Call, dict[str, t.Any]], Result], settings: changes.Settings, writes: bool
    ) -> None:
        self._execute = execute
        self._settings = settings
        self._writes = writes
        self.changed = False
        self.warnings: list[str] = []

    def carry_out(self, step: changes.ChangeStep, variables: dict[str, t.Any]) -> Change:
        """Run a step to its end.

        Raises:
            CallError: a call failed, and the step does not continue without it.
            AnsibleConnectionFailure: the host is unreachable; Ansible drops it, as in any task.
        """
        try:
            wanted = next(step)
            while True:
                if isinstance(wanted, JournalEntry):
                    self._note(wanted)
                    wanted = step.send(None)
                    continue
                answer = self._execute(wanted, variables)
                self.changed |= bool(answer.get("changed"))
                self.warnings += answer.get("warnings") or []
                wanted = step.throw(CallError(wanted, answer)) if answer.get("failed") else step.send(answer)
        except StopIteration as ended:
            return t.cast(Change, ended.value)

    def _note(self, event: JournalEntry) -> None:
        if self._writes:
            fields = {"host": self._settings.host, **event.fields}
            self.warnings += journal.note(self._settings.journal, event.event, **fields)


def _failure(arguments: dict[str, t.Any]) -> str:
    """What failed and why, for people: a step's own error explains itself."""
    if arguments["change"].get("failed"):
        return str(arguments["change"]["msg"])
    return f"{arguments['task'].rpartition('| ')[2] or 'a task'}: {arguments['reason'] or 'no reason given'}"


def _as_result(change: Change) -> Result:
    return dataclasses.asdict(change)
