# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The settings that a search may vary on an instance, from what its engine has. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.engines.base import Tunable
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES, check_engine

#: Values in place of the baseline's, by the names of the role's variables without their prefix; empty for the baseline.
Changes = dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class SearchOption:
    """A setting with the values to try.

    Attributes:
        name: of the role's variable, without its prefix.
        current: the baseline's value.
        lower: values with less of it than the baseline has, the nearest first.
        higher: values with more of it, the nearest first.
        why: what more of it gives and costs.
    """

    name: str
    current: t.Any
    lower: tuple[t.Any, ...]
    higher: tuple[t.Any, ...]
    why: str

    @property
    def values(self) -> tuple[t.Any, ...]:
        """All of them, from the least to the most, with the baseline's in its place."""
        return (*reversed(self.lower), self.current, *self.higher)


def search_space(
    engine: str, baseline: t.Mapping[str, t.Any], lossy: bool, without: t.Collection[str] = ()
) -> list[SearchOption]:
    """The settings to vary, the most promising first.

    Args:
        engine: one of ENGINES.
        baseline: the profile's settings.
        lossy: whether those that decide what the model answers may vary, too.
        without: settings to leave out.
    """
    found = []
    for tunable in ENGINES[check_engine(engine)].tunables:
        if tunable.name in without or tunable.name not in baseline or (tunable.lossy and not lossy):
            continue
        option = _option(tunable, baseline[tunable.name])
        if option.lower or option.higher:
            found.append(option)
    return found


def probes(space: t.Sequence[SearchOption]) -> list[Changes]:
    """The baseline, and a change of each setting: what these make of the options shows which of them have an effect."""
    return [{}, *({option.name: (option.lower + option.higher)[0]} for option in space)]


def without_effect(space: t.Sequence[SearchOption], described: t.Sequence[t.Any]) -> list[str]:
    """The settings that change nothing, because a variable that is set precedes every profile.

    Args:
        space: the settings.
        described: the engine's options for each of probes().
    """
    return [option.name for option, options in zip(space, described[1:]) if options == described[0]]


def described(engine: str, changes: t.Mapping[str, t.Any]) -> str:
    """Changes, for a person."""
    said = [f"{engine}_{name} {_said(value)}" for name, value in changes.items()]
    return ", ".join(said) or "as it is"


def _said(value: t.Any) -> str:
    return "the engine's own" if value is None else str(value)


def _option(tunable: Tunable, current: t.Any) -> SearchOption:
    place = _number(current)
    if place is None and current is None:
        place = tunable.own
    if place is not None and all(_number(value) is not None for value in tunable.values):
        numbers = [(float(value), value) for value in tunable.values]
        lower = tuple(value for number, value in reversed(numbers) if number < place)
        higher = tuple(value for number, value in numbers if number > place)
        return SearchOption(tunable.name, current, lower, higher, tunable.why)
    if current in tunable.values:
        index = tunable.values.index(current)
        return SearchOption(
            tunable.name, current, tuple(reversed(tunable.values[:index])), tunable.values[index + 1 :], tunable.why
        )
    # Where the baseline stands among them is not known.
    return SearchOption(tunable.name, current, (), tunable.values, tunable.why)


def _number(value: t.Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
