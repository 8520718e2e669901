# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Registers hosts in their target groups and deregisters them; documented as module target_group."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.rollout.claim import Claim, parse
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.controller import ControllerAction, Result, plain
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.inventory import read_fleet
from ansible_collections.inference.fleet.plugins.plugin_utils.aws import registration
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.registration import Registration
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.target_groups import TargetGroups, region_of_shell
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer import health, hosts
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import ROLES, BalancedHost, Membership
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.health import BalancerLook
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import journal

LOOKED, DEREGISTERED, REGISTERED = "looked", "deregistered", "registered"

ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "state": {"type": "str", "required": True, "choices": [LOOKED, DEREGISTERED, REGISTERED]},
    "hosts": {"type": "list", "elements": "str"},
    "instances": {"type": "dict", "default": {}},
    "status": {"type": "str", "default": ""},
    "controller": {"type": "str", "default": ""},
    "take_over": {"type": "bool", "default": False},
    "settle": {"type": "float", "default": 10},
    "healthy_timeout": {"type": "float", "default": 120},
    "accept_last": {"type": "bool", "default": False},
    "journal": {"type": "str", "default": ""},
    "report": {"type": "bool", "default": False},
}


class ActionModule(ControllerAction):
    """See module target_group."""

    ARGUMENTS = ARGUMENTS

    def act(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> Result:
        wanted = arguments["hosts"]
        names = [str(task_vars["inventory_hostname"])] if wanted is None else list(dict.fromkeys(wanted))
        fleet = _BalancedFleet(task_vars, self._templar, arguments)
        try:
            return self._act(arguments, fleet, names)
        except FleetError as error:
            if not arguments["report"]:
                raise
            journal.note(arguments["journal"], "balancer", state=arguments["state"], problem=error.message)
            return {"problem": error.message, "hosts": {}, "problems": {}}

    def _act(self, arguments: dict[str, t.Any], fleet: _BalancedFleet, names: list[str]) -> Result:
        wanted = [fleet.host(name) for name in names]
        groups = TargetGroups(fleet.endpoint([one.name for one in wanted if one.own]))
        look = groups.look(wanted)
        state = arguments["state"]
        problems = [*look.problems, *health.not_usable(look, names)]
        if state != REGISTERED:
            problems += health.strangers(look, {name: fleet.addresses(name) for name in names})
        if problems:
            raise FleetError(" ".join(problems))
        if state == LOOKED or not look.memberships:
            return _result(look, names)
        if state == DEREGISTERED:
            out = fleet.leaving(look, names, arguments["instances"])
            return self._deregister(arguments, groups, look, names, out)
        return self._register(arguments, groups, look, names, fleet.proven(look, names))

    def _deregister(
        self,
        arguments: dict[str, t.Any],
        groups: TargetGroups,
        look: BalancerLook,
        names: list[str],
        out: list[Membership],
    ) -> Result:
        last = health.last_ones(look, out)
        if last and not arguments["accept_last"]:
            raise FleetError(
                f"{' '.join(last)} Clients would get 503 from the balancer. Wait until another host is healthy there, "
                "or accept the downtime: -e rollout_accept_downtime=true (playbooks/drain.yml: "
                "-e drain_accept_downtime=true)."
            )
        moving = [one for one in out if look.health_of(one).is_registered]
        if self._task.check_mode:
            return _result(look, names, moving, out=out)
        # Before the calls, so that another run knows what this one was about to do.
        self._note(arguments, look, out)
        done = registration.deregister(groups, look, out, arguments["settle"])
        return _result(done.look, names, list(done.moved), before=look, out=out)

    def _register(
        self,
        arguments: dict[str, t.Any],
        groups: TargetGroups,
        look: BalancerLook,
        names: list[str],
        wanted: list[Membership],
    ) -> Result:
        missing = [one for one in wanted if not look.health_of(one).is_registered]
        if self._task.check_mode:
            return _result(look, names, missing)
        self._note(arguments, look, missing)
        done: Registration = registration.register(groups, look, wanted, arguments["healthy_timeout"])
        if done.problems and not arguments["report"]:
            raise FleetError(" ".join(done.problems.values()))
        result = _result(done.look, names, list(done.moved), before=look)
        return {**result, "problems": dict(done.problems)}

    def _note(self, arguments: dict[str, t.Any], look: BalancerLook, moving: list[Membership]) -> None:
        """A step for each host, with its targets as they are now."""
        step = "deregister" if arguments["state"] == DEREGISTERED else "register"
        for host in dict.fromkeys(one.host for one in moving):
            targets = [_shown(look, one) for one in moving if one.host == host]
            journal.note(arguments["journal"], "step", host=host, instance="", step=step, attempt=1, targets=targets)


class _BalancedFleet:
    """The hosts of the inventory, as target groups see them.

    Args:
        task_vars: Ansible's variables of the task's host, which may be any.
        templar: the action's.
        arguments: the action's.
    """

    def __init__(self, task_vars: dict[str, t.Any], templar: t.Any, arguments: t.Mapping[str, t.Any]) -> None:
        self._vars = task_vars
        self._fleet = read_fleet(task_vars, templar)
        self._facts: dict[str, dict[str, t.Any]] = {}
        self._arguments = arguments
        self._region: str | None = None

    def host(self, name: str) -> BalancedHost:
        """A host.

        Raises:
            FleetError: the inventory does not have it, or a variable is invalid.
        """
        if name not in self._vars["hostvars"]:
            raise FleetError(f"hosts names {name}, which the inventory does not have.")
        role = ROLES[1] if name in self._fleet.groups.get(ROLES[1], ()) else ROLES[0]
        own = self._fleet.variables[name]
        wanted = hosts.groups_to_register(role, own)
        return hosts.balanced_host(name, role, own, wanted, lambda: self._facts_of(name), self._own_region)

    def endpoint(self, names: t.Sequence[str]) -> str:
        """The stand-in for AWS that the hosts are in; empty for AWS."""
        own = (self._fleet.variables[name].get("fleet_aws_endpoint") for name in names)
        return next((str(one) for one in own if one), "")

    def addresses(self, name: str) -> list[str]:
        """The ids by which a group may have a host."""
        one = self.host(name)
        return [text for text in (one.instance_id, one.address) if text]

    def leaving(self, look: BalancerLook, names: list[str], out: t.Mapping[str, t.Any]) -> list[Membership]:
        """What goes out with these hosts, or with those of their instances that are named."""
        found = []
        for name in names:
            if name not in out:
                found += look.of([name])
                continue
            indexes = [int(index) for index in out[name]]
            found += hosts.leaving(look, name, self._status_of(name), self._facts_of(name)["instances"], indexes)
        return found

    def proven(self, look: BalancerLook, names: list[str]) -> list[Membership]:
        """What may get requests and that no other rollout holds: without a status all of it."""
        if not self._arguments["status"]:
            return look.of(names)
        return [
            one
            for name in names
            if not self._holder_of(name)
            for one in hosts.proven(look, name, self._status_of(name), self._facts_of(name).get("instances") or [])
        ]

    def _holder_of(self, name: str) -> Claim | None:
        """The rollout of another controller that holds a host."""
        claim = parse((self._status_of(name) or {}).get("rollout"))
        if not claim or not claim.held or claim.controller == self._arguments["controller"]:
            return None
        return None if self._arguments["take_over"] else claim

    def _facts_of(self, name: str) -> dict[str, t.Any]:
        if name not in self._facts:
            self._facts[name] = self._fleet.work_out(name).as_dict()
        return self._facts[name]

    def _status_of(self, name: str) -> t.Any:
        variable = self._arguments["status"]
        status = plain(self._vars["hostvars"][name].get(variable)) if variable else None
        return status if status and "instances" in status else None

    def _own_region(self) -> str:
        """This shell's region, for hosts outside of EC2."""
        if self._region is None:
            self._region = region_of_shell()
        return self._region


def _result(
    look: BalancerLook,
    names: list[str],
    moved: list[Membership] | None = None,
    before: BalancerLook | None = None,
    out: t.Sequence[Membership] = (),
) -> Result:
    """What every state returns."""
    result: Result = {
        "changed": bool(moved),
        "problem": "",
        "problems": {},
        "hosts": {
            name: {
                "summary": health.summarize(look, name),
                "targets": [_shown(look, one) for one in look.of([name])],
                "out": any(one.host == name for one in out),
            }
            for name in names
            if look.of([name])
        },
        "look": look.document(),
    }
    if moved:
        result["diff"] = {
            "before": "".join(f"{one.said}: {(before or look).health_of(one).said}\n" for one in moved),
            "after": "".join(f"{one.said}: {_after(look, one, before)}\n" for one in moved),
        }
    return result


def _after(look: BalancerLook, one: Membership, before: BalancerLook | None) -> str:
    if before is not None:
        return look.health_of(one).said
    # In check mode.
    return health.DRAINING if look.health_of(one).is_registered else health.HEALTHY


def _shown(look: BalancerLook, one: Membership) -> dict[str, t.Any]:
    state = look.health_of(one)
    return {
        "group": one.group.name,
        "arn": one.group.arn,
        "region": one.group.region,
        "id": one.target.id,
        "port": one.target.port,
        "state": state.state,
        "reason": state.reason,
        "description": state.description,
    }
