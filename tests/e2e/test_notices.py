"""A host that AWS ends drains itself under load, with clients that never retry. The service, the metadata at
169.254.169.254 and the balancer's checks are real; the engines are the stand-in, because real ones add nothing here.
"""

from __future__ import annotations

import time
import typing as t
from pathlib import Path

import pytest

from tests.e2e.conftest import Fleet
from tests.e2e.rollouts import Traffic, nothing_was_lost
from tests.fakes.standin.lab import StandinLab, inventories

pytestmark = pytest.mark.long

LEAVES, STAYS = "inference-1", "inference-2"
#: A lame duck of 8 s, of which the balancer needs two or three to notice; and a look every two seconds.
OUT_WITHIN = 15.0


@pytest.fixture(scope="module")
def fleet() -> t.Iterator[Fleet]:
    with StandinLab("notices", "10.225.0.0/24", hosts=2, metadata=True) as lab:
        deployed = lab.site()
        assert deployed.code == 0, deployed.output
        made = Fleet(lab.environment, inventories())
        made.read_environment()
        yield made


def announce(fleet: Fleet, host: str, notice: str) -> None:
    done = fleet.lab("announce", "--name", fleet.name, host, notice)
    assert done.code == 0, done.output


def eventually(condition: t.Callable[[], bool], seconds: float) -> float:
    """The seconds until the condition holds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + seconds, f"not within {seconds} s"
        time.sleep(0.2)
    return time.monotonic() - began


def process(fleet: Fleet, host: str) -> str:
    """The engine's process; empty while the host does not answer."""
    done = fleet.lab(
        "ssh", "--name", fleet.name, host, "--", "systemctl show --value --property MainPID vllm@0.service"
    )
    return done.output.strip() if done.code == 0 else ""


def refused(fleet: Fleet, host: str) -> int:
    """How many requests the host's edge has refused because it is drained."""
    found = fleet.on(host, "journalctl --unit=haproxy --output=cat --no-pager | grep -c ' status=503 ' || true")
    return int(found)


def begun(fleet: Fleet, host: str) -> int:
    """How many chat completions the host's edge has answered."""
    shown = "journalctl --unit=haproxy --output=cat --no-pager | grep -c 'path=/v1/chat/completions ' || true"
    return int(fleet.on(host, shown))


def test_a_spot_notice_under_load_costs_no_request(fleet: Fleet, tmp_path: Path) -> None:
    before = refused(fleet, LEAVES)
    clients = Traffic(fleet.environment, tmp_path / "traffic.json", 4, 8)
    eventually(lambda: begun(fleet, LEAVES) > 20, 60)
    announced = time.monotonic()
    announce(fleet, LEAVES, "spot")
    eventually(lambda: fleet.health(LEAVES) == "503", OUT_WITHIN)
    # The balancer sends it nothing more, before it refuses anything.
    had = -1

    def is_quiet() -> bool:
        nonlocal had
        had, last = begun(fleet, LEAVES), had
        return had == last

    eventually(is_quiet, 60)
    print(f"nothing began on {LEAVES} any more {time.monotonic() - announced:.1f} s after the notice")
    fleet.on(
        LEAVES, "until journalctl -u inference-notices -o cat | grep -q 'Nothing is in flight'; do sleep 0.5; done"
    )
    print(f"nothing was in flight {time.monotonic() - announced:.1f} s after the notice")
    assert refused(fleet, LEAVES) == before
    assert nothing_was_lost(clients.stop())
    assert begun(fleet, LEAVES) == had


def test_status_says_why_the_host_is_out(fleet: Fleet) -> None:
    shown = fleet.playbook("playbooks/status.yml").text
    assert "drained by aws: spot, terminates" in shown


def test_a_rollout_leaves_it_out_and_says_why(fleet: Fleet) -> None:
    before = fleet.process(LEAVES), fleet.process(STAYS)
    run = fleet.playbook("playbooks/rolling_restart.yml", "-e", "rollout_accept_downtime=true")
    assert run.code == 0, run.output
    assert "AWS announces: spot, terminates" in run.text
    assert fleet.process(LEAVES) == before[0]
    assert fleet.process(STAYS) != before[1]
    assert fleet.health(LEAVES) == "503"


def test_an_operator_may_override_the_notice(fleet: Fleet) -> None:
    run = fleet.playbook("playbooks/undrain.yml", "-l", LEAVES)
    assert run.code == 0, run.output
    assert f"{LEAVES} serves again although AWS announces: spot, terminates" in run.text
    eventually(lambda: fleet.health(LEAVES) == "200", 10)
    time.sleep(5)
    assert fleet.health(LEAVES) == "200"
    assert "overrides aws: spot, terminates" in fleet.playbook("playbooks/status.yml").text


def test_a_host_comes_back_by_itself_after_its_maintenance(fleet: Fleet, tmp_path: Path) -> None:
    announce(fleet, LEAVES, "nothing")
    eventually(lambda: fleet.on(LEAVES, "test -e /var/lib/inference/drain.json || echo gone") == "gone", 10)
    clients = Traffic(fleet.environment, tmp_path / "traffic.json", 2, 5)
    done = fleet.lab("announce", "--name", fleet.name, LEAVES, "maintenance", "--in", "300")
    assert done.code == 0, done.output
    eventually(lambda: "drained" in fleet.on(LEAVES, "cat /var/lib/inference/drain.json || true"), 60)
    before = process(fleet, LEAVES)
    fleet.lab("ssh", "--name", fleet.name, LEAVES, "--", "systemctl reboot")
    eventually(lambda: process(fleet, LEAVES) not in ("", "0", before), 120)
    # It starts drained, as long as the maintenance is announced.
    assert fleet.health(LEAVES) == "503"
    eventually(lambda: "system-reboot" in fleet.playbook("playbooks/status.yml").text, 60)
    announce(fleet, LEAVES, "nothing")
    eventually(lambda: fleet.health(LEAVES) == "200", 90)
    assert nothing_was_lost(clients.stop())
