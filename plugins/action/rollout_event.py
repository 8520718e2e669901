# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Record an event of a host in the rollout's journal; documented as module rollout_event."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.actions.controller import ControllerAction, Result
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import journal, steps

EVENTS = ("step", "drained", "gate", "outcome", "self_test", "decision")

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "event": {"type": "str", "required": True, "choices": list(EVENTS)},
    "journal": {"type": "str", "default": ""},
    "fields": {"type": "dict", "default": {}},
}


class ActionModule(ControllerAction):
    """See module rollout_event."""

    ARGUMENTS = ARGUMENTS

    def act(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> Result:
        if arguments["event"] == "step":
            steps.check(arguments["fields"].get("step"))
        if self._task.check_mode:
            return {}
        fields = {"host": str(task_vars.get("inventory_hostname", "")), **arguments["fields"]}
        warnings = journal.note(arguments["journal"], arguments["event"], **fields)
        return {"warnings": warnings} if warnings else {}
