# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Common code of the action plugins that work on the controller."""

from __future__ import annotations

import re
import typing as t
from abc import abstractmethod

from ansible.plugins.action import ActionBase
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

Result = dict[str, t.Any]


class ControllerAction(ActionBase):
    """An action that runs in Ansible's own process: it sees every host's variables, and it works where the records and
    the key store are, so that connection, become and interpreter of the inventory do not matter.
    """

    _requires_connection = False

    ARGUMENTS: t.ClassVar[dict[str, dict[str, t.Any]]]

    @abstractmethod
    def act(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> Result:
        """Run the action.

        Args:
            arguments: those of ARGUMENTS, validated, in plain Python types.
            task_vars: Ansible's variables of the task's host, which may be any.

        Raises:
            FleetError: the reason for a person; it becomes the task's failure.
        """

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> Result:
        result: Result = super().run(tmp, task_vars)
        _validated, arguments = self.validate_argument_spec(argument_spec=self.ARGUMENTS)
        try:
            result.update(self.act(plain(arguments), task_vars or {}))
        except FleetError as error:
            result.update(failed=True, msg=error.message, **error.details)
        return result


def plain(value: t.Any) -> t.Any:
    """A copy without Ansible's own types, which render templates only when they are accessed item by item."""
    if isinstance(value, t.Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


def by_name(host: str) -> list[tuple[int, str]]:
    """A sort key that puts host-2 before host-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", host)]
