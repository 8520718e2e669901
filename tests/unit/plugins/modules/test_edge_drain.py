from __future__ import annotations

import json
import os
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.edge import drain as edge_drain

from tests.fakes.haproxy import FakeHaproxy, FakeWorker
from tests.unit.conftest import Result, RunModule

CONFIG = "backend instances_8000\n    server engine-0 127.0.0.1:9\n    server engine-1 127.0.0.1:9\n"
Drain = t.Callable[..., Result]


@pytest.fixture
def drain(run_module: RunModule, tmp_path: Path) -> Drain:
    (tmp_path / "haproxy.cfg").write_text(CONFIG)
    places = {
        "config_path": str(tmp_path / "haproxy.cfg"),
        "map_path": str(tmp_path / "maps" / "drain.map"),
        "record_path": str(tmp_path / "state" / "drain.json"),
        "socket": str(tmp_path / "admin.sock"),
        "master_socket": str(tmp_path / "master.sock"),
    }

    def run(state: str, check: bool = False, **parameters: t.Any) -> Result:
        return run_module("edge_drain", {"state": state, **places, **parameters}, check=check, diff=True)

    return run


@pytest.fixture
def haproxy(tmp_path: Path) -> t.Iterator[FakeHaproxy]:
    with FakeHaproxy(tmp_path) as fake:
        fake.worker.maps[str(tmp_path / "maps" / "drain.map")] = []
        fake.worker.servers = {"engine-0": {"up": 2, "admin": 0}, "engine-1": {"up": 2, "admin": 0}}
        yield fake


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of simulated sleep."""
    seconds: list[float] = []
    monkeypatch.setattr(edge_drain.time, "sleep", seconds.append)
    return seconds


def host_state(haproxy: FakeHaproxy) -> list[tuple[str, str]]:
    (entries,) = haproxy.worker.maps.values()
    return entries


def session(server: str, age: str = "3s") -> dict[str, str]:
    return {"source": "10.0.0.1:5", "backend": "instances_8000", "server": server, "age": age}


def test_without_haproxy_the_state_is_recorded(drain: Drain, tmp_path: Path) -> None:
    result = drain("drained", reason="fan", lame_duck_seconds=60, wait=60)
    assert (result["changed"], result["state"], result["live"], result["idle"]) == (True, "drained", False, True)
    assert result["lame_duck_seconds"] == 0
    record = json.loads((tmp_path / "state" / "drain.json").read_text())
    assert {key: record[key] for key in ("state", "by", "reason")} == {
        "state": "drained",
        "by": "operator",
        "reason": "fan",
    }
    assert (tmp_path / "maps" / "drain.map").read_text().splitlines()[1:] == ["host drained"]
    assert not drain("drained")["changed"]
    assert drain("undrained")["changed"]
    assert not (tmp_path / "state" / "drain.json").exists()
    assert not drain("undrained")["changed"]


def test_the_host_is_drained_and_undrained(drain: Drain, haproxy: FakeHaproxy) -> None:
    result = drain("drained")
    assert host_state(haproxy) == [("host", "drained")]
    assert result["actions"] == ['record {"host": "drained", "instances": {}}', "set the host to drained"]
    drain("undrained")
    assert host_state(haproxy) == []


def test_the_lame_duck_lasts_as_long_as_asked(drain: Drain, haproxy: FakeHaproxy, slept: list[float]) -> None:
    assert drain("drained", lame_duck_seconds=15)["lame_duck_seconds"] == 15
    assert slept == [15]
    assert host_state(haproxy) == [("host", "drained")]


def test_no_lame_duck_where_no_instance_serves(drain: Drain, haproxy: FakeHaproxy, slept: list[float]) -> None:
    haproxy.worker.servers = {"engine-0": {"up": 0, "admin": 0}, "engine-1": {"up": 2, "admin": 8}}
    assert drain("drained", lame_duck_seconds=15)["lame_duck_seconds"] == 0
    assert slept == []


def test_an_instance_beside_others_needs_no_lame_duck(drain: Drain, haproxy: FakeHaproxy, slept: list[float]) -> None:
    result = drain("drained", instance="1", by="rollout", lame_duck_seconds=15)
    assert (result["state"], result["lame_duck_seconds"]) == ("drained", 0)
    assert haproxy.worker.servers["engine-1"]["admin"] == 8
    assert haproxy.worker.servers["engine-0"]["admin"] == 0
    assert host_state(haproxy) == []
    assert result["diff"]["after"] == {"host": "serving", "instances": {"engine-1": "drained"}}


def test_the_last_instance_is_the_host(drain: Drain, haproxy: FakeHaproxy, monkeypatch: pytest.MonkeyPatch) -> None:
    haproxy.worker.servers["engine-0"]["up"] = 0
    during: list[t.Any] = []
    monkeypatch.setattr(edge_drain.time, "sleep", lambda seconds: during.append((seconds, host_state(haproxy))))
    drain("drained", instance="engine-1", lame_duck_seconds=15)
    assert during == [(15, [("host", "lame_duck")])]
    assert host_state(haproxy) == []
    assert haproxy.worker.servers["engine-1"]["admin"] == 8


def test_a_rollout_keeps_out_where_an_operator_drained(drain: Drain, haproxy: FakeHaproxy, slept: list[float]) -> None:
    drain("drained", reason="fan")
    for state in ("undrained", "drained", "lame_duck"):
        result = drain(state, by="rollout", lame_duck_seconds=15)
        assert (result["changed"], result["held_by"], result["state"]) == (False, "operator", "drained")
    assert slept == []
    # An instance of such a host is the rollout's to drain, but the host is not in its hands.
    assert drain("drained", by="rollout", instance="engine-0", lame_duck_seconds=15)["held_by"] == "operator"
    assert slept == []


def test_what_runs_is_named_when_the_time_is_over(drain: Drain, haproxy: FakeHaproxy) -> None:
    haproxy.worker.sessions = [session("engine-0", "1m2s")]
    haproxy.worker.clients = {"10.0.0.1:5": "team-a"}
    result = drain("drained", wait=0.1)
    assert not result["idle"]
    assert result["requests"] == [{"client": "team-a", "instance": "engine-0", "seconds": 62}]
    assert result["waited"] >= 0.1


def test_only_the_instances_own_requests_count(drain: Drain, haproxy: FakeHaproxy, slept: list[float]) -> None:
    haproxy.worker.sessions = [session("engine-1")]
    result = drain("drained", instance="engine-0", wait=5)
    assert result["idle"]
    # Nothing in flight must be seen twice.
    assert slept == [0.5]


def test_an_old_process_is_queried_and_drained_too(run_module: RunModule, drain: Drain, tmp_path: Path) -> None:
    old = FakeWorker({str(tmp_path / "maps" / "drain.map"): []})
    old.servers = {"engine-0": {"up": 2, "admin": 0}}
    old.sessions = [session("engine-0")]
    with FakeHaproxy(tmp_path, old={7: old}):
        result = drain("drained")
        assert old.maps[str(tmp_path / "maps" / "drain.map")] == [("host", "drained")]
        assert len(result["requests"]) == 1
        drain("drained", instance="engine-0")
        assert old.servers["engine-0"]["admin"] == 8


def test_kept_repairs_and_changes_no_state(drain: Drain, haproxy: FakeHaproxy) -> None:
    drain("drained", by="rollout")
    drain("drained", instance="engine-0", by="rollout")
    assert not drain("kept")["changed"]
    haproxy.worker.maps = {path: [("host", "serving")] for path in haproxy.worker.maps}
    haproxy.worker.servers["engine-0"]["admin"] = 0
    haproxy.worker.servers["engine-1"]["admin"] = 8
    result = drain("kept")
    assert result["actions"] == ["set engine-0 to drained", "set engine-1 to serving", "set the host to drained"]
    assert "idle" not in result
    assert host_state(haproxy) == [("host", "drained")]


def test_check_mode_neither_changes_nor_waits(
    drain: Drain, haproxy: FakeHaproxy, tmp_path: Path, slept: list[float]
) -> None:
    result = drain("drained", check=True, lame_duck_seconds=15, wait=15)
    assert (result["changed"], result["state"]) == (True, "drained")
    assert result["diff"] == {
        "before": {"host": "serving", "instances": {}},
        "after": {"host": "drained", "instances": {}},
    }
    assert drain("drained", check=True, instance="engine-0")["changed"]
    assert slept == []
    assert host_state(haproxy) == []
    assert not (tmp_path / "state").exists()


def test_an_interrupted_lame_duck_waits_the_rest(
    drain: Drain, haproxy: FakeHaproxy, tmp_path: Path, slept: list[float]
) -> None:
    drain("lame_duck")
    path = tmp_path / "state" / "drain.json"
    record = json.loads(path.read_text())
    record["since"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 100))
    path.write_text(json.dumps(record))
    drain("drained", lame_duck_seconds=300)
    # Neither the whole time nor none; the slack is for a busy machine.
    assert 100 < slept[0] <= 201


@pytest.mark.parametrize("state", ["kept", "lame_duck"])
def test_some_states_are_a_hosts_only(drain: Drain, state: str) -> None:
    assert "Leave out instance" in drain(state, instance="engine-0")["msg"]


def test_an_operators_unknown_instance_is_refused_and_a_rollouts_is_recorded(drain: Drain) -> None:
    assert drain("drained", instance="engine-9")["msg"] == (
        "This host's edge has no instance engine-9. It has: engine-0, engine-1."
    )
    assert drain("drained", instance="9", by="rollout")["msg"].startswith("This host's edge has no instance 9.")
    assert drain("drained", instance="engine-9", by="rollout")["changed"]


def test_a_damaged_record_is_named(drain: Drain, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "drain.json").write_text("[")
    assert "drain.json is not valid JSON" in drain("undrained")["msg"]


def test_a_record_that_cannot_be_written_drains_nothing(
    drain: Drain, haproxy: FakeHaproxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "nothing was drained" in drain("drained")["msg"]
    assert host_state(haproxy) == []


def test_an_overridden_notice_leaves_haproxy_alone(tmp_path: Path, haproxy: FakeHaproxy, drain: Drain) -> None:
    """Another run may have made the host a lame duck for the drain of its last instance, which no record has."""
    (tmp_path / "state").mkdir()
    mark = {"state": "overridden", "reason": "spot", "since": "2026-11-29T12:00:00Z", "notices": ["spot"]}
    (tmp_path / "state/drain.json").write_text(json.dumps({"aws": mark}))
    drain("kept")
    (path,) = haproxy.worker.maps
    haproxy.worker.maps[path] = [("host", "lame_duck")]
    names = ("haproxy.cfg", "maps/drain.map", "state/drain.json", "admin.sock", "master.sock")
    edge = edge_drain.EdgeDrain(edge_drain.Paths(*(str(tmp_path / name) for name in names)), "aws", "spot", False)
    edge.announce(["spot"], 15)
    assert host_state(haproxy) == [("host", "lame_duck")]
    assert not edge.actions
    edge.announce(["spot", "asg"], 15)
    assert edge.after.aws
    assert edge.after.aws.state == "lame_duck"


def test_notices_go_step_by_step(
    tmp_path: Path, haproxy: FakeHaproxy, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("haproxy.cfg", "maps/drain.map", "state/drain.json", "admin.sock", "master.sock")
    paths = edge_drain.Paths(*(str(tmp_path / name) for name in names))
    drain("kept")

    def look(at: float) -> list[tuple[str, str]]:
        monkeypatch.setattr(edge_drain.times, "now", lambda: edge_drain.times.moment(at))
        monkeypatch.setattr(edge_drain.time, "time", lambda: at)
        edge_drain.EdgeDrain(paths, "aws", "spot", False).announce(["spot"], 15)
        return host_state(haproxy)

    assert look(1000.0) == [("host", "lame_duck")]
    assert look(1014.0) == [("host", "lame_duck")]
    assert look(1016.0) == [("host", "drained")]
    assert look(1018.0) == [("host", "drained")]
    edge = edge_drain.EdgeDrain(paths, "aws", "", False)
    assert edge.withdraw()
    assert host_state(haproxy) == []
    assert edge.withdraw()


def test_a_notices_drain_ends_when_an_instance_answers(tmp_path: Path, haproxy: FakeHaproxy, drain: Drain) -> None:
    names = ("haproxy.cfg", "maps/drain.map", "state/drain.json", "admin.sock", "master.sock")
    paths = edge_drain.Paths(*(str(tmp_path / name) for name in names))
    drain("kept")
    edge_drain.EdgeDrain(paths, "aws", "spot", False).announce(["spot"], 0)
    for server in haproxy.worker.servers.values():
        server["up"] = 0
    waiting = edge_drain.EdgeDrain(paths, "aws", "", False)
    assert not waiting.withdraw()
    assert host_state(haproxy) == [("host", "drained")]
    assert waiting.after.announced == ""
    # Nothing is announced, so a rollout that has gated the instance may put the host back.
    assert drain("undrained", check=True, by="rollout")["state"] == "serving"
    haproxy.worker.servers["engine-1"]["up"] = 2
    assert edge_drain.EdgeDrain(paths, "aws", "", False).withdraw()
    assert host_state(haproxy) == []
