# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters about benchmarks; the logic is in plugin_utils/benchmark."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark import records


def benchmarked_rows(rows: t.Iterable[t.Mapping[str, t.Any]], place: str) -> list[dict[str, t.Any]]:
    """See benchmarked_rows.yml."""
    return records.benchmarked_rows(rows, os.path.expanduser(place))


class FilterModule:
    """Ansible's view of the filters."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"benchmarked_rows": benchmarked_rows}
