from __future__ import annotations

import json
import multiprocessing
import os
import stat
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils._key_store import Client, FileKeyStore, Key, new_key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "keys.json"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def save(path: Path, **clients: Client | None) -> None:
    store = FileKeyStore(str(path))
    with store.locked():
        store.save(clients)


def test_no_store_is_an_empty_one(path: Path) -> None:
    assert FileKeyStore(str(path)).load() == {}
    assert not path.parent.exists()


def test_what_is_saved_is_loaded(path: Path) -> None:
    both = Client(new_key(), pending=new_key())
    save(path, a=Client(new_key()), b=both)
    save(path, a=None, c=Client(new_key(), previous=new_key()))
    clients = FileKeyStore(str(path)).load()
    assert sorted(clients) == ["b", "c"]
    assert clients["b"] == both
    assert len(clients["c"].live()) == 2


def test_only_the_owner_can_read_it(path: Path) -> None:
    save(path, a=Client(new_key()))
    save(path, b=Client(new_key()))
    assert mode(path.parent) == 0o700
    assert mode(path) == mode(Path(f"{path}.bak")) == 0o600


def test_the_format_is_what_the_documentation_says(path: Path) -> None:
    save(path, a=Client(Key("sk-x", "2026-11-22T12:00:00Z", "1")))
    assert json.loads(path.read_text()) == {
        "version": 1,
        "clients": {
            "a": {
                "current": {"key": "sk-x", "created": "2026-11-22T12:00:00Z", "id": "1"},
                "pending": None,
                "previous": None,
            }
        },
    }


def test_a_key_does_not_show_in_a_text_of_it() -> None:
    key = new_key()
    assert key.key not in f"{key} {Client(key)!r}"
    assert key.fingerprint.startswith("sk-…")


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"version": 1, "cli',
        "[]",
        '{"version": 1}',
        '{"version": 1, "clients": []}',
        '{"version": 1, "clients": {"a": {}}}',
        '{"version": 1, "clients": {"a": {"current": {"key": "sk-SECRET"}}}}',
        '{"version": 1, "clients": {"a": {"current": {"key": 7, "created": "x", "id": "1"}}}}',
        '{"version": 1, "clients": {"a": {"current": null, "sk-SECRET": null}}}',
    ],
)
def test_a_damaged_store_is_named_with_the_last_good_copy_and_without_a_key(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(FleetError, match="is damaged") as caught:
        FileKeyStore(str(path)).load()
    assert "SECRET" not in caught.value.message
    assert "Restore it from a backup" in caught.value.message
    Path(f"{path}.bak").write_text("{}")
    with pytest.raises(FleetError, match=r"before the last change is .*keys\.json\.bak"):
        FileKeyStore(str(path)).load()


def test_a_store_of_a_later_version_is_not_touched(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_text('{"version": 2}')
    path.chmod(0o600)
    with pytest.raises(FleetError, match="has version 2"):
        save(path, a=Client(new_key()))
    assert path.read_text() == '{"version": 2}'


@pytest.mark.parametrize("bits", [0o644, 0o640, 0o604, 0o660])
def test_a_store_that_others_can_read_is_refused(path: Path, bits: int) -> None:
    save(path, a=Client(new_key()))
    path.chmod(bits)
    with pytest.raises(FleetError, match=f"mode {bits:04o}.*chmod 600"):
        FileKeyStore(str(path)).load()


def test_a_directory_that_others_can_write_to_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o777)
    with pytest.raises(FleetError, match="chmod 700"):
        save(path, a=Client(new_key()))


def test_a_place_that_cannot_be_written_is_an_error_that_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FleetError, match="Set fleet_key_store"):
        save(tmp_path / "file" / "keys.json", a=Client(new_key()))


@pytest.mark.parametrize("call", ["fsync", "replace", "fchmod"])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_crash_at_any_write_leaves_a_good_store(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str, nth: int
) -> None:
    save(path, a=Client(new_key()))
    save(path, b=Client(new_key()))
    real = getattr(os, call)
    calls = 0

    def crash(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(os, call, crash)
    with pytest.raises(KeyboardInterrupt):
        save(path, c=Client(new_key()))
    monkeypatch.undo()
    assert sorted(FileKeyStore(str(path)).load()) in (["a", "b"], ["a", "b", "c"])
    save(path, c=Client(new_key()))
    assert sorted(FileKeyStore(str(path)).load()) == ["a", "b", "c"]


def _add(path: str, name: str) -> None:
    store = FileKeyStore(path)
    for number in range(5):
        with store.locked():
            client = f"{name}{number}"
            assert client not in store.load()
            store.save({client: Client(new_key())})


def test_writers_at_once_lose_nothing(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_add, args=(str(path), name)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert len(FileKeyStore(str(path)).load()) == 20
