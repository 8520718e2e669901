"""The program that systemd runs before HAProxy starts or reloads."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest

from tests.fakes.haproxy import FakeHaproxy
from tests.programs import install_edge, load

CONFIG = """\
backend inflight
    stick-table type string
frontend edge_8000
    default_backend instances_8000

backend instances_8000
.if version_atleast(2.5-dev0)
    use-server engine-0
.endif
    default-server check
    server engine-0 127.0.0.1:8100
    server engine-1 127.0.0.1:8101

backend instances_8001
    server engine-2 127.0.0.1:8102 weight 4 agent-check
"""


@pytest.fixture
def program(tmp_path_factory: pytest.TempPathFactory) -> types.ModuleType:
    return load(install_edge(tmp_path_factory.mktemp("haproxy")) / "edge_servers.py")


def run(
    program: types.ModuleType, event: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, list[str]]:
    """The rows that it wrote, by server."""
    (directory / "haproxy.cfg").write_text(CONFIG)
    arguments = ["--config", "haproxy.cfg", "--drains", "drain.json", "--socket", "admin.sock", "--output", "state"]
    monkeypatch.chdir(directory)
    monkeypatch.setattr(sys, "argv", ["edge_servers.py", event, *arguments])
    program.main()
    version, columns, *rows = (directory / "state").read_text().splitlines()
    assert version == "1"
    assert all(len(row.split()) == len(columns.split()) - 1 for row in rows if " 5 6 3 " not in row)
    return {row.split()[3]: row.split() for row in rows}


def state(row: list[str]) -> tuple[str, str]:
    """The operational and the administrative state."""
    return row[5], row[6]


def test_at_a_start_every_server_is_down(
    program: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = run(program, "start", tmp_path, monkeypatch)
    assert {name: state(row) for name, row in rows.items()} == {
        "engine-0": ("0", "0"),
        "engine-1": ("0", "0"),
        "engine-2": ("0", "0"),
    }
    assert [(row[1], row[2], row[4], row[18]) for row in rows.values()] == [
        ("instances_8000", "1", "127.0.0.1", "8100"),
        ("instances_8000", "2", "127.0.0.1", "8101"),
        ("instances_8001", "1", "127.0.0.1", "8102"),
    ]
    # Current and configured weight.
    assert [row[7:9] for row in rows.values()] == [["1", "1"], ["1", "1"], ["4", "4"]]


def test_what_is_drained_starts_drained(
    program: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "drain.json").write_text(json.dumps({"state": "drained", "instances": {"engine-1": {}}}))
    rows = run(program, "start", tmp_path, monkeypatch)
    assert state(rows["engine-1"]) == ("0", "8")
    assert state(rows["engine-0"]) == ("0", "0")


def test_at_a_reload_every_server_stays_what_it_is(
    program: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "drain.json").write_text(json.dumps({"instances": {"engine-0": {}}}))
    with FakeHaproxy(tmp_path) as haproxy:
        # The stand-in has all of them on port 8100: engine-1 is another server now, and engine-2 is new.
        haproxy.worker.servers = {"engine-0": {"up": 2, "admin": 32}, "engine-1": {"up": 2, "admin": 0}}
        rows = run(program, "reload", tmp_path, monkeypatch)
    assert state(rows["engine-0"]) == ("2", "40")
    assert state(rows["engine-1"]) == ("0", "0")
    assert state(rows["engine-2"]) == ("0", "0")


def test_a_socket_that_does_not_answer_stops_no_reload(
    program: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = run(program, "reload", tmp_path, monkeypatch)
    assert state(rows["engine-0"]) == ("0", "0")
    assert "admin.sock does not answer" in capsys.readouterr().err


@pytest.mark.parametrize("record", ["", "[]", "{"])
def test_a_damaged_record_stops_no_start(
    program: types.ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    record: str,
) -> None:
    (tmp_path / "drain.json").write_text(record)
    rows = run(program, "start", tmp_path, monkeypatch)
    assert state(rows["engine-0"]) == ("0", "0")
    assert "drain.json cannot be read" in capsys.readouterr().err


def test_a_link_that_haproxys_user_has_laid_is_not_followed(
    program: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.write_text("root's")
    for name in ("state", "state.new"):
        (tmp_path / name).symlink_to(other)
    run(program, "start", tmp_path, monkeypatch)
    assert other.read_text() == "root's"
    assert not (tmp_path / "state").is_symlink()


def test_only_processes_of_this_host_are_asked_for_their_health(program: types.ModuleType) -> None:
    check = "    http-check send meth GET uri /health/{name} ver HTTP/1.1 hdr Host localhost\n"
    config = "".join(
        f"backend {name}\n" + check.format(name=name)
        for name in ("instances_8000", "instances_8000_local", "peers_4000", "pool_a", "once_more")
    )
    assert program.health_paths(config) == {"instances_8000": "/health/instances_8000"}


def test_one_that_has_moved_is_asked_and_one_that_is_known_is_not(
    program: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, str]] = []

    def is_healthy(port: int, path: str) -> bool:
        asked.append((port, path))
        return port != 8100

    monkeypatch.setattr(program, "is_healthy", is_healthy)
    wanted, live = program.configured(CONFIG), program.configured(CONFIG.replace(":8101", ":8109"))
    del live["instances_8000", "engine-0"]
    program.ask_new(wanted, live, {"instances_8000": "/health", "instances_8001": "/health"})
    assert asked == [(8100, "/health"), (8101, "/health")]
    assert {server[1]: state(row) for server, row in wanted.items()} == {
        "engine-0": ("0", "0"),
        "engine-1": ("2", "0"),
        "engine-2": ("0", "0"),
    }
