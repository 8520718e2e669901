"""Faults behind gateways and in them, under load, with the stand-in for the engines."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest

from tests.gateways import FAULTS, GATEWAYS, HOST, Fault, GatewayLab, suffer

pytestmark = pytest.mark.long

STREAMS, REQUESTS_PER_SECOND = 4, 8.0
LASTS, AFTER = 5.0, 5.0


@pytest.fixture(scope="module")
def lab() -> t.Iterator[GatewayLab]:
    with GatewayLab("gateways", "10.219.0.0/24", hosts=2) as made:
        deployed = made.site()
        assert deployed.code == 0, deployed.output[-6000:]
        yield made


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "_"))
def test_no_request_is_lost(lab: GatewayLab, tmp_path: Path, fault: Fault) -> None:
    before = lab.answered(HOST)
    seen = suffer(lab, fault, tmp_path, (STREAMS, REQUESTS_PER_SECOND), (LASTS, AFTER))
    # The host of the fault had its share: otherwise the test would show nothing.
    assert lab.answered(HOST) > before
    assert seen.requests > 50
    assert seen.failed == 0, seen
    assert seen.cut <= (STREAMS if fault.cuts else 0), seen
    lab.eventually(lambda: all(lab.ask_once(lab.url(gateway))[0] == 200 for gateway in GATEWAYS))


def test_all_hosts_down_gives_503_and_recovers_by_itself(lab: GatewayLab) -> None:
    for host in lab.hosts:
        lab.on(host, "systemctl stop vllm@0.service")
    for gateway in GATEWAYS:
        status, headers, body = lab.ask_once(lab.url(gateway))
        assert status == 503, body
        assert int(headers["retry-after"]) > 0
        assert json.loads(body)["error"]["message"]
    for host in lab.hosts:
        lab.on(host, "systemctl start vllm@0.service")
    for gateway in GATEWAYS:
        lab.eventually(lambda gateway=gateway: lab.ask_once(lab.url(gateway))[0] == 200)  # type: ignore[misc]


def test_an_error_of_the_last_host_reaches_the_client_until_it_recovers(lab: GatewayLab) -> None:
    lab.on(lab.hosts[1], "systemctl stop vllm@0.service")
    try:
        lab.faults(HOST, status=500)
        assert lab.ask_once(lab.url(GATEWAYS[0]))[0] in (500, 502, 503)
        lab.faults(HOST)
        lab.eventually(lambda: lab.ask_once(lab.url(GATEWAYS[0]))[0] == 200)
    finally:
        lab.on(lab.hosts[1], "systemctl start vllm@0.service")


def _share(lab: GatewayLab, gateway: str, requests: int) -> list[int]:
    """The number of requests that each host gets."""
    before = [lab.answered(host) for host in lab.hosts]
    for _ in range(requests):
        lab.ask_once(lab.url(gateway))
    return [lab.answered(host) - one for host, one in zip(lab.hosts, before)]


@pytest.mark.parametrize("fault", [{"status": 500}, {"dies_on": "long_prompt"}], ids=["fails", "dies"])
def test_a_request_that_ends_engines_meets_two_of_them(lab: GatewayLab, fault: dict[str, t.Any]) -> None:
    # The unit that the previous test stopped is up again, and the gateway reports it healthy.
    healthy = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8000/health; true"
    lab.eventually(lambda: all(lab.on(host, healthy) == "200" for host in lab.hosts))
    lab.eventually(lambda: all(_share(lab, GATEWAYS[0], 4)))
    before = lab.broken_off()
    for host in lab.hosts:
        lab.faults(host, **fault)
    try:
        status, headers, body = lab.ask_once(lab.url(GATEWAYS[0]), question="Why? " * 600)
        assert (status, json.loads(body)["error"]["code"]) == (502, "engine_failed"), body
        assert headers["x-should-retry"] == "false"
        # The journal may be a moment late.
        lab.eventually(lambda: lab.broken_off() >= before + 2)
        assert lab.broken_off() == before + 2
    finally:
        for host in lab.hosts:
            lab.on(host, "systemctl restart vllm@0.service")
    for gateway in GATEWAYS:
        lab.eventually(lambda gateway=gateway: lab.ask_once(lab.url(gateway))[0] == 200)  # type: ignore[misc]


def test_a_gateways_host_is_lost_and_the_other_goes_on(lab: GatewayLab, tmp_path: Path) -> None:
    clients = lab.traffic(lab.url(GATEWAYS[1]), tmp_path / "other.json", 2, 5)
    lab.lab("stop", GATEWAYS[0], "--crash")
    try:
        # The stand-in for an ALB notices by its health check.
        lab.eventually(lambda: all(lab.ask_once(lab.balanced)[0] == 200 for _ in range(4)))
    finally:
        lab.lab("start", GATEWAYS[0])
        report = clients.stop()
    assert (report["requests"]["failed"], report["streams"]["cut"], report["streams"]["failed"]) == (0, 0, 0), report
    lab.eventually(lambda: lab.ask_once(lab.url(GATEWAYS[0]))[0] == 200, seconds=180)


def test_a_rotation_and_restarts_lose_nothing(lab: GatewayLab, tmp_path: Path) -> None:
    clients = [lab.traffic(lab.url(one), tmp_path / f"{one}.json", 2, 3) for one in GATEWAYS]
    words = ["-e", json.dumps({"rollout_accept_downtime": False})]
    runs = [
        lab.playbook("playbooks/rotate_keys.yml", "-e", "client=gateway"),
        lab.playbook("playbooks/rolling_restart.yml", *words),
    ]
    reports = [client.stop() for client in clients]
    for run in runs:
        assert run.code == 0, run.output[-6000:]
    for report in reports:
        print(json.dumps({name: value for name, value in report.items() if name != "seconds"}, indent=1))
        assert report["requests"]["ok"] > 50
        assert (report["requests"]["failed"], report["streams"]["cut"], report["streams"]["failed"]) == (0, 0, 0)
