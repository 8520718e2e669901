# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The operator's settings of a search, and what they lead to on an instance before anything is touched. Pure."""

from __future__ import annotations

import dataclasses
import math
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.tune.search import TuningBudget
from ansible_collections.inference.fleet.plugins.plugin_utils.tune.space import SearchOption
from ansible_collections.inference.fleet.plugins.plugin_utils.tune.verdict import (
    TuningGoal,
    TuningLimit,
    choose_goal,
    read_limits,
)

#: A start with its gate where the host knows none, and what a repeat takes: the client's own start, and the load.
_START, _CLIENT, _LOAD = 120.0, 10.0, 20.0
#: More turns than any search takes.
_TURNS = 200


@dataclasses.dataclass(frozen=True)
class TuningSettings:
    """The operator's settings; the names are those of role tune's variables.

    Attributes:
        goal: from ``tune_for`` and ``tune_at``.
        limits: from ``tune_max_ttft`` and ``tune_max_itl``.
        minutes: the budget.
        repeats: of each measurement.
        lossy: whether settings vary that change what the model answers.
        keep: whether the winner stays.
        instance: the name of the instance; empty for the first that serves.
        profile: the name of the measured profile; empty for that of GPU and goal.
        keep_records: how many records are kept.
    """

    goal: TuningGoal
    limits: tuple[TuningLimit, ...]
    minutes: float
    repeats: int
    lossy: bool
    keep: bool
    instance: str
    profile: str
    keep_records: int


def read_settings(given: t.Mapping[str, t.Any]) -> TuningSettings:
    """The settings from the role's variables.

    Raises:
        FleetError: with every value that is wrong, and what is valid.
    """
    problems: list[str] = []

    def attempt(work: t.Callable[[], t.Any]) -> t.Any:
        try:
            return work()
        except FleetError as error:
            problems.append(error.message)
            return None

    at = attempt(lambda: _whole(given, "at", 0))
    goal = attempt(lambda: choose_goal(str(given.get("for") or ""), at or 0))
    named = {f"tune_{name}": given.get(name) for name in ("max_ttft", "max_itl")}
    limits = attempt(lambda: read_limits(named))
    minutes = attempt(lambda: _minutes(given))
    # One shows no spread, so nothing could win.
    repeats = attempt(lambda: _whole(given, "repeats", 2))
    keep_records = attempt(lambda: _whole(given, "keep_records", 1))
    if problems:
        raise FleetError(f"Nothing was touched. {' '.join(problems)}")
    return TuningSettings(
        goal=goal,
        limits=tuple(limits),
        minutes=minutes,
        repeats=repeats,
        lossy=bool(given.get("lossy")),
        keep=bool(given.get("keep")),
        instance=str(given.get("instance") or ""),
        profile=str(given.get("profile") or ""),
        keep_records=keep_records,
    )


def choose_instance(
    instances: t.Sequence[t.Mapping[str, t.Any]], settings: TuningSettings, host: str
) -> dict[str, t.Any]:
    """The instance that tries the settings.

    Raises:
        FleetError: there is none, or it cannot try any.
    """
    serving = [one for one in instances if one.get("serves", True)]
    names = ", ".join(str(one["name"]) for one in serving)
    if not serving:
        raise FleetError(f"Nothing was touched. {host} has no instance that requests come to.")
    found = [one for one in serving if not settings.instance or one["name"] == settings.instance]
    if not found:
        raise FleetError(f"Nothing was touched. tune_instance is {settings.instance!r}. Valid on {host} are {names}.")
    chosen = dict(found[0])
    if chosen.get("span"):
        nodes = ", ".join(chosen["span"].get("nodes") or [])
        raise FleetError(
            f"Nothing was touched. {chosen['name']} of {host} spans {nodes}: settings are searched on instances of one "
            "host. Measure two profiles with playbooks/benchmark.yml instead."
        )
    if settings.keep and len(instances) > 1:
        raise FleetError(
            f"Nothing was touched. tune_keep would leave {host} with one instance that differs from its others "
            f"({names}). Leave it out, and deploy the measured profile with site.yml."
        )
    return chosen


def estimate(settings: TuningSettings, last_start: float) -> TuningBudget:
    """The budget with what a start and a measurement are expected to take.

    Args:
        settings: the operator's.
        last_start: seconds that the instance's last change took; 0 where that is not known.
    """
    measuring = settings.repeats * (_CLIENT + _LOAD)
    return TuningBudget(settings.minutes * 60, last_start or _START, measuring)


def budget_problem(settings: TuningSettings, budget: TuningBudget, last_start: float) -> str:
    """Why the budget holds no search; empty where it does."""
    if budget.seconds >= budget.least:
        return ""
    source = "as its last change took" if last_start else "as assumed, since its last change is not known"
    return (
        f"tune_minutes is {settings.minutes:g}, and the baseline, one trial and the way back need about "
        f"{math.ceil(budget.least / 60)} minutes: two starts of {budget.start_seconds:.0f} s, {source}, and two "
        f"measurements of {budget.measuring_seconds:.0f} s ({settings.repeats} repeats)."
    )


def count_turns(space: t.Sequence[SearchOption]) -> int:
    """The most trials that a search can take, with one turn to end it."""
    points = math.prod(len(option.values) for option in space)
    return min(points + 1, _TURNS)


def _minutes(given: t.Mapping[str, t.Any]) -> float:
    value = given.get("minutes", 30)
    try:
        minutes = float(str(value))
    except ValueError:
        minutes = math.nan
    if not (minutes > 0 and math.isfinite(minutes)):
        raise FleetError(f"tune_minutes is {value!r}; it must be a number of minutes above 0.")
    return minutes


def _whole(given: t.Mapping[str, t.Any], name: str, least: int) -> int:
    value = given.get(name, least)
    try:
        number = -1 if isinstance(value, bool) else int(str(value).strip())
    except ValueError:
        number = -1
    if number < least:
        raise FleetError(f"tune_{name} is {value!r}; it must be a whole number from {least}.")
    return number
