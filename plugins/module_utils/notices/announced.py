# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What AWS announces for an instance, from the documents of its metadata. Pure."""

from __future__ import annotations

import dataclasses
import datetime
import email.utils
import json
import re
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import times

SPOT = "spot"
GROUP = "asg"
MAINTENANCE = "maintenance"
REBALANCE = "rebalance"

#: Where the metadata has them, below /latest/meta-data/; each is 404 while there is nothing.
PATHS = {
    SPOT: "spot/instance-action",
    GROUP: "autoscaling/target-lifecycle-state",
    MAINTENANCE: "events/maintenance/scheduled",
    REBALANCE: "events/recommendations/rebalance",
}

#: The codes of events that interrupt an instance.
INTERRUPTING = frozenset(
    ("instance-reboot", "system-reboot", "system-maintenance", "instance-retirement", "instance-stop")
)

_SPOT_ACTIONS = {"terminate": "terminates", "stop": "stops", "hibernate": "hibernates"}
# The others, such as InService or Standby, do not end the instance.
_GROUP_ENDS = "Terminated"
_OVER = ("completed", "canceled")
_ISO = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(?:Z|\+00:00)")


class Unreadable(Exception):
    """A document that is not what AWS documents, with the reason for people."""


@dataclasses.dataclass(frozen=True)
class Notice:
    """Something that AWS announces.

    Attributes:
        kind: SPOT, GROUP, MAINTENANCE or REBALANCE.
        id: its identity: the same notice has the same at every look.
        said: the notice for people.
        begins: Unix time from when the instance is not to be counted on; None where that is unknown.
        ends: Unix time when it is over; None where that is unknown.
        interrupts: whether it interrupts the instance; a recommendation, and an event of an unknown kind, do not.
    """

    kind: str
    id: str
    said: str
    begins: float | None = None
    ends: float | None = None
    interrupts: bool = True


def read_notices(kind: str, text: str) -> list[Notice]:
    """The notices in a document.

    Args:
        kind: which document: a key of PATHS.
        text: its content.

    Raises:
        Unreadable: it is something else. A host is not drained for what a proxy or a broken service says.
    """
    if kind == GROUP:
        return [Notice(GROUP, GROUP, "asg, the group terminates it")] if text.strip() == _GROUP_ENDS else []
    try:
        document = json.loads(text)
    except ValueError as error:
        raise Unreadable(f"{PATHS[kind]} is no JSON") from error
    if kind == MAINTENANCE:
        return _maintenance(document)
    return [_spot(document) if kind == SPOT else _rebalance(document)]


def parse_moment(text: t.Any) -> float | None:
    """A date of the metadata (``21 Jan 2019 09:00:43 GMT``) or of the API (``2019-01-21T09:00:43.000Z``) in Unix time;
    None for anything else.
    """
    if not isinstance(text, str):
        return None
    iso = _ISO.fullmatch(text.strip())
    if iso:
        try:
            return float(times.seconds(f"{iso[1]}Z"))
        except ValueError:
            return None
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)).timestamp()


def clock(moment: float) -> str:
    """A time of day for people, as tables show it."""
    return time.strftime("%H:%M:%S UTC", time.gmtime(moment))


def _spot(document: t.Any) -> Notice:
    action = str(document.get("action")) if isinstance(document, dict) else ""
    if action not in _SPOT_ACTIONS:
        raise Unreadable(f"{PATHS[SPOT]} has no action that is known ({', '.join(_SPOT_ACTIONS)})")
    at = parse_moment(document.get("time"))
    when = f" {clock(at)}" if at is not None else ""
    return Notice(SPOT, f"{SPOT} {action} {document.get('time')}", f"spot, {_SPOT_ACTIONS[action]}{when}", at)


def _rebalance(document: t.Any) -> Notice:
    if not isinstance(document, dict) or "noticeTime" not in document:
        raise Unreadable(f"{PATHS[REBALANCE]} has no noticeTime")
    at = parse_moment(document["noticeTime"])
    since = f" since {clock(at)}" if at is not None else ""
    said = f"rebalance, recommended{since}"
    return Notice(REBALANCE, f"{REBALANCE} {document['noticeTime']}", said, interrupts=False)


def _maintenance(document: t.Any) -> list[Notice]:
    if not isinstance(document, list) or not all(isinstance(event, dict) for event in document):
        raise Unreadable(f"{PATHS[MAINTENANCE]} is no list of events")
    return [_event(event) for event in document if not _is_over(event)]


def _is_over(event: t.Mapping[str, t.Any]) -> bool:
    # The API marks what is over in the description only.
    description = str(event.get("Description") or "").lower()
    return str(event.get("State") or "").lower() in _OVER or description.startswith(tuple(f"[{one}]" for one in _OVER))


def _event(event: t.Mapping[str, t.Any]) -> Notice:
    code, begins = str(event.get("Code")), parse_moment(event.get("NotBefore"))
    when = f"begins {times.minute(times.moment(begins))} UTC" if begins is not None else "at an unknown time"
    return Notice(
        MAINTENANCE,
        f"{MAINTENANCE} {event.get('EventId') or code} {event.get('NotBefore')}",
        f"{code}, {when}",
        begins,
        parse_moment(event.get("NotAfter")),
        interrupts=code in INTERRUPTING and begins is not None,
    )
