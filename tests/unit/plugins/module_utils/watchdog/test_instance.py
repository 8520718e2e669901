"""The watch over one instance: a real HTTP server that hangs on request; systemd, signals and gates are given."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.systemd import UnitState
from ansible_collections.inference.fleet.plugins.module_utils.edge.drain import Paths
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.decision import ACT, OBSERVE, Damping
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.evidence import Evidence
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.history import (
    GAVE_UP,
    HUNG,
    RESTARTED,
    HistoryFile,
)
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.host import WatchedHost, WatchedInstance
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.instance import Actions, Watch, WatchSettings
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.judge import HangLimits
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.processes import EngineProcess

from tests.fakes.engine import FakeEngine

KEY = "sk-engine-key-that-stays-on-the-host-0000"
LIMITS = HangLimits(idle=0)


class GivenActions(Actions):
    """A host of which the test says what it does."""

    def __init__(self, engine: FakeEngine) -> None:
        super().__init__()
        self.engine = engine
        self.state = unit("first")
        self.started_at = 0.0
        self.gpu = ""
        self.gates: list[str] = []
        self.passes: bool | None = True
        self.kills: list[str] = []
        self.undying: list[EngineProcess] = []

    def unit(self, instance: WatchedInstance, fresh: bool = False) -> UnitState:
        return self.state

    def started(self, unit: UnitState) -> float:
        return self.started_at

    def gate(self, record: str) -> dict[str, t.Any] | None:
        self.gates.append(record)
        return None if self.passes is None else {"passed": self.passes, "message": "The answer was London."}

    def gpu_problem(self) -> str:
        return self.gpu

    def processes(self, unit: UnitState) -> list[EngineProcess]:
        return []

    def kill(
        self, instance: WatchedInstance, found: t.Sequence[EngineProcess], what: str, beat: t.Callable[[], None]
    ) -> list[EngineProcess]:
        self.kills.append(what)
        return self.undying


def unit(invocation: str, active: str = "active") -> UnitState:
    return UnitState("loaded", active, "running", "success", 0, 1, invocation, "0")


class World:
    """A host with one instance, and time that the test moves."""

    def __init__(self, engine: FakeEngine, directory: Path, mode: str = ACT) -> None:
        self.engine = engine
        self.actions = GivenActions(engine)
        self.directory = directory
        self.at = 1000.0
        self.lines: list[str] = []
        (directory / "key.env").write_text(f"ENGINE_API_KEY={KEY}\n")
        self.begin(mode)

    def begin(self, mode: str = ACT) -> None:
        """Start the watchdog, as after the end of an earlier one."""
        edge = Paths(
            config=str(self.directory / "none.cfg"),
            record=str(self.directory / "drain.json"),
            socket=str(self.directory / "no.sock"),
            master_socket=str(self.directory / "no-master.sock"),
        )
        host = WatchedHost(str(self.directory), edge, str(self.directory / "claim.json"))
        settings = WatchSettings(
            mode, LIMITS, Damping(), str(self.directory / "key.env"), str(self.directory / "gate"), announce=0
        )
        self.history = HistoryFile(str(self.directory / "watchdog.json"))
        evidence = Evidence(str(self.directory / "hangs"), "", edge)
        instance = WatchedInstance(0, "vllm", "127.0.0.1", self.engine.port, self.engine.model)
        self.watch = Watch(
            instance,
            host,
            self.history,
            settings,
            evidence,
            self.lines.append,
            actions=self.actions,
            clock=lambda: self.at,
            now=lambda: self.at,
        )

    def pass_time(self, seconds: float) -> None:
        """Ticks every two seconds."""
        for _ in range(int(seconds / 2)):
            self.at += 2
            self.watch.tick()

    def hang(self) -> None:
        """The core stops with a request in flight that the engine's own gauge shows."""
        self.engine.finished = 100
        self.engine.running = 1
        self.engine.metrics()
        self.watch.tick()
        self.engine.faults.set("freeze")
        self.pass_time(40)

    def restart(self) -> None:
        """What systemd does after a kill."""
        self.engine.faults.clear()
        self.engine.running = 0
        self.actions.state = unit(f"after {self.at}")
        self.actions.started_at = self.at + 1

    @property
    def phase(self) -> str:
        return self.history.of(0).phase

    def drain(self, by: str) -> None:
        mark = {"state": "drained", "by": by, "reason": "", "since": "2026-11-22T12:00:00Z"}
        (self.directory / "drain.json").write_text(json.dumps(mark))

    def claim(self, **changes: t.Any) -> None:
        document = {
            "id": "1",
            "verb": "site",
            "who": "ann",
            "controller": "laptop",
            "since": "1970-01-01T00:00:10Z",
            "targets": {"vllm-0": "vllm-1"},
            **changes,
        }
        (self.directory / "claim.json").write_text(json.dumps(document))


@pytest.fixture
def engine() -> t.Iterator[FakeEngine]:
    with FakeEngine(key=KEY, remember=False) as fake:
        yield fake


@pytest.fixture
def world(engine: FakeEngine, tmp_path: Path) -> World:
    return World(engine, tmp_path)


def test_a_hang_is_out_killed_gated_and_back(world: World) -> None:
    world.hang()
    assert world.actions.kills == ["core"]
    assert (world.phase, world.watch.answer()) == (RESTARTED, "down #restarted")
    world.restart()
    world.pass_time(2)
    assert world.actions.gates == [str(world.directory / "gate" / "vllm-0.json")]
    assert (world.phase, world.watch.answer()) == ("", "up")
    assert world.history.of(0).restarts_total == 1
    said = "\n".join(world.lines)
    assert "engine-0 (vllm@0.service) hangs" in said
    assert "has passed its gate" in said
    assert KEY not in said


def test_the_evidence_is_kept(world: World) -> None:
    world.hang()
    (directory,) = (world.directory / "hangs").iterdir()
    assert "hangs. Its engine's core makes no progress" in (directory / "hang.txt").read_text()
    assert "vllm:num_requests_running" in (directory / "metrics.txt").read_text()
    assert {file.name for file in directory.iterdir()} >= {"journal.txt", "kernel.txt", "requests.json"}
    assert all(file.stat().st_mode & 0o077 == 0 for file in directory.iterdir())


def test_a_server_that_is_mute_is_a_hang_too(world: World, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "ansible_collections.inference.fleet.plugins.module_utils.watchdog.engine.read_counters.__defaults__", (0.1,)
    )
    world.pass_time(4)
    engine.faults.set("mute")
    world.pass_time(32)
    assert world.actions.kills == ["server"]


def test_observe_keeps_evidence_and_touches_nothing(engine: FakeEngine, tmp_path: Path) -> None:
    world = World(engine, tmp_path, OBSERVE)
    world.hang()
    world.pass_time(60)
    assert world.actions.kills == []
    assert world.watch.answer() == "up"
    assert world.history.of(0).hangs == 1
    assert len(list((tmp_path / "hangs").iterdir())) == 1
    assert any("watchdog_mode is observe" in line for line in world.lines)


@pytest.mark.parametrize("by", ["operator", "rollout", "aws"])
def test_what_is_drained_is_left_alone(world: World, by: str) -> None:
    world.drain(by)
    world.hang()
    assert world.actions.kills == []
    assert world.watch.answer() == "up"


def test_what_a_rollout_has_started_is_its_own_until_it_is_done(world: World) -> None:
    world.claim()
    world.actions.started_at = 20.0
    world.hang()
    assert world.actions.kills == []
    world.claim(done={"vllm-0": "1970-01-01T00:00:30Z"})
    world.pass_time(160)
    assert world.actions.kills == ["core"]


def test_what_waits_for_its_turn_in_a_rollout_is_watched(world: World) -> None:
    world.claim()
    world.actions.started_at = 5.0
    world.hang()
    assert world.actions.kills == ["core"]


def test_an_engine_that_starts_or_stops_is_not_judged(world: World) -> None:
    world.actions.state = unit("first", "deactivating")
    world.hang()
    assert world.actions.kills == []


def test_a_gate_that_fails_gives_up_until_a_person_drains_and_undrains(world: World) -> None:
    world.hang()
    world.restart()
    world.actions.passes = False
    world.pass_time(60)
    assert (world.phase, world.history.of(0).kind) == (GAVE_UP, "gate")
    assert world.watch.answer() == "down #gave_up"
    assert any("The answer was London." in line and "undrain.yml" in line for line in world.lines)
    assert len(world.actions.gates) == 1
    world.drain("operator")
    world.pass_time(2)
    assert (world.phase, world.watch.answer()) == ("", "up")


def test_a_restart_by_hand_is_gated_before_a_given_up_instance_returns(world: World) -> None:
    world.hang()
    world.restart()
    world.actions.passes = False
    world.pass_time(4)
    world.actions.passes = True
    world.restart()
    world.pass_time(4)
    assert world.phase == ""
    assert len(world.actions.gates) == 2


def test_three_restarts_in_six_hours_are_the_most(world: World) -> None:
    for _ in range(3):
        world.hang()
        world.restart()
        world.pass_time(4)
        assert world.phase == ""
        world.at += 3600
    world.hang()
    assert world.actions.kills == ["core"] * 3
    assert (world.phase, world.history.of(0).kind) == (GAVE_UP, "restarts")
    # It was no hang: an engine that goes on must not stay out, or a wrong verdict could take out a fleet.
    world.engine.faults.clear()
    world.engine.running = 0
    world.pass_time(4)
    assert world.phase == ""


def test_a_second_hang_within_ten_minutes_waits_out_of_service(world: World) -> None:
    world.hang()
    world.restart()
    world.pass_time(4)
    world.hang()
    assert world.actions.kills == ["core"]
    assert (world.phase, world.watch.answer()) == (HUNG, "down #hung")
    world.pass_time(600)
    assert world.actions.kills == ["core"] * 2


def test_a_failed_gpu_is_given_up_without_a_restart(world: World) -> None:
    world.actions.gpu = "the kernel reports XID 79"
    world.hang()
    assert world.actions.kills == []
    assert (world.phase, world.history.of(0).kind) == (GAVE_UP, "gpu")


def test_processes_that_do_not_end_are_the_hosts_fault(world: World) -> None:
    world.actions.undying = [EngineProcess(1, None, "stuck")]
    world.hang()
    assert (world.phase, world.history.of(0).kind) == (GAVE_UP, "host")
    assert any("do not end on SIGKILL" in line for line in world.lines)


def test_a_watchdog_that_ended_in_the_middle_goes_on(world: World) -> None:
    world.hang()
    world.begin()
    assert world.watch.answer() == "down #restarted"
    world.restart()
    world.pass_time(4)
    assert world.phase == ""
    assert len(world.actions.gates) == 1


def test_a_watchdog_that_ended_before_the_kill_kills(world: World) -> None:
    world.actions.kill = lambda *_: (_ for _ in ()).throw(OSError("ended here"))  # type: ignore[method-assign]
    with pytest.raises(OSError, match="ended here"):
        world.hang()
    assert world.phase == HUNG
    world.actions = GivenActions(world.engine)
    world.begin()
    world.pass_time(700)
    assert world.actions.kills == ["core"]


def test_an_old_host_without_questions_of_a_gate_returns_when_it_serves(world: World) -> None:
    world.hang()
    world.restart()
    world.actions.passes = None
    world.pass_time(4)
    assert world.phase == ""
    assert any("left no questions" in line for line in world.lines)


def test_evidence_that_cannot_be_kept_does_not_keep_it_from_the_restart(world: World) -> None:
    (world.directory / "hangs").write_text("a file in the way")
    world.hang()
    assert world.actions.kills == ["core"]
    assert any("No evidence" in line for line in world.lines)


def test_a_corrupt_record_of_drains_stops_the_judgement(world: World) -> None:
    (world.directory / "drain.json").write_text("{")
    with pytest.raises(Exception, match="is not valid JSON"):
        world.watch.tick()
    assert world.actions.kills == []
