"""Key rotations under load, and two at once."""

from __future__ import annotations

import json
import re
import typing as t
from pathlib import Path

import pytest

from lab import state
from tests.e2e.conftest import HOSTS, LAB, Fleet, StartTraffic
from tests.e2e.rollouts import Playbook, nothing_was_lost
from tests.project import Run

ROTATE = "playbooks/rotate_keys.yml"


@pytest.fixture(autouse=True)
def demo_key(demo: Run, fleet: Fleet) -> t.Iterator[None]:
    """Client demo has another key afterwards."""
    yield
    fleet.read_environment()


def test_clients_change_over_under_load_and_notice_nothing(fleet: Fleet, traffic: StartTraffic) -> None:
    before = [fleet.process(host) for host in HOSTS]
    edges = [fleet.process(host, "haproxy.service") for host in HOSTS]
    old = fleet.keys()["current"]
    first, second = (traffic(streams=1, requests_per_second=8) for _ in range(2))
    begun = fleet.playbook(ROTATE, "-e", "client=demo", "-e", "overlap=1h")
    assert begun.code == 0, begun.output
    new = fleet.keys()["current"]
    assert new != old == fleet.keys()["previous"]
    # Half of the clients rotate; meanwhile the edges are updated once more with the others' keys and the new one.
    assert nothing_was_lost(second.stop())
    second = traffic(streams=1, requests_per_second=8, key=new)
    other = fleet.playbook(ROTATE, "-e", "client=gate")
    assert other.code == 0, other.output
    assert nothing_was_lost(first.stop())
    first = traffic(streams=1, requests_per_second=8, key=new)
    finished = fleet.playbook(ROTATE, "-e", "finish=true")
    assert finished.code == 0, finished.output
    assert nothing_was_lost(first.stop())
    assert nothing_was_lost(second.stop())
    assert (fleet.answers(old), fleet.answers(new)) == ([401, 401], [200, 200])
    assert [fleet.process(host) for host in HOSTS] == before
    assert [fleet.process(host, "haproxy.service") for host in HOSTS] == edges
    for run in (begun, other, finished):
        assert not re.search(r"sk-[A-Za-z0-9_-]{20}", run.output)
    record = max((state.require(LAB).directory / "rollouts" / "rotations").glob("*.jsonl"))
    events = [json.loads(line) for line in record.read_text().splitlines()]
    assert (events[0]["event"], events[-1]["outcome"]) == ("begin", "completed")
    proven = [event for event in events if event["event"] == "host"]
    assert {event["host"] for event in proven} == set(HOSTS)
    assert all(event["refused"] >= 16 and not event["failure"] for event in proven)


def test_a_second_rotation_is_refused_and_nothing_is_lost(fleet: Fleet, tmp_path: Path) -> None:
    first = Playbook(fleet.environment, tmp_path, ROTATE, "-e", "client=demo")
    first.wait_for_task("inference.fleet.keys : update_and_prove | Ask with every key")
    second = fleet.playbook(ROTATE, "-e", "client=gate")
    assert second.code != 0
    assert "has been changing this fleet since" in second.text
    assert "rotate_keys" in second.text
    done = first.wait()
    assert done.code == 0
    assert list(fleet.keys()) == list(fleet.keys("gate")) == ["current"]
    assert fleet.answers(fleet.keys()["current"]) == [200, 200]


def test_a_machine_without_the_store_makes_no_keys(fleet: Fleet, tmp_path: Path) -> None:
    key, other = fleet.keys()["current"], tmp_path / "keys.json"
    refused = fleet.playbook("playbooks/keys.yml", "-e", f"fleet_key_store={other}")
    assert refused.code != 0
    assert f"the key store {other} on" in refused.text
    assert "has not been made yet. Nothing was changed" in refused.text
    assert not other.exists()
    assert fleet.answers(key) == [200, 200]
