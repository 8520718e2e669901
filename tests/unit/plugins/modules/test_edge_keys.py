from __future__ import annotations

import json
import os
import stat
import typing as t
from pathlib import Path

import pytest

from tests.fakes.haproxy import FakeHaproxy, FakeWorker
from tests.unit.conftest import Result, RunModule

A = {"name": "team-a", "sha256": "a" * 64}
B = {"name": "team-b", "sha256": "b" * 64}
Keys = t.Callable[..., Result]


def entry(key: dict[str, str]) -> tuple[str, str]:
    return key["sha256"], key["name"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "maps" / "keys.map"


@pytest.fixture
def keys(run_module: RunModule, tmp_path: Path, path: Path) -> Keys:
    sockets = {
        "socket": str(tmp_path / "admin.sock"),
        "master_socket": str(tmp_path / "master.sock"),
        "engine_key_path": str(tmp_path / "engine_key.env"),
        "engine_key_map": str(tmp_path / "engine_key.map"),
        "upstream_key_map": str(tmp_path / "upstream_key.map"),
        "gateway_clients": str(tmp_path / "gateway_clients.json"),
    }

    def run(wanted: list[dict[str, t.Any]] | None, check: bool = False, **more: t.Any) -> Result:
        given: dict[str, t.Any] = more if wanted is None else {"keys": wanted, **more}
        return run_module("edge_keys", {**given, "path": str(path), **sockets}, check=check, diff=True)

    return run


def test_without_haproxy_the_file_is_written(keys: Keys, path: Path) -> None:
    result = keys([B, A])
    assert result["changed"]
    assert (result["clients"], result["count"], result["live"]) == (["team-a", "team-b"], 2, False)
    assert result["actions"] == ["add team-a sk-…aaaaaaaa", "add team-b sk-…bbbbbbbb", "make the map's file"]
    assert path.read_text().splitlines()[1:] == [f"{'a' * 64} team-a", f"{'b' * 64} team-b"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert not keys([A, B])["changed"]


def test_without_keys_the_file_is_made_and_then_kept(keys: Keys, path: Path) -> None:
    assert keys(None)["changed"]
    assert not keys(None)["changed"]
    keys([A])
    assert not keys(None)["changed"]
    assert keys(None)["clients"] == ["team-a"]


def test_haproxy_and_file_change_together(keys: Keys, tmp_path: Path, path: Path) -> None:
    keys([A])
    with FakeHaproxy(tmp_path) as haproxy:
        haproxy.worker.maps[str(path)] = [entry(A)]
        result = keys([B])
        assert (result["changed"], result["live"]) == (True, True)
        assert result["actions"] == ["add team-b sk-…bbbbbbbb", "remove team-a sk-…aaaaaaaa"]
        assert haproxy.worker.maps[str(path)] == [entry(B)]
        assert not keys([B])["changed"]
    assert "team-b" in path.read_text()


@pytest.mark.parametrize(
    "live", [[], [entry(A), entry(B)], [entry(A), entry(A)], [(A["sha256"], "somebody")], [("b" * 64, "team-a")]]
)
def test_what_haproxy_knows_otherwise_is_put_right(
    keys: Keys, tmp_path: Path, path: Path, live: list[tuple[str, str]]
) -> None:
    keys([A])
    with FakeHaproxy(tmp_path) as haproxy:
        haproxy.worker.maps[str(path)] = live
        assert keys([A])["actions"] == ["bring the running HAProxy in line with the file"]
        assert haproxy.worker.maps[str(path)] == [entry(A)]


def test_the_process_that_a_reload_left_behind_is_told_too(keys: Keys, tmp_path: Path, path: Path) -> None:
    keys([A])
    with FakeHaproxy(tmp_path, old={77: FakeWorker({str(path): [entry(B)]})}) as haproxy:
        haproxy.worker.maps[str(path)] = [entry(A)]
        assert keys([A])["changed"]
        assert haproxy.old[77].maps[str(path)] == [entry(A)]


def test_an_haproxy_without_the_map_is_not_told(keys: Keys, tmp_path: Path) -> None:
    with FakeHaproxy(tmp_path) as haproxy:
        result = keys([A])
        assert (result["changed"], result["live"]) == (True, False)
        assert not [command for command in haproxy.worker.commands if command.startswith("prepare")]


def test_a_changed_file_is_put_right(keys: Keys, path: Path) -> None:
    keys([A])
    path.chmod(0o666)
    assert keys([A])["actions"] == ["write the map's file anew"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_check_mode_touches_nothing(keys: Keys, tmp_path: Path, path: Path) -> None:
    result = keys([A], check=True)
    assert result["changed"]
    assert os.listdir(tmp_path) == []
    keys([A])
    with FakeHaproxy(tmp_path) as haproxy:
        haproxy.worker.maps[str(path)] = [entry(A)]
        assert keys([B], check=True)["diff"] == {"before": "team-a sk-…aaaaaaaa\n", "after": "team-b sk-…bbbbbbbb\n"}
        assert haproxy.worker.maps[str(path)] == [entry(A)]


def test_a_disk_that_is_full_leaves_haproxy_as_it_was(
    keys: Keys, tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys([A])

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with FakeHaproxy(tmp_path) as haproxy:
        haproxy.worker.maps[str(path)] = [entry(A)]
        monkeypatch.setattr(os, "fsync", full)
        result = keys([B])
        assert "keys.map cannot be written (No space left on device)" in result["msg"]
        assert haproxy.worker.maps[str(path)] == [entry(A)]


def test_an_haproxy_that_refuses_fails_the_module(keys: Keys, tmp_path: Path, path: Path) -> None:
    with FakeHaproxy(tmp_path) as haproxy:
        haproxy.worker.maps[str(path)] = []
        haproxy.worker.refuse = "commit map"
        assert "Permission denied" in keys([A])["msg"]
    # Another run finishes: the file says what is wanted.
    assert "team-a" in path.read_text()


def test_the_key_for_the_engines_is_told_and_never_shown(keys: Keys, tmp_path: Path, path: Path) -> None:
    file, engine_map = tmp_path / "engine_key.env", tmp_path / "engine_key.map"
    with FakeHaproxy(tmp_path) as haproxy:
        haproxy.worker.maps |= {str(path): [], str(engine_map): []}
        keys([A])
        assert not engine_map.exists()
        for secret in ("sk-" + "1" * 43, "sk-" + "2" * 43):
            file.write_text(f"ENGINE_API_KEY={secret}\nENGINE_API_KEY_NEXT=sk-{'3' * 43}\n")
            assert keys([A], check=True)["changed"]
            result = keys([A])
            assert result["changed"]
            assert [action.split("…")[0] for action in result["actions"]] == ["show the engines' key sk-"]
            assert secret not in str(result)
            assert haproxy.worker.maps[str(engine_map)] == [("engine", secret)]
            assert stat.S_IMODE(engine_map.stat().st_mode) == 0o600
            assert not keys([A])["changed"]


def test_a_wrong_hash_changes_nothing(keys: Keys, tmp_path: Path) -> None:
    assert "never the key" in keys([{"name": "team-a", "sha256": "sk-SECRET"}])["msg"]
    assert os.listdir(tmp_path) == []


UPSTREAM = "sk-what-the-gateway-shows-to-the-hosts-00000000"


def test_a_gateway_shows_the_hosts_its_key(keys: Keys, tmp_path: Path) -> None:
    shown = tmp_path / "upstream_key.map"
    with FakeHaproxy(tmp_path) as haproxy:
        haproxy.worker.maps[str(shown)] = []
        result = keys([A], upstream_key=UPSTREAM)
        assert result["actions"][-1].startswith("show the inference hosts the key sk-…")
        assert haproxy.worker.maps[str(shown)] == [("upstream", UPSTREAM)]
        assert not keys([A], upstream_key=UPSTREAM)["changed"]
    assert stat.S_IMODE(shown.stat().st_mode) == 0o600
    assert UPSTREAM not in str(result)


def test_without_one_the_key_stays(keys: Keys, tmp_path: Path) -> None:
    keys([A], upstream_key=UPSTREAM)
    assert not keys([A])["changed"]
    assert UPSTREAM in (tmp_path / "upstream_key.map").read_text()


def test_litellm_is_told_of_the_same_keys(keys: Keys, tmp_path: Path) -> None:
    path = tmp_path / "gateway_clients.json"
    path.touch(mode=0o600)
    result = keys([{**A, "requests_per_minute": 5, "tokens_per_minute": 100}])
    assert "tell LiteLLM of 1 keys" in result["actions"]
    assert json.loads(path.read_text()) == {
        "keys": {A["sha256"]: "team-a"},
        "clients": {"team-a": {"requests_per_minute": 5, "tokens_per_minute": 100}},
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not keys([{**A, "requests_per_minute": 5, "tokens_per_minute": 100}])["changed"]
    # What only LiteLLM looks at changes too.
    assert keys([{**A, "requests_per_minute": 5, "tokens_per_minute": 99}])["actions"] == ["tell LiteLLM of 1 keys"]
    assert not keys(None)["changed"]


def test_check_mode_tells_litellm_nothing(keys: Keys, tmp_path: Path) -> None:
    path = tmp_path / "gateway_clients.json"
    path.touch()
    assert keys([A], check=True, upstream_key=UPSTREAM)["changed"]
    assert path.read_text() == ""
    assert not (tmp_path / "upstream_key.map").exists()


def test_a_host_that_is_no_gateway_gets_no_such_file(keys: Keys, tmp_path: Path) -> None:
    keys([A])
    assert not (tmp_path / "gateway_clients.json").exists()
