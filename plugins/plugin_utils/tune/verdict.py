# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What a search is for, and what its trials are worth: goal, limits, and comparison. Pure."""

from __future__ import annotations

import dataclasses
import math
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.benchmark.figures import MORE_IS_BETTER
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark.compare import (
    BETTER,
    NONE,
    WORSE,
    RepeatedFigure,
    difference,
    spread,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.tune.space import Changes

MEASURED = "measured"
#: A trial that ended without figures is neither better nor worse.
FAILED = "failed"


class TuningGoal(t.NamedTuple):
    """What a search is for.

    Attributes:
        name: that of the profile with the same purpose.
        scenario: the load, as role benchmark names it.
        figure: one of MORE_IS_BETTER.
        title: the figure, for people.
    """

    name: str
    scenario: str
    figure: str
    title: str

    @property
    def said(self) -> str:
        word = "most" if MORE_IS_BETTER[self.figure] else "least"
        return f"{word} {self.title}"


#: The others of the profiles have no figure: low_memory is about what fits, and speculative about a draft model.
GOALS = {
    goal.name: goal
    for goal in (
        TuningGoal("interactive", "at_32", "first_token_p95", "first token p95"),
        TuningGoal("throughput", "at_64", "tokens_per_second", "tokens/s"),
        TuningGoal("balanced", "at_32", "seconds", "time of an answer"),
        TuningGoal("long_context", "long", "first_token", "first token at the longest prompt"),
    )
}


class TuningLimit(t.NamedTuple):
    """A bound that an operator names.

    Attributes:
        variable: its name.
        figure: one of MORE_IS_BETTER, of which less is better.
        most: seconds.
    """

    variable: str
    figure: str
    most: float

    @property
    def title(self) -> str:
        return LIMITED[self.variable][1]


#: The variables with limits: the figure, and its name for people.
LIMITED = {
    "tune_max_ttft": ("first_token_p95", "first token p95"),
    "tune_max_itl": ("between_tokens_p95", "between tokens p95"),
}


@dataclasses.dataclass(frozen=True)
class Trial:
    """Settings that were tried.

    Attributes:
        number: its place; 0 is the baseline.
        changes: what differs from the baseline.
        outcome: MEASURED, or the step that ended it.
        problem: why it ended; empty where it did not.
        measured: as role benchmark has it; empty without figures.
        seconds: how long it took.
        measuring_seconds: how much of that was the measurement.
        release: what ran.
    """

    number: int
    changes: Changes
    outcome: str = MEASURED
    problem: str = ""
    measured: dict[str, t.Any] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    measuring_seconds: float = 0.0
    release: str = ""


@dataclasses.dataclass(frozen=True)
class JudgedTrial:
    """What a trial is worth.

    Attributes:
        trial: the trial.
        figure: the goal's, over the repeats; None where it has none.
        problem: why it has no figures that count; empty where it has.
        broken: the limits that it breaks, each with its figure.
        excess: the figure of the limit that it breaks by the most, as a factor of the limit; None where it breaks none.
    """

    trial: Trial
    figure: RepeatedFigure | None
    problem: str = ""
    broken: tuple[str, ...] = ()
    excess: RepeatedFigure | None = None

    @property
    def may_win(self) -> bool:
        return self.figure is not None and not self.problem and not self.broken


def choose_goal(name: str, at: int = 0) -> TuningGoal:
    """The goal of a search.

    Args:
        name: ``tune_for``.
        at: requests at once in place of the goal's own; 0 for these.

    Raises:
        FleetError: there is no such goal.
    """
    goal = GOALS.get(name)
    if goal is None:
        raise FleetError(f"tune_for is {name!r}. Valid are {', '.join(GOALS)}.")
    if at and goal.scenario.startswith("at_"):
        return goal._replace(scenario=f"at_{at}")
    return goal


def read_limits(given: t.Mapping[str, t.Any]) -> list[TuningLimit]:
    """The limits from the variables; one that is empty is none.

    Raises:
        FleetError: one is not above 0.
    """
    found, problems = [], []
    for variable, (figure, title) in LIMITED.items():
        value = given.get(variable)
        if value in (None, ""):
            continue
        try:
            most = float(str(value))
        except ValueError:
            most = math.nan
        if not (most > 0 and math.isfinite(most)):
            problems.append(f"{variable} is {value!r}; {title} has a limit in seconds above 0, such as 0.5.")
        found.append(TuningLimit(variable, figure, most))
    if problems:
        raise FleetError(" ".join(problems))
    return found


def judge(trial: Trial, goal: TuningGoal, limits: t.Iterable[TuningLimit]) -> JudgedTrial:
    """What a trial is worth. Every repeat has to keep the limits, and every request has to be answered."""
    if trial.outcome != MEASURED:
        return JudgedTrial(trial, None, trial.problem or "no reason given")
    figure = spread(trial.measured, goal.figure)
    failed = int(trial.measured.get("failed") or 0)
    problem = trial.measured.get("problem") or "no reason given"
    if failed or figure is None:
        why = f"{failed} of {trial.measured.get('requests', 0)} requests failed" if failed else "nothing was measured"
        return JudgedTrial(trial, None, f"{why} ({problem})")
    broken, beyond = [], []
    for limit in limits:
        found = spread(trial.measured, limit.figure)
        if found is None:
            return JudgedTrial(trial, figure, f"{limit.title} was not measured, so its limit cannot be seen to hold")
        if found.high > limit.most:
            broken.append(f"{limit.title} {found.high:.3g} s, above {limit.variable} {limit.most:g}")
            beyond.append(_over(found, limit.most))
    return JudgedTrial(trial, figure, "", tuple(broken), max(beyond, key=lambda one: one.high, default=None))


def compare(before: JudgedTrial, after: JudgedTrial, goal: TuningGoal) -> str:
    """Whether the later one is BETTER or WORSE, NONE where they do not differ, or FAILED.

    Limits come first: what keeps them is better than what does not. Of two that break them, the one is better that is
    closer to them by more than the spread of its figure.
    """
    if after.figure is None or after.problem:
        return FAILED
    if before.figure is None or before.problem or (before.broken and not after.broken):
        return BETTER
    if after.broken and not before.broken:
        return WORSE
    if before.excess and after.excess:
        verdict = difference(before.excess, after.excess, more_is_better=False).verdict
    else:
        verdict = difference(before.figure, after.figure, MORE_IS_BETTER[goal.figure]).verdict
    return verdict if verdict in (BETTER, WORSE) else NONE


def _over(figure: RepeatedFigure, most: float) -> RepeatedFigure:
    return RepeatedFigure(figure.middle / most, figure.low / most, figure.high / most, figure.count)
