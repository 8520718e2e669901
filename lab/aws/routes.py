"""The balancer in front of the lab's target groups: a HAProxy that gets its servers at run time, through its socket."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import sys
import time
import typing as t
from pathlib import Path

from lab.aws.target_groups import LabTargetGroups, locate
from lab.aws.targets import choose

POLL_SECONDS = 0.2
#: HAProxy's own bits of `srv_admin_state`: forced into maintenance, forced to drain.
MAINTENANCE, DRAIN = 0x01, 0x08

ServerKey = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class BalancerServer:
    """A server of a backend: its address, and whether it gets new requests."""

    address: str
    port: int
    accepts: bool


def plan(now: dict[ServerKey, BalancerServer], wanted: dict[ServerKey, BalancerServer]) -> t.Iterator[str]:
    """The commands for HAProxy that make it so. Nothing that is in flight is cut, but at the end of a registration."""
    for (backend, name), server in wanted.items():
        there = f"{backend}/{name}"
        found = now.get((backend, name))
        if found is None:
            if server.accepts:
                yield f"add server {there} {server.address}:{server.port}"
                yield f"set server {there} state ready"
        elif (found.address, found.port) != (server.address, server.port):
            yield f"set server {there} addr {server.address} port {server.port}"
        elif found.accepts != server.accepts:
            yield f"set server {there} state {'ready' if server.accepts else 'drain'}"
    for backend, name in now.keys() - wanted.keys():
        there = f"{backend}/{name}"
        yield f"set server {there} state maint"
        # The end of the deregistration delay is the end of what is in flight.
        yield f"shutdown sessions server {there}"
        yield f"del server {there}"


def parse_servers(text: str) -> dict[ServerKey, BalancerServer]:
    """The answer to `show servers state`."""
    lines = text.splitlines()
    names = next((line.lstrip("# ").split() for line in lines if line.startswith("#")), [])
    found = {}
    for line in lines:
        fields = line.split()
        if line.startswith("#") or len(fields) < len(names) or len(fields) < 2:
            continue
        row = dict(zip(names, fields, strict=False))
        held = int(row["srv_admin_state"]) & (MAINTENANCE | DRAIN)
        server = BalancerServer(row["srv_addr"], int(row["srv_port"]), accepts=not held)
        found[row["be_name"], row["srv_name"]] = server
    return found


class BalancerSocket:
    """HAProxy's socket."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def say(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(self._path)
            # HAProxy before 2.6 has dynamic servers as an experiment only.
            connection.sendall(f"experimental-mode on; {command}\n".encode())
            parts = []
            while data := connection.recv(65536):
                parts.append(data)
        return b"".join(parts).decode()

    def backends(self) -> set[str]:
        return {line for line in self.say("show backend").split() if not line.startswith("#")}


def find_wanted(groups: LabTargetGroups, backends: t.Container[str], settle: float) -> dict[ServerKey, BalancerServer]:
    """The servers of each backend that has the name of a target group."""
    wanted = {}
    with groups.lock:
        for group in groups.groups():
            if group.name not in backends:
                continue
            now = groups.clock.now()
            targets = groups.table(group).current(now).values() if group.load_balancer_arns else []
            for (ident, port), accepts in choose(targets, now, settle).items():
                address = locate(group, ident).address
                if address:
                    wanted[group.name, f"{ident}-{port}"] = BalancerServer(address, port, accepts)
    return wanted


def follow(groups: LabTargetGroups, path: Path, settle: float) -> None:
    """Have the HAProxy of that socket, when there is one, follow the target groups, for ever."""
    runtime = BalancerSocket(path)
    while True:
        # No socket: the balancer is down, or does its own health checks.
        with contextlib.suppress(OSError):
            backends = runtime.backends()
            now = parse_servers(runtime.say("show servers state"))
            for command in plan(now, find_wanted(groups, backends, settle)):
                answer = runtime.say(command).strip()
                print(f"balancer: {command}{f': {answer}' if answer else ''}", file=sys.stderr, flush=True)
        time.sleep(POLL_SECONDS / max(1.0, groups.clock.speed))
