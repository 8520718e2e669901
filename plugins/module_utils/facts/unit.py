# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The units inference-facts.timer and inference-facts.service. Pure."""

from __future__ import annotations

import os
import shlex
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.services.hardening import HARDENING

TIMER = "inference-facts.timer"
SERVICE = "inference-facts.service"
PROGRAM_PATH = "/etc/haproxy/facts.pyz"

_TIMER = f"""\
# Written by edge_facts of inference.fleet.
[Unit]
Description=Look at this host every 30 seconds

[Timer]
# Both count on a clock that does not jump.
OnActiveSec=1
OnUnitActiveSec=30
AccuracySec=1
Unit={SERVICE}

[Install]
WantedBy=timers.target
"""

_SERVICE = """\
# Written by edge_facts of inference.fleet.
[Unit]
Description=Write this host's state as metrics

[Service]
Type=oneshot
ExecStart={command}
TimeoutStartSec=60
# The journal gets what failed, and not each start.
LogLevelMax=notice
SyslogLevel=notice
# Engines and edge come first.
Nice=10
IOSchedulingClass=idle
CPUWeight=20
MemoryMax=128M
TasksMax=32

# It reads what is root's and other users' (certificates), and writes two files.
CapabilityBoundingSet=CAP_DAC_READ_SEARCH
ReadWritePaths={writable}
{devices}
IPAddressDeny=any
{hardening}
PrivateNetwork=true
ProtectHome=read-only
RestrictAddressFamilies=AF_UNIX
SystemCallFilter=@system-service
"""

_NO_DEVICES = "PrivateDevices=true\nMemoryDenyWriteExecute=true"
# nvidia-smi needs the GPUs' devices. Those of other kinds stay out of reach.
_GPU_DEVICES = "DevicePolicy=closed\nDeviceAllow=char-nvidia* rw"


class LookCommand(t.NamedTuple):
    """How the program is started.

    Attributes:
        program: its path.
        labels: of fleet_info.
        certificates: the files to watch.
        gpus: how many the host should have; 0 for a host without.
        nvidia_smi: the program, on a host with GPUs.
        ignored_xids: XIDs that do not count.
        state: the directory of the modules' records.
        root: of releases and instances.
    """

    program: str
    labels: t.Mapping[str, str]
    certificates: t.Sequence[str]
    gpus: int
    nvidia_smi: str
    ignored_xids: t.Sequence[int]
    state: str
    root: str

    @property
    def memory(self) -> str:
        """The file that lasts from one look to the next."""
        return os.path.join(self.state, "facts.json")

    @property
    def output(self) -> str:
        """The directory of the host's metrics."""
        return os.path.join(self.state, "metrics")


def render_timer() -> str:
    """The timer."""
    return _TIMER


def render_service(wanted: LookCommand) -> str:
    """The service that the timer starts."""
    words = ["/usr/bin/python3", "-I", wanted.program]
    for name, value in wanted.labels.items():
        words += [f"--{name}={value}"] if value else []
    words += [f"--certificate={path}" for path in wanted.certificates]
    if wanted.gpus:
        words += [f"--gpus={wanted.gpus}", f"--nvidia-smi={wanted.nvidia_smi}"]
        words += [f"--ignore-xid={number}" for number in wanted.ignored_xids]
    words += [f"--state={wanted.state}", f"--root={wanted.root}"]
    words += [f"--memory={wanted.memory}", f"--output={wanted.output}"]
    # Percent and dollar signs would be systemd's.
    command = shlex.join(words).replace("%", "%%").replace("$", "$$")
    devices = _GPU_DEVICES if wanted.gpus else _NO_DEVICES
    return _SERVICE.format(command=command, hardening=HARDENING, writable=wanted.state, devices=devices)
