# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Computes a host's wanted state on the controller, and lets the host compare; documented as module host_receipt."""

from __future__ import annotations

import contextlib
import typing as t

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.controller import plain
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.digest import (
    COLLECTION,
    collection_digest,
    digest_of,
    files_of,
    is_template,
    own_variables,
)


class ActionModule(ActionBase):
    """See module host_receipt."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        arguments = dict(self._task.args)
        further = plain(arguments.pop("further", {}))
        # fleet_facts reads the collection's files once for all hosts.
        further["code"] = further.get("code") or collection_digest(COLLECTION)
        arguments["digest"] = digest_of(_values(variables), further)
        result.update(
            self._execute_module(module_name="inference.fleet.host_receipt", module_args=arguments, task_vars=variables)
        )
        return result


def _values(task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
    """The host's variables, rendered, with the files that they name."""
    hostvars, host = task_vars["hostvars"], task_vars["inventory_hostname"]
    raw, rendered = hostvars.raw_get(host), hostvars[host]
    # Ansible has no public name for the facts that tasks set.
    facts = hostvars._variable_manager._nonpersistent_fact_cache.get(host, {})
    values = {}
    for name in own_variables(raw, facts):
        value = raw[name]
        if is_template(value):
            # A value that refers to a role's variable counts by its text; the role is in the collection's digest.
            with contextlib.suppress(AnsibleError):
                value = plain(rendered[name])
        values[name] = [value, *files_of(name, value)]
    return values
