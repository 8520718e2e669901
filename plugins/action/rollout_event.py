# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Note an event of a host in the rollout's journal; documented as module rollout_event."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.inference.fleet.plugins.action.rollout import plain
from ansible_collections.inference.fleet.plugins.module_utils import _rollout_journal

EVENTS = ("step", "drained", "gate", "outcome", "self_test", "decision")

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "event": {"type": "str", "required": True, "choices": list(EVENTS)},
    "journal": {"type": "str", "default": ""},
    "fields": {"type": "dict", "default": {}},
}


class ActionModule(ActionBase):
    """See module rollout_event."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validated, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        host = str((task_vars or {}).get("inventory_hostname", ""))
        if arguments["journal"] and not self._task.check_mode:
            fields = {"host": host, **plain(arguments["fields"])}
            try:
                _rollout_journal.append(arguments["journal"], arguments["event"], **fields)
            except OSError as error:
                # The change of the host goes on: a full disk of the controller must not leave it half changed.
                result["warnings"] = [f"The journal {arguments['journal']} cannot be written: {error.strerror}."]
        return result
