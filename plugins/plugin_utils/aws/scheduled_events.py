# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What EC2 has scheduled for instances: reboots, retirements and maintenance."""

from __future__ import annotations

import datetime
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.aws.session import AwsService
from ansible_collections.inference.fleet.plugins.plugin_utils.balancer.readings import Described

#: The most instances of one call.
_MOST = 100
#: AWS keeps events that are over for a week, and says so at the beginning of their description.
_OVER = ("[Completed]", "[Canceled]")


def read_events(ec2: AwsService, instances: t.Sequence[str]) -> dict[str, str]:
    """What is scheduled, by instance id, as a cell of a table; instances without anything are left out.

    Args:
        ec2: EC2 in the region of the instances.
        instances: their ids.

    Raises:
        FleetError: AWS refused the call, or did not answer.
    """
    found: dict[str, str] = {}
    for begin in range(0, len(instances), _MOST):
        # Also those that do not run: they are started on the same hardware.
        statuses = ec2.pages(
            "describe_instance_status",
            "InstanceStatuses",
            InstanceIds=list(instances[begin : begin + _MOST]),
            IncludeAllInstances=True,
        )
        found.update(
            {str(one["InstanceId"]): said for one in statuses if (said := say_events(one.get("Events") or ()))}
        )
    return found


def say_events(events: t.Iterable[Described]) -> str:
    """The events of an instance that are not over, the next one first."""
    coming = [one for one in events if not str(one.get("Description") or "").startswith(_OVER)]
    return ", ".join(_said(one) for one in sorted(coming, key=lambda one: _moment(one.get("NotBefore"))))


def _said(event: Described) -> str:
    return f"{event.get('Code', 'event')} {_moment(event.get('NotBefore'))}".strip()


def _moment(value: t.Any) -> str:
    """A moment of boto3 in UTC, to the minute."""
    return value.astimezone(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M") if value else ""
