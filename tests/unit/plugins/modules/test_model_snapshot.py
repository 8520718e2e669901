from __future__ import annotations

import json
import os
import shutil
import stat
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.model import fetch as fetching
from ansible_collections.inference.fleet.plugins.module_utils.model import snapshot
from ansible_collections.inference.fleet.plugins.module_utils.model.fetch import File, Snapshot
from ansible_collections.inference.fleet.plugins.module_utils.model.ranges import Record
from ansible_collections.inference.fleet.plugins.module_utils.runtimes.runtime import MARKER
from ansible_collections.inference.fleet.plugins.modules import model_snapshot

from tests.fakes import hub as fake_hub
from tests.unit.conftest import Result, RunModule
from tests.unit.plugins.module_utils.model.models import (
    MODEL,
    SHARDS,
    SLUG,
    Memory,
    Ranged,
    Systemd,
    model_files,
    write_files,
    write_release,
)


class Host:
    """A host whose directories are below one, and the module on it."""

    def __init__(self, base: Path, run_module: RunModule) -> None:
        self.base = base
        self.engine = base / "opt"
        self.specs = base / "etc/models.d"
        self.models = base / "models"
        self._run_module = run_module
        self.options: dict[str, t.Any] = {"source": "path", "path": str(base / "source")}

    def run(self, check: bool = False, diff: bool = False, **options: t.Any) -> Result:
        places = {
            "engine_root": str(self.engine),
            "spec_directory": str(self.specs),
            "run_directory": str(self.base / "run"),
            "unit_directory": str(self.base / "units"),
            "root": str(self.models),
        }
        args = {"name": MODEL, "parallel": 2, **places, **self.options, **options}
        return self._run_module("model_snapshot", args, check=check, diff=diff)

    def spec(self, slug: str = SLUG) -> dict[str, t.Any]:
        document: dict[str, t.Any] = json.loads((self.specs / f"{slug}.json").read_text())
        return document

    def revisions(self, slug: str = SLUG) -> list[str]:
        return sorted(name for name in os.listdir(self.models / slug) if name != ".lock")

    def everything(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.base.rglob("*") if path.is_file()}


@pytest.fixture
def host(tmp_path: Path, run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path, run_module)
    (tmp_path / "units").mkdir()
    monkeypatch.setattr(model_snapshot, "Units", Systemd)
    monkeypatch.setattr(Systemd, "said", [])
    monkeypatch.setattr(Systemd, "source", None)
    monkeypatch.setattr(Systemd, "enabled", False)
    monkeypatch.setattr(Systemd, "program", made.engine / "libexec/model_fetch.py")
    monkeypatch.setattr(Systemd, "specs", made.specs)
    write_files(tmp_path / "source", model_files())
    return made


@pytest.fixture
def hub(host: Host, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[fake_hub.Hub]:
    """A hub for the host; the bytes come out of memory, the tool counts as installed."""
    with fake_hub.start() as started:
        files = model_files()
        started.commit(MODEL, files)

        def source() -> Memory:
            revision = host.spec()["snapshots"][0]["revision"]
            return Memory(started.files(MODEL, revision))

        monkeypatch.setattr(Systemd, "source", staticmethod(source))
        monkeypatch.setattr(snapshot, "is_complete", lambda _path: True)
        host.options = {"source": "hub", "endpoint": started.url, "revision": "main"}
        yield started


def test_a_model_is_fetched_once(host: Host) -> None:
    result = host.run(diff=True)
    assert result["changed"]
    assert result["files"] == len(model_files())
    assert result["size_bytes"] == sum(len(content) for content in model_files().values())
    directory = Path(result["path"])
    assert directory == host.models / SLUG / result["revision"]
    assert {path: (directory / path).read_bytes() for path in model_files()} == model_files()
    assert Systemd.said == ["reload", "enable", f"fetch {result['revision']}"]
    assert result["diff"]["before"] == ""
    assert f"revision: {result['revision']}" in result["diff"]["after"]

    before = host.everything()
    again = host.run(diff=True)
    assert not again["changed"]
    assert again["actions"] == []
    assert again["recorded"]
    assert again["diff"]["before"] == again["diff"]["after"]
    assert host.everything() == before
    assert len(Systemd.said) == 3


def test_a_check_says_what_would_be_done_and_does_nothing(host: Host) -> None:
    before = host.everything()
    result = host.run(check=True)
    assert result["changed"]
    assert any(action.startswith(f"fetch 4 files, 195.4 KiB, of {MODEL}@content-") for action in result["actions"])
    assert host.everything() == before
    assert not host.models.exists()
    assert Systemd.said == []
    host.run()
    assert not host.run(check=True)["changed"]


def test_what_the_host_keeps_is_for_root(host: Host) -> None:
    host.run()
    assert stat.S_IMODE((host.specs / f"{SLUG}.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((host.engine / "libexec/model_fetch.py").stat().st_mode) == 0o755
    assert (host.engine / "libexec/model_fetch.py").read_text() == Path(fetching.__file__ or "").read_text()
    for name in ("ranges", "workers"):
        assert stat.S_IMODE((host.engine / f"libexec/model_{name}.py").stat().st_mode) == 0o644


def test_a_newer_program_or_unit_replaces_the_old_one(host: Host) -> None:
    host.run()
    (host.engine / "libexec/model_fetch.py").write_text("# old\n")
    (host.base / "units/inference-models.service").write_text("# old\n")
    Systemd.said.clear()
    result = host.run()
    assert result["actions"] == [
        f"write {host.engine}/libexec/model_fetch.py",
        f"write {host.base}/units/inference-models.service",
    ]
    assert Systemd.said == ["reload"]
    assert not host.run()["changed"]


def test_an_emptied_disk_is_filled_with_the_same(host: Host) -> None:
    first = host.run()
    shutil.rmtree(host.models)
    second = host.run()
    assert second["changed"]
    assert second["revision"] == first["revision"]
    assert not host.run()["changed"]


def test_a_truncated_file_is_fetched_again(host: Host) -> None:
    path = Path(host.run()["path"]) / SHARDS[0]
    path.write_bytes(b"short")
    result = host.run()
    assert result["actions"] == [
        f"fetch 1 files, 97.7 KiB, of {MODEL}@{result['revision']} from {host.base}/source into {result['path']}"
    ]
    assert path.read_bytes() == model_files()[SHARDS[0]]


def test_a_changed_byte_is_found_when_asked_to_read(host: Host) -> None:
    path = Path(host.run()["path"]) / SHARDS[0]
    content = model_files()[SHARDS[0]]
    path.write_bytes(b"\0" + content[1:])
    assert not host.run()["changed"]
    assert host.run(check=True, verify="full")["changed"]
    assert path.read_bytes() != content
    assert host.run(verify="full")["changed"]
    assert path.read_bytes() == content
    assert not host.run(verify="full")["changed"]


def test_a_branch_that_moved_changes_nothing_until_asked(host: Host, hub: fake_hub.Hub) -> None:
    first = host.run()
    assert first["revision"] == hub.refs(MODEL)["main"]
    assert not first["recorded"]
    moved = hub.commit(MODEL, {**model_files(), "config.json": b'{"moved": 1}'})
    hub.requests.clear()
    second = host.run()
    assert not second["changed"]
    assert second["revision"] == first["revision"]
    assert hub.requests == []
    third = host.run(update=True)
    assert third["changed"]
    assert third["revision"] == moved
    assert not host.run()["changed"]
    assert host.run()["revision"] == moved


def test_what_the_fleet_agreed_on_wins(host: Host, hub: fake_hub.Hub) -> None:
    agreed = hub.refs(MODEL)["main"]
    hub.commit(MODEL, {**model_files(), "config.json": b'{"moved": 1}'})
    assert host.run(resolved=agreed)["revision"] == agreed
    assert host.run()["revision"] == agreed
    assert not host.run()["changed"]


def test_a_complete_model_needs_no_hub(host: Host, hub: fake_hub.Hub) -> None:
    commit = host.run()["revision"]
    hub.faults.status = 500
    assert not host.run()["changed"]
    assert host.run(revision=commit)["revision"] == commit
    # A mirror is another way to the same model.
    assert host.run(revision=commit, endpoint="http://127.0.0.1:1")["actions"] == [f"write {host.specs}/{SLUG}.json"]


def test_a_model_of_a_machine_image_is_taken_as_it_is(host: Host, hub: fake_hub.Hub) -> None:
    commit = host.run()["revision"]
    shutil.rmtree(host.specs)
    hub.faults.status = 500
    result = host.run(revision=commit)
    assert result["actions"] == [f"write {host.specs}/{SLUG}.json"]
    assert not host.run(revision=commit)["changed"]


def test_the_token_is_kept_in_a_file_of_root_and_nowhere_else(host: Host, hub: fake_hub.Hub) -> None:
    hub.faults = fake_hub.Faults(token="hf_secret", gated=True)
    result = host.run(token="hf_secret")
    path = host.specs / f"{SLUG}.token"
    assert path.read_text() == "hf_secret\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "hf_secret" not in json.dumps(result)
    elsewhere = [name for name, content in host.everything().items() if b"hf_secret" in content and name != str(path)]
    assert elsewhere == []
    assert not host.run(token="hf_secret")["changed"]
    for check in (True, False):
        assert "remove the hub's token" in host.run(check=check)["actions"]
    assert not path.exists()


def test_a_disk_that_is_too_small_is_refused_before_anything_changes(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "free_bytes", lambda _path: 1024**2)
    before = host.everything()
    for check in (True, False):
        result = host.run(check=check)
        assert result["failed"]
        assert "needs 195.4 KiB more" in result["msg"]
        assert "has 1.0 MiB free" in result["msg"]
        assert "Every other snapshot there is in use: set model_root" in result["msg"]
    assert host.everything() == before


def test_the_refusal_names_what_could_go(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    first = host.run(revision="one")
    host.run(revision="two")
    write_release(host.engine, "vllm-1", str(host.models / SLUG / "two"), "current")
    monkeypatch.setattr(fetching, "free_bytes", lambda _path: 1024**2)
    result = host.run(revision="three")
    assert result["failed"]
    assert f"No release names {first['path']} (" in result["msg"]
    assert f"{host.models}/{SLUG}/two" not in result["msg"]
    # Snapshots beyond the budget are removed to make room.
    monkeypatch.setattr(fetching, "free_bytes", lambda _path: fetching.MARGIN)
    assert host.run(revision="three", keep=0)["actions"][0].startswith(f"remove {first['path']} (")
    assert host.revisions() == ["three", "two"]


def test_snapshots_beyond_the_budget_go_but_none_that_a_release_names(host: Host) -> None:
    for revision in ("one", "two", "three", "four"):
        host.run(revision=revision, keep=99)
        manifest = host.models / SLUG / revision / fetching.MANIFEST
        document = json.loads(manifest.read_text())
        document["completed"] = f"2026-01-0{len(revision)}T00:00:0{len(host.revisions())}+00:00"
        manifest.write_text(json.dumps(document))
    write_release(host.engine, "vllm-1", str(host.models / SLUG / "one"), "good")
    interrupted = host.models / SLUG / "zero.partial"
    interrupted.mkdir()
    (host.models / SLUG / "notes").mkdir()
    checked = host.run(revision="four", keep=1, check=True)
    assert host.revisions() == ["four", "notes", "one", "three", "two", "zero.partial"]
    result = host.run(revision="four", keep=1)
    assert checked["actions"] == result["actions"]
    assert host.revisions() == ["four", "notes", "one", "three"]
    assert [one["revision"] for one in host.spec()["snapshots"]] == ["four", "three", "one"]
    assert not host.run(revision="four", keep=1)["changed"]


def test_a_model_that_is_no_longer_configured_is_not_fetched_again(host: Host) -> None:
    host.run(name="org/old")
    host.run(keep=0)
    assert not (host.specs / "org--old.json").exists()
    assert host.revisions("org--old") == []


def test_two_models_live_side_by_side(host: Host) -> None:
    host.run(name="org/a")
    host.run(name="org/b")
    assert not host.run(name="org/a")["changed"]
    assert not host.run(name="org/b")["changed"]


def test_a_draft_model_stays_until_a_release_names_it(host: Host) -> None:
    beside = ["org/main", "org/draft"]
    host.run(name="org/draft", beside=beside, keep=0)
    host.run(name="org/main", beside=beside, keep=0)
    assert not host.run(name="org/draft", beside=beside, keep=0)["changed"]
    assert len(host.revisions("org--draft")) == len(host.revisions("org--main")) == 1
    assert host.run(name="org/main", keep=0)["changed"]
    assert host.revisions("org--draft") == []


def test_a_path_can_be_used_in_place(host: Host) -> None:
    result = host.run(path_in_place=True)
    assert result["path"] == str(host.base / "source")
    assert not host.models.exists()
    assert not host.run(path_in_place=True)["changed"]
    (host.base / "source" / SHARDS[0]).unlink()
    failed = host.run(path_in_place=True)
    assert failed["failed"]
    assert SHARDS[0] in failed["msg"]
    write_files(host.base / "source", {SHARDS[0]: b"another"})
    assert host.run(path_in_place=True, update=True)["changed"]
    assert not host.run(path_in_place=True)["changed"]


def test_a_lost_disk_is_not_replaced_by_a_slow_one(host: Host) -> None:
    host.run()
    document = host.spec()
    document["mount"] = str(host.base / "nvme")
    (host.specs / f"{SLUG}.json").write_text(json.dumps(document))
    result = host.run()
    assert result["failed"]
    assert f"{host.base}/nvme, which is not mounted now" in result["msg"]


def test_the_fast_disk_is_the_default_where_there_is_one(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    nvme = host.base / "nvme"
    monkeypatch.setattr(snapshot, "FAST_DISK", str(nvme))
    monkeypatch.setattr(snapshot, "SLOW_DISK", str(host.base / "slow"))
    assert host.run(check=True, root="")["path"].startswith(f"{host.base}/slow/{SLUG}/")
    real = os.path.ismount
    monkeypatch.setattr(os.path, "ismount", lambda path: path == str(nvme) or real(path))
    assert host.run(check=True, root="")["path"].startswith(f"{nvme}/models/{SLUG}/")


def test_a_check_of_a_bucket_waits_for_the_tool(host: Host) -> None:
    result = host.run(check=True, source="s3", s3_url="s3://bucket/it")
    assert result["changed"]
    assert result["path"] == ""
    assert "its size is known then" in result["actions"][0]


@pytest.fixture
def bucket(host: Host, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A bucket for the host, in memory; the tool counts as installed. Each listing is noted."""
    listings: list[str] = []
    files = model_files()

    def listed(_command: t.Any, _environment: t.Any, url: str, requested: str, _selection: t.Any) -> Snapshot:
        listings.append(url)
        known = tuple(File(path, len(content), etag=f"{path}-2") for path, content in sorted(files.items()))
        return Snapshot(requested or "content-1", requested, known)

    monkeypatch.setattr(snapshot, "from_s3", listed)
    monkeypatch.setattr(snapshot, "is_complete", lambda _path: True)
    monkeypatch.setattr(Systemd, "source", staticmethod(lambda: Ranged(files)))
    host.options = {"source": "s3", "s3_url": "s3://bucket/it"}
    return listings


def test_a_changed_number_of_ranges_fetches_nothing_again(host: Host, bucket: list[str]) -> None:
    first = host.run()
    assert host.spec()["source"] == {"kind": "s3", "url": "s3://bucket/it", "ranges": 32, "range_mib": 16}
    Systemd.said.clear()
    assert not host.run()["changed"]
    checked = host.run(check=True, diff=True, s3_ranges=64)
    assert checked["actions"] == [f"write {host.specs}/{SLUG}.json"]
    assert '"ranges": 32' in checked["diff"]["before"]
    assert '"ranges": 64' in checked["diff"]["after"]
    changed = host.run(s3_ranges=64, s3_range_mib=8)
    assert changed["actions"] == [f"write {host.specs}/{SLUG}.json"]
    assert (changed["path"], changed["revision"]) == (first["path"], first["revision"])
    assert host.spec()["source"]["ranges"] == 64
    assert (bucket, Systemd.said) == (["s3://bucket/it"], [])


def test_a_check_says_how_much_of_it_has_come_in_ranges(host: Host, bucket: list[str]) -> None:
    (host.engine / "libexec").mkdir(parents=True)
    (host.engine / "libexec/model_fetch.py").touch()
    partial = host.models / SLUG / f"content-1{fetching.PARTIAL}"
    partial.mkdir(parents=True)
    with open(partial / f"{SHARDS[1]}{fetching.SPARSE}", "wb") as sparse:
        sparse.seek(90 * 1024)
        sparse.write(bytes(1024))
    spans = [(10 * 1024, 20 * 1024), (90 * 1024, 91 * 1024)]
    path = str(partial / f"{SHARDS[1]}{fetching.SPANS}")
    Record(path, f"{SHARDS[1]}-2", len(model_files()[SHARDS[1]]), spans).close()
    before = host.everything()
    result = host.run(check=True)
    assert any("of which 11.0 KiB are there already" in action for action in result["actions"])
    assert host.everything() == before
    assert Systemd.said == []
    assert host.run()["changed"]
    assert host.revisions() == ["content-1"]


def test_weights_that_came_before_ranges_stay(host: Host, bucket: list[str]) -> None:
    first = host.run()
    spec = host.spec()
    spec["source"] = {"kind": "s3", "url": "s3://bucket/it"}
    (host.specs / f"{SLUG}.json").write_text(json.dumps(spec))
    (host.engine / "libexec/model_ranges.py").unlink()
    (host.engine / "libexec/model_workers.py").unlink()
    (host.engine / "libexec/model_fetch.py").write_text("# old\n")
    weights = {path: os.stat(path) for path in (host.models / SLUG).rglob("*")}
    Systemd.said.clear()
    converged = host.run()
    assert (converged["path"], converged["revision"]) == (first["path"], first["revision"])
    assert converged["actions"] == [
        f"write {host.engine}/libexec/model_ranges.py",
        f"write {host.engine}/libexec/model_workers.py",
        f"write {host.engine}/libexec/model_fetch.py",
        f"write {host.specs}/{SLUG}.json",
    ]
    assert {path: os.stat(path) for path in (host.models / SLUG).rglob("*")} == weights
    assert (bucket, Systemd.said) == (["s3://bucket/it"], [])
    assert not host.run()["changed"]


def test_an_installed_tool_is_not_installed_again(
    host: Host, hub: fake_hub.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    result = host.run(check=True)
    assert not result["tool_installed"]
    tool = host.engine / "tools"
    assert f"install {tool}/fetcher-" in result["actions"][1]
    directory = Path(result["actions"][1].split()[1])
    (directory / "bin").mkdir(parents=True)
    (directory / "bin/python").touch()
    (directory / MARKER).write_text("{}")
    assert host.run(check=True)["tool_installed"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"name": "../x"}, "fleet_model is '../x'"),
        ({"name": "a--b/c"}, "fleet_model is 'a--b/c'"),
        ({"source": "s3", "s3_url": "bucket/x"}, "model_source is s3 and model_s3_url is 'bucket/x'"),
        ({"source": "path", "path": ""}, "model_source is path and model_path is ''"),
        ({"source": "hub", "endpoint": "huggingface.co"}, "model_endpoint is 'huggingface.co'"),
        ({"revision": "a/b"}, "fleet_model_revision is 'a/b'"),
        ({"resolved": "abc"}, "only a hub's branch moves"),
        ({"source": "s3", "s3_url": "s3://bucket/x", "path_in_place": True}, "only path can be in place"),
        ({"keep": -1}, "model_keep is -1"),
        ({"parallel": 0}, "model_parallel is 0"),
        ({"s3_ranges": 0}, "model_s3_ranges is 0. Give 1 to 256"),
        ({"s3_ranges": 257}, "model_s3_ranges is 257. Give 1 to 256"),
        ({"s3_range_mib": 0}, "model_s3_range_mib is 0. Give 1 or more"),
        ({"root": "models"}, "'models' is no absolute path"),
        ({"path": "/does/not/exist"}, "model_path is /does/not/exist, which is no directory on this host"),
    ],
)
def test_what_cannot_be_meant_is_refused(host: Host, options: dict[str, t.Any], expected: str) -> None:
    result = host.run(**options)
    assert result["failed"]
    assert expected in result["msg"]
    assert Systemd.said == []
