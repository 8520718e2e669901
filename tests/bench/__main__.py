"""Measure speed and size on a lab of its own. Figures are printed, nothing is asserted."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import time
import types

from tests.bench import gateway, keys, noop, rollout, s3, seeing, soak, start
from tests.bench.apart import measure_apart, report
from tests.bench.fleet import Fleet

PARTS = (
    "memory",
    "converge",
    "noop",
    "edge",
    "rollout",
    "keys",
    "gateway",
    "affinity",
    "s3",
    "seeing",
    "start",
    "soak",
)
CONVERGED = 3
PAIRS = 200


def memory(fleet: Fleet) -> None:
    fleet.grow(CONVERGED)
    # Right after the boot a few services are still exiting.
    time.sleep(5)
    report("memory", f"a bare lab host: {fleet.memory()}")


def converge(fleet: Fleet) -> None:
    fleet.grow(CONVERGED)
    # The first run fills the caches, whatever was in them before; the second one is measured, on a bare host.
    first = fleet.site(["inference-1"])
    fleet.reset("inference-1")
    run = fleet.site(["inference-1"])
    start = run.seconds_in("Start the unit", "Wait until it serves")
    report("converge", f"a bare host, caches warm: {run.seconds:.1f} s = engine start {start:.1f} s")
    report("", f"+ {run.seconds - start:.1f} s for all else (caches as they were: {first.seconds:.1f} s). Of these:")
    for seconds, name in run.longest(5, "Start the unit", "Wait until it serves"):
        report("", f"  {seconds:5.1f} s  {name}")


def noops(fleet: Fleet) -> None:
    del fleet
    with contextlib.redirect_stdout(io.StringIO()):
        noop.noop(report_past)


def edge(fleet: Fleet) -> None:
    fleet.grow(1)
    fleet.site(["inference-1"])
    for name, found in fleet.probe("inference-1", PAIRS).items():
        report(
            "edge",
            f"{name}: p50 {found['engine_ms']:.2f} ms at the engine's port, {found['edge_ms']:.2f} ms through the edge",
        )
        report("", f"median difference of {PAIRS} pairs: {found['added_ms']:+.2f} ms ({found['ratio']:.3f} times)")


def rollouts(fleet: Fleet) -> None:
    # The helpers of the tests print their output, which the figures avoid.
    with contextlib.redirect_stdout(io.StringIO()):
        rollout.two_hosts(fleet, report_past)
        rollout.many_hosts(report_past)


def rotations(fleet: Fleet) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        keys.many_keys(fleet, report_past)
        keys.two_hosts(fleet, report_past)
        keys.many_hosts(report_past)


def gateways(fleet: Fleet) -> None:
    del fleet
    with contextlib.redirect_stdout(io.StringIO()):
        gateway.gateways(report_past)


def affinities(fleet: Fleet) -> None:
    del fleet
    measure_apart("tests.bench.affinity")


def weights(fleet: Fleet) -> None:
    del fleet
    with contextlib.redirect_stdout(io.StringIO()):
        s3.ranges(report_past)


def sight(fleet: Fleet) -> None:
    del fleet
    with contextlib.redirect_stdout(io.StringIO()):
        seeing.seeing(report_past)


def starts(fleet: Fleet) -> None:
    start.starts(fleet, report_past)


def soaked(fleet: Fleet) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        soak.soak(fleet, report_past)


def report_past(part: str, text: str) -> None:
    with contextlib.redirect_stdout(sys.__stdout__):
        report(part, text)


def main() -> int:
    chosen = [part for part in PARTS if part in sys.argv[1:]] or list(PARTS)

    def end(number: int, _frame: types.FrameType | None) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)
    measures = {"memory": memory, "converge": converge, "noop": noops, "edge": edge}
    measures |= {
        "rollout": rollouts,
        "keys": rotations,
        "gateway": gateways,
        "affinity": affinities,
        "s3": weights,
        "seeing": sight,
    }
    measures |= {"start": starts, "soak": soaked}
    with Fleet("bench", "10.216.0.0/24") as fleet:
        for part in chosen:
            measures[part](fleet)
    return 0


if __name__ == "__main__":
    sys.exit(main())
