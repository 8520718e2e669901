# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs module api_key on the controller, where the key store is, whichever host the task is for."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.modules import api_key
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.controller import ControllerAction, Result


class ActionModule(ControllerAction):
    """See module api_key."""

    ARGUMENTS = api_key.ARGUMENTS

    def act(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> Result:
        return api_key.run(arguments, self._task.check_mode, self._task.diff)
