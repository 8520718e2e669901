# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Reads alarms from CloudWatch."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.aws import session
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout.alarms import VARIABLE, Alarm

#: Without them CloudWatch answers with metric alarms only.
_TYPES = ("MetricAlarm", "CompositeAlarm")


def regions_of(hosts: t.Iterable[t.Mapping[str, t.Any]]) -> list[str]:
    """The regions of hosts by their variables; without any, that of this shell's AWS settings.

    Raises:
        FleetError: neither says one.
    """
    regions = sorted({str(one["fleet_region"]) for one in hosts if one.get("fleet_region")})
    if regions:
        return regions
    own = session.own_region(VARIABLE)
    if not own:
        raise FleetError(
            "It is not known in which region the alarms of rollout_stop_on_alarms are: no host has fleet_region, and "
            "this shell has no AWS_REGION. Set one of them."
        )
    return [own]


def read_alarms(names: t.Sequence[str], regions: t.Sequence[str]) -> list[Alarm]:
    """The alarms of these names, in each region that has them.

    Args:
        names: at most 100.
        regions: where to look.

    Raises:
        FleetError: AWS refused it, or did not answer; the message names region and right.
    """
    return [alarm for region in regions for alarm in _read_region(names, region)]


def _read_region(names: t.Sequence[str], region: str) -> list[Alarm]:
    cloudwatch = session.open_service("cloudwatch", region, VARIABLE)
    lists = [f"{kind}s" for kind in _TYPES]
    found = cloudwatch.pages("describe_alarms", *lists, AlarmNames=list(names), AlarmTypes=list(_TYPES))
    return [_alarm(one, region) for one in found]


def _alarm(one: t.Mapping[str, t.Any], region: str) -> Alarm:
    # A new reason in the same state moves StateUpdatedTimestamp only.
    since = one.get("StateTransitionedTimestamp") or one.get("StateUpdatedTimestamp")
    return Alarm(
        name=str(one["AlarmName"]),
        region=region,
        state=str(one.get("StateValue", "")),
        reason=str(one.get("StateReason", "")),
        since=times.moment(since.timestamp()) if since else "",
    )
