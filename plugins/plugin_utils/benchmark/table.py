# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Records side by side: rows for the terminal and the page. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.benchmark.figures import MORE_IS_BETTER
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark.compare import (
    Difference,
    RepeatedFigure,
    compare,
    difference,
    same_load,
    spread,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark.cost import most_tokens, usd_per_million
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark.scenarios import SCENARIOS, title

NOTHING = "-"


class ShownFigure(t.NamedTuple):
    """A figure as people read it: its name, its unit, and the factor to it."""

    name: str
    title: str
    factor: float
    digits: int


_FIRST = ShownFigure("first_token", "first token, ms", 1000, 0)
_LOAD = (
    _FIRST,
    ShownFigure("first_token_p95", "first token p95, ms", 1000, 0),
    ShownFigure("between_tokens", "between tokens, ms", 1000, 1),
    ShownFigure("between_tokens_p95", "between tokens p95, ms", 1000, 1),
    ShownFigure("tokens_per_second", "tokens/s", 1, 0),
    ShownFigure("requests_per_second", "requests/s", 1, 2),
)
_SPECIAL = {
    "conversation": (ShownFigure("seconds", "all turns, s", 1, 2), _FIRST),
    "document": (
        ShownFigure("first_asked", "first question, ms", 1000, 0),
        ShownFigure("asked_again", "asked again, ms", 1000, 0),
    ),
    "picture": (_FIRST, ShownFigure("seconds", "answer, s", 1, 2)),
    "long": (_FIRST, ShownFigure("between_tokens", "between tokens, ms", 1000, 1)),
}


@dataclasses.dataclass(frozen=True)
class FigureRow:
    """A line: a figure of a scenario on each measured instance.

    Attributes:
        scenario: its title, with what is particular about its load.
        figure: the figure's title.
        values: one for each record.
        changes: for each record, the difference to its previous one; empty where there is none.
        against: the difference of the second record to the first; empty unless there are two of the same load.
        numbers: the medians, for bars.
    """

    scenario: str
    figure: str
    values: list[str]
    changes: list[str]
    against: str
    numbers: list[float | None]


def shown_figures(scenario: str) -> tuple[ShownFigure, ...]:
    """The figures of a scenario in their order."""
    return _SPECIAL.get(scenario, _LOAD)


def names(records: t.Iterable[t.Mapping[str, t.Any]]) -> list[str]:
    """The scenarios of the records in their order; those of other concurrencies by their number."""
    found = {name for record in records for name in record.get("measured") or {}}
    order = {one.name: number for number, one in enumerate(SCENARIOS)}
    at = {name: int(name[3:]) for name in found if name.startswith("at_") and name[3:].isdigit()}
    # The load of N at once before all others.
    return sorted(found, key=lambda name: (name not in at, at.get(name, 0), order.get(name, len(order)), name))


def figure_rows(
    records: t.Sequence[t.Mapping[str, t.Any]], before: t.Sequence[t.Mapping[str, t.Any] | None]
) -> list[FigureRow]:
    """The rows of records side by side.

    Args:
        records: of one run.
        before: the previous one of each; None for none.
    """
    changes = [compare(old, new) if old else {} for old, new in zip(before, records)]
    rows = []
    for name in names(records):
        measured = [(record.get("measured") or {}).get(name) for record in records]
        for figure in shown_figures(name):
            found = [spread(one, figure.name) if one else None for one in measured]
            if not any(found):
                continue
            rows.append(
                FigureRow(
                    scenario=_titled(name, measured),
                    figure=figure.title,
                    values=[shown_value(one, figure) if one else NOTHING for one in found],
                    changes=[_said(own.get(name, {}).get(figure.name)) for own in changes],
                    against=_against(measured, found, figure.name),
                    numbers=[one.middle * figure.factor if one else None for one in found],
                )
            )
    return rows


def _against(
    measured: t.Sequence[t.Mapping[str, t.Any] | None], found: t.Sequence[RepeatedFigure | None], name: str
) -> str:
    if len(measured) != 2 or not all(found) or not same_load(measured[0] or {}, measured[1] or {}):
        return ""
    first, second = found
    return _said(difference(first, second, MORE_IS_BETTER[name])) if first and second else ""


def _titled(name: str, measured: t.Sequence[t.Mapping[str, t.Any] | None]) -> str:
    tokens = max((int((one or {}).get("prompt_tokens") or 0) for one in measured), default=0)
    return f"{title(name)} ({tokens} tokens)" if name in ("document", "long") and tokens else title(name)


def shown_value(figure: RepeatedFigure, shown: ShownFigure) -> str:
    """A figure with half of the range of its repeats."""
    middle = f"{figure.middle * shown.factor:.{shown.digits}f}"
    # A single repeat has no spread.
    return middle if figure.count < 2 else f"{middle} ±{figure.width / 2 * shown.factor:.{shown.digits}f}"


def _said(found: Difference | None) -> str:
    return found.said if found else ""


def further_rows(records: t.Sequence[t.Mapping[str, t.Any]]) -> list[tuple[str, list[str]]]:
    """What is of a whole record: memory, power, cost."""
    rows = [
        ("GPU memory at a prompt of 1 K, GiB", [_gpu(record, "at_1", "gpu_memory_gib", 1) for record in records]),
        ("GPU memory at the longest context, GiB", [_gpu(record, "long", "gpu_memory_gib", 1) for record in records]),
        ("watts at the most tokens/s", [_watts(record) for record in records]),
        ("$/h of its GPUs", [_money(record.get("usd_per_hour"), 3) for record in records]),
        ("$ for a million tokens", [_money(usd_per_million(record), 2) for record in records]),
    ]
    return [(title_of, values) for title_of, values in rows if set(values) - {NOTHING}]


def notes(records: t.Sequence[t.Mapping[str, t.Any]]) -> list[str]:
    """What a reader of the figures has to know: failed requests, scenarios that were left out, missing readings."""
    lines = []
    for record in records:
        where = label(record)
        for name, one in (record.get("measured") or {}).items():
            if one.get("failed") or not one.get("repeats"):
                lines.append(
                    f"{where}, {title(name)}: {one.get('failed', 0)} of {one.get('requests', 0)} requests failed "
                    f"({one.get('problem') or 'no reason given'})."
                )
        left = [f"{title(name)} ({why})" for name, why in (record.get("left_out") or {}).items()]
        lines += [f"{where}, not measured: {'; '.join(left)}."] if left else []
        missing = {one.get("gpu_problem") for one in (record.get("measured") or {}).values()} - {None, ""}
        lines += (
            [f"{where}, no memory and no power of a GPU: {'; '.join(sorted(map(str, missing)))}."] if missing else []
        )
        if usd_per_million(record) is None:
            lines.append(f"{where}, no $ for a million tokens: {_no_price(record)}.")
    return lines


def label(record: t.Mapping[str, t.Any]) -> str:
    """Host and instance."""
    return f"{record['host']} {record['instance']}"


def described(record: t.Mapping[str, t.Any]) -> str:
    """What runs there."""
    words = [f"{record.get('engine')} {record.get('version')}", str(record.get("model") or "")]
    words += [f"profile {record['profile']}"] if record.get("profile") else []
    words += [str(record["hardware"])] if record.get("hardware") else []
    return ", ".join(filter(None, words)) + (", beside clients' requests" if record.get("live") else "")


def _no_price(record: t.Mapping[str, t.Any]) -> str:
    if record.get("live"):
        return "it was measured beside clients' requests"
    if most_tokens(record) is None:
        return "no tokens/s were measured"
    return str(record.get("price_problem") or "the price of the host is not known (fleet_hourly_price)")


def _gpu(record: t.Mapping[str, t.Any], scenario: str, figure: str, digits: int) -> str:
    value = (((record.get("measured") or {}).get(scenario) or {}).get("gpu") or {}).get(figure)
    return f"{value:.{digits}f}" if isinstance(value, (int, float)) else NOTHING


def _watts(record: t.Mapping[str, t.Any]) -> str:
    most = most_tokens(record)
    return _gpu(record, most[0], "watts", 0) if most else NOTHING


def _money(value: t.Any, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, (int, float)) else NOTHING
