from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils import _keys

from tests.unit.conftest import Result, RunModule

ApiKey = t.Callable[..., Result]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "keys.json"


@pytest.fixture
def api_key(run_module: RunModule, path: Path) -> ApiKey:
    def run(*names: str, check: bool = False, **parameters: t.Any) -> Result:
        clients = [{"name": name} for name in names]
        return run_module("api_key", {"clients": clients, "path": str(path), **parameters}, check=check, diff=True)

    return run


def stored(path: Path) -> dict[str, str]:
    return {name: item["current"]["key"] for name, item in json.loads(path.read_text())["clients"].items()}


def test_each_client_gets_a_key_once(api_key: ApiKey, path: Path) -> None:
    result = api_key("team-b", "team-a")
    keys = stored(path)
    assert result["changed"]
    assert [client["name"] for client in result["clients"]] == ["team-b", "team-a"]
    assert result["clients"][0]["fingerprint"] == _keys.fingerprint(keys["team-b"])
    assert result["hashes"] == [{"name": name, "sha256": _keys.sha256(keys[name])} for name in ("team-b", "team-a")]
    assert result["actions"] == [f"add {name} {_keys.fingerprint(keys[name])}" for name in ("team-a", "team-b")]
    again = api_key("team-b", "team-a")
    assert not again["changed"]
    assert again["hashes"] == result["hashes"]
    assert again["actions"] == []


def test_a_key_is_nowhere_in_the_result(api_key: ApiKey, path: Path) -> None:
    results = [api_key("team-a"), api_key("team-a", state="info"), api_key("team-a", state="absent")]
    secret = stored(path.with_name("keys.json.bak"))["team-a"]
    assert secret not in json.dumps(results)
    assert _keys.fingerprint(secret) in json.dumps(results, ensure_ascii=False)


def test_one_key_is_revealed_on_purpose(api_key: ApiKey, path: Path) -> None:
    api_key("team-a", "team-b")
    result = api_key("team-a", state="info", reveal=True)
    assert result["key"] == stored(path)["team-a"]
    assert not result["changed"]


@pytest.mark.parametrize(("names", "state"), [((), "info"), (("a", "b"), "info"), (("a",), "present")])
def test_no_other_way_reveals_one(api_key: ApiKey, names: tuple[str, ...], state: str) -> None:
    api_key("a", "b")
    result = api_key(*names, state=state, reveal=True)
    assert "exactly one client" in result["msg"]
    assert "key" not in result


def test_clients_go(api_key: ApiKey, path: Path) -> None:
    api_key("team-a", "team-b")
    result = api_key("team-a", "never-was", state="absent")
    assert result["changed"]
    assert [action.split()[:2] for action in result["actions"]] == [["remove", "team-a"]]
    assert sorted(stored(path)) == ["team-b"]
    assert not api_key("team-a", state="absent")["changed"]


def test_present_leaves_others_unless_it_is_exclusive(api_key: ApiKey, path: Path) -> None:
    api_key("team-a", "team-b")
    assert not api_key("team-a")["changed"]
    result = api_key("team-a", "team-c", exclusive=True)
    assert sorted(stored(path)) == ["team-a", "team-c"]
    assert [client["name"] for client in result["clients"]] == ["team-a", "team-c"]


def test_exclusive_does_not_remove_everybody(api_key: ApiKey, path: Path) -> None:
    api_key("team-a")
    assert "at least one client" in api_key(exclusive=True)["msg"]
    assert sorted(stored(path)) == ["team-a"]


def test_info_without_names_lists_all(api_key: ApiKey) -> None:
    assert api_key(state="info")["clients"] == []
    api_key("team-b", "team-a")
    assert [client["name"] for client in api_key(state="info")["clients"]] == ["team-a", "team-b"]


def test_an_unknown_client_is_named_with_those_there_are(api_key: ApiKey) -> None:
    assert "has no client team-z. It has: none." in api_key("team-z", state="info")["msg"]
    api_key("team-a", "team-b")
    assert "has no client team-z. It has: team-a, team-b." in api_key("team-z", state="info")["msg"]


def test_every_live_key_has_its_hash(api_key: ApiKey, path: Path) -> None:
    api_key("team-a")
    document = json.loads(path.read_text())
    document["clients"]["team-a"]["pending"] = {"key": "sk-pending", "created": "now", "id": "2"}
    path.write_text(json.dumps(document))
    path.chmod(0o600)
    assert [key["sha256"] for key in api_key("team-a")["hashes"]] == [
        _keys.sha256(stored(path)["team-a"]),
        _keys.sha256("sk-pending"),
    ]


def test_check_mode_makes_no_key_but_says_who_would_have_one(api_key: ApiKey, tmp_path: Path) -> None:
    result = api_key("team-a", check=True)
    assert result["changed"]
    assert [key["name"] for key in result["hashes"]] == ["team-a"]
    assert os.listdir(tmp_path) == []


def test_a_diff_shows_fingerprints(api_key: ApiKey, path: Path) -> None:
    api_key("team-a")
    keys = stored(path)
    result = api_key("team-a", state="absent")
    assert result["diff"] == {"before": f"team-a {_keys.fingerprint(keys['team-a'])}\n", "after": ""}


@pytest.mark.parametrize(
    ("names", "message"), [(("A",), "cannot be a client's name"), (("a", "a"), "a is given twice")]
)
def test_wrong_names_change_nothing(api_key: ApiKey, tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    assert message in api_key(*names)["msg"]
    assert os.listdir(tmp_path) == []
