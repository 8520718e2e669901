# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Waits for an instance to serve, and reports its progress, or why it does not serve.

The clock, systemd, the journal and HTTP are injected, so that the decisions can be tested without them.
"""

from __future__ import annotations

import dataclasses
import http.client
import os
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.processes import started_at
from ansible_collections.inference.fleet.plugins.module_utils.core.progress import PREPARING, SERVING, EngineProgress
from ansible_collections.inference.fleet.plugins.module_utils.core.systemd import UnitState, journal, unit_state
from ansible_collections.inference.fleet.plugins.module_utils.engines.log import explain
from ansible_collections.inference.fleet.plugins.module_utils.engines.progress import progress
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import kind_of_unit
from ansible_collections.inference.fleet.plugins.module_utils.instances import waiting
from ansible_collections.inference.fleet.plugins.module_utils.instances.plan import health_path
from ansible_collections.inference.fleet.plugins.module_utils.instances.waiting import Waiting
from ansible_collections.inference.fleet.plugins.module_utils.model.progress import restoring
from ansible_collections.inference.fleet.plugins.module_utils.model.units import RESTORE

#: Seconds between two checks.
INTERVAL = 0.5

#: Seconds for which a start may wait for the same GPU, port or address before that is a failure.
PATIENCE = 60

#: Waits that should be over by then, because another unit releases the resource.
_AT_ONCE = (waiting.MODEL_MISSING,)

_GOES_ON = "the start then goes on by itself"
_ADVICE = {
    waiting.GPU_HELD: f"End the process that holds it, or reset the GPU when none does; {_GOES_ON}.",
    waiting.GPU_LOST: f"playbooks/verify_gpu.yml says more, and a reboot may help; {_GOES_ON}.",
    waiting.GPU_UNKNOWN: f"Run playbooks/verify_gpu.yml, and do what it says; {_GOES_ON}.",
    waiting.PORT_HELD: f"End that process; {_GOES_ON}.",
    waiting.ADDRESS_MISSING: "Correct fleet_node_address, then run the same command again.",
    waiting.MODEL_MISSING: "`systemctl status inference-models.service` on the host shows how their download went.",
    waiting.NODES_MISSING: "Look at the instance's unit on those hosts, and at fleet_node_network.",
    waiting.RELEASE_DIFFERS: "Run site.yml for all of the instance's hosts together.",
}

#: Where systemd makes the units' runtime directories.
RUN = "/run/inference"


def health_status(port: int, path: str = "/health", timeout: float = 5.0) -> int | None:
    """The HTTP status of an instance's health check; None where nothing answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def waiting_of_unit(unit: str, state: UnitState) -> Waiting | None:
    """What the start of an instance waits for, from the state of its own programs; None for nothing.

    Raises:
        FleetError: a newer version of them wrote it.
    """
    index = unit.partition("@")[2].partition(".")[0]
    try:
        return waiting.read(os.path.join(RUN, index), state.invocation)
    except waiting.UnreadableError as error:
        raise FleetError(
            f"What {unit} waits for is not known: {error}. Run this with the version of inference.fleet that installed "
            "the host, or a newer one."
        ) from error


def port_to_check(instance: t.Mapping[str, t.Any]) -> int:
    """The port of an instance's health check; 0 where it serves no requests, and only its running can be checked."""
    return int(instance["engine_port"]) if instance.get("serves", True) else 0


def all_serve(
    instances: t.Sequence[t.Mapping[str, t.Any]],
    state_of: t.Callable[[str], UnitState] = unit_state,
    health_of: t.Callable[[int, str], int | None] = health_status,
) -> bool:
    """Whether every instance serves at this moment; False without any.

    Args:
        instances: unit, engine_port and serves of each.

    Raises:
        FleetError: systemd does not answer.
    """
    ports = {str(one["unit"]): port_to_check(one) for one in instances}
    return bool(ports) and all(_serves(unit, state_of(unit), port, health_of) for unit, port in ports.items())


@dataclasses.dataclass(frozen=True)
class Slice:
    """The progress of some units at the end of a slice.

    Attributes:
        since: Unix time at which the first slice began.
        restarts: the number of restarts of each unit at the first check.
        seconds: by unit, from ``since`` until it served.
        progress: unit, phase, text, percent and seconds of each, in the order given.
    """

    since: float
    restarts: dict[str, int]
    seconds: dict[str, float]
    progress: list[dict[str, t.Any]]


def wait_a_slice(
    ports: t.Mapping[str, int],
    timeout: float,
    length: float,
    since: float | None = None,
    restarts: t.Mapping[str, int] | None = None,
    *,
    state_of: t.Callable[[str], UnitState] = unit_state,
    health_of: t.Callable[[int, str], int | None] = health_status,
    journal_of: t.Callable[..., list[str]] = journal,
    waiting_of: t.Callable[[str, UnitState], Waiting | None] = waiting_of_unit,
    started: t.Callable[[int], float | None] = started_at,
    now: t.Callable[[], float] = time.time,
    wait: t.Callable[[float], None] = time.sleep,
) -> Slice:
    """Wait until the /health of instances is 200 while their units stay up, at most for one slice.

    Args:
        ports: the instance's port, by started unit; 0 where it serves no requests, and only its running can be checked.
        timeout: seconds for each; an engine's start is long, so this is a limit and not an estimate. Waiting for the
            weights does not count.
        length: maximum seconds of the slice.
        since, restarts: from the first slice; None in the first.

    Raises:
        FleetError: a unit exited or restarted since the first slice (with the reason from its journal), what its start
            waits for does not come, or the timeout is over.
    """
    entered = now()
    began = entered if since is None else since
    first = dict(restarts or {})
    seconds: dict[str, float] = {}
    while True:
        states = {unit: _existing(unit, state_of(unit)) for unit in ports}
        for unit, state in states.items():
            if _has_ended(unit, state, first):
                raise _ended(unit, state, journal_of(unit, since=began - 20))
            if unit not in seconds and _serves(unit, state, ports[unit], health_of):
                seconds[unit] = now() - began
        starting = [unit for unit in ports if unit not in seconds]
        waits = {unit: waiting_of(unit, states[unit]) for unit in starting}
        for unit, wait_of_it in waits.items():
            if wait_of_it and _is_blocked(states[unit], wait_of_it, now()):
                raise _blocked(unit, wait_of_it, journal_of(unit, since=began - 20))
            if _is_late(states[unit], timeout, began, now(), started):
                raise _late(unit, timeout, wait_of_it, journal_of(unit, since=now() - timeout - 60))
        left = entered + length - now()
        if not starting or left <= 0:
            break
        wait(min(INTERVAL, left))
    progress = []
    for unit, state in states.items():
        doing = _SERVING if unit in seconds else _doing(unit, state, waits[unit], state_of, journal_of, started)
        progress.append({"unit": unit, **dataclasses.asdict(doing), "seconds": round(now() - began, 1)})
    return Slice(began, first, seconds, progress)


_SERVING = EngineProgress(SERVING, "serves", 100)


def _doing(
    unit: str,
    state: UnitState,
    waits: Waiting | None,
    state_of: t.Callable[[str], UnitState],
    journal_of: t.Callable[..., list[str]],
    started: t.Callable[[int], float | None],
) -> EngineProgress:
    if state.has_job and state_of(RESTORE).active == "activating":
        return restoring()
    if waits:
        return EngineProgress(PREPARING, f"waits: {waits.what}")
    # systemd has no main process while it runs the commands before it.
    began = started(state.pid) if state.pid else None
    if began is None:
        return EngineProgress(PREPARING, f"systemd: {state.active} ({state.sub})")
    # Earlier processes of the unit ended before this one began: their lines are ignored.
    found = progress(journal_of(unit, since=began - 0.1), kind_of_unit(unit))
    return found or EngineProgress(PREPARING, "nothing in its journal yet")


def _existing(unit: str, state: UnitState) -> UnitState:
    if state.load == "not-found":
        raise FleetError(f"There is no unit {unit} on the host. Run site.yml, which installs it.")
    return state


def _has_ended(unit: str, state: UnitState, restarts: dict[str, int]) -> bool:
    """Whether it has exited since the first check without a pending job that would restart it."""
    if state.has_job:
        return False
    # While systemd waits to start it again it still reports why it exited; afterwards that is lost.
    waits_for_restart = state.sub == "auto-restart"
    restarted = state.restarts > restarts.setdefault(unit, state.restarts)
    return waits_for_restart or restarted or state.active not in ("active", "activating", "reloading")


def _is_late(
    state: UnitState, timeout: float, began: float, now: float, started: t.Callable[[int], float | None]
) -> bool:
    # A start that waits for the weights takes as long as they do, and their fetch has its own timeout.
    if state.has_job and state.active != "activating":
        return False
    process = started(state.pid) if state.pid else None
    return now - max(began, process or began) > timeout


def _is_blocked(state: UnitState, waits: Waiting, now: float) -> bool:
    """Whether the commands before the engine have waited for the same thing for too long."""
    # After that the nodes of an instance that spans hosts wait for each other, until the timeout.
    return state.sub == "start-pre" and (waits.kind in _AT_ONCE or now - waits.since >= PATIENCE)


def _serves(unit: str, state: UnitState, port: int, health_of: t.Callable[[int, str], int | None]) -> bool:
    # Another process may still answer on the port while this one starts: only an active unit counts.
    return state.is_running and not state.has_job and (not port or health_of(port, health_path(unit)) == 200)


def _ended(unit: str, state: UnitState, lines: list[str]) -> FleetError:
    why = explain(lines, kind_of_unit(unit))
    kind = why.kind if why else "unknown"
    text = str(why) if why else f"Its last words: {' | '.join(lines[-5:]) or 'none'}"
    return FleetError(
        f"{unit} ended while it started (result {state.result}, status {state.status}): {text} "
        f"`journalctl -u {unit}` on the host has the whole story.",
        reason=kind,
        journal=lines[-40:],
    )


def _blocked(unit: str, waits: Waiting, lines: list[str]) -> FleetError:
    return FleetError(f"{unit} waits to be started: {_explained(waits)}", reason=waits.kind, journal=lines[-40:])


def _explained(waits: Waiting) -> str:
    return f"{waits.what}. {_ADVICE.get(waits.kind, '')}".strip()


def _late(unit: str, timeout: float, waits: Waiting | None, lines: list[str]) -> FleetError:
    why = explain(lines, kind_of_unit(unit))
    if waits:
        text = f"Its start waits: {_explained(waits)}"
    else:
        text = str(why) if why else f"Its last words: {' | '.join(lines[-5:]) or 'none'}"
    return FleetError(
        f"{unit} runs but has not served within {timeout:.0f} s: {text} "
        "If it is only slow (a first start compiles kernels), raise engine_start_timeout.",
        reason=waits.kind if waits else why.kind if why else "timeout",
        journal=lines[-40:],
    )
