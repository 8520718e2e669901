# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Waiting for an instance to serve, and saying why when it does not.

The clock, systemd, the journal and HTTP are handed in, so that the decisions can be tested without them.
"""

from __future__ import annotations

import http.client
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils._engine_log import explain
from ansible_collections.inference.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils._systemd import UnitState, journal, unit_state

#: Seconds between two looks.
INTERVAL = 0.5


def health_status(port: int, timeout: float = 5.0) -> int | None:
    """The HTTP status of an instance's /health; None where nothing answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def wait_until_ready(
    unit: str,
    port: int,
    timeout: float,
    *,
    state_of: t.Callable[[str], UnitState] = unit_state,
    health_of: t.Callable[[int], int | None] = health_status,
    journal_of: t.Callable[..., list[str]] = journal,
    now: t.Callable[[], float] = time.monotonic,
    wait: t.Callable[[float], None] = time.sleep,
) -> float:
    """Wait until an instance's /health is 200 while its unit stays up.

    Args:
        unit: the unit, started.
        port: the instance's port.
        timeout: seconds; the engine's start is long, so this is a limit and not an estimate.

    Returns:
        Seconds that it took.

    Raises:
        FleetError: the unit ended or restarted (with the reason from its journal), or the time is over.
    """
    began = now()
    wall = time.time()
    first = state_of(unit)
    if first.load == "not-found":
        raise FleetError(f"There is no unit {unit} on the host. Run site.yml, which installs it.")
    while True:
        state = state_of(unit)
        if state.restarts > first.restarts or state.active not in ("active", "activating", "reloading"):
            raise _ended(unit, state, journal_of(unit, since=wall - 20))
        # The port may still be answered by another process while this one starts: only an active unit counts.
        if state.is_running and health_of(port) == 200:
            return now() - began
        if now() - began > timeout:
            raise _late(unit, timeout, journal_of(unit, since=wall - timeout - 60))
        wait(INTERVAL)


def _ended(unit: str, state: UnitState, lines: list[str]) -> FleetError:
    why = explain(lines)
    kind = why.kind if why else "unknown"
    text = str(why) if why else f"Its last words: {' | '.join(lines[-5:]) or 'none'}"
    return FleetError(
        f"{unit} ended while it started (result {state.result}, status {state.status}): {text} "
        f"`journalctl -u {unit}` on the host has the whole story.",
        reason=kind,
        journal=lines[-40:],
    )


def _late(unit: str, timeout: float, lines: list[str]) -> FleetError:
    why = explain(lines)
    text = str(why) if why else f"Its last words: {' | '.join(lines[-5:]) or 'none'}"
    return FleetError(
        f"{unit} runs but has not served within {timeout:.0f} s: {text} "
        "If it is only slow (a first start compiles kernels), raise engine_start_timeout.",
        reason=why.kind if why else "timeout",
        journal=lines[-40:],
    )
