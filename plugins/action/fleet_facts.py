# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Computes what hosts run; documented as module fleet_facts."""

from __future__ import annotations

import functools
import typing as t

from ansible.errors import AnsibleError, AnsibleUndefinedVariable
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.controller import (
    ControllerAction,
    Result,
    plain,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.facts import Fleet

_T = t.TypeVar("_T")


class ActionModule(ControllerAction):
    """See module fleet_facts."""

    ARGUMENTS: t.ClassVar[dict[str, dict[str, t.Any]]] = {"hosts": {"type": "list", "elements": "str"}}

    def act(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> Result:
        here = task_vars["inventory_hostname"]

        def variables(host: str) -> _Lookup[t.Any]:
            if host == here:
                # Including the play's variables, which the inventory does not have.
                return _variables(host, lambda name: self._templar.template(task_vars[name]))
            return _variables(host, task_vars["hostvars"][host].__getitem__)

        fleet = Fleet(plain(task_vars["groups"]), _Lookup(variables))
        hosts = [here] if arguments["hosts"] is None else arguments["hosts"]
        unknown = [host for host in hosts if host not in task_vars["hostvars"]]
        if unknown:
            raise FleetError(f"hosts names {', '.join(unknown)}, which the inventory does not have.")
        return {"hosts": {host: fleet.work_out(host).as_dict() for host in hosts}}


class _Lookup(t.Mapping[str, _T]):
    """A mapping that looks a value up once, on first use.

    It cannot be iterated: that would render every variable of a host, and most of them concern other roles.
    """

    def __init__(self, look_up: t.Callable[[str], _T]) -> None:
        self._look_up = functools.cache(look_up)

    def __getitem__(self, name: str) -> _T:
        return self._look_up(name)

    def __iter__(self) -> t.Iterator[str]:
        raise TypeError("a host's variables are looked up by name")

    def __len__(self) -> int:
        raise TypeError("a host's variables are looked up by name")


def _variables(host: str, render: t.Callable[[str], t.Any]) -> _Lookup[t.Any]:
    """The variables of a host; one that refers to an undefined variable is left out."""

    def look_up(name: str) -> t.Any:
        try:
            return plain(render(name))
        except AnsibleUndefinedVariable as error:
            raise KeyError(name) from error
        except AnsibleError as error:
            raise FleetError(f"{name} of {host} cannot be worked out: {error}.") from error

    return _Lookup(look_up)
