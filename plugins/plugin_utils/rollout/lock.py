# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""One change of a fleet at a time on a controller: a lock that ends with the process of its holder."""

from __future__ import annotations

import dataclasses
import getpass
import json
import os
import socket
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import locked, read_json, write_atomically
from ansible_collections.inference.fleet.plugins.module_utils.core.processes import start_ticks

NAME = "lock.json"
_LOOK_SECONDS = 5.0


class LockHeld(FleetError):
    """Another run has the lock."""


@dataclasses.dataclass(frozen=True)
class LockHolder:
    """The holder of the lock.

    Attributes:
        pid: of the ansible-playbook process.
        started: when that process began, in the kernel's ticks, to distinguish it from a later one with its number.
        machine: of the process.
        who: the user.
        verb: what the run does.
        since: when it began, UTC.
    """

    pid: int
    started: int
    machine: str
    who: str
    verb: str
    since: str

    @property
    def lives(self) -> bool:
        """Whether the process still runs; on another machine that is unknown here, so yes."""
        return self.machine != socket.gethostname() or start_ticks(self.pid) == self.started


def person() -> str:
    """The user and machine of this process."""
    return f"{os.environ.get('SUDO_USER') or getpass.getuser()}@{socket.gethostname()}"


def holder_of(pid: int, who: str, verb: str, since: str) -> LockHolder:
    """This process as a holder."""
    return LockHolder(pid, start_ticks(pid) or 0, socket.gethostname(), who, verb, since)


def acquire(records: str, wanted: LockHolder, take_over: bool) -> LockHolder | None:
    """Take the lock.

    Args:
        records: the directory of the fleet's rollouts.
        wanted: the new holder.
        take_over: whether a live holder is declared dead.

    Returns:
        The holder of an abandoned lock that is taken over; None where there was none.

    Raises:
        LockHeld: another run holds it.
    """
    os.makedirs(records, mode=0o700, exist_ok=True)
    path = os.path.join(records, NAME)
    with locked(os.path.join(records, ".lock")):
        before = _read(path)
        if before and (before.pid, before.started) == (wanted.pid, wanted.started):
            # A run that changes one tier after another takes it for each.
            return None
        if before and before.lives and not take_over:
            raise LockHeld(
                f"{before.who} on {before.machine} has been changing this fleet since {before.since} ({before.verb}, "
                f"process {before.pid}). Wait until that is done. If you are sure that it is dead: "
                "-e rollout_take_over=true.",
                busy=True,
            )
        write_atomically(path, json.dumps(dataclasses.asdict(wanted)) + "\n", mode=0o600)
        return before


def acquire_patiently(
    records: str,
    wanted: LockHolder,
    take_over: bool,
    seconds: float,
    pause: t.Callable[[float], None] = time.sleep,
) -> LockHolder | None:
    """Take the lock as ``acquire`` does; wait for another run to end, for at most some seconds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return acquire(records, wanted, take_over)
        except LockHeld:
            left = deadline - time.monotonic()
            if left <= 0:
                raise
            pause(min(_LOOK_SECONDS, left))


def release(records: str, holder: LockHolder) -> None:
    """Release the lock, if it is still the holder's."""
    path = os.path.join(records, NAME)
    if not os.path.isdir(records):
        return
    with locked(os.path.join(records, ".lock")):
        before = _read(path)
        if before and (before.pid, before.started) == (holder.pid, holder.started):
            os.unlink(path)


def current(records: str) -> LockHolder | None:
    """The holder of the lock; None where there is no live one."""
    holder = _read(os.path.join(records, NAME))
    return holder if holder and holder.lives else None


def _read(path: str) -> LockHolder | None:
    document: t.Any = read_json(path)
    if document is None:
        return None
    try:
        return LockHolder(**document)
    except TypeError as error:
        raise FleetError(f"{path} is not a lock ({error}). Remove it when no run is changing the fleet.") from error
