# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The distribution's node exporter on a host: configured for this project, unless somebody else runs one there."""

from __future__ import annotations

import glob
import os
import re
import socket
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_text, write_atomically
from ansible_collections.inference.fleet.plugins.module_utils.core.modes import make_directories
from ansible_collections.inference.fleet.plugins.module_utils.core.systemd import systemctl, unit_state
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import KINDS
from ansible_collections.inference.fleet.plugins.module_utils.gpu.kernel import unit_of

#: Debian's and Ubuntu's package, and its unit.
PACKAGE = "prometheus-node-exporter"
UNIT = f"{PACKAGE}.service"
SETTINGS = f"{UNIT}.d/inference.conf"

#: What is collected, and of which units.
COLLECTORS = (
    "cpu",
    "diskstats",
    "filesystem",
    "loadavg",
    "meminfo",
    "netdev",
    "pressure",
    "stat",
    "systemd",
    "textfile",
    "time",
)
_UNITS = "|".join(["haproxy", "inference-.+", "prometheus.*", *(f"{kind}@.+" for kind in sorted(KINDS))])

_EXPORTER = """\
# Written by node_exporter of inference.fleet.
[Service]
ExecStart=
ExecStart=/usr/bin/prometheus-node-exporter {options}
Restart=on-failure
Nice=10
MemoryMax=128M
"""

#: A node exporter of ours, none, and one of somebody else.
OURS = "ours"
ABSENT = "absent"
FOREIGN = "foreign"

_LISTENS = "0A"


def render_exporter(port: int, metrics: str) -> str:
    """What is added to node exporter's unit.

    Args:
        port: on loopback, where it listens.
        metrics: the directory of the host's metrics.
    """
    options = [
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.disable-exporter-metrics",
        "--collector.disable-defaults",
        *(f"--collector.{name}" for name in COLLECTORS),
        f"--collector.textfile.directory={metrics}",
        # systemd takes one of the backslashes.
        rf"--collector.systemd.unit-include=({_UNITS})\\.service",
        "--collector.systemd.enable-restarts-metrics",
    ]
    return _EXPORTER.format(options=" ".join(options))


class NodeExporter:
    """The node exporter of this host.

    Args:
        unit_directory: of systemd.
        port: on loopback, where it listens.
        check: change nothing, return what would change.
        proc: where procfs is.
    """

    def __init__(self, unit_directory: str, port: int, check: bool, proc: str = "/proc") -> None:
        self._settings = os.path.join(unit_directory, SETTINGS)
        self._port = port
        self._check = check
        self._proc = proc
        self.actions: list[str] = []

    @property
    def is_ours(self) -> bool:
        """Whether its settings are this project's."""
        return os.path.lexists(self._settings)

    def configure(self, settings: str) -> tuple[str, str]:
        """Make it run with these settings, if it is installed; write them in front of its installation if it is not.

        Returns:
            Whose it is, and for one of somebody else what was found.
        """
        loaded = unit_state(UNIT).load == "loaded"
        if not self.is_ours:
            owner = f"{UNIT} is installed and not configured by this role" if loaded else self._owner()
            if owner:
                return FOREIGN, owner
        changed = self._write(settings)
        if not loaded:
            # Its package starts it, and it never listens anywhere else.
            return ABSENT, ""
        if changed or not unit_state(UNIT).is_running:
            self.actions.append(f"start {UNIT}")
            self._systemctl("enable", "--quiet", UNIT)
            self._systemctl("restart", UNIT)
        return OURS, ""

    def remove(self) -> None:
        """Stop one of ours. Its package stays, and with it nothing that listens."""
        if not self.is_ours:
            return
        self.actions += [f"stop {UNIT}", f"remove {self._settings}"]
        if unit_state(UNIT).load == "loaded":
            self._systemctl("disable", "--quiet", "--now", UNIT)
        if not self._check:
            os.unlink(self._settings)
        self._systemctl("daemon-reload")

    def _write(self, settings: str) -> bool:
        if read_text(self._settings) == settings:
            return False
        self.actions.append(f"write {self._settings}")
        if not self._check:
            make_directories(os.path.dirname(self._settings))
            write_atomically(self._settings, settings)
        self._systemctl("daemon-reload")
        return True

    def _owner(self) -> str:
        """Who has the port; empty where nothing has."""
        if not _answers(self._port):
            return ""
        what = self._listener() or "a process that cannot be seen from here"
        return f"port {self._port} is taken by {what}"

    def _listener(self) -> str:
        """The unit, or else the name, of the process that listens on the port."""
        sockets = {f"socket:[{inode}]" for inode in self._inodes()}
        for link in glob.glob(os.path.join(glob.escape(self._proc), "[0-9]*/fd/*")) if sockets else []:
            try:
                if os.readlink(link) in sockets:
                    process = os.path.dirname(os.path.dirname(link))
                    cgroup = read_text(os.path.join(process, "cgroup")) or ""
                    name = (read_text(os.path.join(process, "comm")) or "").strip()
                    return unit_of(cgroup) or name
            except OSError:
                continue
        return ""

    def _inodes(self) -> t.Iterator[str]:
        for table in ("tcp", "tcp6"):
            for line in (read_text(os.path.join(self._proc, "net", table)) or "").splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTENS and re.search(rf":{self._port:04X}$", words[1]):
                    yield words[9]

    def _systemctl(self, *words: str) -> None:
        if not self._check:
            systemctl(*words)


def _answers(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(3)
        return probe.connect_ex(("127.0.0.1", port)) == 0
