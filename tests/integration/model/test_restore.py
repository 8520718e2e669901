from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from ansible_collections.inference.fleet.plugins.module_utils.model import fetch as fetching
from ansible_collections.inference.fleet.plugins.module_utils.model.fetch import Spec
from ansible_collections.inference.fleet.plugins.module_utils.model.sources import from_path

from tests.fakes.hub import Faults, Hub
from tests.integration.model.conftest import MODEL, Host, assert_complete, model_files, wait_until


def release(host: Host, name: str, model_path: str, link: str | None = None) -> None:
    directory = host.base / "engine/releases" / name
    directory.mkdir(parents=True)
    (directory / "manifest.json").write_text(json.dumps({"model_path": model_path}))
    if link:
        instance = host.base / "engine/instances/0"
        instance.mkdir(parents=True, exist_ok=True)
        (instance / link).symlink_to(directory)


def test_an_emptied_disk_is_filled_again(host: Host, hub: Hub) -> None:
    files = model_files()
    hub.commit(MODEL, files)
    spec = host.plan(hub)
    code, output = host.run("restore")
    assert code == 0, output
    assert_complete(spec, files)
    shutil.rmtree(spec.root)
    code, output = host.run("restore")
    assert code == 0, output
    assert_complete(spec, files)
    hub.requests.clear()
    assert host.run("restore")[0] == 0
    assert hub.requests == []


def test_a_restore_waits_for_a_hub_that_is_away(host: Host, hub: Hub) -> None:
    files = model_files()
    hub.commit(MODEL, files)
    spec = host.plan(hub)
    hub.faults = Faults(status=403)
    process = host.start("restore")
    try:
        wait_until(lambda: host.status(spec).get("state") == "failed")
        hub.faults = Faults()
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert "next try in 5 s" in output
    assert_complete(spec, files)


def test_only_what_an_instance_needs_is_restored(host: Host, hub: Hub, tmp_path: Path) -> None:
    files = model_files()
    hub.commit(MODEL, files)
    spec = host.plan(hub)
    source = tmp_path / "source"
    for path, content in files.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(content)
    snapshot = from_path(str(source), "", {"include": [], "exclude": []})
    other = host.record({"kind": "path", "path": str(source), "in_place": False}, snapshot, name="org/other")
    release(host, "vllm-1", spec.directory(spec.wanted), "current")
    release(host, "vllm-2", other.directory(other.wanted))
    code, output = host.run("restore")
    assert code == 0, output
    assert fetching.unfinished(spec, spec.wanted) == []
    assert fetching.unfinished(other, other.wanted) != []
    release(host, "vllm-3", other.directory(other.wanted), "good")
    code, output = host.run("restore")
    assert code == 0, output
    assert fetching.unfinished(other, other.wanted) == []


def test_the_revision_that_the_current_release_names_comes_back_not_a_newer_one(host: Host, hub: Hub) -> None:
    old = host.plan(hub) if hub.commit(MODEL, model_files()) else None
    assert old is not None
    newer = {**model_files(), "config.json": b'{"newer": true}'}
    hub.commit(MODEL, newer)
    new = host.plan(hub)
    both = Spec(**{**new.__dict__, "snapshots": (new.wanted, old.wanted)})
    (host.specs / f"{both.slug}.json").write_text(json.dumps(both.as_json()))
    release(host, "vllm-1", both.directory(old.wanted), "current")
    code, output = host.run("restore")
    assert code == 0, output
    assert fetching.unfinished(both, old.wanted) == []
    assert fetching.unfinished(both, new.wanted) != []


def test_a_broken_spec_does_not_keep_the_others_from_coming_back(host: Host, hub: Hub) -> None:
    hub.commit(MODEL, model_files())
    spec = host.plan(hub)
    (host.specs / "broken.json").write_text('{"version": 1, "slug": "bro')
    code, output = host.run("restore")
    assert code == 0, output
    assert "broken.json is skipped" in output
    assert fetching.unfinished(spec, spec.wanted) == []


def test_a_stopped_download_ends_at_once(host: Host, hub: Hub) -> None:
    hub.commit(MODEL, model_files())
    hub.faults.bytes_per_second = 200_000
    spec = host.plan(hub)
    process = host.start("fetch", spec.slug)
    wait_until(lambda: host.status(spec).get("done_bytes", 0) > 100_000)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=5)
    assert process.returncode == 143


def test_the_program_needs_nothing_but_the_file_beside_it(program: Path) -> None:
    """Neither Ansible nor any package."""
    done = subprocess.run([sys.executable, "-S", str(program), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
