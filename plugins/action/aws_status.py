# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what AWS says about hosts; documented as module aws_status."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.balanced import balanced_hosts, endpoint_of
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.controller import ControllerAction, Result
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.inventory import read_fleet
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.scheduled_events import read_events
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.session import open_service
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.target_groups import TargetGroups
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.health import summarize
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.facts import Fleet

BALANCER, EVENTS = "balancer", "events"
_MOST_NOTES = 3

_Cells = dict[str, dict[str, str]]


class ActionModule(ControllerAction):
    """See module aws_status."""

    ARGUMENTS: t.ClassVar[dict[str, dict[str, t.Any]]] = {
        "hosts": {"type": "list", "elements": "str", "required": True},
    }

    def act(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> Result:
        fleet = read_fleet(task_vars, self._templar)
        found: _Cells = {}
        notes = [
            *_noting(lambda: _read_balancer(fleet, arguments["hosts"], found), "The state of hosts at the balancer"),
            *_noting(lambda: _read_events(fleet, arguments["hosts"], found), "The events of EC2"),
        ]
        columns = [name for name in (BALANCER, EVENTS) if any(name in own for own in found.values())]
        return {"hosts": found, "columns": columns, "notes": notes}


def _noting(read: t.Callable[[], list[str]], what: str) -> list[str]:
    """What cannot be said, as few lines below a table."""
    try:
        notes = list(dict.fromkeys(read()))
    except FleetError as error:
        return [f"{what} cannot be read: {error.message}"]
    further = len(notes) - _MOST_NOTES
    return notes if further <= 0 else [*notes[:_MOST_NOTES], f"{further} more: playbooks/balancer.yml has all."]


def _read_balancer(fleet: Fleet, hosts: t.Collection[str], found: _Cells) -> list[str]:
    """The state of hosts in their target groups; what cannot be said is returned."""
    own = [host for host in balanced_hosts(fleet) if host.name in hosts]
    if not own:
        return []
    look = TargetGroups(endpoint_of(fleet, own)).look(own)
    for host in own:
        said = summarize(look, host.name)
        if said:
            found.setdefault(host.name, {})[BALANCER] = said
    return list(look.problems)


def _read_events(fleet: Fleet, hosts: t.Iterable[str], found: _Cells) -> list[str]:
    """What is scheduled for hosts, region by region: one that does not answer takes nothing from the others."""
    regions: dict[str, dict[str, str]] = {}
    for host in hosts:
        own = fleet.variables[host]
        instance, region = own.get("aws_instance_id"), own.get("fleet_region")
        if instance and region:
            regions.setdefault(str(region), {})[str(instance)] = host
    notes = []
    for region, instances in sorted(regions.items()):
        endpoint = str(fleet.variables[next(iter(instances.values()))].get("fleet_aws_endpoint") or "")
        try:
            events = read_events(open_service("ec2", region, "playbooks/status.yml", endpoint), list(instances))
        except FleetError as error:
            notes.append(f"The events of EC2 in {region} cannot be read: {error.message}")
            continue
        for instance, host in instances.items():
            found.setdefault(host, {})[EVENTS] = events.get(instance, "")
    return notes
