# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Protects hosts of a rollout from scale-in; documented as module scale_in_protection."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.rollout.claim import parse
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.controller import ControllerAction, Result, plain
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.protection import ScaledInstance, ScaleInProtection

LOOKED, PROTECTED, UNPROTECTED = "looked", "protected", "unprotected"
USED_BY = "The protection from scale-in"

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "state": {"type": "str", "required": True, "choices": [LOOKED, PROTECTED, UNPROTECTED]},
    "hosts": {"type": "list", "elements": "str", "default": []},
    "claims": {"type": "str", "default": ""},
    "controller": {"type": "str", "default": ""},
    "report": {"type": "bool", "default": False},
}


class ActionModule(ControllerAction):
    """See module scale_in_protection."""

    ARGUMENTS = ARGUMENTS

    def act(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> Result:
        names = list(dict.fromkeys(arguments["hosts"]))
        try:
            return self._act(arguments, task_vars["hostvars"], names)
        except FleetError as error:
            if not arguments["report"]:
                raise
            return {"problem": error.message, "hosts": {}}

    def _act(self, arguments: dict[str, t.Any], hostvars: t.Any, names: list[str]) -> Result:
        state = arguments["state"]
        if state == UNPROTECTED:
            names = [name for name in names if _was_protected(hostvars[name], arguments)]
        hosts: dict[str, dict[str, t.Any]] = {}
        changed = False
        for (region, endpoint), own in _places(hostvars, names).items():
            protection = ScaleInProtection(region, USED_BY, endpoint)
            found = protection.look(list(own))
            hosts |= {own[one.id]: _shown(one) for one in found.values()}
            if state != LOOKED and not self._task.check_mode:
                changed |= bool(protection.set(found.values(), state == PROTECTED))
        return {"changed": changed, "problem": "", "hosts": hosts}


def _places(hostvars: t.Any, names: t.Sequence[str]) -> dict[tuple[str, str], dict[str, str]]:
    """The hosts of Auto Scaling groups by instance id, for each region and stand-in for AWS."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name in names:
        own = hostvars[name]
        if (own.get("aws_ec2_tags") or {}).get("aws:autoscaling:groupName"):
            place = str(own["fleet_region"]), str(own.get("fleet_aws_endpoint") or "")
            found.setdefault(place, {})[str(own["aws_instance_id"])] = name
    return found


def _was_protected(own: t.Any, arguments: t.Mapping[str, t.Any]) -> bool:
    """Whether a rollout protected the host, and none of another controller holds it."""
    claim = parse((plain(own.get(arguments["claims"])) or {}).get("claim"))
    return bool(claim and claim.protected and not (claim.held and claim.controller != arguments["controller"]))


def _shown(one: ScaledInstance) -> dict[str, t.Any]:
    return {"group": one.group, "state": one.state, "protected": one.protected}
