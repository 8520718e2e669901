# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Computes what hosts run; documented as module fleet_facts."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.controller import ControllerAction, Result
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.inventory import read_fleet
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.digest import COLLECTION, collection_digest


class ActionModule(ControllerAction):
    """See module fleet_facts."""

    ARGUMENTS: t.ClassVar[dict[str, dict[str, t.Any]]] = {"hosts": {"type": "list", "elements": "str"}}

    def act(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> Result:
        here = task_vars["inventory_hostname"]
        fleet = read_fleet(task_vars, self._templar)
        hosts = [here] if arguments["hosts"] is None else arguments["hosts"]
        unknown = [host for host in hosts if host not in task_vars["hostvars"]]
        if unknown:
            raise FleetError(f"hosts names {', '.join(unknown)}, which the inventory does not have.")
        return {
            "hosts": {host: fleet.work_out(host).as_dict() for host in hosts},
            "code": collection_digest(COLLECTION),
        }
