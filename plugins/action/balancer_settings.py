# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares target groups and balancers with what the fleet needs; documented as module balancer_settings."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.actions.balanced import balanced_hosts, endpoint_of
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.controller import (
    ControllerAction,
    Result,
    plain,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.inventory import read_fleet
from ansible_collections.inference.fleet.plugins.plugin_utils.actions.needs import (
    NeededGroup,
    find_groups,
    name_targets,
    work_out_needs,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.balancers import read_groups
from ansible_collections.inference.fleet.plugins.plugin_utils.aws.session import AwsService, open_service
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer import table
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.groups import ROLES, VARIABLE
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.facts import Fleet

_REFUSED = "Nothing was touched. These settings of the balancer lose requests in a rollout:"
_ADVICE = "The whole table: playbooks/balancer.yml. If it cannot wait: -e rollout_accept_balancer_errors=true."


class ActionModule(ControllerAction):
    """See module balancer_settings."""

    ARGUMENTS: t.ClassVar[dict[str, dict[str, t.Any]]] = {
        "before_rollout": {"type": "bool", "default": False},
        "accept_errors": {"type": "bool", "default": False},
    }

    def act(self, arguments: dict[str, t.Any], task_vars: dict[str, t.Any]) -> Result:
        before = arguments["before_rollout"]
        play = set(plain(task_vars.get("ansible_play_hosts_all", [])))
        fleet = read_fleet(task_vars, self._templar)
        roles = [role for role in ROLES if not before or play & set(fleet.groups.get(role, ()))]
        findings = _look(fleet, roles, before)
        errors, warnings = table.errors(findings), table.warnings(findings)
        if before and (arguments["accept_errors"] or self._task.check_mode):
            errors, warnings = [], [*errors, *warnings]
        return {
            "rows": [one.as_row() for one in findings],
            "errors": errors,
            "warnings_found": warnings,
            "repairs": table.repairs(findings),
            "groups": list(dict.fromkeys(one.group for one in findings)),
            "refusal": "\n".join([_REFUSED, *errors, _ADVICE]) if before and errors else "",
        }


def _look(fleet: Fleet, roles: t.Sequence[str], before_rollout: bool) -> list[table.SettingFinding]:
    """What is found about the target groups of these tiers."""
    hosts = balanced_hosts(fleet)
    own = [host for host in hosts if host.role in roles]
    if not own:
        return []
    endpoint = endpoint_of(fleet, own)
    regions = sorted({host.region for host in own if host.region})
    elbv2 = {region: open_service("elbv2", region, VARIABLE, endpoint) for region in regions}
    known = {region: one.pages("describe_target_groups", "TargetGroups") for region, one in elbv2.items()}
    groups, findings = find_groups(own, known)
    # A listener for the hosts of the other tier is no mistake, whatever the play is about.
    ours = [group.arn for group in find_groups(hosts, known)[0]]
    names = name_targets({name: fleet.variables[name] for name in fleet.groups.get("all", ())})
    for region in regions:
        autoscaling = open_service("autoscaling", region, VARIABLE, endpoint)
        findings += _judge(fleet, groups, ours, names, before_rollout, elbv2[region], autoscaling)
    return findings


def _judge(
    fleet: Fleet,
    groups: t.Sequence[NeededGroup],
    ours: t.Sequence[str],
    names: t.Mapping[str, str],
    before_rollout: bool,
    elbv2: AwsService,
    autoscaling: AwsService,
) -> list[table.SettingFinding]:
    """The findings about the groups of one region."""
    here = [group for group in groups if group.hosts[0].region == elbv2.region]
    canary = fleet.groups.get("ring_canary", ())
    readings = read_groups(elbv2, autoscaling, [group.described for group in here])
    return [
        finding
        for group, reading in zip(here, readings)
        for finding in table.look(reading, work_out_needs(group, fleet.variables, canary, names, ours, before_rollout))
    ]
