# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows the progress of a rollout, and writes its record and page, however it ends."""

from __future__ import annotations

DOCUMENTATION = r"""
name: rollout
type: aggregate
short_description: Show the progress of a rollout, and write its page
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
description:
  - Prints a line for each event of a rollout as it happens. These are the waves with the load at their start, the steps
    of each instance, an engine's progress while it starts, the requests still in flight when a drain reached its
    limit, the gates' figures, each host's outcome, and decisions and warnings.
  - A step without news for 15 seconds gets a line that says so, then another after 30 and every 60 seconds.
  - It detects a rollout by the result of the action M(inference.fleet.rollout), and reads that rollout's journal while
    other processes write it. Without a rollout it prints nothing. Each line begins with the time since the start of
    this run, also when it resumes an interrupted rollout.
  - It records in the journal that a host becomes unreachable during its turn, because a lost host runs no task that
    could record it.
  - At the end of the playbook, and also after an interrupt from the keyboard, it writes C(record.json) and
    C(index.html) beside the journal, and prints the outcome and the path of the page.
  - A failure of the callback causes one warning, and never fails the playbook.
requirements:
  - The playbooks of this collection enable it by themselves (P(inference.fleet.progress#lookup)). Your own playbooks
    that use the role need C(inference.fleet.rollout) in C(callbacks_enabled), in C(ansible.cfg) or
    E(ANSIBLE_CALLBACKS_ENABLED).
seealso:
  - module: inference.fleet.rollout
"""

import atexit
import contextlib
import functools
import os
import sys
import threading
import time
import typing as t

from ansible import constants
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import filter_loader
from ansible.utils.display import Display
from ansible_collections.inference.fleet.plugins.plugin_utils.report import files, words
from ansible_collections.inference.fleet.plugins.plugin_utils.report import lines as report_lines
from ansible_collections.inference.fleet.plugins.plugin_utils.report import record as report_record
from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import journal, steps

_ACTIONS = ("inference.fleet.rollout", "rollout")
_LAST_FILTER = "inference.fleet.size"
_POLL_SECONDS = 0.25
_CHUNK = 1 << 20

# Longer than it takes to print the rest, shorter than a person waits for a closed terminal.
_JOIN_SECONDS = 5.0

Say = t.Callable[[report_lines.ReportLine], None]


class Tail:
    """Reads a journal while it is written, and reports its events.

    Args:
        path: the journal.
        offset: bytes that it had before this run.
        say: shows a line.
        fail: called with an exception.
        clock: Unix time.
    """

    def __init__(
        self,
        path: str,
        offset: int,
        say: Say,
        fail: t.Callable[[Exception], None],
        clock: t.Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self._offset = offset
        self._say = say
        self._fail = fail
        self._clock = clock
        self._reporter = report_lines.Reporter()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rollout", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Report the rest, and end."""
        self._ends.set()
        self._thread.join(_JOIN_SECONDS)
        if not self._thread.is_alive():
            self.poll(last=True)

    def poll(self, last: bool = False) -> None:
        """Report new events and, except at the end, silent steps."""
        now = self._clock()
        lines = [line for event in journal.parse(self._read()) for line in self._reporter.take(event, now)]
        if not last:
            lines += self._reporter.quiet(now)
        for line in lines:
            self._say(line)
        if lines:
            # Ansible flushes only at its end; in a pipe, hours of a rollout would come at once.
            sys.stdout.flush()

    def _run(self) -> None:
        try:
            while not self._ends.wait(_POLL_SECONDS):
                self.poll()
        except Exception as error:
            self._fail(error)

    def _read(self) -> str:
        """The new complete lines."""
        # Unbuffered: a fork of Ansible's could inherit a buffer's lock while it is held.
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return ""
        found = b""
        try:
            while True:
                chunk = os.pread(descriptor, _CHUNK, self._offset + len(found))
                found += chunk
                if not chunk:
                    break
        finally:
            os.close(descriptor)
        whole = found[: found.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.decode(errors="replace")


def _guarded(method: t.Callable[..., None]) -> t.Callable[..., None]:
    """Errors in the callback must not fail the playbook."""

    @functools.wraps(method)
    def guarded(self: CallbackModule, *args: t.Any, **kwargs: t.Any) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self.fail(error)

    return guarded


class CallbackModule(CallbackBase):
    """See DOCUMENTATION."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "inference.fleet.rollout"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, display: Display | None = None, options: dict[str, t.Any] | None = None) -> None:
        super().__init__(display, options)
        self._tail: Tail | None = None
        self._pid = os.getpid()
        self._failed = False

    @_guarded
    def v2_playbook_on_start(self, playbook: t.Any) -> None:
        # Ansible forks a process for each task and host, and each would read and compile all filter files again.
        # Looking up the last one reads them all.
        filter_loader.get(_LAST_FILTER)

    @_guarded
    def v2_runner_on_ok(self, result: t.Any) -> None:
        self._learn(result)

    @_guarded
    def v2_runner_on_failed(self, result: t.Any, ignore_errors: bool = False) -> None:
        self._learn(result)

    @_guarded
    def v2_runner_on_unreachable(self, result: t.Any) -> None:
        if self._tail is None or getattr(result.task, "ignore_unreachable", False):
            # Ansible may go on with an unreachable host.
            return
        host = result.host.get_name()
        record = report_record.fold(journal.read(self._tail.path))
        known = record["hosts"].get(host)
        if not known or not known["tries"] or known["tries"][-1]["ended"] is not None:
            return
        open_steps = [step for one in known["instances"].values() for step in one["steps"] if step["ended"] is None]
        where = f" in its step {steps.label(open_steps[-1]['step'])}" if open_steps else ""
        said = words.line(result.result.get("msg") or "", 200)
        journal.append(
            self._tail.path,
            "outcome",
            host=host,
            outcome="unreachable",
            message=f"{host} does not answer any more{where}{f' ({said})' if said else ''}. Look at the host and its "
            "network; a host that is drained stays so until the same command is run again.",
        )

    @_guarded
    def v2_playbook_on_stats(self, stats: t.Any) -> None:
        self._finish()

    def fail(self, error: Exception) -> None:
        """Warn once."""
        if self._failed:
            return
        self._failed = True
        with contextlib.suppress(Exception):
            self._display.warning(
                f"The callback inference.fleet.rollout cannot show the rollout ({type(error).__name__}: "
                f"{words.line(error)}). The rollout itself goes on; its journal is complete."
            )

    def _learn(self, result: t.Any) -> None:
        """Start watching when a rollout reports its journal."""
        if result.task.action not in _ACTIONS:
            return
        answer = result.result
        answer = answer if answer.get("journal") else answer.get("rollout") or {}
        path = answer.get("journal")
        if not path or not isinstance(path, str) or (self._tail and self._tail.path == path):
            return
        self._finish()
        self._tail = Tail(str(path), int(answer.get("journal_offset") or 0), self._say, self.fail)
        self._tail.start()
        atexit.register(self._at_exit)

    @_guarded
    def _at_exit(self) -> None:
        # Interrupted: Ansible sends no statistics then.
        if os.getpid() == self._pid:
            self._finish()

    def _finish(self) -> None:
        tail, self._tail = self._tail, None
        if tail is None:
            return
        atexit.unregister(self._at_exit)
        try:
            tail.finish()
        except Exception as error:
            # The page matters more than the lines.
            self.fail(error)
        directory = os.path.dirname(tail.path)
        record = files.write(directory, alive=False)
        for line in report_lines.summary(record, os.path.join(directory, files.PAGE)):
            self._say(line)

    def _say(self, line: report_lines.ReportLine) -> None:
        self._display.display(line.text, color=getattr(constants, f"COLOR_{line.kind}") if line.kind else None)
