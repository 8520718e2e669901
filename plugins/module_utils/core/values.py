# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Option names and values in one form, for comparison. Pure."""

from __future__ import annotations

import re
import typing as t


def plain_name(option: t.Any) -> str:
    """An option's name with dashes, as the engines' documentation has it."""
    return str(option).replace("_", "-").lstrip("-")


def typed(value: t.Any) -> t.Any:
    """The typed value of ``-e name=value``, which is always text: 4, 0.92, true.

    Otherwise the same setting from the command line and from a file would make two releases, and ``false`` would count
    as true.
    """
    if not isinstance(value, str):
        return value
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    if re.fullmatch(r"-?(0|[1-9]\d*)", value):
        return int(value)
    if re.fullmatch(r"-?(0|[1-9]\d*)\.\d+", value):
        return float(value)
    return value
