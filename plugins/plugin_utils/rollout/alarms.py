# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What CloudWatch's alarms mean for a rollout. Pure: alarms in, a reason to stop and notes out."""

from __future__ import annotations

import dataclasses
import json
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

ALARM = "ALARM"
OK = "OK"

#: The variable with the names.
VARIABLE = "rollout_stop_on_alarms"
_EXAMPLE = f"For example: {VARIABLE}: [fleet-rollout]."
_WITHOUT = "-e '{\"rollout_stop_on_alarms\": []}'"
#: CloudWatch's limits: of a name, and of the names in one call.
_LONGEST = 255
MOST = 100
#: A reason repeats the data points and thresholds of every alarm behind it.
_REASON = 300
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclasses.dataclass(frozen=True)
class Alarm:
    """An alarm, metric or composite.

    Attributes:
        name: its name.
        region: where it is.
        state: OK, ALARM or INSUFFICIENT_DATA.
        reason: CloudWatch's own words for the state.
        since: when it went into the state, as ``2027-01-15T08:00:00Z``; empty if CloudWatch does not say.
    """

    name: str
    region: str
    state: str
    reason: str
    since: str

    @property
    def said(self) -> str:
        """The alarm and its state, for a person."""
        since = f" since {self.since}" if self.since else ""
        return f"CloudWatch alarm {self.name} in {self.region} is in {self.state}{since}"


@dataclasses.dataclass(frozen=True)
class AlarmVerdict:
    """What a look at the alarms found.

    Attributes:
        stop: why no host may be changed now; empty for no reason.
        notes: what does not stop a rollout, and a person should know.
    """

    stop: str = ""
    notes: tuple[str, ...] = ()


def check_names(given: t.Any) -> list[str]:
    """The names of the alarms, each once.

    Args:
        given: a list of names, or that list as JSON (so it comes from the command line).

    Raises:
        FleetError: it is no list, or an item cannot be the name of an alarm.
    """
    names = given
    if isinstance(given, str) and given.strip():
        try:
            names = json.loads(given)
        except ValueError:
            names = given
    if names is None or names == "":
        return []
    if not isinstance(names, list):
        raise FleetError(f"{VARIABLE} is {given!r}, which is no list of alarms' names. {_EXAMPLE}")
    for name in names:
        _check_name(name)
    if len(set(names)) > MOST:
        raise FleetError(f"{VARIABLE} has {len(set(names))} names; at most {MOST} can be looked at. {_EXAMPLE}")
    return list(dict.fromkeys(names))


def _check_name(name: t.Any) -> None:
    if not isinstance(name, str) or not name.strip() or len(name) > _LONGEST or _CONTROL.search(name):
        raise FleetError(
            f"{VARIABLE} has {name!r}, which is no alarm's name: that is a text of 1 to {_LONGEST} characters, "
            f"without control characters. {_EXAMPLE}"
        )
    if name.startswith("arn:"):
        raise FleetError(f"{VARIABLE} has {name!r}: give the alarm's name, the part after ':alarm:'. {_EXAMPLE}")


def missing(names: t.Sequence[str], found: t.Sequence[Alarm], regions: t.Sequence[str]) -> str:
    """The alarms that no region has, as a sentence; empty for none."""
    lost = [name for name in names if name not in {alarm.name for alarm in found}]
    if not lost:
        return ""
    which = f"no alarm {lost[0]}" if len(lost) == 1 else f"none of the alarms {', '.join(lost)}"
    return f"CloudWatch has {which} in {', '.join(regions)}."


def judge(found: t.Sequence[Alarm]) -> AlarmVerdict:
    """Whether a rollout may change hosts now."""
    raised = [f"{alarm.said}: {_shortened(alarm.reason)}" for alarm in found if alarm.state == ALARM]
    notes = tuple(
        f"{alarm.said}, which does not stop the rollout. Look whether its metric still gets data."
        for alarm in found
        if alarm.state not in (ALARM, OK)
    )
    again = f"Go on when {'it is' if len(raised) == 1 else 'they are'} OK; without this check: {_WITHOUT}."
    return AlarmVerdict(" ".join([*raised, again]) if raised else "", notes)


def unreadable(why: str) -> AlarmVerdict:
    """The look that failed: without the alarms nothing more is changed."""
    return AlarmVerdict(f"The alarms of {VARIABLE} cannot be read: {why}")


def _shortened(reason: str) -> str:
    text = " ".join(_CONTROL.sub(" ", reason).split()).rstrip(".")
    text = text or "CloudWatch gives no reason"
    return f"{text[: _REASON - 1]}…" if len(text) > _REASON else f"{text}."
