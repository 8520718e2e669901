# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The unit inference-accountant.service. Pure."""

from __future__ import annotations

import os
import shlex

from ansible_collections.inference.fleet.plugins.module_utils.accountant.settings import AccountantSettings
from ansible_collections.inference.fleet.plugins.module_utils.services.hardening import HARDENING

UNIT = "inference-accountant.service"
PROGRAM_PATH = "/etc/inference/accountant.pyz"

_UNIT = """\
# Written by gateway_accountant of inference.fleet.
[Unit]
Description=Count the tokens of clients with limits on them
After=network.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
Restart=always
RestartSec=200ms
WatchdogSec=30
# A request waits for it.
Nice=-5
MemoryMax=256M
LimitCORE=0
LimitNOFILE=65536

# Root, because HAProxy's socket and the map of keys are root's. Of root's rights it has the one to give its own sockets
# to HAProxy's group.
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_READ_SEARCH
ReadWritePaths={writable}
{hardening}
MemoryDenyWriteExecute=true
PrivateDevices=true
ProtectHome=true
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
SystemCallFilter=@system-service

[Install]
WantedBy=multi-user.target
"""


def render_unit(program: str, config: str, settings: AccountantSettings) -> str:
    """The unit.

    Args:
        program: its path.
        config: the path of the settings.
        settings: what is in that file.
    """
    words = ["/usr/bin/python3", "-I", program, "--config", config]
    # A percent sign would be one of systemd's specifiers.
    command = shlex.join(words).replace("%", "%%")
    # The directory of the sockets is made by the program.
    places = (os.path.dirname(settings.directory), os.path.dirname(settings.state), os.path.dirname(settings.metrics))
    return _UNIT.format(command=command, writable=" ".join(dict.fromkeys(places)), hardening=HARDENING)
