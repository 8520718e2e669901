# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The page of a benchmark: its columns side by side, in one self-contained file. Pure: records in, HTML out."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark import table
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark.compare import BETTER, WORSE
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark.cost import most_tokens, usd_per_million
from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark.scenarios import title
from ansible_collections.inference.fleet.plugins.plugin_utils.report.template import render

Records = t.Sequence[t.Mapping[str, t.Any]]

#: The figures with bars: what people compare first.
_BARS = ("tokens/s", "first token, ms", "between tokens, ms")


class ChartBar(t.NamedTuple):
    """A bar: its column, its value, and its length in percent of the longest one of the chart."""

    column: int
    value: str
    length: float


class ChartGroup(t.NamedTuple):
    """The bars of a scenario."""

    scenario: str
    bars: list[ChartBar]


def render_page(run: str, at: str, records: Records, before: t.Sequence[t.Mapping[str, t.Any] | None]) -> str:
    """The page of a run.

    Args:
        run: its id.
        at: when it ended, UTC.
        records: one for each measured instance.
        before: the previous record of each; None for none.
    """
    rows = table.figure_rows(records, before)
    return render(
        "benchmark.html.j2",
        run=run,
        at=at,
        columns=[
            {
                "label": table.label(record),
                "runs": table.described(record),
                "most": _most(record),
                "usd": _price(record),
            }
            for record in records
        ],
        whats=[
            [
                table.label(record),
                table.described(record),
                str(record.get("release") or table.NOTHING),
                str(record.get("context") or table.NOTHING),
                str((old or {}).get("at") or table.NOTHING),
            ]
            for record, old in zip(records, before)
        ],
        rows=rows,
        further=table.further_rows(records),
        charts=[(name, groups) for name in _BARS if (groups := bar_groups(rows, name))],
        notes=table.notes(records),
        settings=_settings(records),
        kind=change_kind,
    )


def bar_groups(rows: t.Iterable[table.FigureRow], figure: str) -> list[ChartGroup]:
    """The bars of a figure, one group for each scenario; a bar that has no value is left out."""
    own = [row for row in rows if row.figure == figure]
    longest = max((number for row in own for number in row.numbers if number is not None), default=0.0)
    if not longest:
        return []
    return [
        ChartGroup(
            row.scenario,
            [
                ChartBar(column, row.values[column], round(100 * number / longest, 1))
                for column, number in enumerate(row.numbers)
                if number is not None
            ],
        )
        for row in own
    ]


def change_kind(said: str) -> str:
    """The class of a difference."""
    if said.endswith(BETTER):
        return "ok"
    return "bad" if said.endswith(WORSE) else "muted"


def _most(record: t.Mapping[str, t.Any]) -> tuple[str, str]:
    most = most_tokens(record)
    return (f"{most[1]:.0f}", title(most[0])) if most else (table.NOTHING, "not measured")


def _price(record: t.Mapping[str, t.Any]) -> str:
    usd = usd_per_million(record)
    return f"{usd:.2f}" if usd is not None else table.NOTHING


def _settings(records: Records) -> list[list[str]]:
    """How each load was made."""
    loads: dict[str, list[str]] = {}
    for record in records:
        for name, one in (record.get("measured") or {}).items():
            load = one.get("scenario") or {}
            words = [
                title(name),
                str(load.get("concurrency", table.NOTHING)),
                f"{one.get('requests', 0)} in {len(one.get('repeats') or [])} repeats",
                str(load.get("prompt_tokens", table.NOTHING)),
                str(load.get("output_tokens", table.NOTHING)),
                _particular(load),
            ]
            loads.setdefault(" ".join(words), words)
    return list(loads.values())


def _particular(load: t.Mapping[str, t.Any]) -> str:
    said = []
    if (load.get("turns") or 1) > 1:
        said.append(f"{load['turns']} turns")
    if load.get("document_tokens"):
        said.append(f"a document of {load['document_tokens']} tokens in front")
    if load.get("picture"):
        said.append(f"a picture of {load['picture']}")
    return ", ".join(said) or table.NOTHING
