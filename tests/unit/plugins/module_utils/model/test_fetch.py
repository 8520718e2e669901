from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import threading
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.model import fetch as fetching
from ansible_collections.inference.fleet.plugins.module_utils.model.fetch import (
    Fetch,
    File,
    Lanes,
    PartsHasher,
    Passing,
    Patience,
    Problem,
    Progress,
    Snapshot,
    Spec,
    refuse_strangers,
    s3_refusal,
)

from tests.fakes.hub import git_sha1
from tests.unit.plugins.module_utils.model.models import (
    MODEL,
    SHARDS,
    Memory,
    Ranged,
    make_spec,
    model_files,
    write_release,
)


def described(files: dict[str, bytes]) -> list[File]:
    return [File(path, len(content), sha256=hashlib.sha256(content).hexdigest()) for path, content in files.items()]


def run(spec: Spec, source: Memory | Ranged, tmp_path: Path) -> Progress:
    progress = Progress(spec, spec.wanted, str(tmp_path / "status.json"))
    try:
        Fetch(spec, spec.wanted, lambda: source, progress, patience=0.0).run()
    finally:
        progress.end("ended")
    return progress


@pytest.fixture
def files() -> dict[str, bytes]:
    return model_files()


@pytest.fixture
def spec(tmp_path: Path, files: dict[str, bytes]) -> Spec:
    return make_spec(tmp_path / "models", described(files))


@pytest.fixture
def ranged(tmp_path: Path, files: dict[str, bytes]) -> Spec:
    return make_spec(tmp_path / "models", pinned(files), source={"kind": "s3", "url": "s3://bucket/it"})


def pinned(files: dict[str, bytes], etag: str = "1") -> list[File]:
    """What S3 says of objects whose content it has no hash of."""
    return [File(path, len(content), etag=f"{path}-{etag}") for path, content in files.items()]


@pytest.mark.parametrize("path", ["../evil", "/etc/passwd", "a/../../b", "a//b", "", "a/.", "nul\0"])
def test_a_source_cannot_name_a_place_outside_the_snapshot(path: str) -> None:
    with pytest.raises(Problem, match="outside the snapshot"):
        File(path, 1)


def test_a_spec_survives_being_written_down(spec: Spec) -> None:
    assert Spec.from_json(json.loads(json.dumps(spec.as_json()))) == spec


def test_a_spec_of_another_version_is_refused(spec: Spec) -> None:
    with pytest.raises(Problem, match="version 2"):
        Spec.from_json({**spec.as_json(), "version": 2})


@pytest.mark.parametrize(
    ("count", "text"), [(17.5 * 1024**3, "17.5 GiB"), (3 * 1024**2, "3.0 MiB"), (1024, "1.0 KiB"), (5, "5 B")]
)
def test_sizes_are_for_people(count: float, text: str) -> None:
    assert fetching.human_size(count) == text


def test_a_snapshot_gets_its_name_last(spec: Spec, files: dict[str, bytes], tmp_path: Path) -> None:
    directory = spec.directory(spec.wanted)
    assert fetching.unfinished(spec, spec.wanted) == list(files)
    run(spec, Memory(files), tmp_path)
    assert fetching.unfinished(spec, spec.wanted) == []
    assert fetching.corrupted(spec, spec.wanted) == []
    assert sorted(os.listdir(directory)) == sorted([*files, fetching.MANIFEST])
    assert not os.path.exists(directory + fetching.PARTIAL)


def test_the_manifest_holds_no_name_of_a_secret(tmp_path: Path, files: dict[str, bytes]) -> None:
    source = {"kind": "hub", "endpoint": "http://hub", "repository": MODEL, "token_file": "/secret"}
    spec = make_spec(tmp_path / "models", described(files), source=source)
    run(spec, Memory(files), tmp_path)
    assert "/secret" not in (Path(spec.directory(spec.wanted)) / fetching.MANIFEST).read_text()


def test_what_is_there_is_not_read_again(spec: Spec, files: dict[str, bytes], tmp_path: Path) -> None:
    partial = Path(spec.directory(spec.wanted) + fetching.PARTIAL)
    partial.mkdir(parents=True)
    (partial / (SHARDS[0] + fetching.PART)).write_bytes(files[SHARDS[0]][:60_000])
    (partial / SHARDS[1]).write_bytes(files[SHARDS[1]])
    assert fetching.present_bytes(spec, spec.wanted) == 60_000 + len(files[SHARDS[1]])
    source = Memory(files)
    progress = run(spec, source, tmp_path)
    assert (SHARDS[0], 60_000) in source.reads
    assert SHARDS[1] not in [path for path, _offset in source.reads]
    assert progress.arrived == spec.wanted.size - 60_000 - len(files[SHARDS[1]])
    assert fetching.corrupted(spec, spec.wanted) == []


def test_a_connection_that_ends_early_is_taken_up(spec: Spec, files: dict[str, bytes], tmp_path: Path) -> None:
    source = Memory(files, ["cut", Passing("reset"), "cut"])
    run(spec, source, tmp_path)
    assert fetching.corrupted(spec, spec.wanted) == []
    assert any(offset for _path, offset in source.reads)


def test_a_source_that_never_answers_is_given_up(spec: Spec, files: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"no route \(given up after 6 tries without a byte"):
        run(spec, Memory(files, [Passing("no route")] * 100), tmp_path)
    assert not os.path.exists(spec.directory(spec.wanted))


def test_a_wrong_copy_is_fetched_again_and_then_given_up(spec: Spec, files: dict[str, bytes], tmp_path: Path) -> None:
    run(spec, Memory(files, ["wrong"]), tmp_path)
    assert fetching.corrupted(spec, spec.wanted) == []
    other = make_spec(tmp_path / "models", described(files), revision="r2")
    with pytest.raises(Problem, match="arrived 3 times with another content"):
        run(other, Memory(files, ["wrong"] * 100), tmp_path)


def test_what_lies_about_is_not_taken_into_the_snapshot(spec: Spec, files: dict[str, bytes], tmp_path: Path) -> None:
    partial = Path(spec.directory(spec.wanted) + fetching.PARTIAL)
    (partial / "sub").mkdir(parents=True)
    (partial / "sub/old.safetensors").write_bytes(b"old")
    run(spec, Memory(files), tmp_path)
    assert not (Path(spec.directory(spec.wanted)) / "sub/old.safetensors").exists()


def test_git_names_small_files_and_md5_those_of_s3(tmp_path: Path, files: dict[str, bytes]) -> None:
    md5 = hashlib.md5(files[SHARDS[0]], usedforsecurity=False).hexdigest()
    known = [
        File("config.json", 2, git_sha1=git_sha1(b"{}")),
        File(SHARDS[0], len(files[SHARDS[0]]), md5=md5),
    ]
    run(make_spec(tmp_path / "models", known), Memory(files), tmp_path)
    for name, wrong in (
        ("git_sha1", File("config.json", 2, git_sha1="0" * 40)),
        ("md5", File("config.json", 2, md5="0" * 32)),
    ):
        spec = make_spec(tmp_path / "models", [wrong], revision=name)
        with pytest.raises(Problem, match=name):
            run(spec, Memory(files), tmp_path)


def test_a_small_disk_is_refused_with_the_numbers(
    spec: Spec, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "free_bytes", lambda _path: 65 * 1024**2 // 2)
    source = Memory(files)
    with pytest.raises(Problem, match=r"needs 195\.4 KiB more in .* has 32\.5 MiB free"):
        run(spec, source, tmp_path)
    assert source.reads == []


@pytest.mark.parametrize("damage", ["truncate", "remove", "manifest", "other"])
def test_a_snapshot_that_was_damaged_does_not_pass(
    spec: Spec, files: dict[str, bytes], tmp_path: Path, damage: str
) -> None:
    run(spec, Memory(files), tmp_path)
    directory = Path(spec.directory(spec.wanted))
    if damage == "truncate":
        (directory / SHARDS[0]).write_bytes(b"short")
        expected = [SHARDS[0]]
    elif damage == "remove":
        (directory / SHARDS[0]).unlink()
        expected = [SHARDS[0]]
    elif damage == "manifest":
        (directory / fetching.MANIFEST).write_text('{"revision": "r1", "files"')
        expected = list(files)
    else:
        (directory / fetching.MANIFEST).write_text('{"revision": "r2", "files": []}')
        expected = list(files)
    assert fetching.unfinished(spec, spec.wanted) == expected


def test_a_changed_byte_is_found_by_reading(spec: Spec, files: dict[str, bytes], tmp_path: Path) -> None:
    run(spec, Memory(files), tmp_path)
    path = Path(spec.directory(spec.wanted)) / SHARDS[1]
    path.write_bytes(b"\0" + files[SHARDS[1]][1:])
    assert fetching.unfinished(spec, spec.wanted) == []
    assert fetching.corrupted(spec, spec.wanted) == [SHARDS[1]]
    fetching.withdraw(spec, spec.wanted, [SHARDS[1]])
    assert fetching.unfinished(spec, spec.wanted) == list(files)
    source = Memory(files)
    run(spec, source, tmp_path)
    assert source.reads == [(SHARDS[1], 0)]


@pytest.mark.parametrize("folder", ["", "sub/"])
def test_an_index_that_names_what_is_not_there_is_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / f"{folder}model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "x", "b": "y"}}))
    names = [f"{folder}model.safetensors.index.json", f"{folder}x"]
    with pytest.raises(Problem, match=rf"2 files with weights, and 1 of them are not there \({folder}y\)"):
        fetching.check_parts(str(tmp_path), names, "It")
    fetching.check_parts(str(tmp_path), [*names, f"{folder}y"], "It")


def test_what_instances_would_start_is_needed(tmp_path: Path, files: dict[str, bytes]) -> None:
    old, new = Snapshot("old", "main", ()), Snapshot("new", "main", ())
    spec = make_spec(tmp_path / "models", [], snapshots=(new, old))
    other = make_spec(tmp_path / "models", [], slug="other", snapshots=(new,))
    engine = tmp_path / "engine"

    def needed() -> list[tuple[str, str]]:
        return [(one.slug, snapshot.revision) for one, snapshot in fetching.needed([spec, other], str(engine))]

    assert needed() == [(spec.slug, "new"), ("other", "new")]
    write_release(engine, "vllm-1", spec.directory(new))
    assert needed() == [(spec.slug, "new"), ("other", "new")]
    write_release(engine, "vllm-2", spec.directory(old), "current")
    assert needed() == [(spec.slug, "old")]
    write_release(engine, "vllm-1", spec.directory(new), "good")
    assert needed() == [(spec.slug, "new"), (spec.slug, "old")]


def test_progress_is_printed_and_written_to_a_file(
    spec: Spec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "status.json"
    progress = Progress(spec, spec.wanted, str(path))
    progress.state("fetching")
    progress.have(50_000)
    progress.got(50_000)
    progress.say(progress.line())
    assert "49 % 97.7 KiB of 195.4 KiB" in capsys.readouterr().out
    progress.end("failed", "no reason")
    status = json.loads(path.read_text())
    assert {key: status[key] for key in ("state", "message", "done_bytes", "fetched_bytes", "revision")} == {
        "state": "failed",
        "message": "no reason",
        "done_bytes": 100_000,
        "fetched_bytes": 50_000,
        "revision": "r1",
    }


def test_a_download_without_a_byte_ends_itself(spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(fetching, "STALL", 0.5)
    monkeypatch.setattr(os, "_exit", lambda _code: ended.set())
    progress = Progress(spec, spec.wanted, str(tmp_path / "status.json"))
    progress.state("fetching")
    assert ended.wait(10)
    progress.end("failed")


@pytest.mark.parametrize("spoil", ["{", "{}", '{"version": 1, "slug": "it"}'])
def test_a_spec_that_cannot_be_read_is_named(tmp_path: Path, spoil: str) -> None:
    (tmp_path / "it.json").write_text(spoil)
    with pytest.raises(Problem, match=r"Run site\.yml|run site\.yml"):
        fetching.load_spec(str(tmp_path), "it")
    said: list[str] = []
    assert fetching.load_specs(str(tmp_path), said.append) == []
    assert "it.json is skipped" in said[0]


def test_ranges_of_all_files_make_a_snapshot(ranged: Spec, files: dict[str, bytes], tmp_path: Path) -> None:
    files["empty"] = b""
    spec = make_spec(tmp_path / "models", pinned(files), source=ranged.source)
    source = Ranged(files, ["cut", Passing("reset"), "more"])
    progress = run(spec, source, tmp_path)
    directory = Path(spec.directory(spec.wanted))
    assert {path: (directory / path).read_bytes() for path in files} == files
    assert sorted(os.listdir(directory)) == sorted([*files, fetching.MANIFEST])
    assert fetching.corrupted(spec, spec.wanted) == []
    assert progress.arrived == spec.wanted.size
    assert max(end - start for _path, start, end in source.reads) == source.range_size


def test_ranges_that_are_there_are_not_fetched_again(ranged: Spec, files: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(Problem, match="no route"):
        run(ranged, Ranged(files, [None] * 9 + [Passing("no route")] * 100, ranges=1), tmp_path)
    there = fetching.present_bytes(ranged, ranged.wanted)
    assert there > 60_000
    source = Ranged(files)
    progress = run(ranged, source, tmp_path)
    assert progress.arrived == ranged.wanted.size - there
    assert sum(end - start for _path, start, end in source.reads) == ranged.wanted.size - there
    assert fetching.corrupted(ranged, ranged.wanted) == []


def test_ranges_of_another_object_are_not_used(ranged: Spec, files: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(Problem, match="no route"):
        run(ranged, Ranged(files, [None] * 9 + [Passing("no route")] * 100, ranges=1), tmp_path)
    changed = {path: content[::-1] if path in SHARDS else content for path, content in files.items()}
    spec = make_spec(tmp_path / "models", pinned(changed, "2"), source=ranged.source)
    progress = run(spec, Ranged(changed), tmp_path)
    # Also the small files, which were whole: their objects may have changed as well.
    assert progress.arrived == spec.wanted.size
    assert {path: (Path(spec.directory(spec.wanted)) / path).read_bytes() for path in changed} == changed


def test_a_range_without_a_byte_is_given_up(ranged: Spec, files: dict[str, bytes], tmp_path: Path) -> None:
    source = Ranged(files, [None] * 4 + [Passing("no route")] * 100)
    with pytest.raises(Problem, match=r"no route \(given up after 6 tries without a byte"):
        run(ranged, source, tmp_path)
    partial = Path(ranged.directory(ranged.wanted) + fetching.PARTIAL)
    assert not any((partial / shard).exists() for shard in SHARDS)


def test_a_refused_range_ends_the_fetch_at_once(ranged: Spec, files: dict[str, bytes], tmp_path: Path) -> None:
    source = Ranged(files, [None] * 4 + [Problem("replaced")])
    with pytest.raises(Problem, match="replaced"):
        run(ranged, source, tmp_path)
    assert not os.path.exists(ranged.directory(ranged.wanted))


def test_a_wrong_range_is_found_by_the_hash(ranged: Spec, files: dict[str, bytes], tmp_path: Path) -> None:
    spec = make_spec(tmp_path / "models", described(files), source=ranged.source)
    run(spec, Ranged(files, [None] * 4 + ["wrong"]), tmp_path)
    assert fetching.corrupted(spec, spec.wanted) == []
    other = make_spec(tmp_path / "models", described(files), revision="r2", source=ranged.source)
    with pytest.raises(Problem, match="arrived 3 times with another content"):
        run(other, Ranged(files, [None] * 4 + ["wrong"] * 1000), tmp_path)


def test_a_file_that_somebody_shortens_is_not_completed(
    ranged: Spec, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", lambda _descriptor, data, _offset: len(data))
    with pytest.raises(Problem, match="was shortened while it was fetched"):
        run(ranged, Ranged(files), tmp_path)


def test_what_another_kind_of_source_left_is_removed(ranged: Spec, files: dict[str, bytes], tmp_path: Path) -> None:
    partial = Path(ranged.directory(ranged.wanted) + fetching.PARTIAL)
    partial.mkdir(parents=True)
    (partial / (SHARDS[0] + fetching.PART)).write_bytes(files[SHARDS[1]][:60_000])
    progress = run(ranged, Ranged(files), tmp_path)
    assert progress.arrived == ranged.wanted.size
    assert sorted(os.listdir(ranged.directory(ranged.wanted))) == sorted([*files, fetching.MANIFEST])


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("more", [0, 1])
def test_the_etag_of_parts_is_calculated(parts: int, more: int) -> None:
    content = bytes(range(256)) * 40
    pieces = [content[start : start + 1000] for start in range(0, 1000 * parts, 1000)]
    pieces += [b"x"] * more
    digests = [hashlib.md5(piece, usedforsecurity=False).digest() for piece in pieces]
    hasher = PartsHasher(1000)
    whole = b"".join(pieces)
    for start in range(0, len(whole), 700):
        hasher.update(whole[start : start + 700])
    expected = hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()
    assert hasher.hexdigest() == f"{expected}-{parts + more}"


def test_files_share_the_lanes() -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        lanes = Lanes(pool, 32)
        with lanes.one_more_file():
            assert lanes.of_a_file == 64
            with lanes.one_more_file(), lanes.one_more_file():
                assert lanes.of_a_file == 22
            assert lanes.of_a_file == 64


def test_tries_are_bounded_and_further_apart_each_time() -> None:
    patience = Patience(1.0)
    error = Passing("reset")
    assert [patience.after(error, False) for _ in range(3)] == [1, 2, 4]
    assert patience.after(error, True) == 1
    assert [patience.after(error, False) for _ in range(4)] == [2, 4, 8, 16]
    with pytest.raises(Problem, match=r"reset \(given up after 6 tries"):
        patience.after(error, False)


class Refused(Exception):
    """As botocore's ClientError."""

    def __init__(self, code: str, operation: str) -> None:
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code, "Message": "why\n not"}}
        self.operation_name = operation


@pytest.mark.parametrize(
    ("code", "operation", "expected"),
    [
        (
            "AccessDenied",
            "ListObjectsV2",
            "ListObjectsV2 on s3://b/it (AccessDenied: why not)|ListBucket on bucket b,",
        ),
        ("AccessDenied", "GetObject", "GetObject on s3://b/it (AccessDenied: why not)|s3:GetObject on s3://b/it,"),
        ("403", "HeadObject", "HeadObject on s3://b/it (403|s3:GetObject on s3://b/it,"),
        ("ExpiredToken", "GetObject", "does not accept this host's AWS credentials for s3://b/it (ExpiredToken)"),
        ("NoSuchKey", "GetObject", "There is no s3://b/it (NoSuchKey)"),
        ("PreconditionFailed", "GetObject", "was replaced after the fetch was planned"),
        ("InvalidRange", "GetObject", "is shorter than when the fetch was planned"),
    ],
)
def test_what_s3_refuses_names_the_right(code: str, operation: str, expected: str) -> None:
    found = s3_refusal("b", "s3://b/it", Refused(code, operation))
    assert isinstance(found, Problem)
    assert all(part in str(found) for part in expected.split("|"))


@pytest.mark.parametrize("code", ["SlowDown", "InternalError", "RequestTimeout", "503"])
def test_what_s3_cannot_do_now_is_tried_again(code: str) -> None:
    assert isinstance(s3_refusal("b", "s3://b/it", Refused(code, "GetObject")), Passing)


def test_s3_urls_are_split() -> None:
    cases: dict[str, t.Any] = {
        "s3://b": ("b", ""),
        "s3://b/": ("b", ""),
        "s3://b/a/c": ("b", "a/c/"),
        "s3://b/a/": ("b", "a/"),
    }
    assert {url: fetching.split_s3_url(url) for url in cases} == cases


def test_a_directory_that_others_may_write_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "models" / "org--name"
    own.mkdir(parents=True)
    refuse_strangers(str(own.parent), str(own))
    own.chmod(0o777)
    with pytest.raises(Problem, match="is another user's"):
        refuse_strangers(str(own.parent), str(own))
    own.rename(tmp_path / "elsewhere")
    own.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Problem, match="is another user's"):
        refuse_strangers(str(own.parent), str(own))
    own.parent.chmod(0o777)
    with pytest.raises(Problem, match="Everybody may write into"):
        refuse_strangers(str(own.parent), str(own))
