"""The duration of a key rotation and what clients lose in it, and the cost of many keys for a request."""

from __future__ import annotations

import hashlib
import json
import tempfile
import typing as t
from pathlib import Path

from tests.bench.fleet import Fleet, program, timed
from tests.bench.rollout import HOSTS, Lost, client_variables
from tests.e2e.rollouts import Traffic
from tests.fakes.standin.lab import StandinLab, inventories

ROTATE = "playbooks/rotate_keys.yml"
REQUESTS_PER_SECOND = 50
MANY = 10_000
ROUNDS = 3
PAIRS = 300

Report = t.Callable[[str, str], None]


def two_hosts(fleet: Fleet, report: Report) -> None:
    """A rotation over two hosts with the real engine, under load."""
    fleet.grow(2)
    fleet.site(fleet.names(2))
    _rotation(fleet.environment, lambda client: fleet.client_environment(client), [], report, "2 hosts, real engine")


def many_hosts(report: Report) -> None:
    """The same over many hosts with the stand-in."""
    with StandinLab("keys-bench", "10.222.0.0/24", HOSTS) as fleet:
        done = fleet.site()
        if done.code:
            raise SystemExit(f"bench: site.yml failed:\n{done.output[-6000:]}")

        def exports(client: str) -> str:
            return fleet.lab("env", "--client", client).output

        _rotation(fleet.environment, exports, inventories(), report, f"{HOSTS} hosts, stand-in engine")


def many_keys(fleet: Fleet, report: Report) -> None:
    """The time of a request at an edge with few keys and with many, in turns."""
    fleet.grow(1)
    fleet.site(["inference-1"])
    added: dict[int, list[float]] = {0: [], MANY: []}
    with tempfile.TemporaryDirectory() as place:
        for _ in range(ROUNDS):
            for count, found in added.items():
                _update_edge(fleet, Path(place), count)
                found.append(fleet.probe("inference-1", PAIRS)["/v1/models"]["added_ms"])
    fleet.site(["inference-1"])
    few, many = min(added[0]), min(added[MANY])
    report("keys", f"the edge adds {few:.2f} ms to a request (p50) with 2 keys, {many:.2f} ms with {MANY} more")
    report("", f"difference: {many - few:+.2f} ms (best of {ROUNDS} times {PAIRS} pairs each)")


def _update_edge(fleet: Fleet, place: Path, count: int) -> None:
    """Give the edge of the first host the fleet's keys, and further ones."""
    others = [{"name": f"team-{n}", "sha256": hashlib.sha256(str(n).encode()).hexdigest()} for n in range(count)]
    (place / "keys.json").write_text(json.dumps({"bench_others": others}))
    (place / "update.yml").write_text(
        """
- hosts: inference-1
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: inference.fleet.keys, tasks_from: store}
    - ansible.builtin.include_role: {name: inference.fleet.edge, tasks_from: keys}
      vars:
        edge_key_hashes: "{{ keys_hashes + bench_others }}"
        # The store does not hold the others, so no generation of it has them.
        edge_key_store_adopt: "true"
"""
    )
    timed([program("ansible-playbook"), str(place / "update.yml"), "-e", f"@{place / 'keys.json'}"], fleet.environment)


def _rotation(
    environment: t.Mapping[str, str],
    exports: t.Callable[[str], str],
    inventory: list[str],
    report: Report,
    what: str,
) -> None:
    command = [program("ansible-playbook"), *inventory, ROTATE, "-e", "client=demo"]
    lost = Lost()
    with tempfile.TemporaryDirectory() as place:

        def clients(name: str) -> Traffic:
            # Half of the load each; the key is client demo's current one.
            variables = {**environment, **client_variables(exports("demo"))}
            return Traffic(variables, Path(place) / name, streams=0, requests_per_second=REQUESTS_PER_SECOND / 2)

        first, second = clients("first-old"), clients("second-old")
        begun = timed([*command, "-e", "overlap=1h"], environment)
        lost.add(second.stop())
        second = clients("second-new")
        # Both keys are in use while the edges are updated with another client's.
        timed([program("ansible-playbook"), *inventory, ROTATE, "-e", "client=gate"], environment)
        lost.add(first.stop())
        first = clients("first-new")
        finished = timed([program("ansible-playbook"), *inventory, ROTATE, "-e", "finish=true"], environment)
        lost.add(first.stop())
        lost.add(second.stop())
    whole = timed(command, environment)
    update = [seconds for seconds, name in whole.tasks if name.endswith("Update the edge")]
    report(
        "keys", f"{what}: one client rotated in {whole.seconds:.1f} s, of which updating all edges {max(update):.1f} s"
    )
    for seconds, name in whole.longest(4):
        report("", f"  {seconds:5.1f} s  {name}")
    report(
        "",
        f"under {REQUESTS_PER_SECOND} requests/s: with an overlap {begun.seconds:.1f} s, to its end "
        f"{finished.seconds:.1f} s; {lost}",
    )
