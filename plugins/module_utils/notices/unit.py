# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The unit inference-notices.service. Pure."""

from __future__ import annotations

import os
import shlex
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.edge.drain import Paths
from ansible_collections.inference.fleet.plugins.module_utils.net.http import parse_url
from ansible_collections.inference.fleet.plugins.module_utils.notices.decision import NoticeSettings
from ansible_collections.inference.fleet.plugins.module_utils.services.hardening import HARDENING

UNIT = "inference-notices.service"
PROGRAM_PATH = "/etc/haproxy/notices.pyz"

_UNIT = """\
# Written by edge_notices of inference.fleet.
[Unit]
Description=Drain this host's edge for what AWS announces
After=network.target haproxy.service
# What it watches for may come at any time.
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={command}
Restart=always
RestartSec=1
# It must get its turn when the engines use every core.
Nice=-5
MemoryMax=256M

# The sockets of HAProxy, its maps and the record of drains are root's, and who may use those sockets may change every
# key. So it is root, without any of root's rights: it can write these directories and reach these addresses only.
CapabilityBoundingSet=
ReadWritePaths={writable}
IPAddressDeny=any
IPAddressAllow=localhost {address}
{hardening}
MemoryDenyWriteExecute=true
PrivateDevices=true
ProcSubset=pid
ProtectHome=true
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
SystemCallFilter=@system-service

[Install]
WantedBy=multi-user.target
"""


class WatchCommand(t.NamedTuple):
    """How the program is started."""

    program: str
    metadata_url: str
    settings: NoticeSettings
    lame_duck_seconds: float
    paths: Paths


def render_unit(wanted: WatchCommand) -> str:
    """The unit."""
    paths, settings = wanted.paths, wanted.settings
    options = {
        "on-rebalance": settings.on_rebalance,
        "maintenance-lead": f"{settings.maintenance_lead:g}",
        "lame-duck": f"{wanted.lame_duck_seconds:g}",
        "metadata": wanted.metadata_url,
        "config": paths.config,
        "map": paths.map,
        "record": paths.record,
        "socket": paths.socket,
        "master-socket": paths.master_socket,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    # A percent sign would be one of systemd's specifiers.
    command = shlex.join(["/usr/bin/python3", "-I", wanted.program, *words]).replace("%", "%%")
    writable = [os.path.dirname(paths.map), os.path.dirname(paths.record)]
    return _UNIT.format(
        command=command, hardening=HARDENING, writable=" ".join(writable), address=parse_url(wanted.metadata_url).host
    )
