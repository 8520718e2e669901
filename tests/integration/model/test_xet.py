"""Xet storage: hf_xet itself against a content store in a directory, which stands in for the hub's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fakes.hub import Hub
from tests.integration.model.conftest import MODEL, Host, assert_complete, model_files

_UPLOAD = """
import json, sys, hf_xet
endpoint, *paths = sys.argv[1:]
commit = hf_xet.XetSession().new_upload_commit(endpoint=endpoint)
handles = [commit.start_upload_file(path) for path in paths]
commit.wait_to_finish()
print(json.dumps([handle.result().xet_info.hash for handle in handles]))
"""


@pytest.fixture
def files(hub: Hub, tool: str, tmp_path: Path) -> dict[str, bytes]:
    """A model whose shards are in Xet storage."""
    files = model_files(8)
    shards = [path for path in files if path.endswith(".safetensors")]
    paths = []
    for shard in shards:
        (tmp_path / shard).write_bytes(files[shard])
        paths.append(str(tmp_path / shard))
    hub.cas = f"local://{tmp_path}/cas"
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [tool, "-c", _UPLOAD, hub.cas, *paths], env=environment, check=True, capture_output=True, text=True
    )
    hub.xet = dict(zip(shards, json.loads(done.stdout), strict=True))
    hub.commit(MODEL, files)
    return files


def test_large_files_come_from_xet_storage(host: Host, hub: Hub, files: dict[str, bytes]) -> None:
    spec = host.plan(hub, transfer="xet")
    code, output = host.fetch(spec)
    assert code == 0, output
    assert_complete(spec, files)
    assert not [request for request in hub.asked("/cdn/") if request.sent > 1024 * 1024]
    assert hub.asked("/xet-read-token/")


def test_a_killed_xet_download_goes_on_where_it_was(host: Host, hub: Hub, files: dict[str, bytes]) -> None:
    # The store is too fast to be interrupted: the first half comes slowly over HTTP.
    there = host.kill_half_way(host.plan(hub), hub)
    spec = host.plan(hub, transfer="xet")
    hub.requests.clear()
    code, output = host.fetch(spec)
    assert code == 0, output
    assert_complete(spec, files)
    assert host.status(spec)["fetched_bytes"] == spec.wanted.size - there
    assert not [request for request in hub.asked("/cdn/") if request.sent > 1024 * 1024]


def test_without_xet_storage_http_goes_on(host: Host, hub: Hub, files: dict[str, bytes], tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "cas")
    spec = host.plan(hub, transfer="xet")
    code, output = host.fetch(spec)
    assert code == 0, output
    assert "going on over HTTP" in output
    assert_complete(spec, files)
