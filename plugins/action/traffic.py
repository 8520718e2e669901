# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts, stops and reads the traffic driver on the controller; documented as module traffic."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.controller import ControllerAction, Result
from ansible_collections.inference.fleet.plugins.plugin_utils.traffic import control

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "state": {"type": "str", "required": True, "choices": ["started", "stopped", "read"]},
    "path": {"type": "path", "required": True},
    "url": {"type": "str"},
    "api_key": {"type": "str", "no_log": True},
    "model": {"type": "str"},
    "owner_pid": {"type": "int"},
    "streams": {"type": "int", "default": 4},
    "requests_per_second": {"type": "float", "default": 2},
    "stream_prompt": {"type": "str", "default": "Count without end."},
    "stream_tokens": {"type": "int", "default": 200, "no_log": False},
    "ignore_eos": {"type": "bool", "default": True},
    "request_prompt": {"type": "str", "default": "What is the capital of France? Answer with one word."},
    "request_tokens": {"type": "int", "default": 16, "no_log": False},
    "timeout": {"type": "float", "default": 60},
    "grace": {"type": "float", "default": 30},
    "max_seconds": {"type": "float", "default": 14400},
    "ca_path": {"type": "path"},
    "validate_certs": {"type": "bool", "default": True},
}

NEEDED = ("url", "model", "owner_pid")


class ActionModule(ControllerAction):
    """See module traffic."""

    ARGUMENTS = ARGUMENTS

    def act(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> Result:
        try:
            return run(arguments, self._task.check_mode)
        except OSError as error:
            path = error.filename or arguments["path"]
            raise FleetError(f"{path} cannot be read or written ({error.strerror}). Give another path.") from error


def run(params: dict[str, t.Any], check: bool) -> Result:
    """Do what the parameters say; return the task's result."""
    path = os.path.abspath(params["path"])
    changed = False
    if params["state"] == "started":
        # Ansible treats None as a result.
        missing = [name for name in NEEDED if not params[name]]
        if missing:
            raise FleetError(f"With state started, {' and '.join(missing)} cannot be empty.")
        changed = control.running(path) is None
        if changed and not check:
            config = {name: value for name, value in params.items() if name not in ("state", "path")}
            control.start({**config, "api_key": params["api_key"] or "", "output": path})
    elif params["state"] == "stopped":
        changed = control.running(path) is not None if check else control.stop(path, params["grace"])
    pid = control.running(path)
    report = control.report(path)
    return {
        "changed": changed,
        "path": path,
        "pid": pid or 0,
        "running": pid is not None,
        "complete": bool(report and report["ended"]),
        "report": report,
    }
