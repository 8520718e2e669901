# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Moments and durations in people's and files' notation. Pure."""

from __future__ import annotations

import calendar
import re
import time

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.keys import shown

_MOMENT = "%Y-%m-%dT%H:%M:%SZ"
_DURATION = re.compile(r"(?:(\d{1,5})d)?(?:(\d{1,5})h)?(?:(\d{1,6})m)?(?:(\d{1,7})s)?")
_SECONDS = (86400, 3600, 60, 1)


def now() -> str:
    """The current moment."""
    return moment(time.time())


def moment(seconds: float) -> str:
    """A moment in UTC, in whole seconds, for example ``2026-11-22T12:00:00Z``."""
    return time.strftime(_MOMENT, time.gmtime(seconds))


def seconds(text: str) -> int:
    """The moment that moment() wrote, in seconds since 1970.

    Raises:
        ValueError: it is invalid.
    """
    return calendar.timegm(time.strptime(text, _MOMENT))


def minute(moment: str) -> str:
    """A moment as a table shows it, in UTC."""
    return moment[:16].replace("T", " ")


def check_moment(text: str, what: str) -> str:
    """A day (its beginning, in UTC) or a moment that a user gave, as moment() writes it.

    Args:
        text: for example ``2027-01-31`` or ``2027-01-31T12:00:00Z``.
        what: the name of the value, for the message.

    Raises:
        FleetError: it is neither.
    """
    for form in (_MOMENT, "%Y-%m-%d"):
        try:
            return moment(calendar.timegm(time.strptime(text, form)))
        except ValueError:
            continue
    raise FleetError(f"{what} is {shown(text)}. Give a day such as 2027-01-31, or a moment such as {moment(0)}.")


def duration(text: str, what: str) -> int:
    """The seconds of a duration that a user gave, such as ``30d``, ``24h``, ``90m``, ``1d12h`` or ``0``.

    Args:
        text: the duration.
        what: the name of the option, for the message.

    Raises:
        FleetError: it is invalid.
    """
    match = _DURATION.fullmatch(text.strip())
    if text.strip() == "0":
        return 0
    if not match or not any(match.groups()):
        raise FleetError(f"{what} is {shown(text)}. Give a number with its unit, such as 30d, 24h or 90m, or 0.")
    return sum(int(number or 0) * unit for number, unit in zip(match.groups(), _SECONDS))


def spoken(duration_seconds: float) -> str:
    """A duration as duration() reads it, in its two largest units."""
    rest, parts = int(duration_seconds), []
    for unit, letter in zip(_SECONDS, "dhms"):
        count, rest = divmod(rest, unit)
        if count:
            parts.append(f"{count}{letter}")
    return "".join(parts[:2]) or "0s"
