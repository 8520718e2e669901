# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about what gates have said."""

from __future__ import annotations

import typing as t


def gate_lines(results: t.Mapping[str, t.Mapping[str, t.Any]]) -> list[str]:
    """See gate_lines.yml."""
    lines = []
    for host, result in results.items():
        told = [target["message"] for target in result.get("targets") or []] or [result.get("msg") or "UNREACHABLE"]
        lines += [f"{host}: {message.splitlines()[0]}" for message in told]
    return lines


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"gate_lines": gate_lines}
