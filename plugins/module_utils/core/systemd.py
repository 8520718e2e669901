# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""State and journal of a unit, from systemd, and its commands."""

from __future__ import annotations

import dataclasses
import subprocess

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

_PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "NRestarts",
    "MainPID",
    "InvocationID",
    "ExecMainStatus",
    "Job",
)


@dataclasses.dataclass(frozen=True)
class UnitState:
    """The state of a unit; the names are systemd's.

    Attributes:
        has_job: a start or stop of it is queued or running.
    """

    load: str
    active: str
    sub: str
    result: str
    restarts: int
    pid: int
    invocation: str
    status: str
    has_job: bool = False

    @property
    def is_running(self) -> bool:
        return self.active == "active"


def unit_state(unit: str) -> UnitState:
    """The current state of a unit.

    Raises:
        FleetError: systemctl does not answer.
    """
    try:
        done = subprocess.run(
            ["systemctl", "show", "--property", ",".join(_PROPERTIES), unit],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise FleetError(f"Failed to ask systemd about {unit}: {error}. Is systemd the init of this host?") from error
    values = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    return UnitState(
        load=values.get("LoadState", ""),
        active=values.get("ActiveState", ""),
        sub=values.get("SubState", ""),
        result=values.get("Result", ""),
        restarts=int(values.get("NRestarts") or 0),
        pid=int(values.get("MainPID") or 0),
        invocation=values.get("InvocationID", ""),
        status=values.get("ExecMainStatus", ""),
        has_job=bool(int(values.get("Job") or 0)),
    )


def systemctl(*words: str) -> None:
    """Have systemd do something.

    Raises:
        FleetError: it was not done.
    """
    try:
        done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    except OSError as error:
        raise FleetError(f"Failed to run systemctl: {error}. Is systemd the init of this host?") from error
    if done.returncode:
        raise FleetError(f"Failed to run systemctl {' '.join(words)}: {done.stderr.strip()}")


def journal(unit: str, since: float | None = None, lines: int = 400) -> list[str]:
    """The last lines of a unit's journal, oldest first.

    Args:
        unit: the unit.
        since: Unix time of the first line; None for no bound.
        lines: at most this many.
    """
    command = ["journalctl", "--unit", unit, "--output", "cat", "--no-pager", "--quiet", "--lines", str(lines)]
    if since is not None:
        command += ["--since", f"@{since:.6f}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, errors="replace")
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()
