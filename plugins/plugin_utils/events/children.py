# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The playbooks that the service runs, as child processes: one at a time for an instance.

The lock of an instance is a file descriptor that the child inherits. So it lasts as long as the child, and a service
that was killed does not start a second playbook beside one that it left behind.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import signal
import subprocess
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_json
from ansible_collections.inference.fleet.plugins.module_utils.core.keys import redacted
from ansible_collections.inference.fleet.plugins.plugin_utils.events.decide import EventTask, RunEnd
from ansible_collections.inference.fleet.plugins.plugin_utils.events.settings import EventSettings

#: Logs of runs that are kept.
_KEEP = 200
#: How long a child may take to end after SIGTERM.
_GRACE = 30.0
_LAST_LINES = 3
_TAIL_BYTES = 8192
_SHOWN = 600


class StillRunning(Exception):
    """An earlier process left a playbook for this instance behind, and it still runs."""


@dataclasses.dataclass
class _Child:
    task: EventTask
    process: subprocess.Popen[bytes]
    began: float
    log: str
    outcome: str
    stopped: float = 0.0


class Children:
    """The playbooks that run.

    Args:
        settings: of the service.
        limit: seconds after which a playbook is stopped.
    """

    def __init__(self, settings: EventSettings, limit: float) -> None:
        self._settings = settings
        self._limit = limit
        self._running: dict[str, _Child] = {}

    def start(self, task: EventTask) -> str:
        """Start the playbook of a task; return the path of its log.

        Raises:
            StillRunning: one runs already.
            OSError: it cannot be started.
        """
        lock = self._lock(task.instance)
        try:
            log = self._path("runs", f"{task.instance}.{task.verb}.log")
            outcome = self._path("runs", f"{task.instance}.{task.verb}.json")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(outcome)
            with open(log, "wb") as output:
                process = subprocess.Popen(
                    self._command(task, outcome),
                    cwd=self._settings.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=[lock],
                    start_new_session=True,
                )
        finally:
            os.close(lock)
        self._running[task.instance] = _Child(task, process, time.monotonic(), log, outcome)
        return log

    def ended(self) -> list[tuple[EventTask, RunEnd]]:
        """The playbooks that have ended since the last call; those that take too long are stopped."""
        ended = []
        now = time.monotonic()
        for instance, child in list(self._running.items()):
            status = child.process.poll()
            if status is not None:
                del self._running[instance]
                ended.append((child.task, _run_end(child, status)))
            elif child.stopped and now - child.stopped > _GRACE:
                _signal(child, signal.SIGKILL)
            elif not child.stopped and now - child.began > self._limit:
                child.stopped = now
                _signal(child, signal.SIGTERM)
        self._prune()
        return ended

    def stop(self) -> None:
        """End all of them: the next start of the service finds from AWS's state what is left to do."""
        for child in self._running.values():
            _signal(child, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE
        for child in self._running.values():
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal(child, signal.SIGKILL)
                child.process.wait()
        self._running.clear()

    def _command(self, task: EventTask, outcome: str) -> list[str]:
        # To the inventory the host is a member in this run, and in no other.
        variables = {"fleet_admit": task.instance, "scaling_outcome": outcome}
        if task.within:
            variables[f"{task.verb}_within"] = str(task.within)
        # Every name that the inventory gives to a host of an Auto Scaling group ends with its id.
        limit = ["-l", f"*{task.instance}", "-e", json.dumps(variables)]
        return [*self._settings.command, self._settings.playbooks[task.verb], *limit]

    def _lock(self, instance: str) -> int:
        path = self._path("locks", instance)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise StillRunning from None
        return descriptor

    def _path(self, kind: str, name: str) -> str:
        directory = os.path.join(self._settings.state, kind)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        return os.path.join(directory, name)

    def _prune(self) -> None:
        """Remove the oldest files of runs that are over."""
        for kind in ("runs", "locks"):
            directory = os.path.join(self._settings.state, kind)
            with contextlib.suppress(FileNotFoundError):
                own = [entry for entry in os.scandir(directory) if entry.name.split(".")[0] not in self._running]
                own.sort(key=lambda entry: entry.stat().st_mtime)
                for entry in own[: max(0, len(own) - _KEEP)]:
                    os.unlink(entry.path)


def _signal(child: _Child, number: int) -> None:
    # A process group ends when its last process does, and the number may be another's by then.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.process.pid, number)


def _run_end(child: _Child, status: int) -> RunEnd:
    said: t.Any = None
    with contextlib.suppress(Exception):
        said = read_json(child.outcome)
    document = said if isinstance(said, dict) else {}
    verdict, reason = str(document.get("verdict", "")), str(document.get("reason", ""))
    if status and not reason:
        reason = f"{_ending(child, status)} {_last_words(child.log)} Log: {child.log}."
    return RunEnd(status, verdict, reason)


def _ending(child: _Child, status: int) -> str:
    seconds = round(time.monotonic() - child.began)
    if child.stopped:
        return f"playbooks/{child.task.verb}.yml was stopped after {seconds} s."
    how = f"was killed by signal {-status}" if status < 0 else f"failed with status {status}"
    return f"playbooks/{child.task.verb}.yml {how} after {seconds} s."


def _last_words(path: str) -> str:
    """The last lines of a log that say something."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("PLAY RECAP")]
    failures = [line for line in lines if line.startswith(("fatal:", "msg:", "[ERROR]", "ERROR!"))]
    words = redacted(" / ".join((failures or lines)[-_LAST_LINES:]))
    return words if len(words) <= _SHOWN else f"{words[:_SHOWN]}…"
