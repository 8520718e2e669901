# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for times and sizes as people write them; the logic is in module_utils/variables/units.py."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.inference.fleet.plugins.plugin_utils.variables import units


def seconds(value: t.Any) -> t.Any:
    """A time in seconds."""
    try:
        return units.seconds(value)
    except ValueError as error:
        raise AnsibleFilterError(f"{value!r} is no time: {error}.") from error


def size(value: t.Any, unit: str) -> t.Any:
    """A size in a unit."""
    try:
        return units.size(value, unit)
    except ValueError as error:
        raise AnsibleFilterError(f"{value!r} is no size: {error}.") from error


class FilterModule:
    """Ansible's view of the filters."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"seconds": seconds, "size": size}
