# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about gates' results."""

from __future__ import annotations

import typing as t


def gate_lines(results: t.Mapping[str, t.Mapping[str, t.Any]]) -> list[str]:
    """See gate_lines.yml."""
    lines = []
    for host, result in results.items():
        message = str(result.get("msg") or "UNREACHABLE").splitlines()
        # One line for each service that passed; a failure's message is too long for a list.
        lines += [f"{host}: {line}" for line in (message if result.get("passed") else message[:1])]
    return lines


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"gate_lines": gate_lines}
