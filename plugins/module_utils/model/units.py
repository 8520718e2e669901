# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The units that fetch a model, and waiting for them.

A download belongs to systemd, not to the run that started it: it goes on when the SSH connection, the controller or the
terminal is gone, and the next run finds it and waits for the same one.
"""

from __future__ import annotations

import os
import subprocess
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.systemd import journal, unit_state
from ansible_collections.inference.fleet.plugins.module_utils.model.fetch import human_size, read_document

RESTORE = "inference-models.service"
FETCH = "inference-model@.service"

_HARDENING = """\
# A download while the engines serve must not slow them.
Nice=10
IOSchedulingPriority=7
UMask=0022
CapabilityBoundingSet=CAP_DAC_OVERRIDE CAP_FOWNER
LockPersonality=true
NoNewPrivileges=true
PrivateDevices=true
ProtectClock=true
ProtectControlGroups=true
ProtectHome=read-only
ProtectHostname=true
ProtectKernelLogs=true
ProtectKernelModules=true
ProtectKernelTunables=true
ProtectSystem=full
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=true
RestrictRealtime=true
RestrictSUIDSGID=true
SystemCallArchitectures=native
SystemCallFilter=@system-service
"""

_AFTER = """\
Wants=network-online.target
# The second one formats and mounts the instance store on a Deep Learning AMI.
After=network-online.target dlami-nvme.service remote-fs.target local-fs.target
"""


def unit_files(command: str) -> dict[str, str]:
    """The units, by name.

    Args:
        command: the fetch program with its interpreter and options.
    """
    return {
        FETCH: (
            "# Written by model_snapshot of inference.fleet.\n"
            "[Unit]\nDescription=Fetch the weights of %i\n"
            f"{_AFTER}"
            "\n[Service]\nType=oneshot\n"
            f"ExecStart={command} fetch %i\n"
            "TimeoutStartSec=infinity\n"
            f"{_HARDENING}"
        ),
        RESTORE: (
            "# Written by model_snapshot of inference.fleet.\n"
            "[Unit]\nDescription=Bring back the weights that the engines need\n"
            f"{_AFTER}"
            "\n[Service]\nType=oneshot\n"
            "# Not RemainAfterExit: every start of an engine comes by here and brings back what went missing.\n"
            f"ExecStart={command} restore\n"
            "TimeoutStartSec=infinity\n"
            f"{_HARDENING}"
            "\n[Install]\nWantedBy=multi-user.target\n"
        ),
    }


class Units:
    """The requests to systemd.

    Args:
        directory: of unit files.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def is_enabled(self) -> bool:
        """Whether the weights are restored at boot. Read from the file system, because every run checks this."""
        return os.path.lexists(os.path.join(self._directory, "multi-user.target.wants", RESTORE))

    def reload(self) -> None:
        self._systemctl("daemon-reload")

    def enable(self) -> None:
        self._systemctl("enable", "--quiet", RESTORE)

    def fetch(self, slug: str, revision: str, status_path: str) -> None:
        """Start the fetch of the spec, or find it running, and wait for its end.

        Raises:
            FleetError: it failed, with its own reason.
        """
        unit = FETCH.replace("@", f"@{slug}")
        status = read_document(status_path) or {}
        if unit_state(unit).active == "activating" and status.get("revision") != revision:
            # The fetch is no longer wanted; what it has so far stays on the disk.
            self._systemctl("stop", unit)
        started = time.time()
        done = subprocess.run(["systemctl", "start", unit], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        raise FleetError(self._reason(unit, slug, revision, read_document(status_path) or {}, started))

    @staticmethod
    def _reason(unit: str, slug: str, revision: str, status: dict[str, t.Any], started: float) -> str:
        if status.get("revision") == revision and status.get("state") == "failed" and status["updated"] >= started:
            have = f" ({human_size(status['done_bytes'])} of {human_size(status['total_bytes'])} are there)"
            return f"Failed to fetch {slug}@{revision}: {status['message']}{have}"
        if unit_state(unit).result in ("success", "signal"):
            return (
                f"The fetch of {slug}@{revision} was stopped on the host before its end, by another run that wants "
                f"something else or by hand. What it has is kept: run again to go on (journalctl -u {unit})."
            )
        lines = [line for line in journal(unit, since=started) if line.strip()]
        return (
            f"Failed to fetch {slug}@{revision}: {' / '.join(lines[-3:]) or 'no reason given'} (journalctl -u {unit})"
        )

    @staticmethod
    def _systemctl(*words: str) -> None:
        try:
            done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
        except OSError as error:
            raise FleetError(f"Failed to run systemctl: {error}. Is systemd the init of this host?") from error
        if done.returncode:
            raise FleetError(f"Failed to run systemctl {' '.join(words)}: {done.stderr.strip()}")
