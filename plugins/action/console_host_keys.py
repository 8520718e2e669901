# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Learn the SSH host keys of a new EC2 instance; documented as module console_host_keys."""

from __future__ import annotations

import os
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import locked, read_text, write_atomically
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.controller import ControllerAction, Result
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.ec2_instance import INSTANCE_ARGUMENTS
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.console import read_console
from ansible_collections.inference.fleet.plugins.plugin_utils.inventory import host_keys

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    **INSTANCE_ARGUMENTS,
    "address": {"type": "str", "required": True},
    "port": {"type": "int", "default": 22},
    "path": {"type": "path", "default": "~/.ssh/known_hosts"},
    "timeout": {"type": "float", "default": 600},
}

_INTERVAL = 5.0


class ActionModule(ControllerAction):
    """See module console_host_keys."""

    ARGUMENTS = ARGUMENTS

    def act(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> Result:
        path = os.path.expanduser(arguments["path"])
        name = host_keys.known_name(arguments["address"], arguments["port"])
        before = _read(path)
        own = host_keys.keys_of(before, name)
        printed = self._wait(arguments, bool(own))
        if not printed or set(own) == set(printed):
            return {"changed": False, "fingerprints": [host_keys.fingerprint(key) for key in own]}
        if not self._task.check_mode:
            directory = os.path.dirname(path)
            os.makedirs(directory, mode=0o700, exist_ok=True)
            # Several hosts may join at once.
            with locked(os.path.join(directory, ".known_hosts.lock")):
                write_atomically(path, host_keys.replaced(_read(path), name, printed), mode=0o600)
        return {"changed": True, "fingerprints": [host_keys.fingerprint(key) for key in printed]}

    @staticmethod
    def _wait(arguments: dict[str, t.Any], known: bool) -> list[str]:
        """The keys on the console. Where some are known, the console is read once."""
        deadline = time.monotonic() + arguments["timeout"]
        while True:
            text = read_console(arguments["instance"], arguments["region"], arguments["endpoint"])
            keys = host_keys.printed_keys(text)
            if keys or known:
                return keys
            if time.monotonic() > deadline:
                raise FleetError(
                    f"The console of {arguments['instance']} shows no SSH host keys after {arguments['timeout']:g} s. "
                    "Its image must have cloud-init, with keys_to_console on; see aws ec2 get-console-output "
                    f"--latest --instance-id {arguments['instance']}."
                )
            time.sleep(min(_INTERVAL, arguments["timeout"]))


def _read(path: str) -> str:
    return read_text(path) or ""
