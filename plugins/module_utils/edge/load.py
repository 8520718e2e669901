# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""An instance's load by the edge's own count. Pure. Programs that know no engine read the edge's state without it."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.edge.state import BACKEND_PREFIX, POOLS, server_name
from ansible_collections.inference.fleet.plugins.module_utils.engines.metrics import Load

#: Concurrent requests of an edge that leads into the pools by itself. HAProxy bounds its connections, and no requests.
FRONT_LIMIT = 100_000


def front(rows: t.Iterable[t.Mapping[str, str]]) -> dict[str, int] | None:
    """The requests of an edge that leads into the pools by itself; None where it leads to instances."""
    for row in rows:
        if row["pxname"].startswith(BACKEND_PREFIX) and row.get("svname") == POOLS:
            return {"running": int(row.get("scur") or 0), "waiting": 0, "limit": FRONT_LIMIT}
    return None


def load(rows: t.Iterable[t.Mapping[str, str]], index: int, engine: str) -> Load | None:
    """The requests of an instance without counters of its own; None where the edge does not know it."""
    for row in rows:
        if row["pxname"].startswith(BACKEND_PREFIX) and row.get("svname") == server_name(index):
            return Load(engine, int(row.get("scur") or 0), int(row.get("qcur") or 0), None)
    return None
