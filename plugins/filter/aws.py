# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A filter about what AWS says of hosts."""

from __future__ import annotations

import typing as t


def aws_rows(
    rows: t.Iterable[t.Mapping[str, t.Any]], hosts: t.Mapping[str, t.Mapping[str, str]]
) -> list[dict[str, t.Any]]:
    """See aws_rows.yml."""
    waiting = dict(hosts)
    return [{**row, **waiting.pop(row["host"], {})} for row in rows]


class FilterModule:
    """Ansible's view of the filter."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"aws_rows": aws_rows}
