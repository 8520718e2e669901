# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Requirements of a host before any change. Pure, except for the readers at the end."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import re
import subprocess
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import keys
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES

_LISTENER = re.compile(r"^\S+\s+\S+\s+\S+\s+(?P<address>\S+):(?P<port>\d+)\s+\S+\s*(?P<users>.*)$")
_PID = re.compile(r'"(?P<name>[^"]+)",pid=(?P<pid>\d+)')


@dataclasses.dataclass(frozen=True)
class Listener:
    """A listening TCP socket.

    Attributes:
        port: the port.
        pid: of the process that listens; 0 when unknown.
        name: of that process.
        unit: the systemd unit that it belongs to; empty for none.
    """

    port: int
    pid: int
    name: str
    unit: str


def parse_listeners(text: str, unit_of: t.Callable[[int], str]) -> list[Listener]:
    """The sockets in the output of ``ss -H -l -t -n -p``."""
    found = []
    for line in text.splitlines():
        match = _LISTENER.match(line.strip())
        if match:
            who = _PID.search(match["users"])
            pid = int(who["pid"]) if who else 0
            found.append(Listener(int(match["port"]), pid, who["name"] if who else "", unit_of(pid) if pid else ""))
    return found


def port_problems(wanted: list[dict[str, t.Any]], listeners: list[Listener]) -> list[str]:
    """The wanted ports that another process listens on.

    Args:
        wanted: for each port its purpose and the patterns of the units that may use it.
        listeners: of the host.
    """
    problems = []
    for item in wanted:
        for listener in listeners:
            if listener.port != item["port"]:
                continue
            if any(fnmatch.fnmatch(listener.unit, pattern) for pattern in item["units"]):
                continue
            who = f"{listener.name or 'a process'} (pid {listener.pid or 'unknown'}, unit {listener.unit or 'none'})"
            problem = f"Port {item['port']}, wanted for {item['purpose']}, is in use by {who}. "
            problem += "Stop it, or choose another port: " + item["variable"] + "."
            if problem not in problems:
                problems.append(problem)
    return problems


def system_problems(init: str, machine: str, os_release: dict[str, str], supported: dict[str, list[str]]) -> list[str]:
    """Why the collection does not support this system.

    Args:
        init: name of process 1.
        machine: the processor, from ``uname -m``.
        os_release: /etc/os-release.
        supported: versions by distribution.
    """
    problems = []
    if init != "systemd":
        problems.append(f"Process 1 is {init!r}; the engines are systemd units, so it must be systemd.")
    if machine != "x86_64":
        problems.append(f"The processor is {machine}; the locks of the engines are for x86_64.")
    name, version = os_release.get("ID", "unknown"), os_release.get("VERSION_ID", "")
    if version not in supported.get(name, []):
        valid = ", ".join(f"{distribution} {v}" for distribution in supported for v in supported[distribution])
        problems.append(f"The system is {name} {version}; tested are {valid}. Set preflight_systems to add others.")
    return problems


def package_problems(wanted: list[dict[str, str]], versions: t.Mapping[str, str]) -> list[str]:
    """The packages that are too old.

    Args:
        wanted: for each package the first version that does, and why.
        versions: what is installed, or would be; empty where that is not known.
    """
    return [
        f"{item['name']} is {versions[item['name']]}, and {item['at_least']} is the first that does: {item['why']}."
        for item in wanted
        if versions[item["name"]] and _numbers(versions[item["name"]]) < _numbers(item["at_least"])
    ]


def _numbers(version: str) -> tuple[int, ...]:
    """The upstream version of a package, without its epoch and what the distribution has added."""
    found = re.match(r"(?:\d+:)?(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def candidate_version(text: str) -> str:
    """The version that would be installed, from the output of ``apt-cache policy``; empty for none."""
    found = re.search(r"^\s+Candidate: (\d\S*)$", text, re.MULTILINE)
    return found[1] if found else ""


def variable_problems(clients: list[t.Any], *, engine: t.Any, accelerator: t.Any, groups: list[str]) -> list[str]:
    """The errors in a host's variables, each with the variable, the value and what is valid.

    Args:
        clients: ``fleet_clients``.
        engine: the host's engine.
        accelerator: ``fleet_accelerator``.
        groups: the host's groups.
    """
    problems = []
    if engine not in ENGINES:
        problems.append(
            f"engine is {engine!r}; valid are {', '.join(ENGINES)}. It comes from -e engine=…, else the tag "
            "inference:engine, else from fleet_engine."
        )
    if accelerator not in ("cuda", "cpu"):
        problems.append(f"fleet_accelerator is {accelerator!r}; valid are cuda, cpu.")
    rings = sorted(set(groups) & {"ring_canary", "ring_stable"})
    if len(rings) != 1:
        problems.append(
            f"The host is in {'both rings' if rings else 'no ring'}; it must be in one of the groups ring_canary and "
            "ring_stable. On AWS the tag inference:ring puts it there: canary, or stable (the default)."
        )
    names = [client.get("name", "") if isinstance(client, dict) else client for client in clients]
    for name in names:
        if not keys.is_client_name(name):
            problems.append(
                f"fleet_clients has the name {keys.shown(name)}; a client's name is lower case letters, digits, dots, "
                "dashes and underscores."
            )
    twice = sorted({name for name in names if isinstance(name, str) and names.count(name) > 1})
    if twice:
        problems.append(f"fleet_clients has {', '.join(twice)} more than once; each client needs a name of its own.")
    return problems


def unit_of(pid: int) -> str:
    """The systemd unit of a process; empty for none."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
            text = file.read()
    except OSError:
        return ""
    units = re.findall(r"/([^/\n]+\.service)(?=/|$)", text, re.MULTILINE)
    return units[-1] if units else ""


def read_listeners() -> list[Listener]:
    """The listening TCP sockets of this host."""
    done = subprocess.run(["ss", "-H", "-l", "-t", "-n", "-p"], capture_output=True, text=True, check=False)
    return parse_listeners(done.stdout, unit_of)


def read_os_release(path: str = "/etc/os-release") -> dict[str, str]:
    """/etc/os-release as a dictionary."""
    with open(path, encoding="utf-8") as file:
        pairs = (line.strip().split("=", 1) for line in file if "=" in line)
        return {key: value.strip('"') for key, value in pairs}


def read_package_version(name: str) -> str:
    """The version of an installed package, else of the one that would be installed; empty where neither is known."""
    status, _space, version = _said(["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", name]).partition(" ")
    return version if status == "installed" else candidate_version(_said(["apt-cache", "policy", name]))


def _said(command: list[str]) -> str:
    """What a command says in English, however it ends."""
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment).stdout.strip()


def free_bytes(path: str) -> int:
    """Free disk space at ``path``, or where it will be."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
