# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: table
short_description: Lays a list of dicts out as an aligned table
version_added: 0.1.0
description:
  - Gives the lines of a plain-text table, a header first and then one line for each dict, for a person at a terminal.
  - Numbers are aligned right, all else left. A missing or empty value is a dash.
positional: columns
options:
  _input:
    description: The rows.
    type: list
    elements: dict
    required: true
  columns:
    description:
      - The columns from left to right. Each is a key, or a dict with C(key) and any of C(title) (default the key),
        C(align) (V(left) or V(right)) and C(width) (the widest it may get; longer text ends in an ellipsis).
      - A key with dots reaches into dicts (C(driver.version)).
    type: list
    elements: raw
    required: true
author:
  - inference.fleet contributors (@inference-fleet)
"""

EXAMPLES = r"""
- name: Show the fleet
  ansible.builtin.debug:
    msg: "{{ rows | inference.fleet.table(['host', {'key': 'driver.version', 'title': 'driver'}, 'waiting']) }}"
  vars:
    rows:
      - { host: inference-1, driver: { version: 595.71.05 }, waiting: 0 }
      - { host: inference-2, waiting: 12 }
# host         driver     waiting
# inference-1  595.71.05        0
# inference-2  -               12
"""

RETURN = r"""
_value:
  description: The lines of the table.
  type: list
  elements: str
"""

import typing as t
import unicodedata
from collections.abc import Mapping

from ansible.errors import AnsibleFilterError

_GAP = "  "


def table(rows: t.Iterable[Mapping[str, t.Any]], columns: t.Iterable[str | Mapping[str, t.Any]]) -> list[str]:
    """Lay ``rows`` out under ``columns``; see DOCUMENTATION."""
    wanted = [_column(column) for column in columns]
    if not wanted:
        raise AnsibleFilterError("inference.fleet.table: columns is empty. Name at least one column.")
    lines = [[column["title"] for column in wanted]]
    cells: list[list[t.Any]] = []
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise AnsibleFilterError(f"inference.fleet.table: row {number} is {row!r}. Every row must be a dict.")
        values = [_lookup(row, column["key"]) for column in wanted]
        cells.append(values)
        lines.append([_shorten(_text(value), column["width"]) for value, column in zip(values, wanted)])
    widths = [max(_width(line[index]) for line in lines) for index in range(len(wanted))]
    right = [
        (column["align"] or ("right" if _are_numbers([values[index] for values in cells]) else "left")) == "right"
        for index, column in enumerate(wanted)
    ]
    return [
        _GAP.join(_pad(cell, width, to_right) for cell, width, to_right in zip(line, widths, right)).rstrip()
        for line in lines
    ]


def _column(column: str | Mapping[str, t.Any]) -> dict[str, t.Any]:
    """A column with all its settings."""
    settings: dict[str, t.Any] = {"title": None, "align": None, "width": None}
    settings.update({"key": column} if isinstance(column, str) else column)
    unknown = set(settings) - {"key", "title", "align", "width"}
    if unknown or not isinstance(settings.get("key"), str) or settings["align"] not in (None, "left", "right"):
        raise AnsibleFilterError(
            f"inference.fleet.table: column {column!r} is not valid. "
            "Give a key, or a dict of key, title, align (left or right) and width."
        )
    settings["title"] = str(settings["title"] if settings["title"] is not None else settings["key"])
    return settings


def _lookup(row: Mapping[str, t.Any], key: str) -> t.Any:
    """The value of ``key``, whole or by its path; None where there is none."""
    if key in row:
        return row[key]
    value: t.Any = row
    for step in key.split("."):
        if not isinstance(value, Mapping) or step not in value:
            return None
        value = value[step]
    return value


def _are_numbers(values: t.Iterable[t.Any]) -> bool:
    """Whether a column holds only numbers; missing values do not count."""
    present = [value for value in values if value is not None and value != ""]
    return bool(present) and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in present)


def _text(value: t.Any) -> str:
    """A value in one line."""
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value)
    return " ".join(str(value).split()) or "-"


def _width(text: str) -> int:
    """How many columns a terminal needs for ``text``."""
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def _shorten(text: str, width: int | None) -> str:
    if width is None or _width(text) <= int(width):
        return text
    while text and _width(text) > int(width) - 1:
        text = text[:-1]
    return f"{text}…"


def _pad(text: str, width: int, to_right: bool) -> str:
    blanks = " " * (width - _width(text))
    return blanks + text if to_right else text + blanks


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"table": table}
