# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The unit inference-watchdog.service. Pure."""

from __future__ import annotations

import shlex
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.edge.drain import Paths
from ansible_collections.inference.fleet.plugins.module_utils.services.hardening import HARDENING
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.decision import Damping
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.judge import HangLimits

UNIT = "inference-watchdog.service"
PROGRAM_PATH = "/etc/inference/watchdog.pyz"

_UNIT = """\
# Written by engine_watchdog of inference.fleet.
[Unit]
Description=Find engines that hang, and restart them
After=network.target haproxy.service
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
Restart=always
RestartSec=1
WatchdogSec=30
# It must get its turn when the engines use every core.
Nice=-5
MemoryMax=256M
LimitCORE=0

# Root, because HAProxy's sockets, the engines' key and systemd are root's. Of root's rights it has those to end
# processes of others and to read their stacks.
CapabilityBoundingSet=CAP_KILL CAP_SYS_PTRACE CAP_DAC_READ_SEARCH
ReadWritePaths={state}
IPAddressDeny=any
IPAddressAllow=localhost
{hardening}
MemoryDenyWriteExecute=true
ProtectHome=true
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
SystemCallFilter=@system-service @debug

[Install]
WantedBy=multi-user.target
"""


class WatchdogCommand(t.NamedTuple):
    """How the program is started.

    Attributes:
        program: its path.
        mode: decision.ACT or decision.OBSERVE.
        limits, damping: of time.
        port: of the agent checks.
        root: of the engines.
        state: the directory of its records.
        stacks: the program that prints stacks; empty for none.
        paths: of the edge.
        claim: the record of the rollout that the host is in.
    """

    program: str
    mode: str
    limits: HangLimits
    damping: Damping
    port: int
    root: str
    state: str
    stacks: str
    paths: Paths
    claim: str


def render_unit(wanted: WatchdogCommand) -> str:
    """The unit."""
    paths = wanted.paths
    options = {
        "mode": wanted.mode,
        "quiet": f"{wanted.limits.quiet:g}",
        "confirm": f"{wanted.limits.confirm:g}",
        "idle": f"{wanted.limits.idle:g}",
        "pause": f"{wanted.damping.pause:g}",
        "most": str(wanted.damping.most),
        "window": f"{wanted.damping.window:g}",
        "port": str(wanted.port),
        "root": wanted.root,
        "state": wanted.state,
        "stacks": wanted.stacks,
        "config": paths.config,
        "record": paths.record,
        "claim": wanted.claim,
        "socket": paths.socket,
        "master-socket": paths.master_socket,
    }
    words = [word for name, value in options.items() if value for word in (f"--{name}", value)]
    # A percent sign would be one of systemd's specifiers.
    command = shlex.join(["/usr/bin/python3", "-I", wanted.program, *words]).replace("%", "%%")
    return _UNIT.format(command=command, hardening=HARDENING, state=wanted.state)
