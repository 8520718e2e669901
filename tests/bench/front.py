"""What a gateway of kind ``edge`` costs beside the edge of the host behind it, on loopback with a fast server.

Figures are CPU time of HAProxy's threads. Other work on this machine makes it longer, by a factor where caches are
shared, and never shorter: so everything is measured in turns, and of each the least counts. Waiting times are medians
of differences.
"""

from __future__ import annotations

import contextlib
import json
import re
import ssl
import statistics
import tempfile
import typing as t
from pathlib import Path

from tests.bench import wire
from tests.bench.apart import report as to_output
from tests.bench.bare import bare
from tests.certificates import certificate
from tests.fakes.engine import MODEL
from tests.integration.edge.conftest import KEY, Edge
from tests.integration.edge.fleet import EdgeFleet

Report = t.Callable[[str, str], None]

BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "What is the capital of France? " * 5}]})
PICTURE = json.dumps(
    {
        "model": MODEL,
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x" * 1_000_000}}]}],
    }
)
REQUESTS = {1: 1800, 32: 9600}
ROUNDS = 6
STREAMS, PIECES, PAUSE = 50, 60, 0.02
#: Within a limit of 20,000 open files.
CONNECTIONS = 1500
HELD, WAITING = 1000, 60


def cpu_seconds(edge: Edge) -> float:
    """The processor time of an edge's HAProxy so far, all its processes and threads."""
    total = 0
    for pid in _processes(edge):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def memory(edge: Edge) -> float:
    """The resident memory of an edge's worker in megabytes."""
    sizes = []
    for pid in _processes(edge):
        found = re.search(r"^VmRSS:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        sizes.append(int(found[1]) if found else 0)
    return max(sizes) / 1000


def _processes(edge: Edge) -> list[int]:
    assert edge.process
    master = edge.process.pid
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return [master, *map(int, children)]


@contextlib.contextmanager
def chain(backend: wire.Backend, on_gateways: t.Mapping[str, t.Any], **variables: t.Any) -> t.Iterator[EdgeFleet]:
    """A gateway and a host."""
    common = {
        "edge_max_connections": CONNECTIONS,
        "edge_source_connections": CONNECTIONS,
        "edge_instance_max_requests": CONNECTIONS,
        "edge_threads": 1,
    }
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        hosts = {"inference-1": [backend]}
        yield EdgeFleet(
            stack, place, hosts, 1, {KEY: "team-a"}, variables={**common, **variables}, on_gateways=on_gateways
        )


def fronts(report: Report) -> None:
    """All figures."""
    with wire.Backend() as backend:
        requests(backend, report)
        floor(backend, report)
        waits(backend, report)
        variants(backend, report)
        pictures(backend, report)
        chunks(backend, report)
        held(backend, report)


class Cost(t.NamedTuple):
    """CPU seconds of a request, of the gateway and of the host's edge."""

    gateway: float
    host: float


def through(
    fleet: EdgeFleet, edge: Edge, body: str, clients: int, requests: int, tls: ssl.SSLContext | None = None
) -> Cost:
    """Requests to one of a fleet's edges."""
    [gateway], [host] = fleet.gateways, fleet.hosts.values()
    before = cpu_seconds(gateway), cpu_seconds(host)
    wire.ask(edge.port, wire.request_of(KEY, body.encode()), clients, requests, tls)
    count = requests // clients * clients
    return Cost((cpu_seconds(gateway) - before[0]) / count, (cpu_seconds(host) - before[1]) / count)


def least(costs: t.Sequence[Cost]) -> Cost:
    return Cost(*(min(one) for one in zip(*costs, strict=True)))


def requests(backend: wire.Backend, report: Report) -> None:
    """Through the gateway and at the host's edge in turns."""
    with chain(backend, {}) as fleet:
        [gateway], [host] = fleet.gateways, fleet.hosts.values()
        through(fleet, gateway, BODY, 32, 640)
        for clients, count in REQUESTS.items():
            seen: dict[str, list[Cost]] = {"host": [], "gateway": []}
            for _ in range(ROUNDS):
                seen["host"].append(through(fleet, host, BODY, clients, count // ROUNDS))
                seen["gateway"].append(through(fleet, gateway, BODY, clients, count // ROUNDS))
            direct, passed = least(seen["host"]), least(seen["gateway"])
            report(
                "gateway",
                f"edge, {clients} at once: {passed.gateway * 1e3:.3f} ms of the gateway's CPU a request "
                f"({1 / passed.gateway:.0f} requests/s a core), {direct.host * 1e3:.3f} of a host's edge",
            )


def floor(backend: wire.Backend, report: Report) -> None:
    """HAProxy that forwards and does nothing else, with one round of retries and with two, beside a gateway."""
    with chain(backend, {}) as fleet, contextlib.ExitStack() as stack:
        [gateway], [host] = fleet.gateways, fleet.hosts.values()
        places: dict[str, tuple[int, t.Callable[[], float]]] = {
            f"bare, {rounds} round(s)": (one.port, one.cpu_seconds)
            for rounds in (1, 2)
            for one in [stack.enter_context(bare(host.port, gateway.config, rounds))]
        }
        places["edge"] = (gateway.port, lambda: cpu_seconds(gateway))
        request = wire.request_of(KEY, BODY.encode())
        asked: dict[str, list[float]] = {name: [] for name in places}
        chunk: dict[str, list[float]] = {name: [] for name in places}
        for _ in range(ROUNDS):
            for name, (port, spent) in places.items():
                before = spent()
                wire.ask(port, request, 32, 1600)
                asked[name].append((spent() - before) / 1600 * 1e3)
                before = spent()
                pieces = wire.stream(port, KEY, BODY.encode(), STREAMS, PIECES, PAUSE)
                chunk[name].append((spent() - before) / pieces * 1e6)
    for name in places:
        report(
            "gateway",
            f"{name}: {min(asked[name]):.3f} ms of CPU a request, {min(chunk[name]):.1f} us a streamed chunk",
        )


def waits(backend: wire.Backend, report: Report) -> None:
    """What the gateway adds where it is not busy."""
    with chain(backend, {}) as fleet:
        [gateway], [host] = fleet.gateways, fleet.hosts.values()
        for clients, count, takes in ((1, 100, 0.005), (32, 640, 0.025)):
            request = wire.request_of(KEY, BODY.encode(), f"after {takes}")
            wire.ask(gateway.port, request, clients, clients * 4)
            direct, added = [], []
            for _ in range(ROUNDS):
                direct.append(wire.ask(host.port, request, clients, count).p50)
                added.append(wire.ask(gateway.port, request, clients, count).p50 - direct[-1])
            at_host, more = statistics.median(direct) * 1e3, statistics.median(added) * 1e3
            report(
                "gateway",
                f"edge, {clients} at once, answers of {takes * 1e3:.0f} ms: p50 {at_host:.2f} ms at the host, "
                f"{more:+.2f} ms through the gateway",
            )


def variants(backend: wire.Backend, report: Report) -> None:
    """With one thread, with two, and with TLS, in turns."""
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pem = str(certificate(place, "DNS:gateway.internal"))
        tls = ssl.create_default_context(cafile=pem)
        tls.check_hostname = False
        fleets = {
            "one thread": (stack.enter_context(chain(backend, {})), None),
            "two threads": (stack.enter_context(chain(backend, {"edge_threads": 2})), None),
            "TLS": (stack.enter_context(chain(backend, {"edge_tls_certificate": pem})), tls),
        }
        seen: dict[str, list[Cost]] = {name: [] for name in fleets}
        for _ in range(ROUNDS):
            for name, (fleet, context) in fleets.items():
                seen[name].append(through(fleet, fleet.gateways[0], BODY, 32, 1600, context))
    found = ", ".join(f"{least(costs).gateway * 1e3:.3f} with {name}" for name, costs in seen.items())
    report("gateway", f"edge, 32 at once, ms of the gateway's CPU a request: {found}")


def pictures(backend: wire.Backend, report: Report) -> None:
    with chain(backend, {}) as fleet:
        [gateway], [host] = fleet.gateways, fleet.hosts.values()
        through(fleet, gateway, PICTURE, 8, 40)
        seen: dict[str, list[Cost]] = {"host": [], "gateway": []}
        for _ in range(ROUNDS):
            seen["host"].append(through(fleet, host, PICTURE, 8, 160))
            seen["gateway"].append(through(fleet, gateway, PICTURE, 8, 160))
    passed, direct = least(seen["gateway"]).gateway * 1e3, least(seen["host"]).host * 1e3
    report("gateway", f"edge, a body of 1 MB: {passed:.2f} ms of the gateway's CPU, {direct:.2f} of a host's edge")


def chunks(backend: wire.Backend, report: Report) -> None:
    """With the usage of each answer counted, and without, in turns."""
    with contextlib.ExitStack() as stack:
        fleets = {usage: stack.enter_context(chain(backend, {"edge_usage": usage})) for usage in ("all", "none")}
        seen: dict[str, list[float]] = {usage: [] for usage in fleets}
        for _ in range(ROUNDS):
            for usage, fleet in fleets.items():
                [gateway] = fleet.gateways
                before = cpu_seconds(gateway)
                pieces = wire.stream(gateway.port, KEY, BODY.encode(), STREAMS, PIECES, PAUSE)
                seen[usage].append((cpu_seconds(gateway) - before) / pieces * 1e6)
    report(
        "gateway",
        f"edge, {STREAMS} streams of {1 / PAUSE:.0f} chunks/s: {min(seen['all']):.1f} us of the gateway's CPU a chunk "
        f"with counting, {min(seen['none']):.1f} without",
    )


def held(backend: wire.Backend, report: Report) -> None:
    """Memory at rest, with streams, and with bodies beside them whose requests wait."""
    streams = wire.Held(wire.request_of(KEY, BODY.encode(), "stream 100 1"), HELD, True)
    waiting = wire.Held(wire.request_of(KEY, PICTURE.encode(), "wait"), WAITING, False)
    with chain(backend, {}) as fleet:
        [gateway] = fleet.gateways
        rest = memory(gateway)
        some = wire.hold(gateway.port, [streams], lambda: memory(gateway))
        most = wire.hold(gateway.port, [streams, waiting], lambda: memory(gateway))
    report(
        "gateway",
        f"edge, memory: {rest:.0f} MB at rest, {some:.0f} with {HELD} streams, {most:.0f} with {WAITING} bodies of "
        "1 MB as well",
    )


if __name__ == "__main__":
    fronts(to_output)
