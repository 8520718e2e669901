"""Control groups: each process that the lab starts gets its own, in every hierarchy of the machine.

Hosts in a shared group would see, and clean up, each other's services. Where systemd runs the machine, it creates the
groups (a transient service with Delegate=yes); elsewhere we do, below /inference-fleet.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import typing as t
from pathlib import Path

PARENT = "inference-fleet"


def systemd_runs() -> bool:
    """Whether systemd is this machine's init."""
    return Path("/run/systemd/system").is_dir()


def unit_of(group: str) -> str:
    """The transient service for ``group``, a path such as ``lab/host-1``."""
    return f"{PARENT}-{group.replace('/', '-')}.service"


def hierarchies() -> list[Path]:
    """Mount points of all control group hierarchies, version 1 and 2."""
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        if right.split()[0] in ("cgroup", "cgroup2"):
            mounts.append(Path(left.split()[4]))
    return mounts


def join(group: str, cores: float | None) -> None:
    """Move this process to ``group``, created if missing.

    Args:
        group: a path such as ``lab/host-1``.
        cores: the maximum share of the machine; None for all.
    """
    for hierarchy in hierarchies():
        directory = hierarchy
        for part in (PARENT, *group.split("/")):
            directory /= part
            directory.mkdir(exist_ok=True)
            # A new cpuset of version 1 is empty, and an empty one accepts no process.
            for name in ("cpuset.cpus", "cpuset.mems"):
                file = directory / name
                if (hierarchy / "cpuset.cpu_exclusive").exists() and not file.read_text(encoding="ascii").strip():
                    file.write_text((directory.parent / name).read_text(encoding="ascii"), encoding="ascii")
        period = directory / "cpu.cfs_period_us"
        if cores is not None and period.exists():
            quota = int(cores * int(period.read_text(encoding="ascii")))
            (directory / "cpu.cfs_quota_us").write_text(str(quota), encoding="ascii")
        (directory / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")


def _tree(group: str) -> t.Iterator[Path]:
    place = f"system.slice/{unit_of(group)}" if systemd_runs() else f"{PARENT}/{group}"
    for hierarchy in hierarchies():
        top = hierarchy / place
        for directory, _, _ in os.walk(top, topdown=False):
            yield Path(directory)


def members(group: str) -> set[int]:
    """Pids of all processes in ``group`` and below it."""
    found: set[int] = set()
    for directory in _tree(group):
        with contextlib.suppress(OSError):
            found.update(map(int, (directory / "cgroup.procs").read_text(encoding="ascii").split()))
    return found


def clear(group: str) -> None:
    """Kill what is left in ``group`` and remove it. Only the lab's own processes are in it."""
    if systemd_runs():
        subprocess.run(["systemctl", "kill", "--signal=KILL", unit_of(group)], capture_output=True, check=False)
        subprocess.run(["systemctl", "stop", unit_of(group)], capture_output=True, check=False)
        return
    deadline = time.monotonic() + 10
    while left := members(group):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    while time.monotonic() < deadline:
        directories = list(_tree(group))
        if not directories:
            return
        for directory in directories:
            with contextlib.suppress(OSError):
                directory.rmdir()
        time.sleep(0.01)


def remove_parents(lab: str) -> None:
    """Remove the lab's own group, and the groups' parent when it was the last."""
    for hierarchy in hierarchies():
        for directory in (hierarchy / PARENT / lab, hierarchy / PARENT):
            with contextlib.suppress(OSError):
                directory.rmdir()
