# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about the memory fit; the logic is in plugin_utils/memory/plan.py."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.memory.plan import (
    fit_answers,
    fit_cases,
    memory_rows,
    misfits,
)


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {
            "fit_answers": fit_answers,
            "fit_cases": fit_cases,
            "memory_rows": memory_rows,
            "misfits": misfits,
        }
