"""Two gateways and their shared services, in front of inference hosts with the stand-in engine; and their faults.

The faults are those of the hosts behind the gateways and of the gateways themselves. Tests and the bench use the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
import typing as t
import urllib.error
import urllib.request
from pathlib import Path

from lab import state
from tests.e2e.rollouts import Traffic
from tests.fakes.standin.lab import StandinLab
from tests.project import MODEL, Run, open_directly

GATEWAYS = ("gateway-1", "gateway-2")
STORE = "store-1"
PORT = 4000
#: Lets a host that answers nothing be detected in a test's time.
SETTINGS = {
    "litellm_timeout": 20,
    "litellm_stream_timeout": 20,
    "litellm_shutdown_timeout": 30,
}


class GatewayLab(StandinLab):
    """A lab with gateways; it is removed when the block ends."""

    def up(self, hosts: int) -> None:
        super().up(hosts)
        for name in GATEWAYS:
            self._checked("add", name, "--role", "gateway")
        self._checked("add", STORE, "--role", "gateway_store")

    def site(self, *words: str) -> Run:
        return super().site("-e", json.dumps(SETTINGS), *words)

    def url(self, gateway: str) -> str:
        return f"http://{self.address(gateway)}:{PORT}"

    def address(self, host: str) -> str:
        lab = state.require(self.name)
        return str(lab.address(lab.host(host)))

    @property
    def balanced(self) -> str:
        """All gateways, behind the stand-in for an ALB."""
        return f"http://{state.require(self.name).gateway}:{PORT}"

    def key(self, client: str = "demo") -> str:
        """The client's key in the store."""
        document = json.loads((state.require(self.name).directory / "keys.json").read_text(encoding="utf-8"))
        return str(document["clients"][client]["current"]["key"])

    def traffic(self, url: str, place: Path, streams: int, requests_per_second: float) -> Traffic:
        """Clients of one address, from now on."""
        environment = {**self.environment, "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": self.key()}
        return Traffic(environment, place, streams, requests_per_second)

    def ask_once(
        self, url: str, timeout: float = 30, question: str = "What is the capital of France?"
    ) -> tuple[int, dict[str, str], bytes]:
        """One request; status, headers and body of the answer."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": question}]}
        request = urllib.request.Request(f"{url}/v1/chat/completions", data=json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        request.add_header("Authorization", f"Bearer {self.key()}")
        try:
            with open_directly(request, timeout=timeout) as response:
                return response.status, {k.lower(): v for k, v in response.headers.items()}, response.read()
        except urllib.error.HTTPError as error:
            return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read()

    def answered(self, host: str) -> int:
        """The number of completions that the edge of an inference host has passed on so far."""
        return int(self.on(host, "journalctl --unit=haproxy --output=cat --no-pager | grep -c chat/completions; true"))

    def broken_off(self) -> int:
        """The number of completions in progress in the engines of all inference hosts."""
        words = "journalctl --unit=haproxy --output=cat --no-pager | grep -c 'chat/completions status=50[024] '; true"
        return sum(int(self.on(host, words)) for host in self.hosts)

    def eventually(self, condition: t.Callable[[], bool], seconds: float = 60) -> float:
        """Seconds until a condition holds."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < seconds, f"not within {seconds} s"
            time.sleep(0.2)
        return time.monotonic() - began


@dataclasses.dataclass(frozen=True)
class Fault:
    """A temporary fault.

    Attributes:
        name: a description.
        begin: starts it.
        end: ends it.
        cuts: whether streams in flight on the failing part are cut; requests that are not streamed are never lost.
    """

    name: str
    begin: t.Callable[[GatewayLab], t.Any]
    end: t.Callable[[GatewayLab], t.Any]
    cuts: bool = False


HOST = "inference-1"


def _faults(**values: t.Any) -> t.Callable[[GatewayLab], None]:
    return lambda lab: lab.faults(HOST, **values)


def _unit(host: str, words: str) -> t.Callable[[GatewayLab], str]:
    return lambda lab: lab.on(host, f"systemctl {words}")


def _nothing(_lab: GatewayLab) -> None:
    """A fault that ends by itself."""


def _drain(lab: GatewayLab, verb: str) -> None:
    done = lab.playbook(f"playbooks/{verb}.yml", "-l", HOST, "-e", "drain_timeout=15")
    assert done.code == 0, done.output


def _crash(host: str) -> t.Callable[[GatewayLab], Run]:
    return lambda lab: lab.lab("stop", host, "--crash")


def _start(host: str) -> t.Callable[[GatewayLab], Run]:
    return lambda lab: lab.lab("start", host)


FAULTS = (
    Fault("engine killed", _unit(HOST, "kill --signal=KILL vllm@0.service"), _nothing, cuts=True),
    Fault("engine answers 500", _faults(status=500), _faults()),
    Fault("engine answers 401", _faults(reject=True), _faults()),
    Fault("engine answers 429", _faults(status=429), _faults()),
    Fault("engine is slow", _faults(slow_first=2), _faults()),
    Fault("host drained", lambda lab: _drain(lab, "drain"), lambda lab: _drain(lab, "undrain")),
    # The stand-in never finishes the requests that it began then, not even in a drain.
    Fault("engine answers nothing", _faults(hang=True), _faults()),
    Fault("host lost", _crash(HOST), _start(HOST), cuts=True),
    Fault("Redis stopped", _unit(STORE, "stop redis-server"), _unit(STORE, "start redis-server")),
    Fault("Redis's host lost", _crash(STORE), _start(STORE)),
    Fault("LiteLLM killed", _unit(GATEWAYS[0], "kill --signal=KILL litellm@0.service"), _nothing, cuts=True),
)


@dataclasses.dataclass(frozen=True)
class Seen:
    """The clients' results around a fault."""

    requests: int
    failed: int
    streams: int
    cut: int
    p50: float
    p95: float
    errors: dict[str, t.Any]


def suffer(lab: GatewayLab, fault: Fault, place: Path, load: tuple[int, float], seconds: tuple[float, float]) -> Seen:
    """Run clients at both gateways through a fault, each with half of the load.

    Args:
        lab: the gateways' lab.
        fault: the fault.
        place: a directory for the reports.
        load: streams and requests a second.
        seconds: how long the fault lasts, and how long clients go on after it.
    """
    streams, rate = load
    clients = [lab.traffic(lab.url(gateway), place / f"{gateway}.json", streams // 2, rate / 2) for gateway in GATEWAYS]
    reports = []
    try:
        time.sleep(3)
        fault.begin(lab)
        time.sleep(seconds[0])
        fault.end(lab)
        time.sleep(seconds[1])
    finally:
        for client in clients:
            with contextlib.suppress(AssertionError):
                reports.append(client.stop())
    assert len(reports) == len(clients)
    return Seen(
        requests=sum(one["requests"]["sent"] for one in reports),
        failed=sum(one["requests"]["failed"] for one in reports),
        streams=sum(one["streams"]["begun"] for one in reports),
        cut=sum(one["streams"]["cut"] + one["streams"]["failed"] for one in reports),
        p50=max(one["latency"]["p50"] for one in reports),
        p95=max(one["latency"]["p95"] for one in reports),
        errors={name: [one["error_counts"][name] for one in reports] for name in ("request", "stream")},
    )
