from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core import keys as api_keys
from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.keys import holder as key_holder
from ansible_collections.inference.fleet.plugins.modules import api_key as module

from tests.unit.conftest import Result, RunModule
from tests.unit.plugins.at_once import at_once
from tests.unit.plugins.module_utils.keys.key_stores import ELSEWHERE, ME, NOW, later

DAY = 86400
ApiKey = t.Callable[..., Result]


class Clock:
    """The time, and the calling process."""

    seconds = 0.0
    holder = ME


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(times, "now", lambda: later(clock.seconds))
    monkeypatch.setattr(key_holder, "current", lambda: clock.holder)
    return clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "keys.json"


@pytest.fixture
def api_key(run_module: RunModule, path: Path, clock: Clock) -> ApiKey:
    def run(*names: str, check: bool = False, **parameters: t.Any) -> Result:
        clients = [{"name": name} for name in names]
        return run_module("api_key", {"clients": clients, "path": str(path), **parameters}, check=check, diff=True)

    return run


def stored(path: Path, slot: str = "current") -> dict[str, str]:
    clients = json.loads(path.read_text())["clients"]
    return {name: item[slot]["key"] for name, item in clients.items() if item[slot]}


def hashes(result: Result) -> dict[tuple[str, str], str]:
    return {(item["name"], item["slot"]): item["sha256"] for item in result["hashes"]}


def test_each_client_gets_a_key_once(api_key: ApiKey, path: Path) -> None:
    result = api_key("team-b", "team-a")
    keys = stored(path)
    assert result["changed"]
    assert [client["name"] for client in result["clients"]] == ["team-b", "team-a"]
    assert result["clients"][0]["fingerprint"] == api_keys.fingerprint(keys["team-b"])
    limits: dict[str, t.Any] = {"models": [], "requests_per_minute": None, "max_concurrent": None, "expires": ""}
    limits |= {"tokens_per_minute": None, "budget": None, "budget_period": ""}
    assert result["hashes"] == [
        {"name": name, "sha256": api_keys.sha256(keys[name]), "slot": "current", **limits}
        for name in ("team-a", "team-b")
    ]
    added = [f"add {name} {api_keys.fingerprint(keys[name])}" for name in ("team-a", "team-b")]
    assert result["actions"] == [f"make the key store {path}", *added]
    again = api_key("team-b", "team-a")
    assert not again["changed"]
    assert again["hashes"] == result["hashes"]
    assert again["actions"] == []


def test_clients_are_returned_with_what_they_may_do(api_key: ApiKey, clock: Clock) -> None:
    given = {
        "name": "a",
        "models": ["m2", "m1"],
        "requests_per_minute": 60,
        "max_concurrent": 4,
        "expires": "2027-01-31",
        "tokens_per_minute": 1000,
        "budget": 2.5,
        "budget_period": "30d",
    }
    created = api_key(clients=[given])["clients"][0]
    clock.seconds = 100
    shown = api_key("a", state="read", max_age="90s")["clients"][0]
    keys = shown.pop("stored_keys")
    assert shown == {
        **given,
        "models": ["m1", "m2"],
        "expires": "2027-01-31T00:00:00Z",
        "expired": False,
        "fingerprint": created["fingerprint"],
        "created": NOW,
        "activated": NOW,
        "age": 100,
        "due": True,
        "state": "current",
    }
    assert [(key["slot"], key["fingerprint"], key["created"]) for key in keys] == [
        ("current", created["fingerprint"], NOW)
    ]
    assert not api_key("a", state="read")["clients"][0]["due"]
    clock.seconds = 365 * DAY
    shown = api_key("a", state="read", max_age="90s")["clients"][0]
    assert (shown["expired"], shown["due"]) == (True, False)


def test_attributes_change_without_a_new_key(api_key: ApiKey) -> None:
    before = api_key("a")
    result = api_key(clients=[{"name": "a", "max_concurrent": 4}])
    assert result["changed"]
    assert result["actions"] == ["change max_concurrent of a"]
    assert result["hashes"] == [{**item, "max_concurrent": 4} for item in before["hashes"]]
    assert "max_concurrent=4" in result["diff"]["after"]
    assert not api_key(clients=[{"name": "a", "max_concurrent": 4}])["changed"]
    # A rotation's steps leave them.
    api_key("a", state="pending")
    assert api_key("a", state="read")["clients"][0]["max_concurrent"] == 4


def test_one_key_is_revealed_on_purpose(api_key: ApiKey, path: Path) -> None:
    api_key("team-a", "team-b")
    result = api_key("team-a", state="read", reveal=True)
    assert result["key"] == stored(path)["team-a"]
    assert not result["changed"]


@pytest.mark.parametrize(
    ("names", "state", "which"),
    [((), "read", "current"), (("a", "b"), "read", "current"), (("a",), "present", "current"), ((), "read", "all")],
)
def test_no_other_way_reveals_one(api_key: ApiKey, names: tuple[str, ...], state: str, which: str) -> None:
    api_key("a", "b")
    result = api_key(*names, state=state, reveal=True, which=which)
    assert "reveal returns" in result["msg"]
    assert not {"key", "live", "dead"} & set(result)


def test_what_lives_and_what_is_dead_can_be_revealed_for_the_proof(api_key: ApiKey, path: Path) -> None:
    api_key("a", "b")
    old = stored(path)

    def revealed(*names: str) -> tuple[list[str], list[str]]:
        result = api_key(*names, state="read", reveal=True, which="all")
        return [item["key"] for item in result["live"]], [item["key"] for item in result["dead"]]

    assert revealed("a", "b") == ([old["a"], old["b"]], [])
    api_key("a", state="pending")
    new = stored(path, "pending")["a"]
    assert revealed("a") == ([old["a"], new], [])
    api_key(state="finished", overlap="24h")
    assert revealed("a") == ([new, old["a"]], [])
    api_key("a", state="retired", force=True)
    assert revealed("a", "b") == ([new, old["b"]], [old["a"]])
    api_key(state="completed")
    assert revealed("a") == ([new], [])


def test_the_key_to_test_and_the_key_to_prove_dead_can_be_revealed(api_key: ApiKey, path: Path) -> None:
    api_key("a")
    old = stored(path)["a"]
    assert (
        "Client a has no pending key. It has: current."
        in api_key("a", state="read", reveal=True, which="pending")["msg"]
    )
    api_key("a", state="pending")
    new = api_key("a", state="read", reveal=True, which="pending")["key"]
    assert new == stored(path, "pending")["a"] != old
    api_key(state="finished", overlap="0")
    assert api_key("a", state="read", reveal=True)["key"] == new
    assert api_key("a", state="read", reveal=True, which="previous")["key"] == old
    api_key(state="completed")
    assert "has no previous key" in api_key("a", state="read", reveal=True, which="previous")["msg"]
    assert old not in path.read_text() + path.with_name("keys.json.bak").read_text()


def test_a_whole_rotation(api_key: ApiKey, clock: Clock) -> None:
    first = hashes(api_key("a", "b"))
    clock.seconds = 40 * DAY
    result = api_key(state="pending", max_age="30d", overlap="24h")
    assert result["changed"]
    assert [client["state"] for client in result["clients"]] == ["pending", "pending"]
    assert len(result["hashes"]) == 4
    rotation = result["rotation"]
    assert (rotation["step"], rotation["clients"], rotation["by"], rotation["pid"]) == (
        "pending",
        ["a", "b"],
        "ops",
        100,
    )
    pending = {name: digest for (name, slot), digest in hashes(result).items() if slot == "pending"}
    assert api_key(state="pending", max_age="30d", rotation_id=rotation["id"])["changed"] is False
    clock.seconds += 20
    result = api_key(state="finished", overlap="24h", rotation_id=rotation["id"])
    assert {name: digest for (name, slot), digest in hashes(result).items() if slot == "current"} == pending
    assert {(name, "current"): digest for (name, slot), digest in hashes(result).items() if slot == "previous"} == first
    assert [client["state"] for client in result["clients"]] == ["previous", "previous"]
    result = api_key(state="completed")
    assert (result["rotation"], result["retired"]) == (None, [])
    clock.seconds += DAY - 1
    assert not api_key(state="retired")["changed"]
    clock.seconds += 1
    result = api_key(state="retired")
    assert sorted(hashes(result).values()) == sorted(pending.values())
    assert {(key["name"], "current"): key["sha256"] for key in result["retired"]} == first
    assert [(key["proven"], key["revealable"]) for key in result["retired"]] == [(False, True)] * 2
    result = api_key(state="completed")
    assert [(key["proven"], key["revealable"]) for key in result["retired"]] == [(True, False)] * 2
    assert [client["state"] for client in api_key(state="read")["clients"]] == ["current", "current"]


def test_a_failure_before_finished_leaves_the_old_key(api_key: ApiKey) -> None:
    first = api_key("a")
    api_key("a", state="pending")
    result = api_key(state="withdrawn")
    assert result["changed"]
    assert result["hashes"] == first["hashes"]
    assert len(result["retired"]) == 1
    assert not api_key(state="withdrawn")["changed"]
    assert api_key(state="completed")["rotation"] is None


def test_a_second_run_is_refused_until_the_first_is_known_to_be_dead(api_key: ApiKey, clock: Clock) -> None:
    api_key("a", "b")
    clock.holder = ELSEWHERE
    begun = api_key("a", state="pending")["rotation"]["id"]
    clock.holder = ME
    clock.seconds = 60
    for state in ("pending", "finished", "withdrawn", "completed"):
        message = api_key("a", state=state, overlap="24h")["msg"]
        assert f"Rotation {begun} of a is in progress" in message
        assert f"begun by eve on elsewhere, process 100 at {NOW}" in message
        assert "take_over" in message
    # It locks changes of clients, too.
    assert f"Rotation {begun} of a is in progress" in api_key("a", "b", "c")["msg"]
    assert f"Rotation {begun} of a is in progress" in api_key("b", state="absent")["msg"]
    assert not api_key("a", "b")["changed"]
    result = api_key("a", state="pending", take_over=True)
    assert result["actions"] == [f"continue rotation {begun}, which eve on elsewhere, process 100 left"]
    assert (result["rotation"]["by"], result["rotation"]["resumed"]) == ("ops", later(60))


def test_of_several_processes_at_once_one_rotates(path: Path) -> None:
    defaults = {name: option.get("default") for name, option in module.ARGUMENTS.items()}

    def run(state: str, *names: str) -> Result:
        clients = [{"name": name} for name in names]
        return module.run({**defaults, "path": str(path), "state": state, "clients": clients}, False, False)

    run("present", "a", "b", "c", "d")
    outcomes = at_once("abcd", lambda name: run("pending", name))
    (winner,) = [outcome for outcome in outcomes if not outcome.message]
    assert all(f"process {winner.pid} at " in outcome.message for outcome in outcomes if outcome is not winner)
    assert sorted(stored(path, "pending")) == [winner.name]
    # It has ended now, so the next one continues it.
    assert run("pending", winner.name)["rotation"]["pid"] == os.getpid()


def test_clients_go_and_their_keys_are_remembered_as_dead(api_key: ApiKey, path: Path) -> None:
    digest = api_keys.sha256(stored_after(api_key, path, "team-a", "team-b")["team-a"])
    result = api_key("team-a", "never-was", state="absent")
    assert result["changed"]
    assert [action.split()[:2] for action in result["actions"]] == [["remove", "team-a"]]
    assert sorted(stored(path)) == ["team-b"]
    assert [(key["name"], key["sha256"]) for key in result["retired"]] == [("team-a", digest)]
    assert not api_key("team-a", state="absent")["changed"]


def stored_after(api_key: ApiKey, path: Path, *names: str) -> dict[str, str]:
    api_key(*names)
    return stored(path)


def test_present_leaves_others_unless_it_is_exclusive(api_key: ApiKey, path: Path) -> None:
    api_key("team-a", "team-b")
    result = api_key("team-a")
    assert not result["changed"]
    # An edge gets all of them: it refuses clients that are not listed.
    assert sorted(hashes(result)) == [("team-a", "current"), ("team-b", "current")]
    result = api_key("team-a", "team-c", exclusive=True)
    assert sorted(stored(path)) == ["team-a", "team-c"]
    assert [client["name"] for client in result["clients"]] == ["team-a", "team-c"]


def test_exclusive_does_not_remove_everybody(api_key: ApiKey, path: Path) -> None:
    api_key("team-a")
    assert "at least one client" in api_key(exclusive=True)["msg"]
    assert sorted(stored(path)) == ["team-a"]


def test_info_without_names_lists_all(api_key: ApiKey) -> None:
    assert api_key(state="read")["clients"] == []
    api_key("team-b", "team-a")
    assert [client["name"] for client in api_key(state="read")["clients"]] == ["team-a", "team-b"]


def test_an_unknown_client_is_named_with_those_there_are(api_key: ApiKey) -> None:
    api_key("team-a", "team-b")
    assert "has no client team-z. It has: team-a, team-b." in api_key("team-z", state="read")["msg"]


@pytest.mark.parametrize("state", ["pending", "finished", "withdrawn", "retired", "completed", "read"])
def test_a_store_that_is_missing_is_an_error_where_it_is_needed(api_key: ApiKey, path: Path, state: str) -> None:
    message = api_key("team-a", state=state, overlap="0")["msg"]
    assert f"The key store {path} has not been made yet" in message
    assert f"state {state}" in message
    assert not path.parent.exists()


def test_where_nothing_is_needed_a_missing_store_stays_missing(api_key: ApiKey, path: Path) -> None:
    assert not api_key("team-a", state="absent")["changed"]
    assert not api_key()["changed"]
    assert not path.exists()


def test_check_mode_makes_no_key_but_says_who_would_have_one(api_key: ApiKey, tmp_path: Path) -> None:
    result = api_key("team-a", check=True)
    assert result["changed"]
    assert [key["name"] for key in result["hashes"]] == ["team-a"]
    assert os.listdir(tmp_path) == []


def test_check_mode_says_what_each_step_would_do(api_key: ApiKey, path: Path) -> None:
    api_key("a")
    steps: list[tuple[str, list[str], dict[str, t.Any]]] = [
        ("pending", ["a"], {}),
        ("finished", [], {"overlap": "24h"}),
        ("retired", ["a"], {"force": True}),
        ("completed", [], {}),
    ]
    for state, names, params in steps:
        before = path.read_text()
        would = api_key(*names, state=state, check=True, **params)
        assert would["changed"]
        assert path.read_text() == before
        did = api_key(*names, state=state, **params)
        assert [action.split()[0] for action in did["actions"]] == [action.split()[0] for action in would["actions"]]
        assert sorted(hashes(did)) == sorted(hashes(would))


def test_a_diff_shows_fingerprints(api_key: ApiKey, path: Path) -> None:
    api_key("team-a")
    old = api_keys.fingerprint(stored(path)["team-a"])
    diff = api_key("team-a", state="pending", rotation_id="r1")["diff"]
    new = api_keys.fingerprint(stored(path, "pending")["team-a"])
    assert diff == {
        "before": f"team-a {old} current\n",
        "after": f"team-a {old} current\nteam-a {new} pending\nrotation r1 pending by ops on here, process 100\n",
    }
    diff = api_key(state="finished", overlap="24h")["diff"]
    assert f"team-a {old} previous until {later(DAY)}\n" in diff["after"]
    assert api_key("team-a", state="absent")["diff"]["after"].splitlines() == [
        "rotation r1 finished by ops on here, process 100"
    ]


@pytest.mark.parametrize(
    ("names", "message"), [(("A",), "cannot be a client's name"), (("a", "a"), "a is given twice")]
)
def test_wrong_names_change_nothing(api_key: ApiKey, tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    assert message in api_key(*names)["msg"]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_age": "soon"}, "max_age is 'soon'. Give a number with its unit"),
        ({"overlap": "1"}, "overlap is '1'"),
        ({"rotation_id": "a b"}, "rotation_id is 'a b'"),
        (
            {"backend": "aws_secretsmanager"},
            "has no region. Give the one that it is in",
        ),
        ({"path": None}, "has no path. Give the file on the controller"),
    ],
)
def test_wrong_options(api_key: ApiKey, parameters: dict[str, t.Any], message: str) -> None:
    assert message in api_key("a", **parameters)["msg"]
