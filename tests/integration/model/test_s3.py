from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import typing as t
from pathlib import Path

import boto3
import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.model import fetch as fetching
from ansible_collections.inference.fleet.plugins.module_utils.model.fetch import File, Snapshot, Spec, human_size
from ansible_collections.inference.fleet.plugins.module_utils.model.sources import from_s3
from moto.server import ThreadedMotoServer

from tests.fakes import s3 as fake_s3
from tests.integration.model.conftest import WANTED, Host, assert_complete, model_files, wait_until
from tests.project import open_directly

URL = "s3://weights/qwen/3"
EVERYTHING: dict[str, list[str]] = {"include": [], "exclude": []}


MIB = 1024 * 1024
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


class Bucket:
    """A bucket, and the proxy through which hosts reach it."""

    def __init__(self, url: str, proxy: fake_s3.Proxy) -> None:
        self.proxy = proxy
        self.environment = {
            "AWS_ENDPOINT_URL_S3": proxy.url,
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

    def put_in_parts(self, path: str, pieces: list[bytes]) -> None:
        key = f"qwen/3/{path}"
        upload = self.client.create_multipart_upload(Bucket="weights", Key=key)["UploadId"]
        parts = [
            {
                "PartNumber": number,
                "ETag": self.client.upload_part(
                    Bucket="weights", Key=key, UploadId=upload, PartNumber=number, Body=piece
                )["ETag"],
            }
            for number, piece in enumerate(pieces, 1)
        ]
        self.client.complete_multipart_upload(
            Bucket="weights", Key=key, UploadId=upload, MultipartUpload={"Parts": t.cast("t.Any", parts)}
        )


@pytest.fixture
def bucket() -> t.Iterator[Bucket]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _address, port = server.get_host_and_port()
        url = f"http://127.0.0.1:{port}"
        # What moto holds belongs to the process, not to the server.
        open_directly(f"{url}/moto-api/reset", data=b"").close()
        with fake_s3.start(url) as proxy:
            yield Bucket(url, proxy)
    finally:
        server.stop()


def plan(host: Host, bucket: Bucket, revision: str = "") -> Snapshot:
    clean = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", **bucket.environment}
    return from_s3([host.tool, str(host.program)], clean, URL, revision, EVERYTHING)


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


def planned(host: Host, bucket: Bucket, ranges: int = 8, **changes: t.Any) -> Spec:
    """What the module writes before a fetch in ranges of 1 MiB."""
    snapshot = dataclasses.replace(plan(host, bucket), **changes)
    host.environment = bucket.environment
    bucket.proxy.requests.clear()
    return host.record({"kind": "s3", "url": URL, "ranges": ranges, "range_mib": 1}, snapshot)


def test_large_objects_come_in_ranges_and_small_ones_whole(host: Host, bucket: Bucket) -> None:
    files = model_files()
    bucket.put(files)
    spec = planned(host, bucket)
    bucket.proxy.faults.bytes_per_second = 1 * MIB
    code, output = host.fetch(spec)
    assert code == 0, output
    assert_complete(spec, files)
    size = len(files[SHARDS[1]])
    spans = sorted(request.span for request in bucket.proxy.gets(SHARDS[1]) if request.span)
    assert spans == [(0, MIB), (MIB, 2 * MIB), (2 * MIB, 3 * MIB), (3 * MIB, size)]
    assert [request.span for request in bucket.proxy.gets("config.json")] == [None]
    assert all(request.if_match for request in bucket.proxy.gets())
    assert bucket.proxy.most_at_once > spec.parallel
    assert f"{human_size(spec.wanted.size)} fetched" in output


def test_no_more_ranges_than_wanted_are_fetched_at_a_time(host: Host, bucket: Bucket) -> None:
    files = model_files()
    bucket.put(files)
    spec = planned(host, bucket, ranges=3)
    bucket.proxy.faults.bytes_per_second = 4 * MIB
    assert host.fetch(spec)[0] == 0
    assert bucket.proxy.most_at_once == 3
    assert_complete(spec, files)


def test_a_fetch_that_was_killed_does_not_fetch_finished_ranges_again(host: Host, bucket: Bucket) -> None:
    files = model_files(8)
    bucket.put(files)
    spec = planned(host, bucket, ranges=4)
    bucket.proxy.faults.bytes_per_second = 1 * MIB
    process = host.start("fetch", spec.slug)
    wait_until(lambda: host.status(spec).get("done_bytes", 0) > 6 * MIB)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    there = fetching.present_bytes(spec, spec.wanted)
    # Of each range that was under way up to 1 MiB is lost.
    assert there > 4 * MIB
    assert not os.path.exists(spec.directory(spec.wanted))
    partial = Path(spec.directory(spec.wanted) + fetching.PARTIAL)
    whole = [shard for shard in SHARDS if (partial / shard).exists()]
    assert [(partial / shard).read_bytes() for shard in whole] == [files[shard] for shard in whole]
    assert len(whole) < len(SHARDS)
    bucket.proxy.requests.clear()
    bucket.proxy.faults.bytes_per_second = 0
    code, output = host.fetch(spec)
    assert code == 0, output
    assert_complete(spec, files)
    assert host.status(spec)["fetched_bytes"] == spec.wanted.size - there
    assert bucket.proxy.sent() == spec.wanted.size - there


def children(process: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


needs_processors = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor gets one process")


@needs_processors
def test_many_ranges_are_shared_by_processes(host: Host, bucket: Bucket) -> None:
    files = model_files(20)
    bucket.put(files)
    spec = planned(host, bucket, ranges=16)
    bucket.proxy.faults.bytes_per_second = MIB
    process = host.start("fetch", spec.slug)
    wait_until(lambda: host.status(spec).get("done_bytes", 0) > 2 * MIB)
    workers = children(process)
    assert len(workers) == 2
    # One of them dies: the other takes its ranges over, and no byte that is on the disk is fetched again.
    os.kill(workers[0], signal.SIGKILL)
    bucket.proxy.faults.bytes_per_second = 4 * MIB
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "a process of the download ended with -9; next try in" in output
    assert_complete(spec, files)
    assert bucket.proxy.most_at_once >= 16


@needs_processors
def test_processes_end_with_the_one_that_started_them(host: Host, bucket: Bucket) -> None:
    files = model_files(20)
    bucket.put(files)
    spec = planned(host, bucket, ranges=16)
    bucket.proxy.faults.bytes_per_second = MIB
    process = host.start("fetch", spec.slug)
    wait_until(lambda: host.status(spec).get("done_bytes", 0) > 8 * MIB)
    workers = children(process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(os.path.exists(f"/proc/{worker}/exe") for worker in workers), 10)
    there = fetching.present_bytes(spec, spec.wanted)
    assert there > 2 * MIB
    bucket.proxy.requests.clear()
    bucket.proxy.faults.bytes_per_second = 0
    code, output = host.fetch(spec)
    assert code == 0, output
    assert bucket.proxy.sent() == spec.wanted.size - there
    assert_complete(spec, files)


def test_connections_that_break_are_taken_up_where_they_were(host: Host, bucket: Bucket) -> None:
    files = model_files()
    bucket.put(files)
    spec = planned(host, bucket)
    bucket.proxy.faults = fake_s3.Faults(cut_after=300_000, cuts=5)
    code, output = host.fetch(spec)
    assert code == 0, output
    assert_complete(spec, files)
    assert output.count("next try in 1 s") == 5
    continued = [request for request in bucket.proxy.gets() if request.span and request.span[0] % MIB]
    assert len(continued) == 5
    assert bucket.proxy.sent() < spec.wanted.size + 5 * fetching.PIECE


def test_a_range_that_is_refused_for_a_while_is_asked_for_again(host: Host, bucket: Bucket) -> None:
    files = model_files()
    bucket.put(files)
    spec = planned(host, bucket)
    # boto3 itself asks twice each time.
    refusals = [(503, "SlowDown", "Please reduce your request rate.")] * 3

    def slow_down(request: fake_s3.Request) -> tuple[int, str, str] | None:
        failing = SHARDS[0] in request.path and request.span == (MIB, 2 * MIB)
        return refusals.pop() if failing and refusals else None

    bucket.proxy.faults.refuse = slow_down
    code, output = host.fetch(spec)
    assert code == 0, output
    assert re.search(r"SlowDown.*; next try in 1 s", output)
    assert bucket.proxy.sent() == spec.wanted.size
    assert_complete(spec, files)


def test_an_object_that_is_shorter_than_planned_is_not_completed(host: Host, bucket: Bucket) -> None:
    files = model_files()
    bucket.put(files)
    spec = planned(host, bucket)
    for more, expected in ((5, "but 3145733 when the fetch was planned"), (9 * MIB, "bytes, but|is shorter than when")):
        longer = tuple(
            dataclasses.replace(file, size=file.size + more) if file.path == SHARDS[0] else file
            for file in spec.wanted.files
        )
        wrong = host.record(spec.source, dataclasses.replace(spec.wanted, files=longer))
        code, output = host.fetch(wrong)
        assert code == 1
        assert re.search(expected, output)
        assert not os.path.exists(spec.directory(spec.wanted))


def test_an_object_that_is_replaced_in_the_middle_ends_the_fetch(host: Host, bucket: Bucket) -> None:
    files = model_files(8)
    bucket.put(files)
    spec = planned(host, bucket, ranges=2)
    bucket.proxy.faults.bytes_per_second = 2 * MIB
    process = host.start("fetch", spec.slug)
    wait_until(lambda: host.status(spec).get("done_bytes", 0) > 2 * MIB)
    bucket.put({path: content[::-1] for path, content in files.items() if path in SHARDS})
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "was replaced after the fetch was planned" in output
    assert not os.path.exists(spec.directory(spec.wanted))


def test_ranges_of_an_object_that_was_replaced_are_not_used(host: Host, bucket: Bucket) -> None:
    files = model_files()
    bucket.put(files)
    spec = planned(host, bucket, ranges=1, revision="mine")
    bucket.proxy.faults = fake_s3.Faults(cut_after=MIB // 2, cuts=-1, bytes_per_second=MIB)
    process = host.start("fetch", spec.slug)
    wait_until(lambda: host.status(spec).get("done_bytes", 0) > MIB)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    changed = {path: content[::-1] if path in SHARDS else content for path, content in files.items()}
    changed["config.json"] = files["config.json"].replace(b"Qwen3VL", b"Qwen9VL")
    bucket.put(changed)
    bucket.proxy.faults = fake_s3.Faults()
    again = planned(host, bucket, revision="mine")
    code, output = host.fetch(again)
    assert code == 0, output
    assert_complete(again, changed)


def test_a_range_with_a_wrong_content_is_fetched_again(host: Host, bucket: Bucket) -> None:
    files = model_files()
    bucket.put(files)
    spec = planned(host, bucket)
    bucket.proxy.faults.corrupt = 1
    code, output = host.fetch(spec)
    assert code == 0, output
    assert "; fetching it again" in output
    assert_complete(spec, files)


def test_a_snapshot_that_is_known_by_its_manifest_is_restored(host: Host, bucket: Bucket) -> None:
    files = model_files()
    bucket.put(files)
    spec = planned(host, bucket)
    known = tuple(
        File(file.path, file.size, sha256=hashlib.sha256(files[file.path]).hexdigest()) for file in spec.wanted.files
    )
    spec = host.record(spec.source, dataclasses.replace(spec.wanted, files=known))
    code, output = host.fetch(spec)
    assert code == 0, output
    assert_complete(spec, files)


def test_two_fetches_at_once_fetch_once(host: Host, bucket: Bucket) -> None:
    files = model_files()
    bucket.put(files)
    spec = planned(host, bucket)
    bucket.proxy.faults.bytes_per_second = MIB
    both = [host.start("fetch", spec.slug) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert bucket.proxy.sent() == spec.wanted.size
    assert_complete(spec, files)


def test_a_disk_that_fills_up_ends_the_fetch_with_the_numbers(host: Host, bucket: Bucket) -> None:
    files = model_files(8)
    bucket.put(files)
    disk = host.base / "disk"
    disk.mkdir()
    # Enough for what is planned, until something else takes it.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=90m", "tmpfs", str(disk)], check=True)
    try:
        host.root = str(disk / "models")
        spec = planned(host, bucket, ranges=4)
        bucket.proxy.faults.bytes_per_second = MIB
        process = host.start("fetch", spec.slug)
        wait_until(lambda: host.status(spec).get("done_bytes", 0) > 2 * MIB)
        (disk / "other").write_bytes(bytes(80 * MIB))
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 1
        assert re.search(r"Failed to write .*model-0000\d-of-00002.safetensors.sparse: No space left on device", output)
        assert f"the disk mounted on {disk} has" in output
        (disk / "other").unlink()
        bucket.proxy.faults.bytes_per_second = 0
        code, output = host.fetch(spec)
        assert code == 0, output
        assert_complete(spec, files)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_server_without_ranges_is_explained(host: Host, bucket: Bucket) -> None:
    bucket.put(model_files())
    spec = planned(host, bucket)
    bucket.proxy.faults.ignore_range = True
    code, output = host.fetch(spec)
    assert code == 1
    assert "Set model_s3_range_mib to more than 3" in output
    assert host.fetch(host.record({**spec.source, "range_mib": 4}, spec.wanted))[0] == 0


def test_an_object_that_was_put_in_parts_is_verified_by_its_etag(host: Host, bucket: Bucket) -> None:
    files = model_files(6)
    bucket.put({path: content for path, content in files.items() if path not in SHARDS})
    for path in SHARDS:
        bucket.put_in_parts(path, [files[path][: 5 * MIB], files[path][5 * MIB :]])
    spec = planned(host, bucket)
    shards = [file for file in spec.wanted.files if file.path in SHARDS]
    assert [(file.md5, file.part_size) for file in shards] == [("", 5 * MIB)] * 2
    assert all(file.etag.endswith("-2") for file in shards)
    bucket.proxy.faults.corrupt = 1
    code, output = host.fetch(spec)
    assert code == 0, output
    assert re.search(r"has etag \w{16}… instead of \w{16}…; fetching it again", output)
    assert_complete(spec, files)


def test_a_server_that_does_not_know_parts_is_checked_by_the_whole_size(host: Host, bucket: Bucket) -> None:
    files = model_files(6)
    bucket.put({path: content for path, content in files.items() if path not in SHARDS})
    for path in SHARDS:
        bucket.put_in_parts(path, [files[path][: 5 * MIB], files[path][5 * MIB :]])

    def refuse(request: fake_s3.Request) -> tuple[int, str, str] | None:
        return (501, "NotImplemented", "") if "partNumber" in request.path else None

    bucket.proxy.faults.refuse = refuse
    spec = planned(host, bucket)
    assert [file.part_size for file in spec.wanted.files if file.path in SHARDS] == [0, 0]


def test_parts_of_different_sizes_are_checked_by_the_whole_size(host: Host, bucket: Bucket) -> None:
    files = model_files(11)
    bucket.put({path: content for path, content in files.items() if path not in SHARDS})
    for path in SHARDS:
        bucket.put_in_parts(path, [files[path][: 5 * MIB], files[path][5 * MIB :]])
    spec = planned(host, bucket)
    assert [file.part_size for file in spec.wanted.files if file.path in SHARDS] == [0, 0]
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
    ("method", "path", "code", "expected"),
    [
        (
            "GET",
            "list-type",
            "AccessDenied",
            r"S3 refuses ListObjectsV2 on s3://weights/qwen/3/ \(AccessDenied: no policy\)\. The instance's role needs "
            r"s3:ListBucket on bucket weights,",
        ),
        (
            "HEAD",
            "config.json",
            "AccessDenied",
            r"S3 refuses HeadObject on s3://weights/qwen/3/config.json \(403.* needs s3:GetObject on "
            r"s3://weights/qwen/3/config.json,",
        ),
        ("GET", "list-type", "ExpiredToken", r"does not accept this host's AWS credentials .*\(ExpiredToken\)"),
    ],
)
def test_a_missing_right_is_named_when_a_fetch_is_planned(
    host: Host, bucket: Bucket, method: str, path: str, code: str, expected: str
) -> None:
    bucket.put(model_files())

    def refuse(request: fake_s3.Request) -> tuple[int, str, str] | None:
        return (403, code, "no policy") if request.method == method and path in request.path else None

    bucket.proxy.faults.refuse = refuse
    with pytest.raises(FleetError, match=expected):
        plan(host, bucket)


def test_a_right_that_is_missing_later_is_named(host: Host, bucket: Bucket) -> None:
    bucket.put(model_files())
    spec = planned(host, bucket)

    def refuse(request: fake_s3.Request) -> tuple[int, str, str] | None:
        return (403, "AccessDenied", "not authorized to: kms:Decrypt") if SHARDS[0] in request.path else None

    bucket.proxy.faults.refuse = refuse
    code, output = host.fetch(spec)
    assert code == 1
    where = f"s3://weights/qwen/3/{SHARDS[0]}"
    assert f"S3 refuses GetObject on {where} (AccessDenied: not authorized to: kms:Decrypt)" in output
    assert f"needs s3:GetObject on {where}" in output


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
        from_s3([host.tool, str(host.program)], {**bucket.environment, **clean, **environment}, url, "", EVERYTHING)


def test_a_listing_needs_the_tool(host: Host) -> None:
    done = subprocess.run(
        [sys.executable, "-S", str(host.program), "list-s3", URL], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
