# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory as actions see it: the variables of every host, rendered when they are looked up."""

from __future__ import annotations

import functools
import typing as t

from ansible.errors import AnsibleError, AnsibleUndefinedVariable
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.controller import plain
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.facts import Fleet
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.profiles import name_profile

_T = t.TypeVar("_T")


def read_fleet(task_vars: t.Mapping[str, t.Any], templar: t.Any) -> Fleet:
    """The inventory.

    Args:
        task_vars: Ansible's variables of the task's host, which may be any.
        templar: the action's.
    """
    here = task_vars["inventory_hostname"]

    def variables(host: str) -> _Lookup[t.Any]:
        if host == here:
            # Including the play's variables, which the inventory does not have.
            return _variables(host, lambda name: templar.template(task_vars[name]))
        return _variables(host, task_vars["hostvars"][host].__getitem__)

    return Fleet(plain(task_vars["groups"]), _Lookup(variables), name_profile)


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
