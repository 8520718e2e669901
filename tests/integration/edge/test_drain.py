"""Draining and undraining without cutting a request."""

from __future__ import annotations

import json
import socket
import threading
import time
import typing as t

import pytest

from tests.fakes.engine import FakeEngine
from tests.integration.edge.conftest import KEY, Edge, error_of, eventually, free_port
from tests.integration.edge.engine import Recorder
from tests.integration.edge.traffic import Stream, Traffic

NONE: list[t.Any] = []


def test_a_lame_duck_serves_but_is_not_healthy(edge: Edge) -> None:
    result = edge.drain(state="lame_duck")
    assert (result["changed"], result["state"]) == (True, "lame_duck")
    assert edge.status("/health") == 503
    assert edge.status("/v1/models", KEY) == 200


def test_a_drained_host_refuses_and_finishes(edge: Edge) -> None:
    stream = Stream(edge, KEY, 1.5)
    result = edge.drain(state="drained", reason="fan", wait=10, metrics=NONE)
    assert (result["changed"], result["state"], result["by"], result["idle"]) == (True, "drained", "operator", True)
    assert result["waited"] > 1
    assert stream.finished_whole()
    assert edge.status("/health") == 503
    answer = edge.ask("/v1/models", KEY)
    assert answer[0] == 503
    assert answer[1]["retry-after"] == "5"
    assert error_of(answer)["code"] == "draining"
    assert edge.drain(state="undrained")["changed"]
    assert edge.healthy()
    assert edge.status("/v1/models", KEY) == 200
    assert not edge.drains.exists()


def test_a_wrong_key_is_401_on_a_drained_host_too(edge: Edge) -> None:
    edge.drain(state="drained", metrics=NONE)
    assert edge.status("/v1/models", "sk-wrong") == 401
    assert edge.status("/v1/models") == 401
    assert edge.status("/metrics") == 404


def test_a_request_in_the_queue_is_served_when_the_host_is_drained(unstarted: Edge) -> None:
    unstarted.start_and_wait(edge_instance_max_requests=1)
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(unstarted.status("/v1/slow/0.8", KEY))) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    assert unstarted.drain(state="drained", wait=10, metrics=NONE)["idle"]
    for thread in threads:
        thread.join()
    assert answers == [200] * 4


def test_what_still_runs_at_the_limit_is_named_and_not_cut(edge: Edge) -> None:
    stream = Stream(edge, KEY, 6)
    result = edge.drain(state="drained", wait=1.2, metrics=NONE)
    assert not result["idle"]
    (request,) = result["requests"]
    assert request["client"] == "team-a"
    assert request["instance"] in ("engine-0", "engine-1")
    assert request["seconds"] >= 1
    assert stream.finished_whole()


def test_the_lame_duck_comes_first_and_only_for_so_long(edge: Edge) -> None:
    began = time.monotonic()
    states = []

    def watch() -> None:
        while time.monotonic() < began + 1.5:
            states.append((edge.status("/health"), edge.status("/v1/models", KEY)))
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    result = edge.drain(state="drained", lame_duck_seconds=1, wait=5, metrics=NONE)
    watcher.join()
    assert result["lame_duck_seconds"] == 1
    assert (503, 200) in states
    assert states.index((503, 200)) < states.index((503, 503))
    # Repeating it costs no time: the balancer has taken the host out.
    assert edge.drain(state="drained", lame_duck_seconds=1, metrics=NONE)["lame_duck_seconds"] == 0


def test_a_lame_duck_that_was_interrupted_waits_the_rest_only(edge: Edge) -> None:
    edge.drain(state="lame_duck")
    time.sleep(2.1)
    result = edge.drain(state="drained", lame_duck_seconds=6, metrics=NONE)
    assert 0 < result["lame_duck_seconds"] < 6


def test_a_drain_outlives_reload_and_restart(edge: Edge) -> None:
    edge.drain(state="drained", metrics=NONE)
    edge.reload()
    assert (edge.status("/health"), edge.status("/v1/models", KEY)) == (503, 503)
    edge.stop()
    edge.start()
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        assert (edge.status("/health"), edge.status("/v1/models", KEY)) == (503, 503)
    assert not edge.drain(state="kept")["changed"]


def test_an_edge_that_does_not_run_starts_drained(unstarted: Edge) -> None:
    result = unstarted.drain(state="drained", lame_duck_seconds=60, wait=60, metrics=NONE)
    assert (result["changed"], result["live"], result["idle"], result["lame_duck_seconds"]) == (True, False, True, 0)
    unstarted.start()
    assert unstarted.status("/v1/models", KEY) == 503


def test_one_instance_is_drained_and_the_host_serves_on(edge: Edge, engines: list[Recorder]) -> None:
    with Traffic(edge, [KEY] * 3) as traffic:
        time.sleep(0.2)
        result = edge.drain(
            state="drained", instance="engine-0", by="rollout", lame_duck_seconds=30, wait=5, metrics=NONE
        )
        assert (result["state"], result["idle"], result["lame_duck_seconds"]) == ("drained", True, 0)
        engines[0].seen.clear()
        time.sleep(0.3)
        assert engines[0].seen == []
        assert edge.healthy()
        edge.drain(state="undrained", instance="0", by="rollout")
        eventually(lambda: engines[0].seen)
    assert set(traffic.answers) == {"200"}


def test_only_the_instances_own_requests_are_waited_for(edge: Edge) -> None:
    streams = [Stream(edge, KEY, 2.5), Stream(edge, KEY, 2.5)]
    edge.drain(state="drained", instance="engine-0", metrics=NONE)
    result = edge.drain(state="drained", instance="engine-0", wait=0.1, metrics=NONE)
    assert [request["instance"] for request in result["requests"]] == ["engine-0"]
    assert all(stream.finished_whole() for stream in streams)


def test_a_drained_instance_stays_drained_over_reload_and_restart(edge: Edge, engines: list[Recorder]) -> None:
    edge.drain(state="drained", instance="engine-1", metrics=NONE)
    engines[1].seen.clear()
    for restart in (False, True):
        if restart:
            edge.stop()
            edge.start()
        else:
            edge.reload()
        eventually(edge.healthy)
        assert [edge.status("/v1/models", KEY) for _ in range(6)] == [200] * 6
    assert engines[1].seen == []
    assert not edge.drain(state="kept")["changed"]
    edge.drain(state="undrained", instance="engine-1")
    eventually(lambda: edge.status("/v1/models", KEY) == 200 and engines[1].seen)


def test_the_last_instance_is_a_lame_duck_first(edge: Edge) -> None:
    edge.drain(state="drained", instance="engine-0", by="rollout", metrics=NONE)
    with Traffic(edge, [KEY]) as traffic:
        drainer = threading.Thread(
            target=edge.drain,
            kwargs={"state": "drained", "instance": "engine-1", "lame_duck_seconds": 1, "metrics": NONE},
        )
        drainer.start()
        eventually(lambda: not edge.healthy(), seconds=1)
        before = traffic.answers["200"]
        time.sleep(0.3)
        assert traffic.answers["200"] > before
        assert traffic.answers["503"] == 0
        # A balancer has turned away by now.
        time.sleep(0.2)
    drainer.join()
    assert not edge.healthy()
    edge.drain(state="undrained", instance="engine-1")
    eventually(edge.healthy)
    assert not edge.drain(state="kept")["changed"]


def test_an_operators_drain_is_not_undone_by_a_rollout(edge: Edge) -> None:
    edge.drain(state="drained", reason="fan", metrics=NONE)
    for state in ("undrained", "lame_duck", "drained"):
        result = edge.drain(state=state, by="rollout", metrics=NONE)
        assert (result["changed"], result["state"], result["by"]) == (False, "drained", "operator")
        assert result["held_by"] == "operator"
    assert edge.status("/v1/models", KEY) == 503
    assert json.loads(edge.drains.read_text())["reason"] == "fan"
    assert edge.drain(state="undrained")["changed"]


def test_a_rollouts_drain_becomes_an_operators(edge: Edge) -> None:
    assert edge.drain(state="drained", by="rollout", metrics=NONE)["held_by"] is None
    since = json.loads(edge.drains.read_text())["since"]
    assert edge.drain(state="drained", by="operator", metrics=NONE)["changed"]
    assert not edge.drain(state="undrained", by="rollout")["changed"]
    assert json.loads(edge.drains.read_text())["since"] == since


def test_it_is_idempotent(edge: Edge) -> None:
    assert edge.drain(state="drained", metrics=NONE)["changed"]
    assert not edge.drain(state="drained", metrics=NONE)["changed"]
    assert edge.drain(state="undrained")["changed"]
    assert not edge.drain(state="undrained")["changed"]


def test_check_mode_says_and_does_nothing(edge: Edge) -> None:
    result = edge.drain(check=True, state="drained", lame_duck_seconds=60, wait=60, metrics=NONE)
    assert (result["changed"], result["state"]) == (True, "drained")
    assert result["diff"] == {
        "before": {"host": "serving", "instances": {}},
        "after": {"host": "drained", "instances": {}},
    }
    assert edge.healthy()
    assert not edge.drains.exists()
    assert edge.drain(check=True, state="drained", instance="engine-1", metrics=NONE)["changed"]
    assert not [server for server in edge.servers() if server.draining]


def test_a_map_that_was_changed_by_hand_is_corrected(edge: Edge) -> None:
    edge.drain(state="drained", metrics=NONE)
    (edge.maps / "drain.map").write_text("host serving\n")
    edge.reload()
    assert edge.healthy()
    assert edge.drain(state="kept")["changed"]
    assert not edge.healthy()


def test_a_drain_is_forgotten_although_a_process_still_ends_its_requests(edge: Edge) -> None:
    edge.drain(state="drained", instance="engine-0", metrics=NONE)
    stream = Stream(edge, KEY, 2.5)
    edge.reload()
    assert edge.drain(state="undrained", instance="engine-0", metrics=NONE)["state"] == "serving"
    assert stream.finished_whole()


def test_streams_in_a_process_that_a_reload_left_behind_are_waited_for(edge: Edge) -> None:
    stream = Stream(edge, KEY, 2.5)
    edge.reload()
    result = edge.drain(state="drained", wait=0.3, metrics=NONE)
    assert [request["client"] for request in result["requests"]] == ["team-a"]
    assert edge.drain(state="drained", wait=10, metrics=NONE)["idle"]
    assert stream.finished_whole()


def test_an_unknown_instance_is_an_operators_mistake(edge: Edge) -> None:
    with pytest.raises(Exception, match=r"no instance engine-7\. It has: engine-0, engine-1\."):
        edge.drain(state="drained", instance="engine-7")


def test_the_engines_counters_are_waited_for_too(edge: Edge) -> None:
    with FakeEngine(token=0.05) as fake:
        fake.running = 1
        metrics = [{"name": "engine-0", "url": fake.url}]
        result = edge.drain(state="drained", wait=0.5, metrics=metrics)
        assert (result["idle"], result["engines"]) == (False, [{"instance": "engine-0", "running": 1, "waiting": 0}])
        threading.Timer(1, setattr, (fake, "running", 0)).start()
        result = edge.drain(state="drained", wait=10, metrics=metrics)
        assert (result["idle"], result["engines"]) == (True, [])
        assert 0.5 < result["waited"] < 5


def test_an_engine_that_is_gone_has_no_work_and_one_without_counters_is_named(edge: Edge) -> None:
    # The recorder has no /metrics: it answers JSON.
    metrics = [
        {"name": "gone", "url": "http://127.0.0.1:9"},
        {"name": "other", "url": f"http://127.0.0.1:{edge.instance_ports[0]}"},
    ]
    result = edge.drain(state="drained", wait=5, metrics=metrics)
    assert (result["idle"], result["uncounted"]) == (True, ["other"])


def test_a_new_process_serves_from_the_reload_on(unstarted: Edge, engines: list[Recorder]) -> None:
    """As where a gateway of one process changes its kind: the process that it leads to is another one."""
    first, second = (engine.port for engine in engines)
    unstarted.instance_ports = [first]
    edge = unstarted.start_and_wait()
    ended = threading.Event()
    seen: list[int] = []

    def ask() -> None:
        while not ended.is_set():
            seen.append(edge.status("/v1/x", KEY))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        edge.instance_ports = [second]
        edge.configure()
        edge.reload()
        eventually(lambda: engines[1].seen)
        time.sleep(1.5)
    finally:
        ended.set()
        thread.join()
    assert set(seen) == {200}


def test_a_new_process_that_is_not_healthy_is_not_asked(unstarted: Edge, engines: list[Recorder]) -> None:
    unstarted.instance_ports = [engines[0].port]
    edge = unstarted.start_and_wait()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        edge.instance_ports = [engines[0].port, silent.getsockname()[1], free_port()]
        edge.configure()
        edge.reload()
        found = [server.up for server in edge.servers() if server.backend.startswith("instances_")]
        assert found == [True, False, False]
