# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The units of a monitoring host's status page: a timer, the service that it starts, and the server. Pure."""

from __future__ import annotations

import shlex
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.services.hardening import HARDENING
from ansible_collections.inference.fleet.plugins.plugin_utils.status.service import PERIOD

NAME = "inference-status"
TIMER = f"{NAME}.timer"
SERVICE = f"{NAME}.service"
SERVER = f"{NAME}-server.service"
PAGE = f"/var/lib/{NAME}/status.html"

_TIMER = f"""\
# Written by role monitoring of inference.fleet.
[Unit]
Description=Write the fleet's status page every {PERIOD} seconds

[Timer]
# Both count on a clock that does not jump.
OnActiveSec=1
OnUnitActiveSec={PERIOD}
AccuracySec=1
Unit={SERVICE}

[Install]
WantedBy=timers.target
"""

_SERVICE = """\
# Written by role monitoring of inference.fleet.
[Unit]
Description=Write the fleet's status page from Prometheus
After=prometheus.service

[Service]
Type=oneshot
ExecStart={command}
TimeoutStartSec=60
# The journal gets what failed, and not each start.
LogLevelMax=notice
SyslogLevel=notice
Nice=10
CPUWeight=20
MemoryMax=256M
{shared}
"""

_SERVER = """\
# Written by role monitoring of inference.fleet.
[Unit]
Description=Serve the fleet's status page on the loopback interface

[Service]
ExecStart={command}
Restart=always
RestartSec=5
MemoryMax=128M
{shared}

[Install]
WantedBy=multi-user.target
"""

# One user for both, which exists while one of them runs; the page is in its directory.
_SHARED = f"""\
TasksMax=32
DynamicUser=true
User={NAME}
StateDirectory={NAME}

CapabilityBoundingSet=
IPAddressAllow=localhost
IPAddressDeny=any
{HARDENING}
MemoryDenyWriteExecute=true
PrivateDevices=true
PrivateUsers=true
ProcSubset=pid
ProtectHome=true
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_UNIX
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources"""


class StatusUnits(t.NamedTuple):
    """What role monitoring says.

    Attributes:
        program: the path of the program.
        prometheus: the address of Prometheus.
        targets: the directory of the files that say what it scrapes.
        host: the name of the host.
        port: of the page, on the loopback interface.
    """

    program: str
    prometheus: str
    targets: str
    host: str
    port: int


def render_units(wanted: StatusUnits) -> dict[str, str]:
    """The units, by their names."""
    write = [f"--prometheus={wanted.prometheus}", f"--targets={wanted.targets}", f"--host={wanted.host}"]
    return {
        TIMER: _TIMER,
        SERVICE: _SERVICE.format(command=_command(wanted, "write", *write), shared=_SHARED),
        SERVER: _SERVER.format(command=_command(wanted, "serve", f"--port={wanted.port}"), shared=_SHARED),
    }


def _command(wanted: StatusUnits, *words: str) -> str:
    # Percent and dollar signs would be systemd's.
    line = shlex.join(["/usr/bin/python3", "-I", wanted.program, *words, f"--page={PAGE}"])
    return line.replace("%", "%%").replace("$", "$$")
