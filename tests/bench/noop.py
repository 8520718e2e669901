"""The duration of site.yml on converged fleets of several sizes, beside a ping and the gate's questions."""

from __future__ import annotations

import dataclasses
import time
import typing as t

from tests.bench.fleet import Run, program, timed
from tests.fakes.standin.lab import StandinLab, inventories

SIZES = (3, 8, 50)
#: So many are deployed by the roles.
DEPLOYED = 8
TRIES = 3
GATE = "Ask and judge"


@dataclasses.dataclass(frozen=True)
class Figures:
    """Seconds of the fastest of TRIES runs.

    Attributes:
        hosts: their number.
        site: of site.yml.
        gate: of the gate's questions in it.
        ping: of ``ansible -m ping``.
        changed: tasks with changes in all runs.
    """

    hosts: int
    site: float
    gate: float
    ping: float
    changed: int

    def __str__(self) -> str:
        return (
            f"{self.hosts} hosts: site.yml {self.site:.1f} s, of which the gate asks for {self.gate:.1f} s; "
            f"ping {self.ping:.1f} s; without the gate {(self.site - self.gate) / self.ping:.1f} pings; "
            f"changed={self.changed}"
        )


def noop(report: t.Callable[[str, str], None]) -> None:
    """Every host is a lab host of its own with the stand-in engine.

    The roles deploy the first eight. Further ones have a copy of the disk of one of those, because Ansible would take
    half a minute to deploy each; tests/bench/receipts.yml then leaves their receipts.
    """
    with StandinLab("noop", "10.222.0.0/24", SIZES[0]) as fleet:
        before: Figures | None = None
        for hosts in SIZES:
            began = time.monotonic()
            if hosts > DEPLOYED:
                fleet.multiply(hosts)
                ready = fleet.playbook("tests/bench/receipts.yml", "-e", "engine=vllm")
            else:
                fleet.up(hosts)
                ready = fleet.site()
            if ready.code:
                raise SystemExit(f"bench: the hosts are not converged:\n{ready.output[-6000:]}")
            report("", f"{hosts} hosts converged after {time.monotonic() - began:.0f} s")
            found = _measure(fleet, hosts)
            report("noop", str(found))
            if before:
                more = hosts - before.hosts
                each, each_ping = (found.site - before.site) / more, (found.ping - before.ping) / more
                report("", f"each of {more} further hosts adds {each:.2f} s, to a ping {each_ping:.2f} s")
            before = found


def _measure(fleet: StandinLab, hosts: int) -> Figures:
    site = [program("ansible-playbook"), *inventories(), "site.yml", "-e", "engine=vllm"]
    ping = [program("ansible"), *inventories(), "inference", "-m", "ansible.builtin.ping"]
    sites: list[Run] = []
    pings: list[float] = []
    # In turns, so that another load on the machine hits both.
    for _ in range(TRIES):
        sites.append(timed(site, fleet.environment))
        pings.append(timed(ping, fleet.environment).seconds)
    fastest = min(sites, key=lambda run: run.seconds)
    changed = sum(run.changed for run in sites)
    return Figures(hosts, fastest.seconds, fastest.seconds_in(GATE), min(pings), changed)
