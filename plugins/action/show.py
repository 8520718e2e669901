# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show lines as they are; documented as module show."""

from __future__ import annotations

import typing as t

from ansible.utils.display import Display
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.controller import ControllerAction, Result

ARGUMENTS: dict[str, dict[str, t.Any]] = {"lines": {"type": "list", "elements": "str", "required": True}}


class ActionModule(ControllerAction):
    """See module show."""

    ARGUMENTS = ARGUMENTS

    def act(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> Result:
        lines = [line.rstrip() for text in arguments["lines"] for line in text.splitlines()]
        if lines:
            Display().display("\n".join(lines))
        return {"lines": lines}
