# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""How a search goes on: one setting after the other, from the baseline's value outwards. Pure.

The strategy knows nothing but the trials so far. It is replayed over them each time, up to the first settings that were
not tried; so a search needs no state of its own.

For each setting its values are tried in both directions, the nearest first, with the best of the others. A direction
ends at the first value that is worse than the best so far: what is beyond is worse still, or the same. A value that did
not start or whose gate failed says nothing about the next. What was better becomes the best at once, and the other
direction is left out. After a pass in which anything improved all settings are tried again around the new best.
"""

from __future__ import annotations

import dataclasses
import json
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark.compare import BETTER, WORSE
from ansible_collections.inference.fleet.plugins.plugin_utils.tune.space import Changes, SearchOption
from ansible_collections.inference.fleet.plugins.plugin_utils.tune.verdict import JudgedTrial, TuningGoal, compare


@dataclasses.dataclass(frozen=True)
class SearchState:
    """Where a search stands.

    Attributes:
        best: the best settings so far; empty for the baseline.
        further: what to try next; None where everything that the strategy looks at was tried.
    """

    best: Changes
    further: Changes | None


@dataclasses.dataclass(frozen=True)
class TuningBudget:
    """The time of a search.

    Attributes:
        seconds: all of it, from the drain until the host is back.
        start_seconds: a start with its gate, as expected before any was seen.
        measuring_seconds: a measurement, likewise.
    """

    seconds: float
    start_seconds: float
    measuring_seconds: float

    @property
    def least(self) -> float:
        """What the baseline, one trial and the way back need."""
        return 2 * (self.start_seconds + self.measuring_seconds)

    def expected(self, judged: t.Iterable[JudgedTrial]) -> tuple[float, float]:
        """Seconds of a start with its gate and of a measurement: the longest that were seen, else as expected."""
        trials = [one.trial for one in judged if one.figure is not None]
        starts = [trial.seconds - trial.measuring_seconds for trial in trials if trial.number]
        measurements = [trial.measuring_seconds for trial in trials]
        return max(starts, default=self.start_seconds), max(measurements, default=self.measuring_seconds)

    def way_back(self, spent: float, judged: t.Sequence[JudgedTrial]) -> float:
        """Seconds until the instance is back: a start with its gate, and a drain with what else is no part of a trial.

        Args:
            spent: seconds since the drain began.
            judged: the trials so far.
        """
        other = spent - sum(one.trial.seconds for one in judged)
        return self.expected(judged)[0] + max(0.0, other)

    def holds_another(self, spent: float, judged: t.Sequence[JudgedTrial]) -> bool:
        """Whether another trial fits, with the way back.

        Args:
            spent: seconds since the drain began.
            judged: the trials so far.
        """
        return spent + sum(self.expected(judged)) + self.way_back(spent, judged) <= self.seconds


def key_of(changes: t.Mapping[str, t.Any]) -> str:
    """The same text for the same settings, whatever their order."""
    return json.dumps(changes, sort_keys=True)


class _Untried(Exception):
    """The strategy has come to settings that were not tried."""

    def __init__(self, changes: Changes) -> None:
        super().__init__(key_of(changes))
        self.changes = changes


class _Walker:
    """The strategy, over trials that are known."""

    def __init__(self, space: t.Sequence[SearchOption], goal: TuningGoal, judged: t.Iterable[JudgedTrial]) -> None:
        self._space = space
        self._goal = goal
        self._known = {key_of(one.trial.changes): one for one in judged}
        self.best: Changes = {}

    def walk(self) -> None:
        """Try everything that the strategy looks at.

        Raises:
            _Untried: with the first that was not tried.
        """
        self._look({})
        while any([self._vary(option) for option in self._space]):
            pass

    def _look(self, changes: Changes) -> JudgedTrial:
        found = self._known.get(key_of(changes))
        if found is None:
            raise _Untried(changes)
        return found

    def _vary(self, option: SearchOption) -> bool:
        """Look for a better value of a setting; whether there is one."""
        place = option.values.index(self.best.get(option.name, option.current))
        for values in (option.values[place + 1 :], tuple(reversed(option.values[:place]))):
            improved = False
            for value in values:
                others = {name: one for name, one in self.best.items() if name != option.name}
                changes = others if value == option.current else {**others, option.name: value}
                verdict = compare(self._look(self.best), self._look(changes), self._goal)
                if verdict == BETTER:
                    self.best, improved = changes, True
                elif verdict == WORSE:
                    break
            if improved:
                return True
        return False


def replay(space: t.Sequence[SearchOption], judged: t.Iterable[JudgedTrial], goal: TuningGoal) -> SearchState:
    """Where a search stands after its trials."""
    walker = _Walker(space, goal, judged)
    try:
        walker.walk()
    except _Untried as untried:
        return SearchState(walker.best, untried.changes)
    return SearchState(walker.best, None)


def find_winner(
    space: t.Sequence[SearchOption], judged: t.Sequence[JudgedTrial], goal: TuningGoal
) -> JudgedTrial | None:
    """The best of the trials, where it keeps the limits and is better than the baseline; None where none is."""
    if not judged:
        return None
    best = replay(space, judged, goal).best
    found = next((one for one in judged if key_of(one.trial.changes) == key_of(best)), None)
    if not best or found is None or not found.may_win or compare(judged[0], found, goal) != BETTER:
        return None
    return found
