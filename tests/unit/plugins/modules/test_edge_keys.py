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
STORE, OTHER = "a1" * 16, "b2" * 16


def origin(generation: int, store: str = STORE, name: str = "the key store /k.json on here", **more: t.Any) -> Result:
    return {"id": store, "generation": generation, "name": name, **more}


def entry(key: dict[str, str]) -> tuple[str, str]:
    return key["sha256"], f"v=2|{key['name']}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "maps" / "keys.map"


@pytest.fixture
def keys(run_module: RunModule, tmp_path: Path, path: Path) -> Keys:
    sockets = {
        "socket": str(tmp_path / "admin.sock"),
        "master_socket": str(tmp_path / "master.sock"),
        "config_path": str(tmp_path / "haproxy.cfg"),
        "engine_key_path": str(tmp_path / "engine_key.env"),
        "engine_key_map": str(tmp_path / "engine_key.map"),
        "upstream_key_map": str(tmp_path / "upstream_key.map"),
        "gateway_clients": str(tmp_path / "gateway_clients.json"),
        "origin_path": str(tmp_path / "keys.origin.json"),
        "hold_map": str(tmp_path / "hold.map"),
        "presence_path": str(tmp_path / "state" / "presence.json"),
    }
    generations: list[str] = []

    def run(items: list[dict[str, t.Any]] | None, check: bool = False, **more: t.Any) -> Result:
        """With a generation of its own for each change, as the store has it, unless the test gives one."""
        content = json.dumps([sorted(map(str, items or [])), more.get("upstream_key")])
        if not generations or generations[-1] != content:
            generations.append(content)
        given: dict[str, t.Any] = {"origin": origin(len(generations)), **more}
        given |= {} if items is None else {"keys": items}
        return run_module("edge_keys", {**given, "path": str(path), **sockets}, check=check, diff=True)

    return run


def test_without_haproxy_the_file_is_written(keys: Keys, path: Path) -> None:
    result = keys([B, A])
    assert result["changed"]
    assert (result["clients"], result["count"], result["live"]) == (["team-a", "team-b"], 2, False)
    assert result["actions"] == [
        "add team-a sk-…aaaaaaaa",
        "add team-b sk-…bbbbbbbb",
        "make the map's file",
        "take generation 1 of key store a1a1a1a1… (the key store /k.json on here)",
    ]
    assert path.read_text().splitlines()[1:] == [f"{'a' * 64} v=2|team-a", f"{'b' * 64} v=2|team-b"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert not keys([A, B])["changed"]


def test_a_host_that_was_away_serves_once_it_has_the_keys_of_the_store(keys: Keys, tmp_path: Path) -> None:
    hold = tmp_path / "hold.map"
    keys([A])
    assert hold.read_text().count("\n") == 1
    hold.write_text("# title\nkeys 2026-11-29T10:00:00Z\n")
    with FakeHaproxy(tmp_path) as haproxy:
        haproxy.worker.maps[str(hold)] = [("keys", "2026-11-29T10:00:00Z")]
        # Without keys of the store nothing is confirmed.
        assert keys(None)["held"] == {"since": "2026-11-29T10:00:00Z", "why": "the reason is not recorded"}
        assert "has generation 1 of key store" in keys([A], origin=origin(0))["msg"]
        assert haproxy.worker.maps[str(hold)]
        planned = keys([A], check=True)
        assert (planned["changed"], planned["held"] is None) == (True, False)
        assert haproxy.worker.maps[str(hold)]
        done = keys([A])
        assert done["held"] is None
        assert done["actions"][-1].startswith("end the hold since 2026-11-29T10:00:00Z: the reason is not recorded, ")
        assert haproxy.worker.maps[str(hold)] == []
    assert hold.read_text().count("\n") == 1
    assert not keys([A])["changed"]


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
        assert result["actions"][:-1] == ["add team-b sk-…bbbbbbbb", "remove team-a sk-…aaaaaaaa"]
        assert haproxy.worker.maps[str(path)] == [entry(B)]
        assert not keys([B])["changed"]
    assert "team-b" in path.read_text()


@pytest.mark.parametrize(
    "live", [[], [entry(A), entry(B)], [entry(A), entry(A)], [(A["sha256"], "somebody")], [("b" * 64, "team-a")]]
)
def test_a_running_map_that_differs_is_corrected(
    keys: Keys, tmp_path: Path, path: Path, live: list[tuple[str, str]]
) -> None:
    keys([A])
    with FakeHaproxy(tmp_path) as haproxy:
        haproxy.worker.maps[str(path)] = live
        assert keys([A])["actions"] == ["bring the running HAProxy in line with the file"]
        assert haproxy.worker.maps[str(path)] == [entry(A)]


def test_the_process_that_a_reload_left_behind_is_updated_too(keys: Keys, tmp_path: Path, path: Path) -> None:
    keys([A])
    with FakeHaproxy(tmp_path, old={77: FakeWorker({str(path): [entry(B)]})}) as haproxy:
        haproxy.worker.maps[str(path)] = [entry(A)]
        assert keys([A])["changed"]
        assert haproxy.old[77].maps[str(path)] == [entry(A)]


def test_an_haproxy_without_the_map_is_not_updated(keys: Keys, tmp_path: Path) -> None:
    with FakeHaproxy(tmp_path) as haproxy:
        result = keys([A])
        assert (result["changed"], result["live"]) == (True, False)
        assert not [command for command in haproxy.worker.commands if command.startswith("prepare")]


def test_a_changed_file_is_corrected(keys: Keys, path: Path) -> None:
    keys([A])
    path.chmod(0o666)
    assert keys([A])["actions"] == ["write the map again"]
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
        assert "keys.origin.json cannot be written (No space left on device)" in result["msg"]
        assert "team-b" not in path.read_text()
        assert haproxy.worker.maps[str(path)] == [entry(A)]


def test_an_haproxy_that_refuses_fails_the_module(keys: Keys, tmp_path: Path, path: Path) -> None:
    with FakeHaproxy(tmp_path) as haproxy:
        haproxy.worker.maps[str(path)] = []
        haproxy.worker.refuse = "commit map"
        assert "Permission denied" in keys([A])["msg"]
    # Another run finishes: the file already has the new content.
    assert "team-a" in path.read_text()


def test_the_key_for_the_engines_is_set_and_never_shown(keys: Keys, tmp_path: Path, path: Path) -> None:
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
    assert not keys([A], origin=origin(1))["changed"]
    assert UPSTREAM in (tmp_path / "upstream_key.map").read_text()


def test_litellm_gets_the_same_keys(keys: Keys, tmp_path: Path) -> None:
    path = tmp_path / "gateway_clients.json"
    path.touch(mode=0o600)
    result = keys([{**A, "requests_per_minute": 5, "tokens_per_minute": 100}])
    assert "give LiteLLM 1 keys" in result["actions"]
    assert json.loads(path.read_text()) == {
        "version": 1,
        "keys": {A["sha256"]: "team-a"},
        "clients": {"team-a": {"requests_per_minute": 5, "tokens_per_minute": 100}},
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not keys([{**A, "requests_per_minute": 5, "tokens_per_minute": 100}])["changed"]
    # Limits that no edge enforces change, too: the map has them for the accountant.
    actions = keys([{**A, "requests_per_minute": 5, "tokens_per_minute": 99}])["actions"]
    assert [action.split(" (")[0].split()[0] for action in actions] == ["limit", "take", "give"]
    assert "99 tokens/min" in actions[0]
    assert actions[-1] == "give LiteLLM 1 keys"
    assert not keys(None)["changed"]


def test_check_mode_writes_nothing_for_litellm(keys: Keys, tmp_path: Path) -> None:
    path = tmp_path / "gateway_clients.json"
    path.touch()
    assert keys([A], check=True, upstream_key=UPSTREAM)["changed"]
    assert path.read_text() == ""
    assert not (tmp_path / "upstream_key.map").exists()


def test_a_host_that_is_no_gateway_gets_no_such_file(keys: Keys, tmp_path: Path) -> None:
    keys([A])
    assert not (tmp_path / "gateway_clients.json").exists()


def test_an_older_generation_changes_nothing(keys: Keys, tmp_path: Path, path: Path) -> None:
    """A run that read the store before a rotation ended and writes afterwards."""
    keys([A], origin=origin(1))
    keys([B], origin=origin(3), upstream_key=UPSTREAM)
    before = path.read_text()
    for late in (
        keys([A], origin=origin(1)),
        keys([A], origin=origin(2)),
        keys(None, origin=origin(2), upstream_key="sk-old"),
    ):
        assert (
            "has generation 3 of key store a1a1a1a1… (the key store /k.json on here); this run brought" in late["msg"]
        )
        assert "run it again" in late["msg"]
    assert path.read_text() == before
    assert UPSTREAM in (tmp_path / "upstream_key.map").read_text()
    assert keys([A, B], origin=origin(4))["changed"]


def test_a_key_for_the_hosts_is_as_late_as_the_clients_keys(keys: Keys, path: Path) -> None:
    keys([A], origin=origin(1))
    keys(None, origin=origin(3), upstream_key=UPSTREAM)
    assert "brought generation 2" in keys([B], origin=origin(2))["msg"]
    assert "team-a" in path.read_text()


def test_another_store_is_refused_until_it_is_adopted(keys: Keys, path: Path) -> None:
    keys([A], origin=origin(7))
    foreign = origin(1, OTHER, "the key store /k.json on laptop2")
    refused = keys([B], origin=foreign)["msg"]
    assert "belongs to key store a1a1a1a1… (the key store /k.json on here), generation 7" in refused
    assert "this run's is store b2b2b2b2… (the key store /k.json on laptop2), generation 1" in refused
    assert f"-e key_store_adopt={STORE}" in refused
    assert "belongs to" in keys([B], origin=foreign, adopt=OTHER)["msg"]
    assert "team-a" in path.read_text()
    assert keys([B], origin=foreign, adopt=STORE)["taken"]["store"] == OTHER
    assert not keys([B], origin=foreign)["changed"]
    assert "belongs to" in keys([A], origin=origin(8))["msg"]


def test_a_generation_has_one_content(keys: Keys, path: Path) -> None:
    keys([A], origin=origin(2))
    assert "A generation has one content, so there are two copies of the store" in keys([B], origin=origin(2))["msg"]
    limited = {**A, "requests_per_minute": 5}
    assert "A generation has one content" in keys([limited], origin=origin(2))["msg"]
    # Its part in a rotation is nothing to an edge.
    assert not keys([{**A, "slot": "previous"}], origin=origin(2))["changed"]
    assert "team-a" in path.read_text()


def test_what_was_read_in_the_middle_of_a_change_is_refused(keys: Keys, path: Path) -> None:
    assert "was changing the key store" in keys([A], origin=origin(2, settled=False))["msg"]
    assert not path.exists()


def test_keys_come_with_their_origin_or_not_at_all(keys: Keys, path: Path) -> None:
    assert "origin" in keys([A], origin=None)["msg"]
    assert "origin is not what module api_key returns" in keys([A], origin={})["msg"]
    assert "has no identity yet" in keys([A], origin=origin(0, ""))["msg"]
    assert not path.exists()


def test_a_host_without_a_record_is_adopted_where_the_store_has_its_keys(
    keys: Keys, tmp_path: Path, path: Path
) -> None:
    keys([A, B])
    record = tmp_path / "keys.origin.json"
    record.unlink()
    looked = keys(None, check=True)
    assert (looked["taken"], looked["unclaimed"]) == (None, [A["sha256"], B["sha256"]])
    refused = keys([A], origin=origin(1))
    assert (
        "takes keys that store a1a1a1a1… (the key store /k.json on here) does not know: sk-…bbbbbbbb." in refused["msg"]
    )
    assert "-e key_store_adopt=true" in refused["msg"]
    assert keys([A], origin=origin(1, retired=[B["sha256"]]))["changed"]
    assert "team-b" not in path.read_text()
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    looked = keys(None, check=True)
    assert (looked["taken"]["store"], looked["unclaimed"]) == (STORE, [])


def written(path: Path) -> list[str]:
    return [line.partition(" ")[2] for line in path.read_text().splitlines()[1:]]


LIMITED = {**A, "requests_per_minute": 600, "max_concurrent": 8}
#: The values of LIMITED and B in the first version and in this one.
FIRST, SECOND = ["team-a|600|8|0|", "team-b"], ["v=2|team-a|600|8|0|", "v=2|team-b"]


def first_version(path: Path) -> None:
    """The map as the collection before versions wrote it."""
    path.parent.mkdir(exist_ok=True)
    lines = [f"{key['sha256']} {value}\n" for key, value in zip((A, B), FIRST)]
    path.write_text("".join(["# SHA-256 of a client's key, and the client. Written by module edge_keys.\n", *lines]))
    path.chmod(0o640)


@pytest.mark.parametrize("given", [None, [LIMITED, B]])
def test_a_map_in_the_first_version_is_read_and_rewritten(
    keys: Keys, path: Path, given: list[dict[str, t.Any]] | None
) -> None:
    first_version(path)
    result = keys(given)
    assert result["changed"]
    assert result["actions"][:1] == ["write the map again"]
    assert (result["clients"], result["count"], result["outdated"]) == (["team-a", "team-b"], 2, False)
    assert written(path) == SECOND
    assert not keys(given)["changed"]


def test_an_edge_that_reads_the_first_version_gets_that_until_it_is_configured_again(
    keys: Keys, tmp_path: Path, path: Path
) -> None:
    first_version(path)
    old = FakeWorker({str(path): [(A["sha256"], FIRST[0]), (B["sha256"], FIRST[1])]}, "0123abcd")
    with FakeHaproxy(tmp_path, old={77: old}) as haproxy:
        haproxy.worker.description = "0123abcd"
        haproxy.worker.maps[str(path)] = list(old.maps[str(path)])
        assert not [action for action in keys([LIMITED, B])["actions"] if not action.startswith("take ")]
        result = keys([LIMITED])
        assert (result["outdated"], result["actions"][0]) == (True, "remove team-b sk-…bbbbbbbb")
        assert written(path) == [haproxy.worker.maps[str(path)][0][1]] == FIRST[:1]
        assert not keys([LIMITED])["changed"]
        # A reload: what takes connections now reads this version, what it left behind does not.
        haproxy.worker.description = "4567abcd clients=2"
        assert keys(None)["actions"] == ["write the map again"]
        assert written(path) == [haproxy.worker.maps[str(path)][0][1]] == SECOND[:1]
        assert old.maps[str(path)] == [(A["sha256"], FIRST[0])]
        assert not keys(None)["changed"]
        keys([])
        assert old.maps[str(path)] == []


@pytest.mark.parametrize(
    ("config", "version"),
    [("", 2), ("  description 01234567\n", 2), ("{map}", 1), ("global\n    description 01234567 clients=2\n{map}", 2)],
)
def test_where_haproxy_does_not_run_its_configuration_says_what_it_reads(
    keys: Keys, tmp_path: Path, path: Path, config: str, version: int
) -> None:
    (tmp_path / "haproxy.cfg").write_text(config.format(map=f"  var(txn.hash),map_str({path})\n"))
    assert keys([LIMITED, B])["outdated"] == (version == 1)
    assert written(path) == (SECOND if version == 2 else FIRST)


def test_a_later_version_is_refused_with_both_versions(keys: Keys, tmp_path: Path, path: Path) -> None:
    keys([A])
    later = path.read_text().replace("v=2|", "v=3|new|")
    path.write_text(later)
    message = keys([A, B])["msg"]
    assert f"{path} has clients in version 3; this collection reads versions up to 2. Nothing was changed." in message
    assert path.read_text() == later
    path.unlink()
    keys([A])
    with FakeHaproxy(tmp_path) as haproxy:
        haproxy.worker.maps[str(path)] = [(A["sha256"], "v=3|new|team-a")]
        assert "has clients in version 3; this collection reads versions up to 2" in keys([A])["msg"]


@pytest.mark.parametrize("files", range(1, 5))
def test_a_crash_between_two_files_leaves_no_way_back_for_older_keys(
    keys: Keys, tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    clients = tmp_path / "gateway_clients.json"
    clients.touch()
    keys([A], origin=origin(1))
    replaced: list[str] = []
    replace = os.replace

    def crash(source: str, target: str) -> None:
        replaced.append(target)
        if len(replaced) == files:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        if files < 4:
            with pytest.raises(KeyboardInterrupt):
                keys([B], origin=origin(2))
        else:
            keys([B], origin=origin(2))
    assert [os.path.basename(one) for one in replaced] == ["keys.origin.json", "gateway_clients.json", "keys.map"][
        :files
    ]
    if files > 1:
        assert "brought generation 1" in keys([A], origin=origin(1))["msg"]
    keys([B], origin=origin(2))
    assert (A["sha256"] in path.read_text(), B["sha256"] in path.read_text()) == (False, True)
    assert list(json.loads(clients.read_text())["keys"]) == [B["sha256"]]


def test_an_invalid_record_is_named(keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "keys.origin.json").write_text('{"store": "x"}')
    assert "keys.origin.json is not a record of the key store" in keys([A])["msg"]


def test_a_store_may_have_another_name_on_another_controller(keys: Keys) -> None:
    keys([A], origin=origin(1))
    assert not keys([A], origin=origin(1, name="the key store /k.json on there"))["changed"]
