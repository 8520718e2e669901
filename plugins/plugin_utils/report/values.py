# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Converts values of a journal, which may have any type, to the expected one, or to an empty one. Pure."""

from __future__ import annotations

import typing as t


def as_number(value: t.Any) -> float | None:
    """A number; None for anything else."""
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15
    return float(value) if usable else None


def as_integer(value: t.Any) -> int | None:
    """A whole number; None where there is none."""
    number = as_number(value)
    return None if number is None else int(number)


def as_text(value: t.Any) -> str:
    """Anything as text; nothing for None."""
    return "" if value is None else str(value)


def as_list(value: t.Any) -> list[t.Any]:
    """A list."""
    return value if isinstance(value, list) else []


def as_dict(value: t.Any) -> dict[str, t.Any]:
    """A dictionary whose keys are text."""
    return {str(name): item for name, item in value.items()} if isinstance(value, dict) else {}


def as_dicts(value: t.Any) -> list[dict[str, t.Any]]:
    """The dictionaries of a list."""
    return [as_dict(item) for item in as_list(value) if isinstance(item, dict)]
