# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Validates the variables of all hosts of a play; documented as module fleet_variables."""

from __future__ import annotations

import contextlib
import os
import re
import typing as t
from pathlib import Path

import yaml
from ansible.errors import AnsibleError, AnsibleUndefinedVariable
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.controller import (
    ControllerAction,
    Result,
    by_name,
    plain,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.profiles import name_profile
from ansible_collections.inference.fleet.plugins.plugin_utils.inventory.beyond import unknown_roles
from ansible_collections.inference.fleet.plugins.plugin_utils.variables.checks import (
    name_problem,
    reported,
    specs_of,
    value_problem,
)

COLLECTION = Path(__file__).absolute().parents[2]
_WORD = re.compile(r"[a-z_][a-z0-9_]*")


class ActionModule(ControllerAction):
    """See module fleet_variables."""

    ARGUMENTS: t.ClassVar[dict[str, dict[str, t.Any]]] = {
        "roles": {"type": "list", "elements": "str", "default": []},
    }

    def act(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> Result:
        roles = sorted(path.name for path in (COLLECTION / "roles").iterdir())
        own = arguments["roles"] or roles
        specs = specs_of({role: _specs(role) for role in own})
        # A run that uses only some of the roles does not fail for the others' variables.
        check_names = not arguments["roles"]
        prefixes = [f"{role}_" for role in sorted(roles, key=len, reverse=True)]
        words = _words_of(COLLECTION) if check_names else set()
        problems = {}
        for host in sorted(task_vars["ansible_play_hosts_all"], key=by_name):
            raw, variables = task_vars["hostvars"].raw_get(host), task_vars["hostvars"][host]
            found = [_value_problem(name, variables, specs[name]) for name in specs if name in raw]
            if check_names:
                known = words | set(_WORD.findall(" ".join(_texts(raw))))
                found += [name_problem(name, specs, prefixes, known) for name in raw]
            if "engine_profile" in raw and "engine_profile" in specs:
                found.append(_profile_problem(variables))
            problems[host] = [problem for problem in found if problem]
        if check_names:
            problems |= _role_problems(task_vars)
        lines = reported(problems)
        if lines:
            raise FleetError("Nothing was changed: these variables are wrong.\n" + "\n".join(lines), variables=lines)
        return {"msg": "The variables of all hosts are valid."}


def _specs(role: str) -> dict[str, t.Any]:
    path = COLLECTION / "roles" / role / "meta" / "argument_specs.yml"
    return t.cast(dict[str, t.Any], yaml.safe_load(path.read_text("utf-8"))["argument_specs"])


def _role_problems(task_vars: dict[str, t.Any]) -> dict[str, list[str]]:
    """The hosts that are in no tier because of a misspelt tag."""
    unknown = unknown_roles(task_vars["groups"], task_vars["hostvars"])
    return {host: [f"{why[0].upper()}{why[1:]}."] for host, why in sorted(unknown.items())}


def _value_problem(name: str, variables: t.Mapping[str, t.Any], option: t.Mapping[str, t.Any]) -> str:
    try:
        value = plain(variables[name])
    except AnsibleUndefinedVariable:
        # It refers to a role's variable; that role validates it.
        return ""
    except AnsibleError as error:
        return f"{name} cannot be worked out: {error}."
    return value_problem(name, value, option)


def _profile_problem(variables: t.Mapping[str, t.Any]) -> str:
    """The error in the name of the profile, or in its file."""
    try:
        name_profile(_rendered(variables, "engine_profile", "engine_profiles", "inventory_dir"))
    except FleetError as error:
        return error.message
    return ""


def _rendered(variables: t.Mapping[str, t.Any], *names: str) -> dict[str, t.Any]:
    """Some of a host's variables; one that refers to a role's variable is left out."""
    found = {}
    for name in names:
        with contextlib.suppress(AnsibleError, KeyError):
            found[name] = plain(variables[name])
    return found


def _words_of(collection: Path) -> set[str]:
    """Every name that roles and playbooks mention."""
    files = [path for part in ("roles", "playbooks") for path in (collection / part).rglob("*") if _is_text(path)]
    return {word for path in files for word in _WORD.findall(path.read_text("utf-8"))}


def _is_text(path: Path) -> bool:
    return path.suffix in (".yml", ".j2", ".py") and path.is_file() and os.sep + "locks" + os.sep not in str(path)


def _texts(value: t.Any) -> t.Iterator[str]:
    """The templates in a host's variables: the variables that they read are in use."""
    if isinstance(value, str):
        if "{{" in value or "{%" in value:
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
