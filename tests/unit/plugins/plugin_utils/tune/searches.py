"""A simulated engine, and trials of it."""

from __future__ import annotations

import random
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.tune.search import TuningBudget, replay
from ansible_collections.inference.fleet.plugins.plugin_utils.tune.space import Changes, SearchOption
from ansible_collections.inference.fleet.plugins.plugin_utils.tune.verdict import (
    JudgedTrial,
    Trial,
    TuningGoal,
    TuningLimit,
    judge,
)


def repeats(figures: t.Mapping[str, float], spread: float = 0.0, count: int = 3, seed: int = 0) -> dict[str, t.Any]:
    """What role benchmark has of a scenario whose figures differ by up to ``spread``, as a share, in each direction."""
    drawn = random.Random(seed)  # noqa: S311 - a test
    return {
        "scenario": {"name": "at_32"},
        "repeats": [
            {name: value * (1 + drawn.uniform(-spread, spread)) for name, value in figures.items()}
            for _number in range(count)
        ],
        "requests": 128,
        "failed": 0,
        "problem": "",
    }


class SimulatedEngine:
    """What trials of settings give.

    Args:
        speed: the figures of settings; or the reason why they do not start or do not pass their gate.
        spread: of the repeats, as a share.
        start: seconds of a start with its gate.
        measuring: seconds of a measurement.
    """

    def __init__(
        self,
        speed: t.Callable[[Changes], dict[str, float] | str],
        spread: float = 0.01,
        start: float = 60,
        measuring: float = 60,
    ) -> None:
        self._speed = speed
        self._spread = spread
        self._start, self._measuring = start, measuring
        self.seconds = 0.0
        self.tried: list[Changes] = []

    def run(self, number: int, changes: Changes) -> Trial:
        self.tried.append(changes)
        found = self._speed(changes)
        took = (self._start if number else 0) + (0 if isinstance(found, str) else self._measuring)
        self.seconds += took
        if isinstance(found, str):
            return Trial(number, changes, "gate", found, seconds=took)
        measured = repeats(found, self._spread, seed=number)
        return Trial(number, changes, measured=measured, seconds=took, measuring_seconds=self._measuring)


def search(
    engine: SimulatedEngine,
    space: t.Sequence[SearchOption],
    goal: TuningGoal,
    limits: t.Sequence[TuningLimit] = (),
    minutes: float = 60,
) -> list[JudgedTrial]:
    """Search as the playbook does: a trial that does not fit the budget is not begun."""
    budget = TuningBudget(minutes * 60, 60, 60)
    judged: list[JudgedTrial] = []
    while not judged or budget.holds_another(engine.seconds, judged):
        wanted = replay(space, judged, goal).further
        if wanted is None:
            break
        judged.append(judge(engine.run(len(judged), wanted), goal, limits))
    return judged
