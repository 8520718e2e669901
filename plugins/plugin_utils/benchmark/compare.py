# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Figures over repeats, and what differs between two measurements. Pure."""

from __future__ import annotations

import dataclasses
import statistics
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.benchmark.figures import MORE_IS_BETTER

BETTER, WORSE, NONE, UNKNOWN = "better", "worse", "none", "not known"


@dataclasses.dataclass(frozen=True)
class RepeatedFigure:
    """A figure over the repeats of a scenario.

    Attributes:
        middle: the median.
        low: the least.
        high: the most.
        count: how many repeats there were.
    """

    middle: float
    low: float
    high: float
    count: int

    @property
    def width(self) -> float:
        return self.high - self.low


@dataclasses.dataclass(frozen=True)
class Difference:
    """A figure before and after.

    Attributes:
        verdict: BETTER, WORSE, NONE, or UNKNOWN where a single repeat shows no spread.
        share: the change of the median as a share of the earlier one.
    """

    verdict: str
    share: float

    @property
    def said(self) -> str:
        return self.verdict if self.verdict in (NONE, UNKNOWN) else f"{self.share:+.0%} {self.verdict}"


def spread(measured: t.Mapping[str, t.Any], figure: str) -> RepeatedFigure | None:
    """A figure over the repeats; None where no repeat has it."""
    values = [float(one[figure]) for one in measured.get("repeats") or [] if isinstance(one.get(figure), (int, float))]
    return RepeatedFigure(statistics.median(values), min(values), max(values), len(values)) if values else None


def difference(before: RepeatedFigure, after: RepeatedFigure, more_is_better: bool) -> Difference:
    """What differs. A difference inside the spread of the repeats is none."""
    share = (after.middle - before.middle) / before.middle if before.middle else 0.0
    if min(before.count, after.count) < 2:
        return Difference(UNKNOWN, share)
    # Both ranges have to be apart, and the medians by more than what the repeats differ by themselves.
    apart = after.low > before.high or after.high < before.low
    if not apart or abs(after.middle - before.middle) <= max(before.width, after.width):
        return Difference(NONE, share)
    return Difference(BETTER if (after.middle > before.middle) == more_is_better else WORSE, share)


def same_load(one: t.Mapping[str, t.Any], other: t.Mapping[str, t.Any]) -> bool:
    """Whether two measurements are of the same load, so that their figures compare."""
    return bool(one.get("scenario")) and one.get("scenario") == other.get("scenario")


def compare(before: t.Mapping[str, t.Any], after: t.Mapping[str, t.Any]) -> dict[str, dict[str, Difference]]:
    """The differences of each scenario and figure that two records have in common, with the same load.

    Args:
        before: a record, with ``measured`` by scenario.
        after: another one.
    """
    found: dict[str, dict[str, Difference]] = {}
    for name, measured in (after.get("measured") or {}).items():
        earlier = (before.get("measured") or {}).get(name)
        if not earlier or not same_load(earlier, measured):
            continue
        own = {}
        for figure, more in MORE_IS_BETTER.items():
            old, new = spread(earlier, figure), spread(measured, figure)
            if old and new:
                own[figure] = difference(old, new, more)
        found[name] = own
    return found
