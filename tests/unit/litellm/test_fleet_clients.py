from __future__ import annotations

import hashlib
import json
import os
import types
import typing as t
from pathlib import Path

import pytest

KEY, OTHER = "sk-of-team-a", "sk-of-team-b"


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "clients.json"
    write(path, {KEY: "team-a"})
    return path


def write(path: Path, keys: dict[str, str], **limits: t.Any) -> None:
    """As module edge_keys does: replace the file."""
    new = path.with_suffix(".new")
    by_hash = {digest(key): name for key, name in keys.items()}
    document = {"keys": by_hash, "clients": {name: limits for name in keys.values()}}
    new.write_text(json.dumps(document))
    os.replace(new, path)


def test_a_client_is_known_by_the_hash_of_its_key(clients: types.ModuleType, path: Path) -> None:
    known = clients.Clients(str(path))
    assert known.of(KEY).name == "team-a"
    assert known.of(OTHER) is None
    assert known.of("") is None
    assert known.of(digest(KEY)) is None


def test_the_file_is_read_again_when_it_changes(clients: types.ModuleType, path: Path) -> None:
    known = clients.Clients(str(path))
    assert known.of(OTHER) is None
    write(path, {OTHER: "team-b"}, requests_per_minute=5, models=["m"])
    assert known.of(KEY) is None
    assert known.of(OTHER) == clients.Client("team-b", {"requests_per_minute": 5, "models": ["m"]})


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", '{"keys": {"x": "none"}, "clients": {}}', '{"clients": {"a": {"b": 1}}}'),
        *('{"keys": {}, "clients": {"a": "budget"}}', '{"keys": {}, "clients": {}, "version": "1"}'),
    ],
)
def test_who_was_known_stays_known_while_the_file_is_damaged(clients: types.ModuleType, path: Path, text: str) -> None:
    known = clients.Clients(str(path))
    known.of(KEY)
    path.write_text(text)
    assert known.of(KEY).name == "team-a"
    path.unlink()
    assert known.of(KEY).name == "team-a"


def test_a_file_of_a_later_version_is_refused_with_both_versions(
    clients: types.ModuleType, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = clients.Clients(str(path))
    # The first files have no version.
    assert known.of(KEY).name == "team-a"
    for version, key in ((1, OTHER), (2, KEY)):
        path.write_text(json.dumps({"version": version, "keys": {digest(key): "team-b"}, "clients": {"team-b": {}}}))
        assert known.of(OTHER).name == "team-b"
        assert known.of(KEY) is None
    assert "the file has version 2, this gateway reads version 1; run playbooks/site.yml" in caplog.text


def test_without_a_file_no_client_is_known(clients: types.ModuleType, tmp_path: Path) -> None:
    assert clients.Clients(str(tmp_path / "none")).of(KEY) is None


def test_every_model_that_a_request_names_is_found(clients: types.ModuleType) -> None:
    request = {
        "model": "a",
        "fallbacks": [{"a": ["b"]}, "c"],
        "context_window_fallbacks": [{"a": ["d"]}],
        "messages": [{"role": "user", "content": "x"}],
    }
    assert sorted(set(clients.names_in(request))) == ["a", "b", "c", "d"]
    assert clients.names_in({"messages": []}) == []


def test_a_client_expires(clients: types.ModuleType) -> None:
    assert not clients.Client("a").expired(1e12)
    assert not clients.Client("a", {"expires": 100}).expired(99)
    assert clients.Client("a", {"expires": 100}).expired(100)
