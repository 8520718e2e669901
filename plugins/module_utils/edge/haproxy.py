# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""HAProxy's sockets: commands to every process that still serves, and their parsed answers."""

from __future__ import annotations

import contextlib
import re
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy_socket
from ansible_collections.inference.fleet.plugins.module_utils.edge.haproxy_socket import MASTER_SOCKET, SOCKET

# The arguments of a module that uses HAProxy's sockets; documented once, in the fragment haproxy_sockets.
SOCKET_ARGUMENTS: dict[str, dict[str, t.Any]] = {
    "socket": {"type": "path", "default": SOCKET},
    "master_socket": {"type": "path", "default": MASTER_SOCKET},
}

_TIMEOUT = 30.0
# A process that is just starting or exiting drops a connection; the next one is answered, or refused.
_ATTEMPTS = 10
_ATTEMPT_SECONDS = 0.2
# HAProxy reads a command into one buffer (16 KiB, less its reserve).
_PAYLOAD_BYTES = 12000
_UNKNOWN_MAP = "Unknown map identifier"
_GONE = "Can't find the target PID"
# A process that is shutting down has closed its proxies.
_ENDING = "Proxy is disabled."
# The admin state of a draining server (SRV_ADMF_FDRAIN).
_FORCED_DRAIN = 0x08
_AGE = re.compile(r"(\d+)([dhms])")
_AGE_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


class WorkerGone(Exception):
    """The process has ended since it was listed and needs no command."""


class _Dropped(FleetError):
    """The process closed the connection."""


class Server(t.NamedTuple):
    """One server of a backend, at run time."""

    backend: str
    name: str
    up: bool
    draining: bool


class EdgeRequest(t.NamedTuple):
    """A request in flight."""

    backend: str
    server: str
    client: str
    seconds: int

    def as_dict(self) -> dict[str, t.Any]:
        return {"client": self.client, "instance": self.server, "seconds": self.seconds}


class Worker:
    """A process that serves connections.

    Args:
        path: the socket that reaches it.
        prefix: what the master needs in front of a command; empty for a worker's own socket.
    """

    def __init__(self, path: str, prefix: str = "") -> None:
        self._path = path
        self._prefix = prefix

    def ask(self, command: str) -> str:
        """HAProxy's answer to ``command``.

        Raises:
            WorkerGone: the process ended.
            FleetError: the socket does not answer.
        """
        reply = ask(self._path, self._prefix + command)
        if self._prefix and reply.startswith(_GONE):
            raise WorkerGone
        return reply

    def _execute(self, command: str, needless: str | None = None) -> None:
        """Send a command that answers nothing on success, or ``needless`` where there is nothing to do."""
        reply = self.ask(command).strip()
        if reply and reply != needless:
            raise FleetError(f"HAProxy refused {command.splitlines()[0]!r}: {reply}")

    def environment(self, name: str) -> str:
        """A variable of the process's environment, as NAME=VALUE."""
        return self.ask(f"show env {name}").strip()

    def information(self) -> str:
        """The process's own description."""
        return self.ask("show info")

    def map_entries(self, path: str) -> list[tuple[str, str]] | None:
        """Keys and values of a map in HAProxy's order; None where its configuration has no such map."""
        reply = self.ask(f"show map {path}")
        if reply.startswith(_UNKNOWN_MAP):
            return None
        entries = []
        for line in reply.splitlines():
            _identifier, _space, entry = line.partition(" ")
            key, _space, value = entry.partition(" ")
            if key:
                entries.append((key, value))
        return entries

    def replace_map(self, path: str, entries: t.Iterable[tuple[str, str]]) -> None:
        """Make ``entries`` the content of a map, atomically for lookups."""
        reply = self.ask(f"prepare map {path}")
        version = re.search(r"version created: (\d+)", reply)
        if not version:
            raise FleetError(f"HAProxy refused 'prepare map {path}': {reply.strip()}")
        for payload in _payloads(f"{key} {value}\n" for key, value in entries):
            self._execute(f"add map @{version[1]} {path} <<\n{payload}")
        self._execute(f"commit map @{version[1]} {path}")

    def servers(self) -> list[Server]:
        """The servers of every backend."""
        found = []
        for row in self.ask("show servers state").splitlines():
            fields = row.split()
            if len(fields) > 6 and fields[0].isdigit():
                admin = int(fields[6])
                found.append(Server(fields[1], fields[3], up=fields[5] != "0", draining=bool(admin & _FORCED_DRAIN)))
        return found

    def statistics(self) -> list[dict[str, str]]:
        """The rows of its statistics: frontends, backends and servers, by the names of HAProxy's columns."""
        header, *rows = self.ask("show stat").lstrip("# ").splitlines()
        names = header.split(",")
        return [dict(zip(names, row.split(","))) for row in rows if row]

    def set_draining(self, server: Server, draining: bool) -> None:
        """Let a server take new requests, or no more.

        A process that only finishes its requests gets no new ones, so there is nothing to do.
        """
        state = "drain" if draining else "ready"
        self._execute(f"set server {server.backend}/{server.name} state {state}", needless=_ENDING)

    def end_agent_down(self, backend: str, server: str) -> None:
        """Put a server back that an agent took out of service, where no agent does it any more."""
        self._execute(f"set server {backend}/{server} agent up", needless=_ENDING)

    def requests(self, backend_prefix: str, rounds_prefix: str, table: str) -> list[EdgeRequest]:
        """The requests in flight, queued ones included.

        Args:
            backend_prefix: the prefix of the names of the backends that count. rounds_prefix: the prefix of the names
                of the backends that pass requests on to them within the process. Which of those it is cannot be seen,
                so the clients of all candidates are named. table: the stick table with the client of a connection, as
                ``client/address``.
        """
        client: dict[str, set[str]] = {}
        for row in self.ask(f"show table {table} data.conn_cur gt 0").splitlines():
            match = re.search(r" key=([^/ ]+)/(\S+) ", row)
            if match:
                client.setdefault(match[2], set()).add(match[1])
        sessions = [_session(row) for row in self.ask("show sess").splitlines()]
        found = []
        for session in sessions:
            backend, server, age = session["be"], session["srv"], _age(session["age"])
            if not backend.startswith(backend_prefix):
                continue
            sources = {session["src"]}
            if session["src"].startswith("unix:"):
                rounds = rounds_prefix + backend.removeprefix(backend_prefix)
                sources = {outer["src"] for outer in sessions if outer["be"] == rounds and _age(outer["age"]) >= age}
            names = " or ".join(sorted({name for source in sources for name in client.get(source, ())})) or "unknown"
            found.append(EdgeRequest(backend, "" if server == "<none>" else server, names, age))
        return found


def workers(path: str = SOCKET, master_path: str = MASTER_SOCKET) -> list[Worker]:
    """Every serving process: the current one first, then those that finish their requests after a reload.

    An empty list means that HAProxy does not run.
    """
    try:
        _ask_patiently(path, "show version")
    except (FileNotFoundError, ConnectionRefusedError):
        return []
    found = [Worker(path)]
    with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
        pids = haproxy_socket.former_workers(_ask_patiently(master_path, "show proc"))
        found += [Worker(master_path, f"@!{pid} ") for pid in pids]
    return found


def ask(path: str, command: str) -> str:
    """The answer of the process behind a socket.

    Raises:
        FleetError: it does not answer.
        FileNotFoundError, ConnectionRefusedError: nothing listens there.
    """
    try:
        return haproxy_socket.ask(path, command, _TIMEOUT)
    except (FileNotFoundError, ConnectionRefusedError):
        raise
    except OSError as error:
        kind = _Dropped if isinstance(error, (ConnectionResetError, BrokenPipeError)) else FleetError
        raise kind(
            f"HAProxy's socket {path} does not answer ({error}). Look at 'systemctl status haproxy', and run as root."
        ) from error


def _ask_patiently(path: str, command: str) -> str:
    for _attempt in range(_ATTEMPTS):
        with contextlib.suppress(_Dropped):
            return ask(path, command)
        time.sleep(_ATTEMPT_SECONDS)
    return ask(path, command)


def _payloads(lines: t.Iterable[str]) -> t.Iterator[str]:
    payload = ""
    for line in lines:
        if payload and len(payload) + len(line) > _PAYLOAD_BYTES:
            yield payload
            payload = ""
        payload += line
    if payload:
        yield payload


def _session(row: str) -> dict[str, str]:
    """The fields of a line of "show sess"; the ones in use are always there."""
    return {
        "be": "",
        "srv": "",
        "src": "",
        "age": "",
        **dict(word.partition("=")[::2] for word in row.split() if "=" in word),
    }


def _age(text: str) -> int:
    return sum(int(number) * _AGE_SECONDS[unit] for number, unit in _AGE.findall(text))
