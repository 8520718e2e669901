from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.model import fetch as fetching

from tests.fakes.hub import Faults, Hub
from tests.integration.model.conftest import MODEL, WANTED, Host, assert_complete, model_files, wait_until

SHARD = "model-00001-of-00002.safetensors"


def test_a_model_arrives_whole(host: Host, hub: Hub) -> None:
    files = model_files()
    commit = hub.commit(MODEL, files)
    spec = host.plan(hub)
    code, output = host.fetch(spec)
    assert code == 0, output
    assert spec.wanted.revision == commit
    assert_complete(spec, files)
    assert host.status(spec)["state"] == "complete"
    assert "100 %" in output or "complete:" in output
    manifest = json.loads((Path(spec.directory(spec.wanted)) / fetching.MANIFEST).read_text())
    assert manifest["source"]["endpoint"] == hub.url
    assert {one["path"] for one in manifest["files"]} == set(WANTED)


def test_a_second_fetch_sends_no_request(host: Host, hub: Hub) -> None:
    hub.commit(MODEL, model_files())
    spec = host.plan(hub)
    assert host.fetch(spec)[0] == 0
    hub.requests.clear()
    hub.faults.status = 500
    code, output = host.fetch(spec)
    assert code == 0, output
    assert hub.requests == []


def test_a_killed_download_goes_on_where_it_was(host: Host, hub: Hub) -> None:
    files = model_files(8)
    hub.commit(MODEL, files)
    spec = host.plan(hub)
    there = host.kill_half_way(spec, hub)
    assert there > 5 * 1024 * 1024
    assert fetching.unfinished(spec, spec.wanted), "an interrupted download must not pass for a model"
    assert not os.path.exists(spec.directory(spec.wanted))

    hub.requests.clear()
    hub.faults = Faults()
    code, output = host.fetch(spec)
    assert code == 0, output
    assert_complete(spec, files)
    assert hub.sent("/cdn/") <= spec.wanted.size - there
    assert any(request.offset > 0 for request in hub.asked("/cdn/"))


def test_a_cut_connection_is_taken_up_in_the_same_run(host: Host, hub: Hub) -> None:
    files = model_files()
    hub.commit(MODEL, files)
    hub.faults = Faults(cut_after=1_000_000, cuts=4)
    spec = host.plan(hub)
    code, output = host.fetch(spec)
    assert code == 0, output
    assert_complete(spec, files)
    assert hub.sent("/cdn/") < 1.1 * spec.wanted.size


def test_a_server_that_ignores_ranges_costs_time_but_no_content(host: Host, hub: Hub) -> None:
    files = model_files()
    hub.commit(MODEL, files)
    hub.faults = Faults(cut_after=1_000_000, cuts=2, ignore_range=True)
    spec = host.plan(hub)
    code, output = host.fetch(spec)
    assert code == 0, output
    assert_complete(spec, files)


def test_a_file_that_arrives_corrupted_is_fetched_again(host: Host, hub: Hub) -> None:
    files = model_files()
    hub.commit(MODEL, files)
    hub.faults.corrupt = 1
    spec = host.plan(hub)
    code, output = host.fetch(spec)
    assert code == 0, output
    assert "fetching it again" in output
    assert_complete(spec, files)


def test_a_source_that_stays_corrupted_gives_no_model(host: Host, hub: Hub) -> None:
    hub.commit(MODEL, model_files())
    hub.faults.corrupt = 1000
    spec = host.plan(hub)
    code, output = host.fetch(spec)
    assert code == 1
    assert "arrived 3 times with another content" in output
    assert not os.path.exists(spec.directory(spec.wanted))
    assert host.status(spec)["state"] == "failed"


def test_a_hub_that_stumbles_is_asked_again(host: Host, hub: Hub) -> None:
    files = model_files()
    hub.commit(MODEL, files)
    spec = host.plan(hub)
    hub.faults.statuses = [503, 500, 429]
    code, output = host.fetch(spec)
    assert code == 0, output
    assert_complete(spec, files)


def test_a_file_that_may_not_be_read_ends_the_fetch_with_advice(host: Host, hub: Hub) -> None:
    hub.commit(MODEL, model_files())
    spec = host.plan(hub)
    hub.faults = Faults(gated=True, token="hf_right")
    code, output = host.fetch(spec)
    assert code == 1
    assert "401" in output
    assert "model_token_file" in output


def test_the_token_goes_to_the_hub_and_never_to_the_cdn_or_the_output(host: Host, hub: Hub) -> None:
    files = model_files()
    hub.commit(MODEL, files)
    hub.faults = Faults(gated=True, token="hf_right")
    spec = host.plan(hub, token="hf_right")
    code, output = host.fetch(spec)
    assert code == 0, output
    assert_complete(spec, files)
    assert all(request.authorized for request in hub.asked("/resolve/"))
    assert not any(request.authorized for request in hub.asked("/cdn/"))
    assert "hf_right" not in output
    assert "hf_right" not in (Path(spec.directory(spec.wanted)) / fetching.MANIFEST).read_text()


def test_two_at_once_are_one_download(host: Host, hub: Hub) -> None:
    files = model_files()
    hub.commit(MODEL, files)
    hub.faults.bytes_per_second = 3 * 1024 * 1024
    spec = host.plan(hub)
    both = [host.start("fetch", spec.slug) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert_complete(spec, files)
    assert hub.sent("/cdn/") == sum(len(files[path]) for path in WANTED if len(files[path]) >= 65536)


def test_a_truncated_file_alone_is_fetched_again(host: Host, hub: Hub) -> None:
    files = model_files()
    hub.commit(MODEL, files)
    spec = host.plan(hub)
    assert host.fetch(spec)[0] == 0
    with open(os.path.join(spec.directory(spec.wanted), SHARD), "r+b") as file:
        file.truncate(1000)
    assert fetching.unfinished(spec, spec.wanted) == [SHARD]
    hub.requests.clear()
    code, output = host.fetch(spec)
    assert code == 0, output
    assert_complete(spec, files)
    assert hub.sent() == len(files[SHARD])


def test_files_that_are_there_already_are_verified_not_fetched(host: Host, hub: Hub) -> None:
    files = model_files()
    hub.commit(MODEL, files)
    spec = host.plan(hub)
    directory = Path(spec.directory(spec.wanted))
    for path in WANTED:
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(files[path] if path != SHARD else b"\0" * len(files[path]))
    (directory / "stray.tmp").write_bytes(b"x")
    hub.requests.clear()
    code, output = host.fetch(spec)
    assert code == 0, output
    assert_complete(spec, files)
    assert hub.sent() == len(files[SHARD])


def test_a_source_whose_index_names_more_is_refused_before_the_weights(host: Host, hub: Hub) -> None:
    files = model_files()
    del files["model-00002-of-00002.safetensors"]
    hub.commit(MODEL, files)
    spec = host.plan(hub)
    code, output = host.fetch(spec)
    assert code == 1
    assert "model-00002-of-00002.safetensors" in output
    assert "not whole" in output
    assert hub.asked(SHARD) == []


def test_a_full_disk_is_refused_with_the_numbers(host: Host, hub: Hub) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    disk = host.base / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=66m", "tmpfs", str(disk)], check=True)
    try:
        host.root = str(disk / "models")
        hub.commit(MODEL, model_files())
        spec = host.plan(hub)
        hub.requests.clear()
        code, output = host.fetch(spec)
        assert code == 1
        assert "needs 6.1 MiB more" in output
        assert f"mounted on {disk} has 66.0 MiB free" in output
        assert hub.requests == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_up_on_the_way_ends_the_fetch_with_the_numbers(host: Host, hub: Hub) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    disk = host.base / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(disk)], check=True)
    try:
        host.root = str(disk / "models")
        hub.commit(MODEL, model_files(6))
        hub.faults.bytes_per_second = 2 * 1024 * 1024
        spec = host.plan(hub)
        process = host.start("fetch", spec.slug)
        wait_until(lambda: host.status(spec).get("done_bytes", 0) > 1024 * 1024)
        (disk / "somebody-else").write_bytes(b"\0" * 75 * 1024 * 1024)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "No space left on device" in output
        assert not os.path.exists(spec.directory(spec.wanted))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_nothing_is_written_below_a_mount_point_without_its_disk(host: Host, hub: Hub) -> None:
    hub.commit(MODEL, model_files())
    spec = host.plan(hub)
    document = spec.as_json()
    document["mount"] = str(host.base / "nvme")
    document["root"] = str(host.base / "nvme/models")
    (host.specs / f"{spec.slug}.json").write_text(json.dumps(document))
    process = host.start("fetch", spec.slug)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=2)
        assert not (host.base / "nvme").exists()
    finally:
        process.kill()
        process.communicate()
