# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Whether a GPU has failed in a way that no restart of an engine repairs."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.gpu.host import Sources, read_xids
from ansible_collections.inference.fleet.plugins.module_utils.gpu.kernel import XidEvent
from ansible_collections.inference.fleet.plugins.module_utils.gpu.reason import FAILED
from ansible_collections.inference.fleet.plugins.module_utils.gpu.xid import MEANINGS, UNKNOWN

#: Seconds for the kernel log: a host that hangs must not hold up the watchdog.
_TIMEOUT = 5.0


def gpu_problem(sources: Sources = Sources(timeout=_TIMEOUT)) -> str:  # noqa: B008 - it is immutable
    """The last error of a GPU since boot after which no work should be sent to it; empty for none."""
    return worst(read_xids(sources) or [])


def worst(events: t.Sequence[XidEvent]) -> str:
    """The last of the fatal ones, for people; empty for none. Pure."""
    fatal = [event for event in events if MEANINGS.get(event.xid, UNKNOWN).severity == FAILED]
    if not fatal:
        return ""
    event = fatal[-1]
    return f"the kernel reports XID {event.xid} of GPU {event.bus_id} ({MEANINGS[event.xid].text})"
