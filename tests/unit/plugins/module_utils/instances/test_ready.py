from __future__ import annotations

import dataclasses
import json
import math
import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.systemd import UnitState
from ansible_collections.inference.fleet.plugins.module_utils.instances import ready, waiting
from ansible_collections.inference.fleet.plugins.module_utils.instances.ready import Slice, all_serve, wait_a_slice
from ansible_collections.inference.fleet.plugins.module_utils.instances.waiting import Waiting

UP = UnitState("loaded", "active", "running", "success", 0, 7, "a", "0")


@dataclasses.dataclass
class Host:
    """A host whose time passes with each check: the states and health answers come one after the other."""

    states: list[UnitState]
    health: list[int | None]
    lines: list[str] = dataclasses.field(default_factory=list)
    clock: float = 0.0
    process_start: float = 0.0
    waits: Waiting | None = None

    def run(self, timeout: float = 60, port: int = 8100) -> float:
        seen = wait_a_slice(
            {"vllm@0.service": port},
            timeout,
            math.inf,
            state_of=lambda unit: self.states.pop(0) if len(self.states) > 1 else self.states[0],
            health_of=lambda port, _path: self.health.pop(0) if len(self.health) > 1 else self.health[0],
            journal_of=lambda unit, since: self.lines,
            waiting_of=lambda unit, state: self.waits if state.sub == "start-pre" else None,
            started=lambda pid: self.process_start,
            now=lambda: self.clock,
            wait=self.pass_time,
        )
        return seen.seconds["vllm@0.service"]

    def pass_time(self, seconds: float) -> None:
        self.clock += seconds


def test_it_waits_until_health_is_200() -> None:
    assert Host([UP], [None, 503, 200]).run() == pytest.approx(1.0)


def test_one_to_which_no_requests_come_has_to_run() -> None:
    starting = dataclasses.replace(UP, active="activating", sub="start-pre")
    assert Host([starting, starting, UP], [None]).run(port=0) == pytest.approx(1.0)


def test_a_restart_is_a_failure_at_once_and_is_explained() -> None:
    host = Host(
        [UP, dataclasses.replace(UP, restarts=1, result="exit-code", status="1")],
        [None],
        ["ValueError: No available memory for the cache blocks."],
    )
    with pytest.raises(FleetError, match="The weights leave no memory for the KV cache") as failure:
        host.run()
    assert failure.value.details["reason"] == "kv_cache_memory"
    assert host.clock == pytest.approx(0.5), "the next look"


def test_an_end_is_seen_while_systemd_waits_to_start_it_again() -> None:
    waiting = dataclasses.replace(UP, active="activating", sub="auto-restart", result="exit-code", status="1")
    with pytest.raises(FleetError, match=r"ended while it started \(result exit-code, status 1\)"):
        Host([UP, waiting], [None]).run()


def test_a_dead_unit_is_a_failure_although_the_port_answers() -> None:
    with pytest.raises(FleetError, match="ended while it started"):
        Host([dataclasses.replace(UP, active="failed")], [200]).run()


def test_another_process_on_the_port_does_not_count() -> None:
    starting = dataclasses.replace(UP, active="activating")
    with pytest.raises(FleetError, match="has not served within 5 s"):
        Host([starting], [200]).run(timeout=5)


TWO = [{"unit": "vllm@0.service", "engine_port": 8100}, {"unit": "vllm@1.service", "engine_port": 8101}]
RESTARTING = dataclasses.replace(UP, has_job=True)


@pytest.mark.parametrize(
    ("instances", "second", "health", "served"),
    [
        (TWO, UP, 200, True),
        (TWO, UP, 503, False),
        (TWO, UP, None, False),
        (TWO, RESTARTING, 200, False),
        (TWO, dataclasses.replace(UP, active="failed", sub="failed"), 200, False),
        # Its requests come to another host, so its own health says nothing.
        ([TWO[0], {**TWO[1], "serves": False}], UP, None, True),
        ([], UP, 200, False),
    ],
)
def test_all_serve_only_when_each_is_up_and_healthy(
    instances: list[dict[str, t.Any]], second: UnitState, health: int | None, served: bool
) -> None:
    states, answers = {"vllm@0.service": UP, "vllm@1.service": second}, {8100: 200, 8101: health}
    assert all_serve(instances, states.__getitem__, lambda port, _path: answers[port]) is served


BEFORE = dataclasses.replace(UP, active="activating", sub="start-pre", pid=0, has_job=True)
TAKEN = Waiting(waiting.PORT_HELD, "Port 8100 is taken by pid 77 nc", 10.0)


def test_a_start_that_waits_for_its_port_is_given_up_when_that_stays_taken() -> None:
    host = Host([BEFORE], [None], ["written by the program"], waits=TAKEN)
    with pytest.raises(FleetError, match=r"waits to be started: Port 8100 is taken by pid 77 nc\. End that") as failure:
        host.run(timeout=600)
    assert failure.value.details == {"reason": "port_held", "journal": ["written by the program"]}
    assert host.clock == pytest.approx(70), "a minute from when it was first taken"


def test_a_start_goes_on_when_what_it_waits_for_comes_in_time() -> None:
    assert Host([*[BEFORE] * 130, UP], [200], waits=TAKEN).run(timeout=600) == pytest.approx(65)


def test_a_host_whose_programs_announce_nothing_is_waited_for() -> None:
    """An earlier version deployed it, whose sentence in the journal is no evidence."""
    said = "Port 8100 is taken by pid 77 nc; the start waits"
    assert Host([*[BEFORE] * 400, UP], [200], [said] * 4).run(timeout=600) == pytest.approx(200)


def test_weights_that_are_missing_are_a_failure_at_once() -> None:
    host = Host([BEFORE], [None], waits=Waiting(waiting.MODEL_MISSING, "The model's files are missing at /m", 0.0))
    with pytest.raises(FleetError, match=r"missing at /m\. `systemctl status inference-models\.service`"):
        host.run()
    assert host.clock == 0


def test_a_node_waits_for_the_others_as_long_as_it_has_time_and_names_them_then() -> None:
    lonely = Waiting(waiting.NODES_MISSING, "not there yet: gpu-2", 0.0)
    with pytest.raises(FleetError, match=r"within 300 s: Its start waits: not there yet: gpu-2\. Look at") as failure:
        wait_a_slice(
            {"vllm@0.service": 8100},
            300,
            math.inf,
            state_of=lambda _unit: UP,
            health_of=lambda _port, _path: None,
            journal_of=lambda _unit, since: [],
            waiting_of=lambda _unit, _state: lonely,
            started=lambda _pid: 0.0,
            now=iter(range(0, 10000, 5)).__next__,
            wait=lambda _seconds: None,
        )
    assert failure.value.details["reason"] == "nodes_missing"


def test_what_a_unit_waits_for_stands_in_its_runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "RUN", str(tmp_path))
    monkeypatch.setenv("INVOCATION_ID", BEFORE.invocation)
    (tmp_path / "3").mkdir()
    assert ready.waiting_of_unit("vllm@3.service", BEFORE) is None
    waiting.announce(str(tmp_path / "3"), TAKEN)
    assert ready.waiting_of_unit("vllm@3.service", BEFORE) == TAKEN
    assert ready.waiting_of_unit("vllm@3.service", dataclasses.replace(BEFORE, invocation="later")) is None
    file = tmp_path / "3" / waiting.NAME
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 7, "pid": os.getpid()}))
    with pytest.raises(FleetError, match=r"What vllm@3\.service waits for is not known: .* format 7, .* format 1"):
        ready.waiting_of_unit("vllm@3.service", BEFORE)


@pytest.mark.parametrize(
    "kind",
    [value for name, value in vars(waiting).items() if name.isupper() and isinstance(value, str) and name != "NAME"],
)
def test_each_kind_of_wait_says_what_to_do(kind: str) -> None:
    with pytest.raises(FleetError, match=r"waits to be started: It\. \S+ \S+"):
        Host([BEFORE], [None], waits=Waiting(kind, "It", 0.0)).run(timeout=600)


def test_silence_is_a_failure_with_the_last_words() -> None:
    with pytest.raises(FleetError, match="Its last words: Loading weights") as failure:
        Host([UP], [None], ["Loading weights"]).run(timeout=5)
    assert failure.value.details["reason"] == "timeout"


def test_a_unit_that_systemd_has_yet_to_start_has_not_ended_and_is_not_late() -> None:
    queued = dataclasses.replace(UP, active="failed", restarts=3, pid=0, has_job=True)
    host = Host([*[queued] * 40, dataclasses.replace(UP, restarts=0)], [200])
    assert host.run(timeout=5) == pytest.approx(20)


def test_what_is_to_be_restarted_does_not_serve_yet() -> None:
    leaving = dataclasses.replace(UP, has_job=True)
    assert Host([leaving, leaving, UP], [200]).run() == pytest.approx(1)


def test_time_counts_from_the_start_of_the_process() -> None:
    queued = dataclasses.replace(UP, active="inactive", pid=0, has_job=True)
    host = Host([*[queued] * 40, UP], [None])
    host.process_start = 20
    with pytest.raises(FleetError, match="has not served within 5 s"):
        host.run(timeout=5)
    assert host.clock == pytest.approx(25.5)


def test_a_missing_unit_is_named() -> None:
    with pytest.raises(FleetError, match=r"no unit vllm@0\.service"):
        Host([dataclasses.replace(UP, load="not-found")], [None]).run()


@dataclasses.dataclass
class Fleet:
    """Hosts' units by name, for slices: each check of one takes its next state, the last one stays."""

    states: dict[str, list[UnitState]]
    health: dict[int, list[int | None]]
    lines: list[str] = dataclasses.field(default_factory=list)
    waits: Waiting | None = None
    clock: float = 1000.0
    read_since: list[float] = dataclasses.field(default_factory=list)

    def run(
        self,
        length: float = 5,
        since: float | None = None,
        restarts: dict[str, int] | None = None,
        timeout: float = 60,
    ) -> Slice:
        ports = {unit: number for unit, number in zip(self.states, self.health)}
        return wait_a_slice(
            ports,
            timeout,
            length,
            since,
            restarts,
            state_of=lambda unit: _next(self.states[unit]),
            health_of=lambda port, _path: _next(self.health[port]),
            journal_of=self.journal,
            waiting_of=lambda _unit, _state: self.waits,
            started=lambda pid: 990.0,
            now=lambda: self.clock,
            wait=self.pass_time,
        )

    def journal(self, unit: str, since: float) -> list[str]:
        self.read_since.append(since)
        return self.lines

    def pass_time(self, seconds: float) -> None:
        self.clock += seconds


Item = t.TypeVar("Item")


def _next(items: list[Item]) -> Item:
    return items.pop(0) if len(items) > 1 else items[0]


def test_a_slice_ends_in_time_and_says_what_the_engine_does() -> None:
    lines = ["Loading safetensors checkpoint shards:  56% Completed | 5/9 [00:13<00:11,  2.87s/it]"]
    fleet = Fleet({"vllm@0.service": [UP]}, {8100: [None]}, lines)
    seen = fleet.run()
    assert fleet.clock == pytest.approx(1005)
    assert seen == Slice(
        1000.0,
        {"vllm@0.service": 0},
        {},
        [
            {
                "unit": "vllm@0.service",
                "phase": "loading",
                "text": "loading the weights, 5 of 9 files",
                "percent": 56,
                "seconds": 5.0,
            }
        ],
    )
    assert fleet.read_since == [pytest.approx(989.9)], "only what this start has written"


def test_slices_wait_for_all_at_once_and_end_as_soon_as_all_serve() -> None:
    fleet = Fleet({"vllm@0.service": [UP], "vllm@1.service": [UP]}, {8100: [None, 200], 8101: [None, None, 503, 200]})
    seen = fleet.run()
    assert seen.seconds == {"vllm@0.service": pytest.approx(0.5), "vllm@1.service": pytest.approx(1.5)}
    assert [item["phase"] for item in seen.progress] == ["serving", "serving"]
    assert fleet.clock == pytest.approx(1001.5)


def test_the_time_is_counted_from_the_first_slice() -> None:
    fleet = Fleet({"vllm@0.service": [UP]}, {8100: [None]}, ["Loading weights"], clock=1058)
    assert fleet.run(since=1000.0, restarts={"vllm@0.service": 0}, length=1).progress[0]["seconds"] == 59
    with pytest.raises(FleetError, match=r"has not served within 60 s: Its last words: Loading weights"):
        fleet.run(since=1000.0, restarts={"vllm@0.service": 0})
    assert fleet.clock == pytest.approx(1060.5)


def test_a_restart_between_two_slices_is_noticed() -> None:
    again = dataclasses.replace(UP, restarts=3, result="exit-code", status="1")
    fleet = Fleet({"vllm@0.service": [again]}, {8100: [200]}, ["ValueError: No available memory for the cache blocks."])
    with pytest.raises(FleetError, match="The weights leave no memory for the KV cache") as failure:
        fleet.run(since=990.0, restarts={"vllm@0.service": 2})
    assert failure.value.details["reason"] == "kv_cache_memory"
    assert fleet.read_since == [970.0]
    assert Fleet({"vllm@0.service": [again]}, {8100: [200]}).run().restarts == {"vllm@0.service": 3}


def test_one_that_served_and_died_while_others_start_is_a_failure() -> None:
    dead = dataclasses.replace(UP, active="failed", result="signal")
    fleet = Fleet({"vllm@0.service": [UP, dead], "vllm@1.service": [UP]}, {8100: [200], 8101: [None]})
    with pytest.raises(FleetError, match=r"vllm@0\.service ended while it started \(result signal"):
        fleet.run()


def test_before_there_is_a_process_systemd_is_quoted() -> None:
    starting = dataclasses.replace(UP, active="activating", sub="start-pre", pid=0)
    seen = Fleet({"vllm@0.service": [starting]}, {8100: [200]}, ["an earlier start"]).run()
    assert (seen.progress[0]["phase"], seen.progress[0]["text"]) == ("preparing", "systemd: activating (start-pre)")
    held = Fleet({"vllm@0.service": [starting]}, {8100: [200]}, waits=TAKEN._replace(since=999.0)).run()
    assert held.progress[0]["text"] == "waits: Port 8100 is taken by pid 77 nc"
    silent = Fleet({"vllm@0.service": [UP]}, {8100: [None]}).run()
    assert (silent.progress[0]["phase"], silent.progress[0]["text"]) == ("preparing", "nothing in its journal yet")


def test_a_start_that_waits_for_the_weights_says_so_and_is_not_late() -> None:
    queued = dataclasses.replace(UP, active="inactive", pid=0, has_job=True)
    restoring = dataclasses.replace(UP, active="activating", sub="start")
    fleet = Fleet({"vllm@0.service": [queued]}, {8100: [200]})
    fleet.states["inference-models.service"] = [restoring]
    seen = fleet.run(since=0.0, timeout=60)
    assert seen.restarts == {}
    assert (seen.seconds, seen.progress[0]["phase"]) == ({}, "checking")
    fleet.states["inference-models.service"] = [dataclasses.replace(UP, active="inactive")]
    assert fleet.run(since=0.0).progress[0]["text"] == "systemd: inactive (running)"


def test_a_slice_names_a_missing_unit() -> None:
    with pytest.raises(FleetError, match=r"no unit vllm@0\.service"):
        Fleet({"vllm@0.service": [dataclasses.replace(UP, load="not-found")]}, {8100: [None]}).run()
