from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import boto3
import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.model import fetch as fetching
from ansible_collections.inference.fleet.plugins.module_utils.model.fetch import Snapshot
from ansible_collections.inference.fleet.plugins.module_utils.model.sources import from_s3
from moto.server import ThreadedMotoServer

from tests.integration.model.conftest import PROGRAM, WANTED, Host, assert_complete, model_files
from tests.project import open_directly

URL = "s3://weights/qwen/3"
EVERYTHING: dict[str, list[str]] = {"include": [], "exclude": []}


class Bucket:
    def __init__(self, url: str) -> None:
        self.environment = {
            "AWS_ENDPOINT_URL_S3": url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",  # moto takes any
            "AWS_DEFAULT_REGION": "eu-central-1",
        }
        self.client = boto3.client(
            "s3",
            endpoint_url=url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="eu-central-1",
        )
        self.client.create_bucket(Bucket="weights", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})

    def put(self, files: dict[str, bytes]) -> None:
        for path, content in files.items():
            self.client.put_object(Bucket="weights", Key=f"qwen/3/{path}", Body=content)


@pytest.fixture
def bucket() -> t.Iterator[Bucket]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _address, port = server.get_host_and_port()
        url = f"http://127.0.0.1:{port}"
        # What moto holds belongs to the process, not to the server.
        open_directly(f"{url}/moto-api/reset", data=b"").close()
        yield Bucket(url)
    finally:
        server.stop()


def plan(host: Host, bucket: Bucket, revision: str = "") -> Snapshot:
    clean = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", **bucket.environment}
    return from_s3([host.tool, str(PROGRAM)], clean, URL, revision, EVERYTHING)


def test_a_model_comes_from_a_bucket(host: Host, bucket: Bucket) -> None:
    files = model_files()
    bucket.put(files)
    snapshot = plan(host, bucket)
    assert {file.path for file in snapshot.files} == set(WANTED)
    assert snapshot.revision.startswith("content-")
    spec = host.record({"kind": "s3", "url": URL}, snapshot)
    host.environment = bucket.environment
    code, output = host.fetch(spec)
    assert code == 0, output
    assert_complete(spec, files)


def test_the_revision_follows_the_content_and_nothing_else(host: Host, bucket: Bucket) -> None:
    files = model_files()
    bucket.put(files)
    first = plan(host, bucket)
    bucket.put(files)
    assert plan(host, bucket).revision == first.revision
    bucket.put({"config.json": b'{"changed": true}'})
    assert plan(host, bucket).revision != first.revision
    assert plan(host, bucket, revision="v2").revision == "v2"


def test_an_object_that_is_larger_than_a_piece_is_taken_up_where_it_was(host: Host, bucket: Bucket) -> None:
    files = model_files()
    bucket.put(files)
    spec = host.record({"kind": "s3", "url": URL}, plan(host, bucket))
    shard = "model-00001-of-00002.safetensors"
    partial = Path(spec.directory(spec.wanted) + fetching.PARTIAL)
    partial.mkdir(parents=True)
    (partial / (shard + fetching.PART)).write_bytes(files[shard][:1_000_000])
    host.environment = bucket.environment
    code, output = host.fetch(spec)
    assert code == 0, output
    assert_complete(spec, files)
    assert host.status(spec)["fetched_bytes"] == spec.wanted.size - 1_000_000


def test_a_multipart_object_is_checked_by_size_and_pinned_by_etag(host: Host, bucket: Bucket) -> None:
    files = model_files(6)
    bucket.put({path: content for path, content in files.items() if not path.startswith("model-0")})
    for path, content in files.items():
        if path.startswith("model-0"):
            key = f"qwen/3/{path}"
            upload = bucket.client.create_multipart_upload(Bucket="weights", Key=key)["UploadId"]
            pieces = [content[: 5 * 1024 * 1024], content[5 * 1024 * 1024 :]]
            parts = [
                {
                    "PartNumber": number,
                    "ETag": bucket.client.upload_part(
                        Bucket="weights", Key=key, UploadId=upload, PartNumber=number, Body=piece
                    )["ETag"],
                }
                for number, piece in enumerate(pieces, 1)
            ]
            bucket.client.complete_multipart_upload(
                Bucket="weights", Key=key, UploadId=upload, MultipartUpload={"Parts": t.cast("t.Any", parts)}
            )
    snapshot = plan(host, bucket)
    shards = [file for file in snapshot.files if file.path.startswith("model-0")]
    assert [file.md5 for file in shards] == ["", ""]
    assert all(file.etag.endswith("-2") for file in shards)
    spec = host.record({"kind": "s3", "url": URL}, snapshot)
    host.environment = bucket.environment
    code, output = host.fetch(spec)
    assert code == 0, output
    assert_complete(spec, files)


def test_an_object_that_was_replaced_is_not_mixed_in(host: Host, bucket: Bucket) -> None:
    files = model_files()
    bucket.put(files)
    spec = host.record({"kind": "s3", "url": URL}, plan(host, bucket))
    bucket.put({"config.json": b'{"changed": true}'})
    host.environment = bucket.environment
    code, output = host.fetch(spec)
    assert code == 1
    assert "was replaced after the fetch was planned" in output
    assert "model_update=true" in output
    assert not os.path.exists(spec.directory(spec.wanted))


def test_a_snapshot_that_was_copied_with_its_manifest_is_checked_against_it(host: Host, bucket: Bucket) -> None:
    files = model_files()
    bucket.put(files)
    spec = host.record({"kind": "s3", "url": URL}, plan(host, bucket))
    host.environment = bucket.environment
    assert host.fetch(spec)[0] == 0
    manifest = (Path(spec.directory(spec.wanted)) / fetching.MANIFEST).read_bytes()
    bucket.put({fetching.MANIFEST: manifest})
    recorded = {one["path"]: one["sha256"] for one in json.loads(manifest)["files"]}
    assert {file.path: file.sha256 for file in plan(host, bucket).files} == recorded


@pytest.mark.parametrize(
    ("url", "environment", "expected"),
    [
        ("s3://nowhere/it", {}, r"There is no s3://nowhere/it/ \(NoSuchBucket\)\. Correct model_s3_url"),
        ("s3://weights/other", {}, r"There is no model at s3://weights/other"),
        (URL, {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, r"There are no AWS credentials .* role"),
    ],
)
def test_what_s3_refuses_is_explained(
    host: Host, bucket: Bucket, url: str, environment: dict[str, str], expected: str
) -> None:
    bucket.put(model_files())
    clean = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
    with pytest.raises(FleetError, match=expected):
        from_s3([host.tool, str(PROGRAM)], {**bucket.environment, **clean, **environment}, url, "", EVERYTHING)


def test_a_listing_needs_the_tool(host: Host) -> None:
    done = subprocess.run(
        [sys.executable, "-S", str(PROGRAM), "list-s3", URL], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
