from __future__ import annotations

import contextlib
import gzip
import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.keys import fingerprint, new_key, sha256
from ansible_collections.inference.fleet.plugins.module_utils.secrets.files import FileSearch, closed_mounts
from ansible_collections.inference.fleet.plugins.module_utils.secrets.journal import journal_command, search_journal
from ansible_collections.inference.fleet.plugins.module_utils.secrets.processes import search_processes
from ansible_collections.inference.fleet.plugins.module_utils.secrets.scan import (
    CHUNK,
    LIVE,
    RETIRED,
    Finding,
    KnownKey,
    Matcher,
    Search,
    known_keys,
    printable,
)

LIVE_KEY, OLD_KEY, KEPT_KEY, FOREIGN_KEY = (new_key() for _ in range(4))
OURS = KnownKey("team-a", sha256(LIVE_KEY), LIVE)
OLD = KnownKey("team-b", sha256(OLD_KEY), RETIRED)
KEPT = KnownKey("team-c", sha256(KEPT_KEY), RETIRED, revealable=True)
KNOWN = {key.sha256: key for key in (OURS, OLD, KEPT)}
TEXTS = {OURS: LIVE_KEY, OLD: OLD_KEY, KEPT: KEPT_KEY}


def count(*pieces: bytes) -> dict[KnownKey, int]:
    matcher = Matcher(KNOWN)
    for piece in pieces:
        matcher.feed(piece)
    return dict(matcher.counts)


@pytest.fixture
def search() -> Search:
    return Search(KNOWN.values())


def files(
    search: Search, *paths: Path, exclude: t.Sequence[str] = (), mounts: t.Mapping[str, str] | None = None
) -> list[tuple[str, str, int]]:
    """Search the paths: place, client and count of each finding."""
    FileSearch(search, exclude, mounts=mounts).run(str(path) for path in paths)
    return [(one.where, one.client, one.count) for one in search.findings()]


# Streams


def test_every_key_that_is_made_has_the_form_that_is_looked_for() -> None:
    for _ in range(200):
        key = new_key()
        matcher = Matcher({sha256(key): OURS})
        matcher.feed(f"key={key}\n".encode())
        assert matcher.counts == {OURS: 1}


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "Authorization: Bearer {}\r\n",
        json.dumps({"a\n\t\"\u00e9'": ['x\\"{}\\n']}),
        "api_key: '{}'\n",
        "PATH=/bin\0ENGINE_API_KEY={}\0HOME=/\0",
        "curl\0-H\0Authorization: Bearer {}\0",
        "https://host/v1?key={}&x=1",
        "{}-followed_BY-more0fItsAlphabet",
        "letters{}",
        "sk-sk-{}",
        "sk-tooshort {}",
        "\udcff\udc80{}\udcfe",
    ],
)
def test_a_key_is_found_whatever_stands_around_it(text: str) -> None:
    assert count(text.replace("{}", LIVE_KEY).encode(errors="surrogateescape")) == {OURS: 1}


def test_a_key_is_found_wherever_a_piece_ends() -> None:
    stream = f"sk-{LIVE_KEY}, {OLD_KEY}{LIVE_KEY}".encode()
    for border in range(len(stream) + 1):
        assert count(stream[:border], stream[border:]) == {OURS: 2, OLD: 1}
    assert count(*(stream[at : at + 1] for at in range(len(stream)))) == {OURS: 2, OLD: 1}


RESEMBLING = {
    "nothing": "",
    "the beginning": "sk-",
    "words": "a task-list and a disk-image, " * 10,
    "another key": FOREIGN_KEY,
    "one letter less": LIVE_KEY[:-1],
    "another last letter": f"{LIVE_KEY[:-1]}.",
    "no beginning": LIVE_KEY[3:],
    "other cases": f"sk-{LIVE_KEY[3:].swapcase()}",
    "two lines": f"{LIVE_KEY[:20]}\n{LIVE_KEY[20:]}",
    "the hash": sha256(LIVE_KEY),
    "the fingerprint": fingerprint(LIVE_KEY),
}


@pytest.mark.parametrize("case", RESEMBLING)
def test_what_only_resembles_a_key_is_none(case: str) -> None:
    assert count(RESEMBLING[case].encode()) == {}


def test_hashes_are_checked_and_a_key_in_their_place_is_not_repeated() -> None:
    good = {"name": "team-a", "sha256": OURS.sha256, "state": LIVE, "revealable": False}
    assert known_keys([good]) == [OURS]
    with pytest.raises(FleetError, match="never the key") as caught:
        known_keys([{**good, "sha256": LIVE_KEY}])
    assert LIVE_KEY not in caught.value.message
    with pytest.raises(FleetError, match="the search would prove nothing"):
        known_keys([])


@pytest.mark.parametrize("order", [1, -1])
def test_a_key_that_is_live_and_retired_counts_as_live(tmp_path: Path, order: int) -> None:
    (tmp_path / "a").write_text(LIVE_KEY)
    search = Search([OURS, OURS._replace(name="former", state=RETIRED)][::order])
    assert files(search, tmp_path) == [(f"{tmp_path}/a", "team-a", 1)]


def test_names_are_shown_without_keys_and_control_characters() -> None:
    assert printable("/tmp/é b") == "/tmp/é b"
    assert printable("/tmp/\udcff\x1b[2J\n") == r"/tmp/\xff\x1b[2J\n"
    assert printable(f"/tmp/x{LIVE_KEY}more/y") == "/tmp/xsk-…/y"


# Files


@pytest.mark.parametrize(
    "name",
    ["app.conf", "app.conf~", "app.conf.bak", "app.conf.orig", ".hidden", "cache_key_factors.json", "x/y/z/deep"],
)
def test_a_key_in_any_file_of_a_tree_is_found(search: Search, tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    place.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "innocent").write_text(f"{FOREIGN_KEY}\n" * 3)
    place.write_text(f"a: {LIVE_KEY}\nb: {OLD_KEY}\nc: {LIVE_KEY}\n")
    place.chmod(0o640)
    assert files(search, tmp_path) == [(str(place), "team-a", 2), (str(place), "team-b", 1)]
    assert search.findings()[0] == Finding(
        "file", str(place), fingerprint(LIVE_KEY), "team-a", "live", 2, mode="0640", readable_by_others=True
    )
    assert LIVE_KEY not in repr(search.findings())
    assert search.searched["files"] == 2
    assert (search.unread, search.left_out) == ([], [])


def test_where_no_key_is_nothing_is_found(search: Search, tmp_path: Path) -> None:
    (tmp_path / "a").write_text(f"{FOREIGN_KEY} {LIVE_KEY[:-1]} {sha256(LIVE_KEY)}")
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"nothing"))
    (tmp_path / "empty").touch()
    assert files(search, tmp_path) == []
    assert search.searched["files"] == 3
    assert search.unread == []


def test_a_key_at_the_end_of_what_is_read_at_a_time_is_found(search: Search, tmp_path: Path) -> None:
    for before in (0, 1, 20, 45, 46, 47):
        (tmp_path / str(before)).write_bytes(b"x" * (CHUNK - before) + LIVE_KEY.encode() + b"x" * CHUNK)
    assert len(files(search, tmp_path)) == 6


def test_a_rotated_log_is_searched_also_when_it_was_appended_to(search: Search, tmp_path: Path) -> None:
    log = tmp_path / "haproxy.log.2"
    lines = b"".join(b"%d GET /v1/models\n" % number for number in range(CHUNK // 10))
    assert len(lines) > CHUNK
    log.write_bytes(gzip.compress(lines + LIVE_KEY.encode() + lines) + gzip.compress(OLD_KEY.encode()))
    assert LIVE_KEY.encode() not in log.read_bytes()
    assert files(search, tmp_path) == [(str(log), "team-a", 1), (str(log), "team-b", 1)]
    assert search.unread == []


def test_a_damaged_gzip_file_is_searched_as_far_as_it_goes_and_named(search: Search, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(LIVE_KEY.encode() + os.urandom(3 * CHUNK))[: 2 * CHUNK])
    other = tmp_path / "other"
    other.write_bytes(b"\x1f\x8bno gzip data at all " + OLD_KEY.encode())
    assert files(search, tmp_path) == [(str(cut), "team-a", 1), (str(other), "team-b", 1)]
    assert sorted(place.where for place in search.unread) == [str(cut), str(other)]
    assert all("damaged gzip data" in place.reason and not place.gone for place in search.unread)


def test_holes_of_a_sparse_file_cost_nothing(search: Search, tmp_path: Path) -> None:
    place = tmp_path / "lastlog"
    with place.open("wb") as file:
        file.write(OLD_KEY.encode())
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(LIVE_KEY.encode())
    assert files(search, tmp_path) == [(str(place), "team-a", 1), (str(place), "team-b", 1)]
    assert search.searched["bytes"] < 8 * CHUNK


def test_a_key_in_a_name_is_found_and_not_shown(search: Search, tmp_path: Path) -> None:
    (tmp_path / f"limits-{LIVE_KEY}").mkdir()
    assert files(search, tmp_path) == [(f"{tmp_path}/limits-sk-…", "team-a", 1)]
    assert search.findings()[0].kind == "file name"


def test_links_in_a_tree_are_not_followed_but_a_named_one_is(search: Search, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "key").write_text(LIVE_KEY)
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "loop").symlink_to(tree)
    (tree / "directory").symlink_to(outside)
    (tree / "file").symlink_to(outside / "key")
    (tree / "dangling").symlink_to(tmp_path / "none")
    assert files(search, tree) == []
    assert search.unread == []
    assert files(search, tree / "directory") == [(f"{tree}/directory/key", "team-a", 1)]
    assert files(search, tree / "file")[1:] == [(f"{tree}/file", "team-a", 1)]


def test_pipes_and_sockets_are_passed_over(search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A socket's path may have 107 bytes only.
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert files(search, tmp_path, tmp_path / "pipe") == []
    assert search.searched["files"] == 0
    assert search.left_out == [{"where": f"{tmp_path}/pipe", "reason": "neither a file nor a directory"}]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.safetensors", {"runtimes/venv/key", "runtimes2/key"}),
        ("{}/runtimes", {"model.safetensors", "runtimes2/key"}),
        ("{}/runtimes/", {"model.safetensors", "runtimes2/key"}),
        ("{}/*/key", {"model.safetensors"}),
        ("runtimes*", {"model.safetensors"}),
        ("{}", set()),
        ("time", {"model.safetensors", "runtimes/venv/key", "runtimes2/key"}),
    ],
)
def test_what_a_pattern_names_is_left_out(search: Search, tmp_path: Path, pattern: str, found: set[str]) -> None:
    for name in ("model.safetensors", "runtimes/venv/key", "runtimes2/key"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(LIVE_KEY)
    places = files(search, tmp_path, exclude=[pattern.replace("{}", str(tmp_path))])
    assert {os.path.relpath(where, tmp_path) for where, _client, _count in places} == found


def test_a_network_file_system_is_searched_only_if_it_is_named(search: Search, tmp_path: Path) -> None:
    share = tmp_path / "tree" / "share"
    share.mkdir(parents=True)
    (share / "key").write_text(LIVE_KEY)
    # Reached through a link, it is the same one.
    (tmp_path / "link").symlink_to(tmp_path / "tree")
    mounts = {str(share): "nfs4"}
    assert files(search, tmp_path / "link", mounts=mounts) == []
    assert search.left_out == [{"where": f"{tmp_path}/link/share", "reason": "file system nfs4 is not entered"}]
    assert files(search, share, mounts=mounts) == [(f"{share}/key", "team-a", 1)]


def test_file_systems_of_the_network_and_the_kernel_are_recognised() -> None:
    lines = [
        "25 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw",
        r"41 25 0:37 / /mnt/a\040share rw shared:9 master:2 - nfs4 10.0.0.1:/ rw,vers=4.1",
        "42 25 0:38 / /mnt/bucket rw - fuse.s3fs s3fs rw",
        "43 25 259:2 / /opt/dlami/nvme rw - xfs /dev/nvme1n1 rw",
        "44 25 0:39 / /data rw - autofs systemd-1 rw",
        "45 44 259:3 / /data rw - ext4 /dev/nvme2n1 rw",
        "46 25 0:5 / /srv/jail/proc rw - proc proc rw",
        "47 25 0:40 / /run rw - tmpfs tmpfs rw",
    ]
    assert closed_mounts("\n".join(lines)) == {
        "/mnt/a share": "nfs4",
        "/mnt/bucket": "fuse.s3fs",
        "/srv/jail/proc": "proc",
    }


def test_the_kernels_trees_and_missing_paths_are_named(search: Search, tmp_path: Path) -> None:
    assert files(search, Path("/proc"), Path("/sys/kernel"), Path("/dev"), tmp_path / "none") == []
    assert search.left_out == [
        {"where": "/proc", "reason": "the kernel's, not files"},
        {"where": "/sys/kernel", "reason": "the kernel's, not files"},
        {"where": "/dev", "reason": "the kernel's, not files"},
        {"where": f"{tmp_path}/none", "reason": "there is no such file or directory"},
    ]
    assert search.searched["files"] == 0


def test_a_place_that_two_paths_name_is_searched_once(search: Search, tmp_path: Path) -> None:
    place = tmp_path / "a" / "b" / "key"
    place.parent.mkdir(parents=True)
    place.write_text(LIVE_KEY)
    paths = [tmp_path, tmp_path / "a", place, tmp_path / "a" / ".." / "a"]
    assert files(search, *paths) == [(str(place), "team-a", 1)]
    assert search.searched["files"] == 1


@pytest.fixture
def unprivileged() -> t.Iterator[Path]:
    """A directory of an unprivileged user; the test goes on as that user."""
    with tempfile.TemporaryDirectory() as directory:
        user = 65534 if os.geteuid() == 0 else os.geteuid()
        os.chown(directory, user, -1)
        before = os.geteuid()
        os.seteuid(user)
        try:
            yield Path(directory)
        finally:
            os.seteuid(before)


def test_what_cannot_be_read_is_named(search: Search, unprivileged: Path) -> None:
    (unprivileged / "closed").mkdir()
    (unprivileged / "closed" / "key").write_text(LIVE_KEY)
    (unprivileged / "file").write_text(LIVE_KEY)
    (unprivileged / "open").write_text(LIVE_KEY)
    (unprivileged / "closed").chmod(0)
    (unprivileged / "file").chmod(0)
    paths = [unprivileged, unprivileged / "closed" / "key"]
    try:
        assert files(search, *paths) == [(f"{unprivileged}/open", "team-a", 1)]
    finally:
        (unprivileged / "closed").chmod(0o700)
    assert sorted((place.kind, place.where, place.reason, place.gone) for place in search.unread) == [
        ("file", f"{unprivileged}/closed", "Permission denied", False),
        ("file", f"{unprivileged}/closed/key", "Permission denied", False),
        ("file", f"{unprivileged}/file", "Permission denied", False),
    ]


def test_a_file_that_vanishes_meanwhile_is_named_as_gone(tmp_path: Path) -> None:
    place = tmp_path / "short-lived"
    place.write_text(LIVE_KEY)

    class Slow(Search):
        """The file is removed after it was listed and before it is opened."""

        def matcher(self) -> Matcher:
            place.unlink(missing_ok=True)
            return super().matcher()

    search = Slow([OURS])
    assert files(search, tmp_path) == []
    assert [(one.where, one.gone) for one in search.unread] == [(str(place), True)]


@pytest.mark.parametrize(
    ("key", "mode", "reported"),
    [
        (OURS, 0o600, False),
        (OURS, 0o640, True),
        (OURS, 0o604, True),
        (OLD, 0o600, True),
        (KEPT, 0o600, False),
        (KEPT, 0o644, True),
    ],
)
def test_an_allowed_file_may_hold_a_kept_key_that_only_its_owner_reads(
    search: Search, tmp_path: Path, key: KnownKey, mode: int, reported: bool
) -> None:
    store = tmp_path / "keys.json"
    store.write_text(TEXTS[key])
    store.chmod(mode)
    (tmp_path / "link").symlink_to(store)
    FileSearch(search, allowed=[str(tmp_path / "link")]).run([str(tmp_path)])
    expected = [(f"{mode:04o}", mode != 0o600)] if reported else []
    assert [(one.mode, one.readable_by_others) for one in search.findings()] == expected


def test_a_copy_of_an_allowed_file_is_reported(search: Search, tmp_path: Path) -> None:
    for name in ("keys.json", "keys.json.old"):
        (tmp_path / name).write_text(LIVE_KEY)
        (tmp_path / name).chmod(0o600)
    FileSearch(search, allowed=[str(tmp_path / "keys.json")]).run([str(tmp_path)])
    assert [one.where for one in search.findings()] == [f"{tmp_path}/keys.json.old"]


# Processes


@contextlib.contextmanager
def running(*arguments: str, **environment: str) -> t.Iterator[int]:
    code = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child.pid


def of_processes(search: Search) -> dict[str, str]:
    return {one.where.partition(" (")[0]: one.client for one in search.findings()}


def test_arguments_and_environments_of_processes_are_searched(search: Search) -> None:
    with (
        running("--api-key", LIVE_KEY) as talkative,
        running(ENGINE_API_KEY=OLD_KEY) as careless,
        running(FOREIGN_KEY, KEY=f"{LIVE_KEY[:-1]}."),
    ):
        search_processes(search)
    assert of_processes(search) == {
        f"arguments of pid {talkative}": "team-a",
        f"environment of pid {careless}": "team-b",
    }
    finding = search.findings()[0]
    assert (finding.kind, finding.count, finding.mode) == ("process", 1, "")
    assert "(python" in finding.where
    assert "user " in finding.where
    assert search.searched["processes"] > 3
    assert LIVE_KEY not in repr(search.findings())


def test_the_search_itself_and_what_started_it_are_left_out() -> None:
    code = f"""
import json
from ansible_collections.inference.fleet.plugins.module_utils.secrets.processes import search_processes
from ansible_collections.inference.fleet.plugins.module_utils.secrets.scan import KnownKey, Search
search = Search([KnownKey("team-a", {OURS.sha256!r}, "live")])
search_processes(search)
print(json.dumps([one.where for one in search.findings()]))
"""
    shell = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}; : {LIVE_KEY}"
    with running(LIVE_KEY) as other:
        done = subprocess.run(
            ["sh", "-c", shell],
            env={"PYTHONPATH": os.pathsep.join(sys.path), "KEY": LIVE_KEY},
            capture_output=True,
            check=True,
        )
    assert [place.partition(" (")[0] for place in json.loads(done.stdout)] == [f"arguments of pid {other}"]


def test_a_process_that_cannot_be_read_is_named_and_one_that_ended_is_gone(search: Search, tmp_path: Path) -> None:
    # Pids beyond the kernel's limit: none of them is an ancestor of this process.
    odd, ended = tmp_path / "99999991", tmp_path / "99999992"
    odd.mkdir()
    (odd / "cmdline").write_text(f"vllm\0serve\0{LIVE_KEY}\0")
    (odd / "comm").write_text("VLLM::EngineCore\n")
    # Reading a directory fails for root too.
    (odd / "environ").mkdir()
    ended.mkdir()
    (tmp_path / "meminfo").write_text(LIVE_KEY)
    search_processes(search, str(tmp_path))
    assert [one.where.partition(", user")[0] for one in search.findings()] == [
        "arguments of pid 99999991 (VLLM::EngineCore"
    ]
    assert sorted((one.where.partition(", user")[0], one.gone) for one in search.unread) == [
        ("environment of pid 99999991 (VLLM::EngineCore", False),
        ("pid 99999992", True),
    ]
    assert search.searched["processes"] == 2


# The journal


def binary(name: str, data: bytes) -> bytes:
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


def text(**fields: str) -> bytes:
    return "".join(f"{name}={value}\n" for name, value in fields.items()).encode()


def journal(search: Search, tmp_path: Path, *entries: bytes) -> list[tuple[str, str, int]]:
    export = tmp_path / "export"
    export.write_bytes(b"".join(entry + b"\n" for entry in entries))
    search_journal(search, ["cat", str(export)])
    assert search.searched["journal_bytes"] > 0
    assert search.unread == []
    return [(one.where, one.client, one.count) for one in search.findings()]


def test_all_fields_of_the_journal_are_searched_and_reported_by_unit(search: Search, tmp_path: Path) -> None:
    found = journal(
        search,
        tmp_path,
        text(MESSAGE=f"key {LIVE_KEY} and {LIVE_KEY}", _SYSTEMD_UNIT="vllm@0.service", SYSLOG_IDENTIFIER="python3"),
        text(MESSAGE="task-list", _SYSTEMD_UNIT="innocent.service"),
        text(MESSAGE=f"again {LIVE_KEY}", SYSLOG_IDENTIFIER="python3", _SYSTEMD_UNIT="vllm@0.service"),
        text(_CMDLINE=f"curl -H Bearer {OLD_KEY}", SYSLOG_IDENTIFIER="sudo"),
        text(MESSAGE=OLD_KEY),
    )
    assert found == [
        ("no unit", "team-b", 1),
        ("sudo", "team-b", 1),
        ("vllm@0.service, python3", "team-a", 3),
    ]
    assert {one.kind for one in search.findings()} == {"journal"}


def test_binary_fields_of_the_journal_are_searched(search: Search, tmp_path: Path) -> None:
    # What looks like the end of an entry, another unit or another field is data here.
    message = f"\x1b[31mline\n\n_SYSTEMD_UNIT=forged.service\n{LIVE_KEY}\nX\n".encode() + b"\0\xff"
    found = journal(
        search,
        tmp_path,
        binary("MESSAGE", message) + text(_SYSTEMD_UNIT="haproxy.service"),
        binary("COREDUMP", b"x" * (2 * CHUNK - 20) + OLD_KEY.encode()) + text(_SYSTEMD_UNIT="dump.service"),
        binary("EMPTY", b"") + text(_SYSTEMD_UNIT="last.service", MESSAGE=LIVE_KEY),
    )
    assert found == [
        ("dump.service", "team-b", 1),
        ("haproxy.service", "team-a", 1),
        ("last.service", "team-a", 1),
    ]


def test_long_lines_of_the_journal_are_searched(search: Search, tmp_path: Path) -> None:
    head = CHUNK - len("MESSAGE=")
    for size in (head - 20, head, head + 1, 2 * CHUNK):
        entry = text(MESSAGE="x" * size + LIVE_KEY, _SYSTEMD_UNIT=f"{size}.service")
        assert (f"{size}.service", "team-a", 1) in journal(search, tmp_path, entry)
    # The line ends where a piece ends.
    entry = text(MESSAGE="x" * (head - 1), _SYSTEMD_UNIT="none.service") + b"\n" + text(MESSAGE=OLD_KEY)
    assert ("no unit", "team-b", 1) in journal(search, tmp_path, entry)


def test_an_empty_journal_is_no_error(search: Search) -> None:
    search_journal(search, ["echo", "-- No entries --"])
    assert (search.findings(), search.unread) == ([], [])


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("printf 'MESSAGE=%s\n' \"$0\"; exit 3", "sh ended with 3: no message"),
        ("printf 'MESSAGE=%s\n' \"$0\"; echo 'x.journal is truncated,\nignoring file.' >&2", "is truncated, ignoring"),
        ("printf 'MESSAGE=%s\n' \"$0\"; kill -9 $$", "sh ended with -9"),
        ("printf 'MESSAGE=%s\nBINARY\n' \"$0\"; printf '\\377\\377\\000\\000\\000\\000\\000\\000a'; exit 1", "with 1"),
    ],
)
def test_a_journal_that_is_not_read_to_its_end_is_named(search: Search, command: str, reason: str) -> None:
    search_journal(search, ["sh", "-c", command, LIVE_KEY])
    # What came before counts.
    assert [(one.where, one.client) for one in search.findings()] == [("no unit", "team-a")]
    assert [(one.kind, one.where, one.gone) for one in search.unread] == [("journal", "the journal", False)]
    assert reason in search.unread[0].reason


def test_a_machine_without_journalctl_is_named(search: Search) -> None:
    search_journal(search, ["/nonexistent/journalctl"])
    assert [(one.reason, one.gone) for one in search.unread] == [
        ("/nonexistent/journalctl cannot be run (No such file or directory)", False)
    ]


def test_the_journal_is_asked_for_all_or_for_a_time() -> None:
    assert "--since=-7d" in journal_command("-7d")
    assert not any(word.startswith("--since") for word in journal_command())
