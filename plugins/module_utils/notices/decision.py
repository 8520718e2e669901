# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What a host does about what AWS announces: drain, and by when; say it; or nothing. Pure."""

from __future__ import annotations

import dataclasses

from ansible_collections.inference.fleet.plugins.module_utils.notices import announced
from ansible_collections.inference.fleet.plugins.module_utils.notices.announced import Notice

NOTE = "note"
DRAIN = "drain"
ON_REBALANCE = (NOTE, DRAIN)

#: Seconds before the end of the instance at which requests should have finished: it stops its services before.
RESERVE = 15.0


@dataclasses.dataclass(frozen=True)
class NoticeSettings:
    """The settings; the names are those of role edge's variables.

    Attributes:
        on_rebalance: NOTE or DRAIN.
        maintenance_lead: seconds before a maintenance at which the host is drained.
    """

    on_rebalance: str = NOTE
    maintenance_lead: float = 600.0


@dataclasses.dataclass(frozen=True)
class MetadataLook:
    """One look at the metadata.

    Attributes:
        notices: what AWS announces.
        problem: why it could not all be read; empty where it could.
    """

    notices: tuple[Notice, ...] = ()
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What follows from a look.

    Attributes:
        drain: the notices for which the host has to be out of service now.
        note: those that are only said.
        finish_by: Unix time at which requests should have finished; None where no end is known.
        unknown: whether a notice may have been missed: what is stays as it is.
    """

    drain: tuple[Notice, ...] = ()
    note: tuple[Notice, ...] = ()
    finish_by: float | None = None
    unknown: bool = False

    @property
    def reason(self) -> str:
        """Why the host is out, for people."""
        return "; ".join(notice.said for notice in self.drain)


def decide(look: MetadataLook, now: float, settings: NoticeSettings) -> Verdict:
    """What the host does now.

    Args:
        look: what the metadata says.
        now: Unix time.
        settings: the operator's settings.
    """
    relevant = [notice for notice in look.notices if notice.ends is None or now <= notice.ends]
    drain = tuple(notice for notice in relevant if _drains(notice, now, settings))
    begins = [notice.begins for notice in drain if notice.begins is not None]
    return Verdict(
        drain=drain,
        note=tuple(notice for notice in relevant if notice not in drain),
        finish_by=min(begins) - RESERVE if begins else None,
        unknown=bool(look.problem),
    )


def lame_duck_seconds(verdict: Verdict, configured: float, now: float) -> float:
    """How long the host is a lame duck: as configured, as long as there is time for it."""
    return configured if verdict.finish_by is None or now < verdict.finish_by else 0.0


def _drains(notice: Notice, now: float, settings: NoticeSettings) -> bool:
    if notice.kind == announced.REBALANCE:
        return settings.on_rebalance == DRAIN
    if notice.kind == announced.MAINTENANCE:
        return notice.interrupts and notice.begins is not None and now >= notice.begins - settings.maintenance_lead
    return True
