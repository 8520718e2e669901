"""How long weights take from S3 in ranges, beside one request for each file, where each connection is limited."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
import typing as t
from pathlib import Path

import boto3
from ansible_collections.inference.fleet.plugins.module_utils.model import fetch as fetching
from ansible_collections.inference.fleet.plugins.module_utils.model.sources import from_s3
from moto.server import ThreadedMotoServer

from tests.fakes import s3 as fake_s3
from tests.integration.model.conftest import Host, install_program, install_tool, weights

SHARDS = 4
MIB = 1024 * 1024
SHARD = 16 * MIB
#: Scaled down from 16 MiB and about 85 MB/s, so that the stand-ins are not the limit.
RANGE_MIB = 1
BYTES_PER_SECOND = MIB // 2
RANGES = 32
ROUNDS = 2
URL = "s3://weights/it"

Report = t.Callable[[str, str], None]


def ranges(report: Report) -> None:
    """Both ways in turns; the fastest of each counts."""
    ways = {"file": (SHARDS, SHARD // MIB), "range": (RANGES, RANGE_MIB)}
    took: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as place, _bucket() as (proxy, environment):
        program, tool = install_program(Path(place)), install_tool()
        for _ in range(ROUNDS):
            for way, (at_once, range_mib) in ways.items():
                with tempfile.TemporaryDirectory() as base:
                    host = Host(Path(base), tool, program, environment)
                    took[way].append(_fetch(host, at_once, range_mib))
        connections = proxy.most_at_once
    one, many = min(took["file"]), min(took["range"])
    report("s3", f"{SHARDS} shards of {SHARD // MIB} MiB, each connection {BYTES_PER_SECOND // 1024} KiB/s:")
    report("", f"one GET for each file {one:.1f} s, {connections} ranges at a time {many:.1f} s")
    report("", f"ratio: {one / many:.1f}")


def _fetch(host: Host, at_once: int, range_mib: int) -> float:
    """Seconds of one fetch, with the start of its process and all hashes."""
    everything: dict[str, list[str]] = {"include": [], "exclude": []}
    snapshot = from_s3([host.tool, str(host.program)], host.environment, URL, "", everything)
    spec = host.record({"kind": "s3", "url": URL, "ranges": at_once, "range_mib": range_mib}, snapshot)
    began = time.monotonic()
    code, output = host.fetch(spec)
    took = time.monotonic() - began
    if code or fetching.unfinished(spec, spec.wanted):
        raise SystemExit(f"bench: the fetch failed:\n{output}")
    return took


@contextlib.contextmanager
def _bucket() -> t.Iterator[tuple[fake_s3.Proxy, dict[str, str]]]:
    """A bucket with a model, behind the limit; and the environment of those who fetch it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        with fake_s3.start(url) as proxy:
            client = boto3.client(
                "s3",
                endpoint_url=url,
                aws_access_key_id="bench",
                aws_secret_access_key="bench",  # moto takes any
                region_name="us-east-1",
            )
            client.create_bucket(Bucket="weights")
            client.put_object(Bucket="weights", Key="it/config.json", Body=b"{}")
            for number in range(SHARDS):
                name = f"it/model-{number}.safetensors"
                client.put_object(Bucket="weights", Key=name, Body=weights(SHARD, number))
            proxy.faults.bytes_per_second = BYTES_PER_SECOND
            yield (
                proxy,
                {
                    "AWS_ENDPOINT_URL_S3": proxy.url,
                    "AWS_ACCESS_KEY_ID": "bench",
                    "AWS_SECRET_ACCESS_KEY": "bench",
                    "AWS_DEFAULT_REGION": "us-east-1",
                },
            )
    finally:
        server.stop()
