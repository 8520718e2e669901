# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What an instance runs now and whether requests come to it, in a sentence that claims no more than was seen. Pure."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.edge.state import DRAINED, server_name


def instance_now(status: t.Mapping[str, t.Any], index: int, running: str) -> dict[str, str]:
    """The state of an instance after its change failed.

    Args:
        status: what module fleet_status returned.
        index: the instance's.
        running: the release of its process; empty where none runs.

    Returns:
        ``said``, for a person, and ``outcome``, as a rollout's record has it: a drained instance is ``drained``, any
        other ``failed``.
    """
    drain = status.get("drain") or {}
    # The host's drain counts for each of its instances.
    marks = [mark for mark in (drain, (drain.get("instances") or {}).get(server_name(index))) if mark]
    mark = next((mark for mark in marks if mark.get("state")), {})
    runs = f"It runs {running}" if running else "It does not run"
    if status.get("problems"):
        where = f", and whether requests come to it is not certain: {' '.join(status['problems'])}"
        return {"said": f"{runs}{where}", "outcome": "failed"}
    if mark.get("state") == DRAINED:
        return {"said": f"{runs} and is drained: it gets no requests.", "outcome": "drained"}
    if mark:
        return {"said": f"{runs} and is a lame duck: it still gets requests.", "outcome": "failed"}
    health = (status.get("edge") or {}).get("health")
    if running and health == 200:
        return {"said": f"{runs} and gets requests.", "outcome": "failed"}
    return {"said": f"{runs} and is not drained; the host's /health answers {health}.", "outcome": "failed"}
