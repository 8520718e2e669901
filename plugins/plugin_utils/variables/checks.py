# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Validation of hosts' variables by the roles' argument specs. Pure."""

from __future__ import annotations

import difflib
import re
import typing as t

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.inference.fleet.plugins.module_utils.clients import limits as client_limits
from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import read_groups
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.facts import DEFAULT_MODEL
from ansible_collections.inference.fleet.plugins.plugin_utils.prices.hourly import check_hourly_price
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.alarms import check_names
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.waves import check_waves
from ansible_collections.inference.fleet.plugins.plugin_utils.variables import units

VariableSpec = t.Mapping[str, t.Any]

#: Variables of no single role, which the playbooks read.
FLEET: dict[str, VariableSpec] = {
    "engine": {"type": "str", "choices": list(ENGINES)},
    "fleet_accelerator": {"type": "str", "choices": ["cuda", "cpu"]},
    "fleet_clients": {
        "type": "list",
        "elements": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            **client_limits.spec(),
        },
    },
    "fleet_engine": {"type": "str", "choices": list(ENGINES)},
    "fleet_gateway_port": {"type": "int"},
    "fleet_gpu_count": {"type": "int"},
    "fleet_hourly_price": {"type": "raw"},
    "fleet_instances": {
        "type": "list",
        "elements": "dict",
        "options": {
            "engine": {"type": "str"},
            "gpus": {"type": "list", "elements": "int"},
            "nodes": {"type": "list", "elements": "str"},
            "port": {"type": "int"},
            "served_name": {"type": "str"},
        },
    },
    "fleet_key_max_age": {"type": "str"},
    "fleet_key_overlap": {"type": "str"},
    "fleet_model": {"type": "str", "default": DEFAULT_MODEL},
    "fleet_no_log": {"type": "bool"},
    "fleet_target_groups": {"type": "raw"},
    "fleet_vcpus": {"type": "int"},
    "rollout_accept_balancer_errors": {"type": "bool"},
}

#: The parts of a spec that describe a value; whether it is required is up to the role.
_FORM = ("type", "elements", "choices", "options")
_WORDS = {
    "bool": "true or false",
    "dict": "a dictionary",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "path": "a path",
    "str": "a text",
}
_SECRET = re.compile(r"key|password|secret|token\Z|url")
_PORT = re.compile(r"_port\Z")
#: Similar enough to be a typo, and long enough not to be a user's own word.
_ALIKE, _LONG = 0.9, 10
#: Longer values are not repeated.
_SHOWN = 100
_UNKNOWN_FIELD = re.compile(r"(?P<fields>.+)\. Supported parameters include: (?P<valid>.+?)\.?\Z")


def _read_clients(name: str, value: t.Any) -> None:
    read = ArgumentSpecValidator({name: _form(FLEET[name])}).validate({name: value})
    # A value without a client's structure is described by its type.
    for client in [] if read.error_messages else read.validated_parameters[name]:
        client_limits.check(client)


def _read_duration(name: str, value: t.Any) -> None:
    times.duration(str(value), name)


def _read_model(name: str, value: t.Any) -> None:
    if value == "":
        raise FleetError(f"{name} is empty; give the model's name on its hub, such as {FLEET[name]['default']}.")


#: Checks beyond the type: how the value is parsed where it is used.
_READERS: dict[str, t.Callable[[str, t.Any], t.Any]] = {
    "fleet_clients": _read_clients,
    "fleet_hourly_price": lambda _name, value: check_hourly_price(value),
    "fleet_key_max_age": _read_duration,
    "fleet_key_overlap": _read_duration,
    "fleet_model": _read_model,
    "fleet_target_groups": lambda _name, value: read_groups(value),
    "keys_max_age": _read_duration,
    "keys_overlap": _read_duration,
    "rollout_stop_on_alarms": lambda _name, value: check_names(value),
    "rollout_waves": lambda _name, value: check_waves(value),
}


def specs_of(roles: t.Mapping[str, VariableSpec]) -> dict[str, VariableSpec]:
    """Every variable of the roles, and of FLEET, with its spec.

    Args:
        roles: the argument specs of each role, by entry point.
    """
    found: dict[str, VariableSpec] = dict(FLEET)
    for entries in roles.values():
        for entry in entries.values():
            for name, option in (entry.get("options") or {}).items():
                found.setdefault(name, option)
    return found


def value_problem(name: str, value: t.Any, option: VariableSpec) -> str:
    """The error in one variable's value, as a sentence; empty for none."""
    if name in _READERS and value is not None:
        try:
            _READERS[name](name, value)
        except FleetError as error:
            return error.message
    shown = repr(value)
    if _SECRET.search(name) or option.get("no_log") or len(shown) > _SHOWN:
        shown = "not valid"
    why = (
        _nothing_problem(value, option)
        or _unit_problem(name, value)
        or _form_problem(name, value, option)
        or _port_problem(name, value)
    )
    return f"{name} is {shown}: {why}." if why else ""


def _nothing_problem(value: t.Any, option: VariableSpec) -> str:
    """A name without a value is null in YAML, and does not select the default."""
    default = option.get("default")
    if value is None and default not in (None, "") and not (isinstance(default, str) and "{{" in default):
        return f"it has no value; leave the whole line out for its default, {default!r}"
    return ""


def _unit_problem(name: str, value: t.Any) -> str:
    if value is None:
        return ""
    try:
        if name in units.TIMES:
            number = units.seconds(value)
        elif name in units.SIZES:
            number = units.size(value, units.SIZES[name])
        else:
            return ""
    except ValueError as error:
        return str(error)
    if name not in units.FRACTIONS and number != int(number or 0):
        return "it must be whole seconds" if name in units.TIMES else f"it must be whole {units.SIZES[name]}"
    return ""


def _form_problem(name: str, value: t.Any, option: VariableSpec) -> str:
    if value is None or option.get("type", "str") == "raw":
        return ""
    if value == "" and option.get("default") in ("", None):
        return ""
    errors = ArgumentSpecValidator({name: _form(option)}).validate({name: value}).error_messages
    if not errors:
        return ""
    kind = option.get("type", "str")
    if option.get("choices"):
        return f"valid are {', '.join(str(one) for one in option['choices'])}"
    if ArgumentSpecValidator({name: {"type": kind}}).validate({name: value}).error_messages:
        return f"it must be {_WORDS.get(kind, kind)}"
    return "; ".join(_UNKNOWN_FIELD.sub(r"it has no field \g<fields>, valid are \g<valid>", one) for one in errors)


def _form(option: VariableSpec) -> dict[str, t.Any]:
    form = {key: option[key] for key in _FORM if key in option}
    if "options" in form:
        form["options"] = {
            name: {**_form(inner), "required": bool(inner.get("required"))} for name, inner in form["options"].items()
        }
    return form


def _port_problem(name: str, value: t.Any) -> str:
    if not _PORT.search(name) or value in (None, "") or 0 <= int(value) <= 65535:
        return ""
    return "a port is a number from 1 to 65535"


def name_problem(name: str, specs: t.Collection[str], prefixes: t.Collection[str], words: t.Collection[str]) -> str:
    """The error in a variable's name, as a sentence; empty for none.

    Args:
        name: the variable.
        specs: the known variables.
        prefixes: the roles', with their underscore.
        words: every name that roles, playbooks and other variables mention: a variable in use is not a typo.
    """
    if name in specs or name in words or name.startswith(("ansible_", "aws_", "ec2_", "_")):
        return ""
    alike = difflib.get_close_matches(name, specs, n=1, cutoff=_ALIKE if len(name) >= _LONG else 1.0)
    if alike:
        return f"{name} is read by nothing; did you mean {alike[0]}?"
    prefix = next((one for one in prefixes if name.startswith(one)), "")
    if not prefix:
        return ""
    nearest = difflib.get_close_matches(name, [one for one in specs if one.startswith(prefix)], n=1, cutoff=0)
    return f"{name} is read by nothing; the nearest variable of role {prefix[:-1]} is {nearest[0]}." if nearest else ""


def reported(problems: t.Mapping[str, t.Sequence[str]]) -> list[str]:
    """A line for each problem, with the hosts that have it.

    Args:
        problems: by host.
    """
    hosts: dict[str, list[str]] = {}
    for host, own in problems.items():
        for problem in own:
            hosts.setdefault(problem, []).append(host)
    return [f"{problem} On {', '.join(own)}." for problem, own in hosts.items()]
