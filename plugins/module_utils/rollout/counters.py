# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What a host has counted since its processes began: its edge's answers, and its engines' latencies. Pure."""

from __future__ import annotations

import math
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.edge import state
from ansible_collections.inference.fleet.plugins.module_utils.engines.metrics import Buckets, latencies

_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx", "other")

EdgeRows = t.Sequence[t.Mapping[str, str]]


def edge_counters(rows: EdgeRows) -> dict[str, int]:
    """The answers from behind an edge, and how many of them were errors: 5xx, or cut by the instance.

    Args:
        rows: HAProxy's statistics. What the edge refuses by itself (keys, drained) is not included.
    """
    backends = _backends(rows)
    answers = sum(_number(row, f"hrsp_{name}") for row in backends for name in _CLASSES)
    errors = sum(_number(row, name) for row in backends for name in ("hrsp_5xx", "srv_abrt"))
    return {"answers": answers, "errors": min(errors, answers)}


def find_indexes(rows: EdgeRows) -> list[int]:
    """The indexes of the instances behind an edge."""
    found = {state.server_index(row.get("svname", "")) for row in rows if _is_instances(row)}
    return sorted(index for index in found if index is not None)


def instance_counters(text: str) -> dict[str, list[list[float | None]]] | None:
    """The latencies of an engine with this exposition, as JSON has them; None where it has none."""
    found = latencies(text)
    return None if found is None else {"ttft": dump(found[0]), "itl": dump(found[1])}


def dump(buckets: Buckets) -> list[list[float | None]]:
    """A histogram as pairs in order; the infinite bound is None, which JSON lacks."""
    return [[bound if math.isfinite(bound) else None, count] for bound, count in sorted(buckets.items())]


def load_buckets(pairs: t.Any) -> Buckets:
    """The histogram that dump() wrote; empty for anything else."""
    try:
        return {math.inf if bound is None else float(bound): float(count) for bound, count in pairs or []}
    except (TypeError, ValueError):
        return {}


def _backends(rows: EdgeRows) -> list[t.Mapping[str, str]]:
    return [row for row in rows if row.get("svname") == "BACKEND" and _is_instances(row)]


def _is_instances(row: t.Mapping[str, str]) -> bool:
    return row.get("pxname", "").startswith(state.BACKEND_PREFIX)


def _number(row: t.Mapping[str, str], name: str) -> int:
    value = row.get(name) or "0"
    return int(value) if value.isdigit() else 0
