"""The program that keeps the keys' usage, without HAProxy; tests/integration/edge has it with a real one."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import types
import typing as t
from pathlib import Path

import pytest

from tests.programs import install_edge, load

ROLE = Path(__file__).resolve().parents[3] / "roles" / "edge"
NOW = 1_800_000_000
DAY = 86400
# As HAProxy 2.6 prints it, and 2.8 with a shard.
TABLE = """\
# table: key_usage, type: string, size:65536, used:2
0x56197ab15ba8: key=aaaaaaaa use=0 exp={left} http_req_cnt=3
0x7f25580469c8: key=bbbbbbbb use=1 exp=2073600000 shard=0 http_req_cnt=12

"""

Table = dict[str, tuple[int, int]]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_edge(tmp_path_factory.mktemp("haproxy")) / "key_usage.py"


@pytest.fixture(scope="module")
def program(path: Path) -> types.ModuleType:
    return load(path)


def uses(table: Table) -> dict[str, dict[str, int]]:
    return {key: {"last_used": last_used, "requests": requests} for key, (last_used, requests) in table.items()}


def document(table: Table | None = None, **changes: t.Any) -> dict[str, t.Any]:
    """What the file has: saved an hour ago by process 7."""
    found = {
        "since": NOW - 5 * DAY,
        "saved": NOW - 3600,
        "closed": False,
        "keys": uses(table or {}),
        "counted": {"pid": 7, "requests": {key: requests for key, (_moment, requests) in (table or {}).items()}},
    }
    return {**found, **changes}


def merge(
    program: types.ModuleType,
    before: dict[str, t.Any] | None,
    table: Table,
    pid: int = 8,
    started: int = NOW - 3598,
    former: list[Table] | None = None,
) -> dict[str, t.Any]:
    current = program.Process(pid, started, uses(table))
    merged: dict[str, t.Any] = program.merged(before, current, [uses(one) for one in former or []], NOW)
    return merged


def test_a_table_is_read_in_every_versions_form(program: types.ModuleType) -> None:
    left_ms = (24 * DAY - 90) * 1000
    assert program.parsed_table(TABLE.format(left=left_ms), NOW) == uses(
        {"aaaaaaaa": (NOW - 90, 3), "bbbbbbbb": (NOW, 12)}
    )


def test_the_table_keeps_a_key_as_long_as_the_program_thinks(program: types.ModuleType) -> None:
    config = (ROLE / "templates" / "haproxy.cfg.j2").read_text()
    assert (
        f"backend {program.TABLE}\n    stick-table type string len 8 size 64k expire 24d store http_req_cnt\n" in config
    )
    assert program.EXPIRE == 24 * DAY


def test_without_a_file_all_is_known_since_the_process_began(program: types.ModuleType) -> None:
    found = merge(program, None, {"aaaaaaaa": (NOW - 5, 3)}, started=NOW - 60)
    assert (found["since"], found["saved"], found["closed"]) == (NOW - 60, NOW, False)
    assert found["keys"] == uses({"aaaaaaaa": (NOW - 5, 3)})
    assert found["counted"] == {"pid": 8, "requests": {"aaaaaaaa": 3}}


def test_the_process_after_a_reload_adds_to_the_file(program: types.ModuleType) -> None:
    before = document({"aaaaaaaa": (NOW - DAY, 3), "bbbbbbbb": (NOW - 2 * DAY, 1)})
    found = merge(program, before, {"aaaaaaaa": (NOW - 5, 2), "cccccccc": (NOW - 9, 1)})
    assert found["since"] == before["since"]
    assert found["keys"] == uses({"aaaaaaaa": (NOW - 5, 5), "bbbbbbbb": (NOW - 2 * DAY, 1), "cccccccc": (NOW - 9, 1)})
    assert found["counted"] == {"pid": 8, "requests": {"aaaaaaaa": 2, "cccccccc": 1}}


def test_a_process_that_was_saved_before_counts_from_there(program: types.ModuleType) -> None:
    before = document({"aaaaaaaa": (NOW - 7200, 3), "bbbbbbbb": (NOW - 7200, 40)})
    live: Table = {"aaaaaaaa": (NOW - 5, 5), "bbbbbbbb": (NOW - 5, 1)}
    found = merge(program, before, live, pid=7, started=NOW - 5 * DAY)
    # The row of the second one had expired.
    assert found["keys"] == uses({"aaaaaaaa": (NOW - 5, 5), "bbbbbbbb": (NOW - 5, 41)})
    assert merge(program, found, live, pid=7, started=NOW - 5 * DAY)["keys"] == found["keys"]


def test_what_is_merged_leaves_the_file_as_it_was(program: types.ModuleType) -> None:
    before = document({"aaaaaaaa": (NOW - 7200, 3)})
    copy = json.loads(json.dumps(before))
    merge(program, before, {"aaaaaaaa": (NOW - 5, 2)})
    assert before == copy


def test_a_former_process_has_times_and_no_requests(program: types.ModuleType) -> None:
    before = document({"aaaaaaaa": (NOW - 7200, 3), "bbbbbbbb": (NOW - 600, 1)})
    former: list[Table] = [{"aaaaaaaa": (NOW - 30, 3)}, {"bbbbbbbb": (NOW - 900, 1), "cccccccc": (NOW - 1, 1)}]
    found = merge(program, before, {}, former=former)
    assert found["keys"] == uses({"aaaaaaaa": (NOW - 30, 3), "bbbbbbbb": (NOW - 600, 1), "cccccccc": (NOW - 1, 1)})


def test_a_file_from_before_an_unsaved_process_is_ignored(program: types.ModuleType) -> None:
    before = document({"aaaaaaaa": (NOW - 7200, 3)})
    found = merge(program, before, {"bbbbbbbb": (NOW - 5, 1)}, started=NOW - 600)
    assert found["since"] == NOW - 600
    assert found["keys"] == uses({"bbbbbbbb": (NOW - 5, 1)})


@pytest.mark.parametrize("saved", [None, NOW - 30 * DAY])
def test_usage_reaches_no_further_back_than_the_table_keeps(program: types.ModuleType, saved: int | None) -> None:
    old: Table = {"aaaaaaaa": (NOW - 25 * DAY, 3), "bbbbbbbb": (NOW - 31 * DAY, 1)}
    before = document(old, since=NOW - 90 * DAY, saved=saved) if saved else None
    found = merge(program, before, {"aaaaaaaa": (NOW - 20 * DAY, 5)}, started=NOW - 30 * DAY)
    assert found["since"] == NOW - 24 * DAY
    assert set(found["keys"]) == {"aaaaaaaa"}
    assert found["keys"]["aaaaaaaa"]["last_used"] == NOW - 20 * DAY


def test_saves_in_between_reach_further_back(program: types.ModuleType) -> None:
    before = document({"bbbbbbbb": (NOW - 31 * DAY, 1)}, since=NOW - 90 * DAY, saved=NOW - 20 * DAY)
    found = merge(program, before, {}, started=NOW - 20 * DAY)
    assert found["since"] == NOW - 90 * DAY
    assert found["keys"] == uses({"bbbbbbbb": (NOW - 31 * DAY, 1)})


@pytest.mark.parametrize(("closed", "since", "count"), [(True, NOW - 5 * DAY, 1), (False, NOW, 0)])
def test_a_start_believes_a_file_that_was_closed(
    program: types.ModuleType, closed: bool, since: int, count: int
) -> None:
    found = program.begun(document({"aaaaaaaa": (NOW - 7200, 3)}, closed=closed), NOW)
    assert (found["since"], found["saved"], found["closed"]) == (since, NOW, False)
    assert len(found["keys"]) == count
    assert found["counted"] == {"pid": 0, "requests": {}}


Run = t.Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def run(path: Path, tmp_path: Path) -> Run:
    """Run the program as systemd does."""

    def run_program(event: str) -> subprocess.CompletedProcess[str]:
        places = ("--file", "usage.json", "--socket", "admin.sock", "--master-socket", "master.sock")
        command = [sys.executable, "-I", str(path), event, *places]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run_program


@pytest.mark.parametrize("event", ["reload", "stop"])
def test_an_haproxy_that_does_not_answer_leaves_the_file_as_it_was(run: Run, tmp_path: Path, event: str) -> None:
    text = json.dumps(document({"aaaaaaaa": (NOW, 1)}))
    (tmp_path / "usage.json").write_text(text)
    done = run(event)
    assert done.returncode == 1
    assert "The keys' usage was not saved (admin.sock, usage.json)" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "usage.json").read_text() == text


@pytest.mark.parametrize(("closed", "count"), [(True, 1), (False, 0)])
def test_while_haproxy_does_not_run_only_a_closed_file_is_shown(
    run: Run, tmp_path: Path, closed: bool, count: int
) -> None:
    (tmp_path / "usage.json").write_text(json.dumps(document({"aaaaaaaa": (NOW, 1)}, closed=closed)))
    shown = json.loads(run("show").stdout)
    assert (shown["since"] is not None, len(shown["keys"])) == (closed, count)


def test_a_start_on_a_bare_host_makes_the_file(run: Run, tmp_path: Path) -> None:
    assert run("start").returncode == 0
    assert json.loads((tmp_path / "usage.json").read_text())["keys"] == {}
    assert [path.name for path in tmp_path.iterdir()] == ["usage.json"]


def test_a_start_writes_nothing_beside_the_programs(run: Run, path: Path) -> None:
    """What is in HAProxy's directory is compared with what the role has put there."""
    assert run("start").returncode == 0
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "edge_presence.py",
        "edge_servers.py",
        "haproxy_socket.py",
        "key_usage.py",
    ]


def test_an_haproxy_that_hangs_stops_no_reload(
    program: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "admin.sock")
    monkeypatch.setattr(program, "PATIENCE", 1)
    monkeypatch.setattr(
        sys, "argv", ["key_usage.py", "reload", "--socket", path, "--file", str(tmp_path / "usage.json")]
    )
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen(1)
        with pytest.raises(SystemExit, match="took longer than 1 s"):
            program.main()


def test_an_answer_that_is_no_table_is_reported(
    program: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"show info": "Pid: 1\nUptime_sec: 1\n", "show table key_usage": "Permission denied\n"}
    monkeypatch.setattr(program, "ask", lambda _path, command: answers[command])
    monkeypatch.setattr(sys, "argv", ["key_usage.py", "reload", "--file", str(tmp_path / "usage.json")])
    with pytest.raises(SystemExit, match="Permission denied"):
        program.main()
