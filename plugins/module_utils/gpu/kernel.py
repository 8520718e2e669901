# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Parses the kernel's output about NVIDIA GPUs: module versions, XIDs in its log, the owner of a process."""

from __future__ import annotations

import dataclasses
import re
import typing as t

_MODULE = re.compile(r"^NVRM version:.*?(?<![\w.])(\d{3,}\.\d+(?:\.\d+)?)(?![\w.])", re.MULTILINE)
_LIBRARY = re.compile(r"\.so\.(\d+\.\d+(?:\.\d+)*)$")
_LDCONFIG = re.compile(r"^\s*(\S+) \(([^)]*)\) => (\S+)$")
# journalctl -o short-iso: "2026-11-22T10:00:00+0000 host kernel: NVRM: Xid …"; dmesg: "[  812.334455] NVRM: Xid …"
_XID = re.compile(
    r"^(?:\[\s*(?P<uptime>\d+\.\d+)\]|(?P<time>\S+).*?kernel:)?.*?"
    r"NVRM: Xid \((?:PCI:)?(?P<bus>[0-9a-fA-F:.]+)\): (?P<xid>\d+)(?:,\s*(?P<message>.*))?$"
)
_BUS = re.compile(r"^(?:([0-9a-fA-F]+):)?([0-9a-fA-F]{1,2}):([0-9a-fA-F]{1,2})(?:\.\d)?$")


@dataclasses.dataclass
class XidEvent:
    """One XID on one GPU in this boot: the last message, and how often it came."""

    xid: int
    bus_id: str
    message: str
    count: int
    first: str
    last: str


def module_version(text: str) -> str | None:
    """The version in /proc/driver/nvidia/version; the open and the proprietary module word it differently."""
    match = _MODULE.search(text)
    return match.group(1) if match else None


def library_version(real_path: str) -> str | None:
    """The version in the name of a driver library's file (libnvidia-ml.so.580.159.04)."""
    match = _LIBRARY.search(real_path)
    return match.group(1) if match else None


def library_path(cache: str, soname: str) -> str | None:
    """The path of ``soname`` in the output of ``ldconfig -p`` (``cache``); a 64-bit one before a 32-bit one."""
    found = []
    for line in cache.splitlines():
        match = _LDCONFIG.match(line)
        if match and match.group(1) == soname:
            found.append((match.group(2) == "libc6", match.group(3)))
    return min(found)[1] if found else None


def bus_key(bus_id: str) -> tuple[int, int, int] | None:
    """Domain, bus and device of a PCI address, whatever its zeros and case."""
    match = _BUS.match(bus_id)
    if not match:
        return None
    domain, bus, device = match.groups()
    return int(domain or "0", 16), int(bus, 16), int(device, 16)


def parse_xids(lines: t.Iterable[str]) -> list[XidEvent]:
    """The XIDs in a kernel log, in the order of their first occurrence."""
    events: dict[tuple[int, str], XidEvent] = {}
    for line in lines:
        match = _XID.match(line.rstrip())
        if not match:
            continue
        xid, bus_id = int(match["xid"]), match["bus"]
        when = match["time"] or (f"{match['uptime']} s after boot" if match["uptime"] else "")
        event = events.setdefault((xid, bus_id), XidEvent(xid, bus_id, "", 0, when, when))
        event.message, event.last = match["message"] or "", when
        event.count += 1
    return list(events.values())


def unit_of(cgroup: str) -> str | None:
    """The systemd unit in /proc/<pid>/cgroup: the innermost service or scope (cgroup v2, v1 and hybrid)."""
    for line in cgroup.splitlines():
        _number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers not in ("", "name=systemd"):
            continue
        for part in reversed(path.split("/")):
            if part.endswith((".service", ".scope")):
                return part
    return None
