"""A rollout's silences in a real Alertmanager: exactly the hosts of a wave are quiet, and no longer than the wave."""

from __future__ import annotations

import json
import os
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.rollout.silence import Alertmanager, creator

from tests.fakes.webhook import unix
from tests.integration.edge.conftest import eventually, free_port
from tests.integration.monitoring.stack import HOSTS, WATCH, Place
from tests.project import ROOT, Run, run

ROLLOUT = "20261130T000000Z-site"
PLAN = {"id": ROLLOUT, "verb": "site", "who": "anna@laptop", "hosts": {"gpu-1": {"expected_seconds": 400}}}
TURN = {"wave": 1, "waves": 2, "hosts": ["gpu-1"]}
GAVE_UP = 'fleet_watchdog_gave_up{instance="0"} 1\n'


class Rollout:
    """Runs role rollout's tasks for a turn. Of three monitoring hosts only one has an Alertmanager that answers."""

    def __init__(self, directory: Path, alertmanager: str) -> None:
        local = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
        closed = f"http://127.0.0.1:{free_port()}"
        watching = {
            WATCH: {**local, "monitoring_alertmanager_url": alertmanager},
            "watch-silent": {**local, "monitoring_alertmanager_url": closed},
            # Ansible takes a local connection to this address unless one is named.
            "watch-away": {
                "ansible_connection": "ssh",
                "ansible_host": "127.0.0.1",
                "ansible_port": free_port(),
            },
        }
        groups = {"inference": {"hosts": dict.fromkeys(HOSTS, local)}, "monitoring": {"hosts": watching}}
        tasks = {"name": "inference.fleet.rollout", "tasks_from": "silence"}
        play = {"hosts": "inference", "gather_facts": False, "tasks": [{"ansible.builtin.include_role": tasks}]}
        self._inventory, self._play = directory / "inventory.yml", directory / "play.yml"
        self._inventory.write_text(json.dumps({"all": {"children": groups}}))
        self._play.write_text(json.dumps([play]))

    def silence(self, state: str) -> Run:
        given = {"rollout_planned": {"plan": PLAN}, "rollout_turn": TURN, "__rollout_silence": state}
        environment = {**os.environ, "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}", "ANSIBLE_NOCOLOR": "1"}
        words = ("-i", str(self._inventory), str(self._play), "-e", json.dumps(given))
        return run("ansible-playbook", *words, environment=environment)


def seconds_left(silence: dict[str, t.Any]) -> float:
    return unix(silence["endsAt"]) - time.time()


def test_the_hosts_of_a_wave_are_quiet_all_others_page_and_an_alertmanager_that_is_away_stops_nothing(
    place: Place, tmp_path: Path
) -> None:
    rollout = Rollout(tmp_path, place.alertmanager)
    done = rollout.silence("present")
    assert (done.code, done.recap["gpu-1"]["failed"], done.recap["gpu-1"]["unreachable"]) == (0, 0, 0)
    assert "The alerts of gpu-1 are not silenced" in done.text
    assert "watch-silent: Alertmanager at http://127.0.0.1:" in done.text
    assert "connection refused: nothing listens there" in done.text
    assert "watch-away: " in done.text
    assert f"{WATCH}: " not in done.text
    (made,) = place.silences
    assert made["createdBy"] == creator(ROLLOUT)
    assert made["comment"] == "site, wave 1 of 2: gpu-1. By anna@laptop."
    # Twice as long as last time: a controller that is lost leaves none that is endless.
    assert 700 < seconds_left(made) <= 800

    files = [place.write(host, "watchdog", GAVE_UP) for host in HOSTS]
    eventually(lambda: paged(place, "gpu-2"), 60)
    eventually(lambda: suppressed(place, "gpu-1") == [made["id"]], 60)
    assert suppressed(place, "gpu-2") == []
    assert not paged(place, "gpu-1")

    done = rollout.silence("absent")
    assert done.code == 0
    assert "The silence of gpu-1 could not be ended: it ends by itself" in done.text
    assert place.silences == []
    # It still fires: that it was quiet was the silence.
    eventually(lambda: paged(place, "gpu-1"), 60)
    for file in files:
        file.unlink()


def paged(place: Place, host: str) -> bool:
    return any(one["labels"]["host"] == host for one in place.hook.got("WatchdogGaveUp"))


def suppressed(place: Place, host: str) -> list[str]:
    """The silences of the host's alerts."""
    alerts = [one for one in place.alerts if one["labels"].get("host") == host]
    return [name for one in alerts for name in one["status"]["silencedBy"]]


@pytest.fixture
def alertmanager(place: Place) -> t.Iterator[Alertmanager]:
    made = Alertmanager(place.alertmanager, 5)
    yield made
    for rollout in ("r1", "r2"):
        made.end(rollout)


def test_another_run_adopts_the_silence_and_another_wave_replaces_it(place: Place, alertmanager: Alertmanager) -> None:
    alertmanager.silence("r1", ["a.example", "b"], "wave 1", time.time(), 60)
    (first,) = place.silences
    alertmanager.silence("r1", ["b", "a.example"], "wave 1 once more", time.time(), 600)
    (second,) = place.silences
    assert second["id"] == first["id"]
    assert second["comment"] == "wave 1 once more"
    assert seconds_left(second) > 500
    alertmanager.silence("r1", ["c"], "wave 2", time.time(), 60)
    (third,) = place.silences
    assert [one["value"] for one in third["matchers"]] == ["c"]


def test_another_rollout_keeps_its_silence(place: Place, alertmanager: Alertmanager) -> None:
    alertmanager.silence("r1", ["a"], "inference", time.time(), 60)
    alertmanager.silence("r2", ["b"], "gateways", time.time(), 60)
    assert alertmanager.end("r1") == 1
    assert [one["createdBy"] for one in place.silences] == [creator("r2")]
    assert alertmanager.end("r1") == 0
