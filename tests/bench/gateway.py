"""What gateways of both kinds cost, beside the edge of an inference host in the same run; and what clients lose when
something fails behind those with LiteLLM or with them. With the stand-in for the engines, whose answers take no time.

On a busy machine CPU time says more than waiting times and rates. It is read from the processes of each gateway. All
kinds are measured in turns, and of each the least counts.
"""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import statistics
import tempfile
import time
import typing as t
import urllib.parse
from pathlib import Path

from tests.bench.apart import measure_apart
from tests.gateways import FAULTS, GATEWAYS, HOST, GatewayLab, suffer
from tests.project import MODEL

Report = t.Callable[[str, str], None]
STREAMS, REQUESTS_PER_SECOND = 10, 40.0
LASTS, AFTER = 7.0, 10.0
UNIT = "litellm@0.service"
ROUNDS = 4
BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "What is the capital of France?"}]})


class Timed(t.NamedTuple):
    """The results of concurrent clients."""

    p50: float
    p95: float
    rate: float


def gateways(report: Report) -> None:
    with GatewayLab("bench-gateways", "10.222.0.0/24", hosts=2) as lab, tempfile.TemporaryDirectory() as place:
        done = lab.site()
        if done.code:
            raise SystemExit(f"bench: site.yml failed:\n{done.output[-6000:]}")
        measure(lab, Path(place), report)
        done = lab.site("-l", GATEWAYS[1], "-e", "gateway_kind=edge")
        if done.code:
            raise SystemExit(f"bench: {GATEWAYS[1]} has not become one of kind edge:\n{done.output[-6000:]}")
        kinds(lab, report)
    measure_apart("tests.bench.front")


def measure(lab: GatewayLab, place: Path, report: Report) -> None:
    """All figures of a lab that serves."""
    start(lab, report)
    overhead(lab, report)
    report("gateway", f"LiteLLM after that: {memory(lab):.0f} MB resident, without a database")
    report("gateway", f"faults, {REQUESTS_PER_SECOND:.0f} requests/s and {STREAMS} streams, half at each gateway:")
    for fault in FAULTS:
        seen = suffer(lab, fault, place, (STREAMS, REQUESTS_PER_SECOND), (LASTS, AFTER))
        report(
            "", f"{fault.name:24} {seen.failed:3}/{seen.requests} requests failed, {seen.cut:3}/{seen.streams} streams"
        )
        report("", f"{'':24} p50 {seen.p50 * 1000:.0f} ms, p95 {seen.p95 * 1000:.0f} ms")


def start(lab: GatewayLab, report: Report) -> None:
    """The time from the start of the unit until it serves."""
    seconds = float(
        lab.on(
            GATEWAYS[0],
            f"systemctl restart {UNIT}; began=$(date +%s.%N); until curl -sf -o /dev/null "
            "http://127.0.0.1:4001/health/liveliness; do sleep 0.1; done; python3 -c "
            '"import time; print(time.time() - float($began))"'.replace("$began", "'$began'"),
        )
    )
    report("gateway", f"LiteLLM from start to ready: {seconds:.1f} s; {memory(lab):.0f} MB resident")
    time.sleep(3)


def memory(lab: GatewayLab) -> float:
    """The process's memory in megabytes."""
    pid = lab.process(GATEWAYS[0], UNIT)
    return int(lab.on(GATEWAYS[0], f"sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\) kB/\\1/p' /proc/{pid}/status")) / 1000


def overhead(lab: GatewayLab, report: Report) -> None:
    """The same request through a gateway and at an inference host's edge, in turns."""
    places = {"edge": f"http://{lab.address(HOST)}:8000", "gateway": lab.url(GATEWAYS[0])}
    for clients, requests in ((1, 60), (32, 400)):
        rounds: dict[str, list[Timed]] = {name: [] for name in places}
        spent = cpu_seconds(lab)
        for _ in range(2):
            for name, url in places.items():
                rounds[name].append(load(url, lab.key(), clients, requests))
        spent = cpu_seconds(lab) - spent
        found = {name: Timed(*map(statistics.median, zip(*seen, strict=True))) for name, seen in rounds.items()}
        for name, seen in found.items():
            report(
                "gateway",
                f"{name}, {clients} at once: p50 {seen.p50 * 1000:.1f} ms, p95 {seen.p95 * 1000:.1f} ms, "
                f"{seen.rate:.1f} requests/s",
            )
        ratio = Timed(*(through / direct for through, direct in zip(found["gateway"], found["edge"], strict=True)))
        each = spent / (2 * requests)
        report("", f"gateway/edge: p50 {ratio.p50:.1f}, p95 {ratio.p95:.1f}, requests/s {ratio.rate:.3f}")
        report("", f"LiteLLM: {each * 1000:.1f} ms of CPU a request, so {1 / each:.0f} requests/s a core")


def kinds(lab: GatewayLab, report: Report) -> None:
    """A gateway with LiteLLM, one of kind edge and an inference host's edge, in turns."""
    urls = {
        "host": f"http://{lab.address(HOST)}:8000",
        "litellm": lab.url(GATEWAYS[0]),
        "edge": lab.url(GATEWAYS[1]),
    }
    hosts = {"host": HOST, "litellm": GATEWAYS[0], "edge": GATEWAYS[1]}
    for clients, counts in (
        (1, {"host": 200, "litellm": 60, "edge": 200}),
        (32, {"host": 1600, "litellm": 320, "edge": 1600}),
    ):
        rounds: dict[str, list[Timed]] = {name: [] for name in urls}
        spent: dict[str, list[float]] = {name: [] for name in urls}
        for _ in range(ROUNDS):
            for name, url in urls.items():
                before = service_seconds(lab, hosts[name])
                rounds[name].append(load(url, lab.key(), clients, counts[name]))
                spent[name].append((service_seconds(lab, hosts[name]) - before) / counts[name])
        least = {name: min(seconds) for name, seconds in spent.items()}
        p50 = {name: statistics.median(one.p50 for one in seen) for name, seen in rounds.items()}
        for name in urls:
            report(
                "gateway",
                f"{name}, {clients} at once: {least[name] * 1000:.2f} ms of CPU a request, {1 / least[name]:.0f} a "
                f"second and core; p50 {p50[name] * 1000:.1f} ms, {(p50[name] - p50['host']) * 1000:+.1f} to the host",
            )
        report("", f"requests/s a core, edge/litellm: {least['litellm'] / least['edge']:.0f}")


def service_seconds(lab: GatewayLab, host: str) -> float:
    """The processor time of HAProxy on a host, and of LiteLLM where there is one, so far."""
    command = (
        f"for pid in $(pgrep -x haproxy) $(systemctl show --value --property MainPID {UNIT}); do"
        " cat /proc/$pid/task/*/schedstat 2>/dev/null; done | awk '{sum += $1} END {printf \"%.6f\", sum / 1e9}'"
    )
    return float(lab.on(host, command))


def cpu_seconds(lab: GatewayLab) -> float:
    """The processor time of LiteLLM so far."""
    pid = lab.process(GATEWAYS[0], UNIT)
    user, system = lab.on(GATEWAYS[0], f"cut -d' ' -f14,15 /proc/{pid}/stat").split()
    return (int(user) + int(system)) / 100


def load(url: str, key: str, clients: int, requests: int) -> Timed:
    """Requests from concurrent clients, each over a persistent connection."""
    host = urllib.parse.urlsplit(url).netloc
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def client(count: int) -> list[float]:
        connection = http.client.HTTPConnection(host, timeout=60)
        seconds = []
        for _ in range(count):
            began = time.perf_counter()
            connection.request("POST", "/v1/chat/completions", BODY, headers)
            answer = connection.getresponse()
            text = answer.read()
            seconds.append(time.perf_counter() - began)
            if answer.status != 200:
                raise SystemExit(f"bench: {url} gave {answer.status} {text[:300]!r}")
        connection.close()
        return seconds

    client(2)
    began = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        times = [one for each in pool.map(client, [requests // clients] * clients) for one in each]
    took = time.perf_counter() - began
    times.sort()
    return Timed(statistics.median(times), times[int(len(times) * 0.95)], len(times) / took)
