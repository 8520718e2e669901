from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import resource
import signal
import stat
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.clients.limits import Limits
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.keys import sha256
from ansible_collections.inference.fleet.plugins.module_utils.keys import rotation, view
from ansible_collections.inference.fleet.plugins.module_utils.keys.store import (
    ClientKeys,
    Content,
    Key,
    RetiredKey,
)
from ansible_collections.inference.fleet.plugins.module_utils.keys.store_file import FileKeyStore

from tests.unit.plugins.module_utils.keys.key_stores import ELSEWHERE, NOW, client, content, later, request

fork = multiprocessing.get_context("fork")

#: The system calls of a write: each of them may be the last thing that a process does.
CALLS = ("open", "fchmod", "fsync", "replace", "unlink", "close")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "keys.json"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def load(path: Path) -> Content:
    return FileKeyStore(str(path)).load()


def save(path: Path, after: Content) -> None:
    store = FileKeyStore(str(path))
    with store.locked(make=True):
        store.save(store.load(), after)


def put(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(0o600)


def everything() -> Content:
    """A content in which nothing is empty."""
    whole = content("a", "b", "c")
    whole = rotation.pending(whole, request("a", "b", rotation_id="r1")).after
    whole = rotation.finished(whole, request(overlap=86400)).after
    whole = rotation.completed(whole, request()).after
    whole = rotation.retired(whole, request("b", compromised=True)).after
    whole = rotation.pending(whole, request("b", "c", rotation_id="r2")).after
    limited = Limits({"models": ("m1", "m2"), "requests_per_minute": 60, "max_concurrent": 4, "expires": later(86400)})
    dead = RetiredKey("b", "f" * 64, NOW, NOW, NOW, True, True)
    return dataclasses.replace(
        whole.with_clients({"b": dataclasses.replace(whole.clients["b"], limits=limited, retired=(dead,))}),
        removed=(dataclasses.replace(dead, client="gone"),),
    )


def test_no_store_is_one_that_was_not_made(path: Path) -> None:
    store = FileKeyStore(str(path))
    assert store.load() == Content(exists=False)
    with store.locked(make=False):
        assert store.load() == Content(exists=False)
    assert not path.parent.exists()


def test_what_is_saved_is_loaded(path: Path) -> None:
    whole = everything()
    save(path, whole)
    assert load(path) == whole
    save(path, dataclasses.replace(whole, clients={"a": whole.clients["a"]}, rotation=None))
    assert sorted(load(path).clients) == ["a"]


def test_only_the_owner_can_read_it_and_its_copy(path: Path) -> None:
    save(path, content("a"))
    save(path, content("a", "b"))
    assert mode(path.parent) == 0o700
    assert [mode(one) for one in sorted(path.parent.iterdir())] == [0o600] * 3
    assert sorted(os.listdir(path.parent)) == ["keys.json", "keys.json.bak", "keys.json.lock"]
    assert path.read_bytes() == Path(f"{path}.bak").read_bytes()


def test_the_format_is_what_the_documentation_says(path: Path) -> None:
    save(path, Content({"a": ClientKeys(Key("sk-x", NOW, "1"), limits=Limits({"requests_per_minute": 60}))}))
    key = {"key": "sk-x", "created": NOW, "id": "1", "rotation": "", "activated": "", "retire_at": "", "retired": ""}
    assert json.loads(path.read_text()) == {
        "version": 1,
        "id": "",
        "generation": 0,
        "clients": {
            "a": {
                "requests_per_minute": 60,
                "current": {**key, "compromised": False},
                "pending": None,
                "previous": None,
                "retired": [],
            }
        },
        "rotation": None,
        "ended": [],
        "removed": [],
    }


def test_what_the_format_adds_may_be_missing(path: Path) -> None:
    old = {"current": {"key": "sk-x", "created": NOW, "id": "1"}, "pending": None, "previous": None}
    put(path, json.dumps({"version": 1, "clients": {"a": old}}))
    assert load(path) == Content({"a": ClientKeys(Key("sk-x", NOW, "1"))})


def test_a_store_with_every_limit_in_it_is_what_earlier_collections_wrote(path: Path) -> None:
    key = {"key": "sk-x", "created": NOW, "id": "1", "rotation": "", "activated": "", "retire_at": "", "retired": ""}
    slots: dict[str, t.Any] = {
        "current": {**key, "compromised": False},
        "pending": None,
        "previous": None,
        "retired": [],
    }
    nothing: dict[str, t.Any] = {"models": [], "requests_per_minute": None, "max_concurrent": None, "expires": ""}
    nothing |= {"tokens_per_minute": None, "budget": None, "budget_period": ""}
    given = {"models": ["m"], "requests_per_minute": 60, "expires": NOW, "budget": 2.5, "budget_period": "30d"}
    clients = {"a": {**nothing, **slots}, "b": {**nothing, **given, **slots, "current": {**key, "key": "sk-y"}}}
    shared = {"id": "a1" * 16, "generation": 7, "rotation": None, "ended": [], "removed": []}
    put(path, json.dumps({"version": 1, "clients": clients, **shared}))
    whole = load(path)
    assert [one.limits for one in whole.clients.values()] == [Limits(), Limits({**given, "models": ("m",)})]
    # The edges' data, and so what they compare with their record, is the same.
    assert view.hashes(whole) == [
        {"name": name, "sha256": sha256(text), "slot": "current", **nothing, **more}
        for name, text, more in (("a", "sk-x", {}), ("b", "sk-y", given))
    ]
    save(path, whole)
    assert load(path) == whole


def test_a_key_does_not_show_in_a_text_of_it() -> None:
    whole = content("a")
    assert whole.clients["a"].current.key not in repr(whole)


KEY = {"key": "sk-SECRET", "created": NOW, "id": "1"}
WHOLE = {"version": 1, "clients": {"a": {"current": KEY}}}


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"version": 1},
        {"version": True, "clients": {}},
        {"version": "1", "clients": {}},
        {"version": 1, "clients": []},
        {"version": 1, "clients": {"a": {}}},
        {"version": 1, "clients": {"a": []}},
        {"version": 1, "clients": {"sk-SECRET": {"current": KEY}}},
        {"version": 1, "clients": {"a": {"current": {"key": "sk-SECRET"}}}},
        {"version": 1, "clients": {"a": {"current": {**KEY, "key": 7}}}},
        {"version": 1, "clients": {"a": {"current": {**KEY, "key": ""}}}},
        {"version": 1, "clients": {"a": {"current": {**KEY, "created": "sk-SECRET"}}}},
        {"version": 1, "clients": {"a": {"current": {**KEY, "compromised": 1}}}},
        {"version": 1, "clients": {"a": {"current": KEY, "sk-SECRET": None}}},
        {"version": 1, "clients": {"a": {"current": KEY, "requests_per_minute": "sk-SECRET"}}},
        {"version": 1, "clients": {"a": {"current": KEY, "requests_per_minute": True}}},
        {"version": 1, "clients": {"a": {"current": KEY, "models": [7]}}},
        {"version": 1, "clients": {"a": {"current": KEY, "retired": [{"sk-SECRET": 1}]}}},
        {**WHOLE, "sk-SECRET": 1},
        {**WHOLE, "rotation": {"id": "sk-SECRET"}},
        {**WHOLE, "rotation": "sk-SECRET"},
        {**WHOLE, "removed": {}},
    ],
)
def test_a_damaged_store_is_named_without_a_key(path: Path, document: t.Any) -> None:
    put(path, json.dumps(document))
    with pytest.raises(FleetError, match="is damaged") as caught:
        load(path)
    assert "SECRET" not in f"{caught.value.message}{caught.value.__cause__}"


@pytest.mark.parametrize("text", ["", '{"version": 1, "cli', b"\xff\xfe", "[" * 100_000])
def test_what_is_not_json_is_damaged(path: Path, text: str | bytes) -> None:
    put(path, text)
    with pytest.raises(FleetError, match=r"is damaged.*Restore it from a backup"):
        load(path)


def test_the_last_good_copy_is_named_and_is_as_new(path: Path) -> None:
    whole = everything()
    save(path, content("a"))
    save(path, whole)
    put(path, path.read_bytes()[:-40])
    with pytest.raises(FleetError, match=r"damaged \(JSONDecodeError\)\. .* copy is (\S+)\. Run: cp -p \1 ") as caught:
        load(path)
    words = caught.value.message.split("Run: ")[1].split(" - ")[0].split()
    os.replace(words[2], words[3])
    assert load(path) == whole


def test_a_missing_store_is_not_created_again_beside_its_copy(path: Path) -> None:
    save(path, content("a"))
    path.unlink()
    with pytest.raises(FleetError, match=r"missing, but its last good copy .*keys\.json\.bak is there"):
        save(path, content("b"))


def test_a_store_of_a_later_version_is_not_touched(path: Path) -> None:
    put(path, '{"version": 2}')
    with pytest.raises(FleetError, match=r"has version 2; this collection knows version 1\. Nothing was changed"):
        save(path, content("a"))
    assert path.read_text() == '{"version": 2}'


@pytest.mark.parametrize("bits", [0o644, 0o640, 0o604, 0o660, 0o620])
def test_a_store_that_others_can_use_is_refused(path: Path, bits: int) -> None:
    save(path, content("a"))
    path.chmod(bits)
    with pytest.raises(FleetError, match=f"mode {bits:04o}.*chmod 600"):
        load(path)


def test_a_directory_that_others_can_write_to_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o777)
    with pytest.raises(FleetError, match="chmod 700"):
        save(path, content("a"))


def test_a_place_that_cannot_be_written_is_an_error_that_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FleetError, match="set fleet_key_store"):
        save(tmp_path / "file" / "keys.json", content("a"))


def test_what_is_no_file_is_refused(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(FleetError, match="is not a file"):
        load(path)


@pytest.mark.parametrize("failing", ["the file", "its copy"])
def test_a_full_disk_is_reported(path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    save(path, content("a"))
    left = ["the file", "its copy"].index(failing)
    real = os.fsync

    def fsync(descriptor: int) -> None:
        nonlocal left
        # A rename is followed by an fsync of the directory.
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            left -= 1
            if left < 0:
                raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    message = "cannot be written .*No space left.*Free the disk" if failing == "the file" else "but not its copy"
    with pytest.raises(FleetError, match=message):
        save(path, content("a", "b"))
    monkeypatch.undo()
    assert sorted(load(path).clients) == (["a"] if failing == "the file" else ["a", "b"])


def test_an_unreadable_store_is_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(path, content("a"))

    # These tests may run as root, who can read everything.
    def refuse(name: str) -> str:
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr("ansible_collections.inference.fleet.plugins.module_utils.keys.store_file.read_text", refuse)
    with pytest.raises(FleetError, match=r"cannot be read \(Permission denied: .*keys\.json\)\. Nothing was changed"):
        load(path)


def test_a_link_to_the_store_stays_one(path: Path, tmp_path: Path) -> None:
    save(path, content("a"))
    link = tmp_path / "link.json"
    link.symlink_to(path)
    save(link, content("a", "b"))
    assert link.is_symlink()
    assert sorted(load(path).clients) == ["a", "b"]


def in_child(do: t.Callable[[], object]) -> int:
    """Run it in its own process; return how that process ended."""
    child = fork.Process(target=do)
    child.start()
    child.join(300)
    assert child.exitcode is not None
    return child.exitcode


def dying(call: str, nth: int, after: bool, do: t.Callable[[], object]) -> int:
    """Run it in a process that is killed at the nth of a system call; return how it ended."""

    def child() -> None:
        count = 0

        def patched(real: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
            def one(*arguments: t.Any, **options: t.Any) -> t.Any:
                nonlocal count
                count += 1
                if count == nth and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                done = real(*arguments, **options)
                if count == nth:
                    os.kill(os.getpid(), signal.SIGKILL)
                return done

            return one

        setattr(os, call, patched(getattr(os, call)))
        do()
        os._exit(0)

    return in_child(child)


@pytest.mark.parametrize("call", CALLS)
def test_a_kill_at_any_call_leaves_the_old_or_the_new_content(path: Path, call: str) -> None:
    before, after = everything(), content("x", "y")
    kills = 0
    for late in (False, True):
        for nth in range(1, 20):
            save(path, before)
            # The leftover of another killed writer.
            (path.parent / ".keys.json.left").write_text("{}")
            ended = dying(call, nth, late, lambda: save(path, after))
            if ended == 0:
                break
            assert ended == -signal.SIGKILL
            kills += 1
            assert load(path) in (before, after)
            # Nothing blocks the next writer, and no temporary file with keys stays.
            save(path, after)
            assert load(path) == after
            assert sorted(os.listdir(path.parent)) == ["keys.json", "keys.json.bak", "keys.json.lock"]
    assert kills >= 2


def test_a_kill_at_any_byte_leaves_the_old_content(path: Path) -> None:
    before, after = content("a"), content("x", "y")
    save(path, after)
    size = path.stat().st_size
    save(path, before)
    kept = path.read_bytes()
    for limit in [*range(0, size, 97), size - 1]:

        def write(limit: int = limit) -> None:
            # The kernel ends the process that writes the byte beyond the limit.
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            save(path, after)

        assert in_child(write) == -signal.SIGXFSZ
        assert path.read_bytes() == kept
        assert any(name.startswith(".keys.json.") for name in os.listdir(path.parent))
    save(path, after)
    assert load(path) == after
    assert sorted(os.listdir(path.parent)) == ["keys.json", "keys.json.bak", "keys.json.lock"]


def test_writers_at_once_lose_nothing(path: Path) -> None:
    def add(name: str) -> None:
        store = FileKeyStore(str(path))
        for number in range(5):
            with store.locked(make=True):
                before = store.load()
                store.save(before, before.with_clients({f"{name}{number}": client()}))

    writers = [fork.Process(target=add, args=(name,)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert len(load(path).clients) == 20


def test_a_reader_sees_no_half_of_a_change(path: Path) -> None:
    contents = [content("a"), content("b", "c", "d", "e")]
    save(path, contents[0])
    stop = fork.Event()

    def write() -> None:
        while not stop.is_set():
            for whole in contents:
                save(path, whole)

    writer = fork.Process(target=write)
    writer.start()
    seen = [load(path) for _ in range(300)]
    stop.set()
    writer.join()
    assert writer.exitcode == 0
    assert all(one in contents for one in seen)


def test_of_two_rotations_at_once_one_is_refused(path: Path) -> None:
    save(path, content("a", "b"))
    store = FileKeyStore(str(path))
    with store.locked(make=False):
        store.save(store.load(), rotation.pending(store.load(), request("a", rotation_id="r1", me=ELSEWHERE)).after)
    with pytest.raises(FleetError, match="begun by eve on elsewhere"):
        rotation.pending(store.load(), request("b"))
