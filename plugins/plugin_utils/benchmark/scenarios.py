# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The scenarios of a benchmark, and which of them an instance can take. Pure.

SCENARIOS is the only list. A new one needs a line there, and a function that makes its load from the settings.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.benchmark.client import Scenario, picture_size
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

#: A scenario of any concurrency; those of SCENARIOS are the ones that run when none is named.
_AT = re.compile(r"at_(\d+)")
#: The chat template's tokens, and what a tokenizer makes more of a text than was asked for.
_TEMPLATE_TOKENS, _INEXACT = 64, 0.02
#: The largest number of pixels that a token of a picture stands for in the models that are served is 32 x 32; smaller
#: patches make more tokens.
_PIXELS_A_TOKEN = 28 * 28


@dataclasses.dataclass(frozen=True)
class BenchmarkSettings:
    """The operator's settings; the names are those of role benchmark's variables."""

    scenarios: tuple[str, ...] = ()
    requests: int = 4
    prompt_tokens: int = 1024
    output_tokens: int = 128
    turns: int = 10
    document_tokens: int = 10000
    document_questions: int = 5
    long_tokens: int = 131072
    picture: str = "1280x720"
    repeats: int = 3
    live_concurrency: int = 4
    keep: int = 10


class ScenarioKind(t.NamedTuple):
    """A scenario.

    Attributes:
        name: as variables and records have it.
        title: as people read it.
        load: makes the load from the settings and the context of an instance, which is 0 where it is not known.
    """

    name: str
    title: str
    load: t.Callable[[BenchmarkSettings, int], Scenario]


@dataclasses.dataclass
class ScenarioPlan:
    """What is measured on an instance.

    Attributes:
        scenarios: the loads, in their order.
        left_out: why others are not measured, by name.
        problems: why the run must not begin.
    """

    scenarios: list[Scenario] = dataclasses.field(default_factory=list)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)


def _at(concurrency: int) -> ScenarioKind:
    def load(settings: BenchmarkSettings, _context: int) -> Scenario:
        # With fewer than two rounds the start and the end of the load are most of it.
        requests = max(concurrency * settings.requests, 2)
        tokens = settings.prompt_tokens, settings.output_tokens
        return Scenario(f"at_{concurrency}", concurrency, requests, concurrency, *tokens)

    return ScenarioKind(f"at_{concurrency}", f"{concurrency} at once", load)


def _picture(settings: BenchmarkSettings, _context: int) -> Scenario:
    tokens = min(64, settings.prompt_tokens), settings.output_tokens
    return Scenario("picture", 1, max(settings.requests, 2), 1, *tokens, picture=settings.picture)


def _conversation(settings: BenchmarkSettings, _context: int) -> Scenario:
    tokens = max(1, settings.prompt_tokens // 8), settings.output_tokens
    return Scenario("conversation", 1, 1, 1, *tokens, turns=settings.turns)


def _document(settings: BenchmarkSettings, _context: int) -> Scenario:
    tokens = min(64, settings.prompt_tokens), settings.output_tokens
    # No warm-up: it would read the document.
    return Scenario("document", 1, settings.document_questions, 0, *tokens, document_tokens=settings.document_tokens)


def _long(settings: BenchmarkSettings, context: int) -> Scenario:
    room = min(settings.long_tokens, context or settings.long_tokens) - settings.output_tokens - _TEMPLATE_TOKENS
    return Scenario("long", 1, 1, 0, max(1, int(room * (1 - _INEXACT))), settings.output_tokens)


#: In their order.
SCENARIOS: tuple[ScenarioKind, ...] = (
    *map(_at, (1, 8, 32, 64)),
    ScenarioKind("picture", "one picture", _picture),
    ScenarioKind("conversation", "a conversation", _conversation),
    ScenarioKind("document", "a document, asked again", _document),
    ScenarioKind("long", "the longest context", _long),
)


def find(name: str) -> ScenarioKind | None:
    """A scenario by its name; None where there is none."""
    found = next((one for one in SCENARIOS if one.name == name), None)
    number = _AT.fullmatch(name)
    return found or (_at(int(number[1])) if number and int(number[1]) else None)


def title(name: str) -> str:
    """A scenario's title."""
    found = find(name)
    return found.title if found else name


def read_settings(given: t.Mapping[str, t.Any]) -> BenchmarkSettings:
    """The settings from the role's variables.

    Raises:
        FleetError: with every value that is wrong, and what is valid.
    """
    problems = []
    names = given.get("scenarios") or []
    # From the command line it is a text: -e benchmark_scenarios=at_1,document.
    names = [name.strip() for name in names.split(",")] if isinstance(names, str) else [str(name) for name in names]
    for name in filter(None, names):
        if _AT.fullmatch(name) and not find(name):
            problems.append(f"benchmark_scenarios has {name}: the number of requests at once starts at 1.")
        elif not find(name):
            known = ", ".join(one.name for one in SCENARIOS)
            problems.append(f"benchmark_scenarios has {name!r}. Valid are {known}, and at_N for any number N at once.")
    numbers: dict[str, int] = {}
    for field in dataclasses.fields(BenchmarkSettings):
        if field.name in ("scenarios", "picture") or field.name not in given:
            continue
        value = _whole(given[field.name])
        least = {"turns": 2, "document_questions": 2}.get(field.name, 1)
        if value is None or value < least:
            problems.append(f"benchmark_{field.name} is {given[field.name]!r}; it must be a whole number from {least}.")
        else:
            numbers[field.name] = value
    picture = str(given.get("picture", BenchmarkSettings.picture))
    if not picture_size(picture):
        problems.append(f"benchmark_picture is {picture!r}; it must be width and height, such as 1280x720.")
    if problems:
        raise FleetError(" ".join(problems))
    return BenchmarkSettings(scenarios=tuple(dict.fromkeys(filter(None, names))), picture=picture, **numbers)


def plan(settings: BenchmarkSettings, context: int, pictures: bool, live: bool) -> ScenarioPlan:
    """What is measured on an instance.

    Args:
        settings: the operator's.
        context: the tokens of the longest request; 0 where it is not known.
        pictures: whether the model takes pictures.
        live: whether clients' requests run beside it, so that the concurrency has a bound.
    """
    named = [kind for kind in map(find, settings.scenarios) if kind]
    planned = ScenarioPlan()
    for kind in named or SCENARIOS:
        load = kind.load(settings, context)
        why = _unfit(load, context, pictures, settings.live_concurrency if live else 0)
        if not why:
            planned.scenarios.append(load)
        elif named:
            planned.problems.append(f"{kind.name} cannot be measured: {why}.")
        else:
            planned.left_out[kind.name] = why
    if not planned.scenarios and not planned.problems:
        planned.problems.append(f"no scenario fits: {'; '.join(dict.fromkeys(planned.left_out.values()))}.")
    return planned


def needed_tokens(load: Scenario) -> int:
    """The tokens of the longest request of a load, with what a tokenizer may add."""
    turns = load.turns * (load.prompt_tokens + load.output_tokens)
    size = picture_size(load.picture)
    pixels = size[0] * size[1] if size else 0
    return int((turns + load.document_tokens) * (1 + _INEXACT)) + _TEMPLATE_TOKENS + -(-pixels // _PIXELS_A_TOKEN)


def _unfit(load: Scenario, context: int, pictures: bool, bound: int) -> str:
    """Why an instance cannot take a load; empty where it can."""
    if load.picture and not pictures:
        return "the model takes no pictures (gate_checks has no image)"
    if bound and load.concurrency > bound:
        return f"{load.concurrency} at once are more than benchmark_live_concurrency ({bound})"
    # The long one is made to fit.
    if load.name == "long":
        enough = load.prompt_tokens > load.output_tokens
        return "" if enough else f"the context of {context} tokens has no room for a prompt of its own"
    needed = needed_tokens(load)
    if context and needed > context:
        return f"it needs {needed} tokens, and the context is {context}"
    return ""


def _whole(value: t.Any) -> int | None:
    """A whole number, also where it comes from the command line; None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        return int(str(value).strip())
    except ValueError:
        return None
