# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Common code of the actions that keep a run's record: one method for each state, and the run's hosts."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.controller import (
    ControllerAction,
    Result,
    by_name,
)


class Run:
    """A run that has a record on the controller. A subclass has a method for each of its states.

    Args:
        arguments: the action's; ``state`` and ``records`` are among them.
        task_vars: Ansible's variables of the task's host, which may be any.
        check: change nothing.
    """

    def __init__(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any], check: bool) -> None:
        self._arguments = arguments
        self._vars = task_vars
        self._check = check
        self._records = os.path.abspath(os.path.expanduser(arguments["records"]))
        # Tasks run in forks of ansible-playbook, which lives as long as the run.
        self._pid = os.getppid()

    @property
    def _hosts(self) -> list[str]:
        """The hosts of the run by name: EC2 lists instances in any order."""
        return sorted(self._vars.get("ansible_play_hosts_all", []), key=by_name)

    @property
    def _lost(self) -> set[str]:
        return set(self._hosts) - set(self._vars.get("ansible_play_hosts", []))

    def _of(self, host: str, name: str, default: t.Any = None) -> t.Any:
        return self._vars["hostvars"][host].get(name, default)


class RecordAction(ControllerAction):
    """An action whose states are methods of a Run."""

    RUN: t.ClassVar[type[Run]]
    #: The record's kind, and what to do when it cannot be written, for the message.
    RECORD: t.ClassVar[str]
    ADVICE: t.ClassVar[str]

    def act(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> Result:
        run = self.RUN(arguments, task_vars, self._task.check_mode)
        try:
            return t.cast(Result, getattr(run, arguments["state"])())
        except OSError as error:
            raise FleetError(
                f"The {self.RECORD}'s record under {arguments['records']} cannot be written: "
                f"{error.strerror or error}. {self.ADVICE}"
            ) from error
