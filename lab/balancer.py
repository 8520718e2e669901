"""The ALB's stand-in: it sends each request to one host, and never retries on another.

It checks /health itself, or the lab's AWS has it follow the target groups (lab/aws/routes.py)."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

from lab import files, processes, settings, shell
from lab.errors import LabError
from lab.state import Lab

EDGE_PORT = 8000
#: Ports of the gateways' edges, and of the balancer in front of them on the lab's own address.
GATEWAY_PORT = 4000


def group(lab: Lab) -> str:
    return f"{lab.name}/balancer"


def configuration(lab: Lab) -> str:
    """HAProxy's configuration. With health checks: inference hosts as servers, and gateways where there are any.

    Without: no servers, which come at run time, and so nothing that changes with the hosts."""
    registered = lab.balancer == "registration"
    fleet, gateways = ("fleet", "fleet-gateways") if registered else ("fleet", "gateways")
    with_gateways = registered or any(host.role == "gateway" for host in lab.fleet())
    stats = f"  stats socket {lab.balancer_socket} mode 600 level admin\n" if registered else ""
    return f"""# Written by the lab; changed by: python -m lab up|add
global
  log stderr format raw local0 notice
  maxconn 2000
{stats}
defaults
  mode http
  log global
  # Like an ALB: a failed request is the client's to repeat, and an idle connection to a host is not kept.
  retries 0
  no option redispatch
  http-reuse never
  timeout connect 5s
  timeout client {settings.IDLE_TIMEOUT}s
  timeout server {settings.IDLE_TIMEOUT}s
  timeout http-request 10s
  # An ALB's idle timeout.
  timeout http-keep-alive 60s

frontend balancer
  bind 127.0.0.1:{lab.balancer_port}
  bind {lab.gateway}:{lab.balancer_port}
  default_backend fleet

{_backend(lab, fleet, "inference", EDGE_PORT)}{_gateways(lab, gateways) if with_gateways else ""}"""


def _gateways(lab: Lab, name: str) -> str:
    return f"""
frontend gateways
  bind {lab.gateway}:{GATEWAY_PORT}
  default_backend {name}

{_backend(lab, name, "gateway", GATEWAY_PORT)}"""


def _backend(lab: Lab, name: str, role: str, port: int) -> str:
    if lab.balancer == "registration":
        return f"backend {name}\n  balance roundrobin\n"
    servers = "".join(
        f"  server {host.name} {lab.address(host)}:{port} check\n" for host in lab.fleet() if host.role == role
    )
    return f"""backend {name}
  balance roundrobin
  option httpchk
  http-check send meth GET uri /health ver HTTP/1.1 hdr host balancer
  http-check expect status 200
  default-server inter {lab.health_interval} fall 2 rise 2 init-addr none
{servers}"""


def ensure(lab: Lab, lock: int) -> str:
    """Start the balancer, or update its hosts; return the action in a word."""
    place = lab.directory / "balancer"
    place.mkdir(parents=True, exist_ok=True)
    config = place / "haproxy.cfg"
    changed = files.write_changed(config, configuration(lab))
    applied = place / "applied.cfg"
    record = processes.read(place / "process.json")
    if record is None:
        processes.stop(place, group(lab))
        shell.run(["haproxy", "-c", "-q", "-f", str(config)])
        processes.start(place, ["haproxy", "-W", "-f", str(config)], lock=lock, group=group(lab))
        _wait(lab, place)
        files.write_changed(applied, configuration(lab))
        return "started"
    if changed or not applied.exists() or applied.read_text(encoding="utf-8") != configuration(lab):
        shell.run(["haproxy", "-c", "-q", "-f", str(config)])
        # The new worker takes over the listening sockets; requests in flight finish in the old one.
        os.kill(record.pid, signal.SIGUSR2)
        files.write(applied, configuration(lab))
        return "reloaded"
    return "unchanged"


def _wait(lab: Lab, place: Path) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", lab.balancer_port), timeout=1).close()
        except OSError as error:
            if processes.read(place / "process.json") is None or time.monotonic() > deadline:
                raise LabError(
                    f"The balancer does not listen on port {lab.balancer_port}: {processes.tail(place)}"
                ) from error
            time.sleep(0.05)
        else:
            if processes.read(place / "process.json") is None:
                raise LabError(f"Port {lab.balancer_port} belongs to another program: {processes.tail(place)}")
            return


def stop(lab: Lab) -> bool:
    return processes.stop(lab.directory / "balancer", group(lab))
