# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about an engine's variables; the logic is in module_utils/engines."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible.utils.display import Display
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.engines.options import (
    engine_kind,
    engine_options,
    engine_problems,
    tool_options,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.measured import ProfileUse
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.profiles import find_settings


def engine_profile(
    profile: str, engine: str, gpu: str = "", use: t.Mapping[str, t.Any] | None = None
) -> dict[str, t.Any]:
    """See engine_profile.yml."""
    try:
        where = ProfileUse(**{name: str(value) for name, value in (use or {}).items()})
        found = find_settings(profile, engine, gpu, where)
    except FleetError as error:
        raise AnsibleFilterError(error.message) from error
    if found.note:
        # Ansible shows it once a run.
        Display().warning(found.note)
    return found.values


class FilterModule:
    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {
            "engine_kind": engine_kind,
            "engine_options": engine_options,
            "engine_problems": engine_problems,
            "engine_profile": engine_profile,
            "engine_tool_options": tool_options,
        }
