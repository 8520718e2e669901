"""What it costs to see the fleet, and how soon a hang is seen, over, or a page. Every host has the stand-in engine."""

from __future__ import annotations

import json
import os
import re
import threading
import time
import typing as t

from lab import state
from tests.fakes.standin.lab import StandinLab
from tests.fakes.webhook import Hook

Report = t.Callable[[str, str], None]

#: Services of ours, and of the distribution, that only look.
WATCHDOG = "inference-watchdog.service"
SERVICES = (WATCHDOG, "prometheus-node-exporter.service")
FACTS = "inference-facts.service"
HOST = "inference-1"
WATCH = "watch-1"
SECONDS = 60
CLIENTS = 8
FAULTS = 3


def seeing(report: Report) -> None:
    """Cost at rest and under load, then hangs one after the other."""
    with StandinLab("seeing", "10.225.0.0/24", 1) as fleet:
        # Restarts follow each other here.
        words = ("-e", "watchdog_pause=0", "-e", "watchdog_max_restarts=100", "-e", "edge_node_exporter=true")
        ready = fleet.site(*words)
        if ready.code:
            raise SystemExit(f"bench: the host is not converged:\n{ready.output[-6000:]}")
        _cost(fleet, report, "at rest")
        stop = threading.Event()
        clients = [threading.Thread(target=_ask_until, args=(fleet, stop), daemon=True) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        _cost(fleet, report, f"{CLIENTS} clients")
        stop.set()
        for client in clients:
            client.join()
        for _ in range(FAULTS):
            _hang(fleet, report)
        _page(fleet, report, *words)


def _cost(fleet: StandinLab, report: Report, what: str) -> None:
    before = {service: _seconds(fleet, service) for service in SERVICES}
    began = time.monotonic()
    time.sleep(SECONDS)
    took = time.monotonic() - began
    for service in SERVICES:
        share = (_seconds(fleet, service) - before[service]) / took
        report("seeing", f"{what}: {service} {share:.2%} of a core, {_memory(fleet, service):.0f} MB")
    each = _run_facts(fleet)
    report("seeing", f"{what}: {FACTS} {each:.2f} s of CPU each 30 s: {each / 30:.2%} of a core")


def _hang(fleet: StandinLab, report: Report) -> None:
    # One that has just started has two minutes before it is suspected, until it has finished ten requests.
    for _ in range(10):
        _ask_once(fleet)
    client = threading.Thread(target=_ask_once, args=(fleet,), daemon=True)
    fleet.faults(HOST, freeze=True)
    began = time.monotonic()
    client.start()
    _until(lambda: _out(fleet))
    out = time.monotonic() - began
    client.join()
    failed = time.monotonic() - began
    _until(lambda: not _out(fleet))
    back = time.monotonic() - began
    report(
        "seeing",
        f"a hang: out of the edge after {out:.1f} s, its client has an error after {failed:.1f} s, back "
        f"through the gate after {back:.1f} s",
    )


def _page(fleet: StandinLab, report: Report, *words: str) -> None:
    """A hang that the watchdog gives up, because it has restarted the engine before, to its page at a receiver here."""
    added = fleet.lab("add", WATCH, "--role", "monitoring")
    if added.code:
        raise SystemExit(f"bench: there is no monitoring host:\n{added.output[-6000:]}")
    hook = Hook(state.require(fleet.name).gateway)
    receiver = {"name": "bench", "severities": ["page", "none"], "webhook": {"url": hook.url}}
    variables = {
        "fleet_clients": [{"name": name} for name in ("gate", "gateway", "demo", "monitoring")],
        "monitoring_receivers": [receiver],
        "watchdog_max_restarts": 1,
    }
    ready = fleet.site(*words, "-e", json.dumps(variables))
    if ready.code:
        raise SystemExit(f"bench: the monitoring host is not converged:\n{ready.output[-6000:]}")
    _until(lambda: bool(hook.got("DeadMan")))
    client = threading.Thread(target=_ask_once, args=(fleet,), daemon=True)
    fleet.faults(HOST, freeze=True)
    began = time.monotonic()
    client.start()
    _until(lambda: _out(fleet))
    out = time.monotonic() - began
    _until(lambda: bool(hook.got("WatchdogGaveUp")))
    paged = time.monotonic() - began
    report(
        "seeing", f"a hang that stays: out of the edge after {out:.1f} s, a page at the receiver after {paged:.1f} s"
    )
    hook.shutdown()


def _out(fleet: StandinLab) -> bool:
    return fleet.on(HOST, "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8000/health; true") != "200"


def _until(condition: t.Callable[[], bool]) -> None:
    ends = time.monotonic() + 300
    while not condition():
        if time.monotonic() > ends:
            raise SystemExit("bench: it did not happen within 300 s")
        time.sleep(0.2)


def _ask_until(fleet: StandinLab, stop: threading.Event) -> None:
    while not stop.is_set():
        _ask_once(fleet)


def _ask_once(fleet: StandinLab) -> None:
    try:
        fleet.ask()
    except Exception:
        # The engine hangs: that is what is measured.
        return


def _seconds(fleet: StandinLab, service: str) -> float:
    """CPU seconds of its process so far; systemd counts none in the lab's hosts."""
    pid = fleet.on(HOST, f"systemctl show --property MainPID --value {service}")
    ticks = fleet.on(HOST, f"cut -d' ' -f14,15 /proc/{pid}/stat 2>/dev/null; true").split()
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def _run_facts(fleet: StandinLab) -> float:
    """CPU seconds of one look, by the service's own command."""
    command = f"systemctl cat {FACTS} | sed -n s/^ExecStart=//p"
    used = fleet.on(HOST, f"TIMEFORMAT='%U %S'; {{ time $({command}) > /dev/null 2>&1; }} 2>&1")
    return sum(map(float, used.split()[-2:]))


def _memory(fleet: StandinLab, service: str) -> float:
    """MB of its processes' own pages, without what they share with others."""
    pid = fleet.on(HOST, f"systemctl show --property MainPID --value {service}")
    shown = fleet.on(HOST, f"cat /proc/{pid}/smaps_rollup 2>/dev/null; true")
    return sum(int(size) for size in re.findall(r"^Private_\w+: +(\d+) kB", shown, re.MULTILINE)) / 1000
