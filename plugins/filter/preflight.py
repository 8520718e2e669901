# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for checks before any change; the logic is in module_utils."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.engines.programs import wanted_programs
from ansible_collections.inference.fleet.plugins.module_utils.instances.preflight import variable_problems


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"variable_problems": variable_problems, "wanted_programs": wanted_programs}
