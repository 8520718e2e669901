# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs module engine_ready in slices, so that a rollout's journal shows progress meanwhile."""

from __future__ import annotations

import os
import typing as t

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import journal as rollout_journal

MODULE = "inference.fleet.engine_ready"
SLICE_SECONDS = 5.0


class ActionModule(ActionBase):
    """Run the module once without a journal or in check mode."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        arguments = dict(self._task.args)
        journal = arguments.pop("journal", None)
        if not journal or self._task.check_mode:
            return self._slice(arguments, variables)
        return self._in_slices(arguments, variables, os.path.expanduser(str(journal)))

    def _in_slices(self, arguments: dict[str, t.Any], variables: dict[str, t.Any], journal: str) -> dict[str, t.Any]:
        names = {item.get("unit"): item.get("name") for item in arguments.get("instances") or []}
        writer = _Writer(journal, variables["inventory_hostname"])
        arguments["slice"] = SLICE_SECONDS
        seconds: dict[str, float] = {}
        while True:
            result = self._slice(arguments, variables)
            if "progress" not in result:
                # It failed, or the host is unreachable.
                return result
            for item in result["progress"]:
                writer.write(names.get(item["unit"]) or item["unit"], item)
            # A later slice finds the unit serving at once: the first slice that saw it serve has the time.
            seconds = {**result["seconds"], **seconds}
            if result["ready"]:
                return {**result, "seconds": seconds}
            arguments.update(since=result["since"], restarts=result["restarts"])

    def _slice(self, arguments: dict[str, t.Any], variables: dict[str, t.Any]) -> dict[str, t.Any]:
        # Ansible adds arguments of its own to the dictionary that it is given.
        result: dict[str, t.Any] = self._execute_module(
            module_name=MODULE, module_args=dict(arguments), task_vars=variables
        )
        return result


class _Writer:
    """Add progress to the journal; a journal that cannot be written does not fail an engine's start."""

    def __init__(self, journal: str, host: str) -> None:
        self._journal = journal
        self._host = host
        self._warned = False

    def write(self, instance: str, item: dict[str, t.Any]) -> None:
        fields = {name: item[name] for name in ("phase", "text", "percent", "seconds")}
        try:
            rollout_journal.append(self._journal, "progress", host=self._host, instance=instance, **fields)
        except OSError as error:
            if not self._warned:
                Display().warning(
                    f"The progress of {instance} on {self._host} cannot be written to the journal {self._journal} "
                    f"({error.strerror}). The start goes on."
                )
            self._warned = True
