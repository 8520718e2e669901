#!/usr/bin/python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tell HAProxy what its servers are before it starts or reloads; systemd runs this.

HAProxy takes a server for healthy until a check says otherwise, and forgets at a reload which servers are drained. So
it reads the file that is written here: at a start every server is down until its first check, at a reload it is what it
was, and what the record of drains names is drained either way. A process of this host that the edge does not know yet
when it reloads is asked for its health here: a gateway with one process would refuse all requests until HAProxy asks.

Usage: edge_servers.py start|reload [--config FILE] [--drains FILE] [--socket FILE] [--output FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import sys
import tempfile

# Python's isolated mode leaves out this directory, which role edge has put the module in; a start of HAProxy writes
# nothing beside it.
sys.dont_write_bytecode = True
sys.path.append(os.path.dirname(os.path.abspath(__file__)))

import haproxy_socket  # noqa: E402

BACKEND = re.compile(r"backend ((?:instances|peers|pool)_\S+)")
# One that tracks another follows it; of one with a name for an address, or with TLS, the file would have to say more.
SERVER = re.compile(r"\s+server (\S+) (\d+(?:\.\d+){3}):(\d+)(?!.*\s(?:track|ssl)\s)")

# The format's version and columns; see "show servers state" in HAProxy's management guide.
HEADER = (
    "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight "
    "srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state "
    "bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr "
    "srv_agent_addr srv_agent_port\n"
)
#: What a backend's health check asks for, and the backends whose servers are processes of this host.
CHECK = re.compile(r"\s+http-check send meth GET uri (/\S*)")
OWN = re.compile(r"instances_\d+$")
LOOPBACK = "127.0.0.1"
WEIGHT = re.compile(r"\sweight (\d+)")
# Down, not drained, with a check that has yet to succeed.
DOWN = "0 {backend} {number} {name} {address} 0 0 {weight} {weight} 0 6 1 0 6 0 0 0 - {port} - 0 0 - - 0"
#: The same after a check that succeeded: the columns that differ, with as many good checks as HAProxy takes.
UP = {5: "2", 10: "15", 11: "3", 12: "9"}
BACKEND_COLUMN, NAME_COLUMN, ADDRESS_COLUMN, ADMIN_COLUMN, PORT_COLUMN = 1, 3, 4, 6, 18
FORCED_DRAIN = 0x08
#: Seconds for HAProxy's answer, and for that of a server; the reload waits meanwhile.
PATIENCE, HEALTH_PATIENCE = 5.0, 1.0


def configured(config: str) -> dict[tuple[str, str], list[str]]:
    """A row for each server in the configuration, as if it were down."""
    rows: dict[tuple[str, str], list[str]] = {}
    backend = ""
    for line in config.splitlines():
        # A condition of HAProxy's version ends no section.
        if line and not line[0].isspace() and not line.startswith("."):
            section = BACKEND.match(line)
            backend = section[1] if section else ""
        server = SERVER.match(line)
        if backend and server:
            name, address, port = server.groups()
            number = sum(1 for other, _name in rows if other == backend) + 1
            found = WEIGHT.search(line)
            weight = found[1] if found else "1"
            row = DOWN.format(backend=backend, number=number, name=name, address=address, port=port, weight=weight)
            rows[backend, name] = row.split(" ")
    return rows


def health_paths(config: str) -> dict[str, str]:
    """What the backends with processes of this host ask for to see whether one serves."""
    paths = {}
    backend = ""
    for line in config.splitlines():
        if line and not line[0].isspace() and not line.startswith("."):
            backend = line.partition("backend ")[2].strip()
        check = CHECK.match(line)
        if check and OWN.match(backend):
            paths[backend] = check[1]
    return paths


def is_healthy(port: int, path: str) -> bool:
    """Whether a process of this host answers its health check."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection((LOOPBACK, port), HEALTH_PATIENCE) as connection:
            connection.sendall(request.encode())
            return re.match(rb"HTTP/1\.[01] [23]\d\d ", connection.recv(64)) is not None
    except OSError:
        return False


def ask_new(
    wanted: dict[tuple[str, str], list[str]], live: dict[tuple[str, str], list[str]], paths: dict[str, str]
) -> None:
    """Mark those of this host up that HAProxy does not know yet and that are healthy."""
    for server, row in wanted.items():
        known = live.get(server)
        is_known = known and known[PORT_COLUMN] == row[PORT_COLUMN]
        if is_known or server[0] not in paths or row[ADDRESS_COLUMN] != LOOPBACK:
            continue
        if is_healthy(int(row[PORT_COLUMN]), paths[server[0]]):
            for column, value in UP.items():
                row[column] = value


def current(reply: str) -> dict[tuple[str, str], list[str]]:
    """The rows of HAProxy's own answer."""
    rows = (line.split(" ") for line in reply.splitlines())
    return {(row[BACKEND_COLUMN], row[NAME_COLUMN]): row for row in rows if len(row) > PORT_COLUMN and row[0].isdigit()}


def merged(wanted: dict[tuple[str, str], list[str]], live: dict[tuple[str, str], list[str]], drained: set[str]) -> str:
    """The file's content."""
    lines = []
    for server, row in wanted.items():
        known = live.get(server)
        # A server that moved to another port is another server.
        if known and (known[ADDRESS_COLUMN], known[PORT_COLUMN]) == (row[ADDRESS_COLUMN], row[PORT_COLUMN]):
            row = list(known)
        if server[1] in drained:
            row[ADMIN_COLUMN] = str(int(row[ADMIN_COLUMN]) | FORCED_DRAIN)
        lines.append(" ".join(row))
    return HEADER + "".join(f"{line}\n" for line in lines)


def drained_instances(path: str) -> set[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return set(json.load(file).get("instances", {}))
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, AttributeError) as error:
        # The edge has to start all the same; module edge_drain refuses a damaged record and says so.
        print(f"{path} cannot be read, so no instance is drained: {error}", file=sys.stderr)
        return set()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("event", choices=["start", "reload"])
    parser.add_argument("--config", default="/etc/haproxy/haproxy.cfg")
    parser.add_argument("--drains", default="/var/lib/inference/drain.json")
    parser.add_argument("--socket", default=haproxy_socket.SOCKET)
    parser.add_argument("--output", default="/run/haproxy/servers.state")
    arguments = parser.parse_args()
    with open(arguments.config, encoding="utf-8") as file:
        config = file.read()
    wanted = configured(config)
    live: dict[tuple[str, str], list[str]] = {}
    if arguments.event == "reload":
        try:
            live = current(haproxy_socket.ask(arguments.socket, "show servers state", PATIENCE))
            ask_new(wanted, live, health_paths(config))
        except OSError as error:
            print(
                f"{arguments.socket} does not answer, so every server has to be checked first: {error}", file=sys.stderr
            )
    # HAProxy's user may write into the directory: a name that it could foresee might be its link to another file.
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(arguments.output) or ".", prefix=".servers.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(merged(wanted, live, drained_instances(arguments.drains)))
    os.replace(temporary, arguments.output)


if __name__ == "__main__":
    main()
