# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The holder of the key store's rotation lock: a process, if possible the ansible-playbook that runs the step.

A module is a separate process for each task, so it searches its ancestors in ``/proc`` for the one that stays.
"""

from __future__ import annotations

import dataclasses
import os
import pwd
import socket

from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_text
from ansible_collections.inference.fleet.plugins.module_utils.core.processes import parent, start_ticks

MINE, ALIVE, GONE, UNKNOWN = "mine", "alive", "gone", "unknown"

_PROGRAMS = ("ansible-playbook", "ansible", "ansible-console")


@dataclasses.dataclass(frozen=True)
class RotationHolder:
    """A process on a controller.

    Attributes:
        by: the user that runs it.
        controller: the machine's name.
        pid: its number.
        pid_started: when it began, in the kernel's ticks: a number is reused one day.
        machine: the machine's id; empty where it has none.
        boot: the id of the machine's boot; empty where there is no ``/proc``.
        pid_namespace: in which the number counts; a container has its own.
    """

    by: str
    controller: str
    pid: int
    pid_started: int = 0
    machine: str = ""
    boot: str = ""
    pid_namespace: int = 0

    @property
    def said(self) -> str:
        return f"{self.by} on {self.controller}, process {self.pid}"

    def status(self, me: RotationHolder) -> str:
        """What ``me`` knows of this holder: MINE, ALIVE, GONE, or UNKNOWN where only another machine could know."""
        if self == me:
            return MINE
        if not self.boot or not me.boot:
            return UNKNOWN
        if (self.boot, self.pid_namespace) == (me.boot, me.pid_namespace):
            return ALIVE if start_ticks(self.pid) == self.pid_started else GONE
        rebooted = self.machine and self.machine == me.machine and self.boot != me.boot
        return GONE if rebooted else UNKNOWN


def current() -> RotationHolder:
    """The process that runs this module."""
    pid = _playbook(os.getpid())
    return RotationHolder(
        by=_user(),
        controller=socket.gethostname(),
        pid=pid,
        pid_started=start_ticks(pid) or 0,
        machine=(_read("/etc/machine-id") or "").strip(),
        boot=(_read("/proc/sys/kernel/random/boot_id") or "").strip(),
        pid_namespace=_namespace(),
    )


def _playbook(own: int) -> int:
    """The nearest ancestor that is Ansible, or a worker's parent; else the process itself."""
    pid = own
    while pid > 1 and not _is_ansible(_arguments(pid)):
        pid = parent(pid)
    if pid <= 1:
        return own
    while parent(pid) > 1 and _arguments(parent(pid)) == _arguments(pid):
        pid = parent(pid)
    return pid


def _is_ansible(arguments: list[str]) -> bool:
    return any(os.path.basename(argument) in _PROGRAMS for argument in arguments[:2]) or (
        arguments[1:3] == ["-m", "ansible"]
    )


def _arguments(pid: int) -> list[str]:
    return (_read(f"/proc/{pid}/cmdline") or "").split("\0")[:-1]


def _namespace() -> int:
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _read(path: str) -> str | None:
    try:
        return read_text(path)
    except (OSError, UnicodeDecodeError):
        return None
