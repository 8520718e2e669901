"""Processes that outlive the command that started them, known by pid *and* start time."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

from lab import cgroups, files
from lab.errors import LabError
from lab.state import ROOT


@dataclasses.dataclass(frozen=True)
class ProcessIdentity:
    """The identity of a process. A pid is reused; a pid with its start time and its boot is not."""

    pid: int
    started: int
    boot: str


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of ``pid``, or None when it has ended (a zombie has)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field, the name, may contain spaces and brackets: count from the last bracket.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def record_self(path: Path) -> None:
    """Record this process; an exec keeps both pid and start time."""
    pid = os.getpid()
    record = ProcessIdentity(pid, start_time(pid) or 0, boot_id())
    files.write(path, json.dumps(dataclasses.asdict(record)) + "\n")


def read(path: Path) -> ProcessIdentity | None:
    """The process that ``path`` recorded, if it is still running."""
    try:
        record = ProcessIdentity(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    if record.boot != boot_id() or start_time(record.pid) != record.started:
        return None
    return record


def start(
    directory: Path,
    argv: t.Sequence[str],
    *,
    lock: int,
    group: str,
    mounts: t.Sequence[t.Sequence[str]] = (),
    network: str = "",
    uses: t.Sequence[str] = (),
    env: dict[str, str] | None = None,
    cores: float | None = None,
) -> None:
    """Start ``argv`` in the background: recorded in ``directory/process.json``, its output in ``directory/log``.

    Args:
        directory: of the process's own files.
        argv: program and arguments.
        lock: descriptor of the lab's lock. The child holds it until it has recorded itself, so that the next owner of
            the lock after a killed ``up`` finds every process that was started.
        group: name of the process's control group below the lab's.
        mounts: arguments of ``mount``, run in the process's own mount name space.
        network: path of a network name space to start in.
        uses: directories that must stay as long as the process lives; see ``files.in_use``.
        env: variables in addition to ours.
        cores: the maximum share of the machine; None for all.
    """
    directory.mkdir(parents=True, exist_ok=True)
    record = directory / "process.json"
    record.unlink(missing_ok=True)
    spec = {
        "record": str(record),
        "log": str(directory / "log"),
        "argv": list(argv),
        "group": group,
        "network": network,
        "uses": list(uses),
        "mounts": [list(mount) for mount in mounts],
        "env": env or {},
        "cores": cores,
    }
    files.write(directory / "start.json", json.dumps(spec, indent=2) + "\n")
    launcher = [sys.executable, "-m", "lab.launch", str(directory / "start.json")]
    if cgroups.systemd_runs():
        # A separate service: it outlives the login session, and systemd gives it a control group that it may divide.
        unit = cgroups.unit_of(group)
        subprocess.run(["systemctl", "reset-failed", unit], capture_output=True, check=False)
        service = ["--quiet", "--collect", f"--unit={unit}", "--service-type=exec", "--property=Delegate=yes"]
        service += [] if cores is None else [f"--property=CPUQuota={cores:.0%}"]
        result = subprocess.run(
            ["systemd-run", *service, "--property=KillMode=mixed", f"--working-directory={ROOT}", *launcher],
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise LabError(f"systemd-run of {argv[0]} failed: {result.stderr.strip()}")
    else:
        subprocess.Popen(
            [*launcher, str(lock)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(lock,),
        )
    deadline = time.monotonic() + 20
    while not record.exists():
        if time.monotonic() > deadline:
            raise LabError(f"{argv[0]} did not start: {tail(directory)}")
        time.sleep(0.02)


def tail(directory: Path, lines: int = 12) -> str:
    """The end of the process's output."""
    log = directory / "log"
    if not log.exists():
        return f"it printed nothing ({log} does not exist)"
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    return f"{log} ends with:\n" + "\n".join(text.splitlines()[-lines:])


def stop(directory: Path, group: str, *, grace: float = 0.0) -> bool:
    """End the recorded process and all its children; True when it ran.

    Args:
        directory: the process's directory, as given to ``start``.
        group: its control group; remaining processes in it are killed.
        grace: seconds between SIGTERM and SIGKILL; 0 kills at once.
    """
    record = read(directory / "process.json")
    if record is not None:
        _end(record, grace)
    cgroups.clear(group)
    (directory / "process.json").unlink(missing_ok=True)
    return record is not None


def _end(record: ProcessIdentity, grace: float) -> None:
    try:
        descriptor = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return
    with contextlib.closing(open(descriptor, closefd=True, mode="rb")):
        # The descriptor is the right process's only if the start time still matches now.
        if start_time(record.pid) != record.started:
            return
        with contextlib.suppress(ProcessLookupError):
            if grace:
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)
                if select.select([descriptor], [], [], grace)[0]:
                    return
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        if not select.select([descriptor], [], [], 15)[0]:
            raise LabError(f"Process {record.pid} is still there 15 s after SIGKILL.")
