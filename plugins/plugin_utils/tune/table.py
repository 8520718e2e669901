# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What a search tried and what won: rows for the terminal, and sentences. Pure."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.benchmark.figures import MORE_IS_BETTER
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark.compare import Difference, difference, spread
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark.scenarios import title
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark.table import (
    NOTHING,
    ShownFigure,
    shown_figures,
    shown_value,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.tune.space import described
from ansible_collections.inference.fleet.plugins.plugin_utils.tune.verdict import JudgedTrial, TuningGoal

BASELINE = "baseline"
#: What ended a trial, for people.
STEPS = {
    "stage": "not started",
    "trial": "not started",
    "start": "did not start",
    "gate": "failed the gate",
    "measure": "could not be measured",
}
_SECONDS = ShownFigure("seconds", "answer, s", 1, 2)
#: Characters of a reason in a row.
_SHORT = 60


def rows(
    engine: str, judged: t.Sequence[JudgedTrial], goal: TuningGoal, winner: JudgedTrial | None
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Rows and columns for the filter table: a line for each trial, in their order."""
    figures = goal_figures(goal)
    columns = [{"key": "number", "title": "trial", "align": "right"}, {"key": "settings", "title": "settings"}]
    columns += [{"key": figure.name, "title": figure.title, "align": "right"} for figure in figures]
    columns.append({"key": "verdict", "title": "against the baseline"})
    lines = []
    for one in judged:
        line = {"number": str(one.trial.number), "settings": described(engine, one.trial.changes)}
        for figure in figures:
            found = spread(one.trial.measured, figure.name)
            line[figure.name] = shown_value(found, figure) if found else NOTHING
        line["verdict"] = verdict(judged[0], one, goal, _SHORT) + (" (won)" if one is winner else "")
        lines.append(line)
    return lines, columns


def goal_figures(goal: TuningGoal) -> tuple[ShownFigure, ...]:
    """The figures of a goal's scenario, the goal's own among them."""
    known = shown_figures(goal.scenario)
    return known if any(figure.name == goal.figure for figure in known) else (*known, _SECONDS)


def verdict(baseline: JudgedTrial, one: JudgedTrial, goal: TuningGoal, most: int = 0) -> str:
    """A trial in a few words.

    Args:
        baseline: the first trial.
        one: a trial.
        goal: of the search.
        most: characters of a reason; 0 for all.
    """
    if one.problem:
        return f"{STEPS.get(one.trial.outcome, 'no figures')}: {_cut(one.problem, most)}"
    if one.broken:
        return f"breaks a limit: {'; '.join(one.broken)}"
    if one is baseline:
        return BASELINE
    found = _difference(baseline, one, goal)
    if baseline.broken:
        return f"keeps the limits ({found.said if found else 'not known'})"
    return found.said if found else "not known"


def won(engine: str, baseline: JudgedTrial, winner: JudgedTrial, goal: TuningGoal) -> str:
    """What won, and by how much."""
    return f"{described(engine, winner.trial.changes)}: {gain(baseline, winner, goal)}"


def gain(baseline: JudgedTrial, winner: JudgedTrial, goal: TuningGoal) -> str:
    """The figures before and after."""
    before, after, found = baseline.figure, winner.figure, _difference(baseline, winner, goal)
    shown = next(figure for figure in goal_figures(goal) if figure.name == goal.figure)
    if not before or not after or not found:
        return f"it keeps the limits, {title(goal.scenario)}"
    said = f"{shown.title} {shown_value(before, shown)} before, {shown_value(after, shown)} after, {found.said}"
    said += f", {title(goal.scenario)}"
    return f"{said}; the baseline breaks a limit: {'; '.join(baseline.broken)}" if baseline.broken else said


def problems(engine: str, judged: t.Sequence[JudgedTrial], most: int) -> list[str]:
    """The reasons of the trials without figures, each of so many characters."""
    return [
        f"Trial {one.trial.number} ({described(engine, one.trial.changes)}) "
        f"{STEPS.get(one.trial.outcome, 'has no figures')}: {_cut(one.problem, most)}"
        for one in judged
        if one.problem
    ]


def figures_of(baseline: JudgedTrial, winner: JudgedTrial, goal: TuningGoal) -> dict[str, dict[str, t.Any]]:
    """The figures of a profile's file: medians before and after, in the units of the table."""
    found = {}
    for figure in goal_figures(goal):
        before, after = spread(baseline.trial.measured, figure.name), spread(winner.trial.measured, figure.name)
        if before and after:
            more = MORE_IS_BETTER[figure.name]
            found[figure.title] = {
                "before": round(before.middle * figure.factor, 3),
                "after": round(after.middle * figure.factor, 3),
                "difference": difference(before, after, more).said,
            }
    return found


def _cut(text: str, most: int) -> str:
    said = " ".join(text.split())
    return f"{said[: most - 1]}…" if most and len(said) > most else said


def _difference(before: JudgedTrial, after: JudgedTrial, goal: TuningGoal) -> Difference | None:
    if before.figure is None or after.figure is None:
        return None
    return difference(before.figure, after.figure, MORE_IS_BETTER[goal.figure])
