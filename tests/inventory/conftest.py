"""An EC2 API with a fleet as in real life, and ansible-inventory on it."""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import boto3
import pytest

from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent.parent
REGION = "us-east-1"


@dataclasses.dataclass(frozen=True)
class Api:
    """A running EC2 API."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, service: t.Any = "ec2", region: str = REGION) -> t.Any:
        return boto3.client(
            service, region_name=region, endpoint_url=self.url, aws_access_key_id="test", aws_secret_access_key="test"
        )

    def reset(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("POST", "/moto-api/reset")
        assert connection.getresponse().status == 200
        connection.close()

    def launch(self, kind: str, tags: dict[str, str], region: str = REGION, **options: t.Any) -> str:
        instances = self.client(region=region).run_instances(
            ImageId="ami-0abcdef1234567890",
            InstanceType=kind,
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[
                {
                    "ResourceType": "instance",
                    "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
                }
            ],
            **options,
        )
        return str(instances["Instances"][0]["InstanceId"])


@pytest.fixture(scope="session")
def server() -> t.Iterator[Api]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env={**os.environ, "MOTO_EC2_LOAD_DEFAULT_AMIS": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 240
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "the EC2 API server ended at its start"
                assert time.monotonic() < deadline, "the EC2 API server does not answer"
                time.sleep(0.1)
        yield Api(port)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def api(server: Api) -> Api:
    """The API, without instances."""
    server.reset()
    return server


@dataclasses.dataclass(frozen=True)
class Answer:
    """ansible-inventory's output."""

    status: int
    output: str
    said: str

    @property
    def inventory(self) -> dict[str, t.Any]:
        document: dict[str, t.Any] = json.loads(self.output)
        return document

    @property
    def hosts(self) -> dict[str, dict[str, t.Any]]:
        found: dict[str, dict[str, t.Any]] = self.inventory["_meta"]["hostvars"]
        return found

    def members(self, group: str) -> set[str]:
        return set(self.inventory.get(group, {}).get("hosts", []))


def environment(url: str) -> dict[str, str]:
    """A shell in which both inventories use the API at ``url``, and this machine's AWS settings are ignored."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ANSIBLE_", "LAB_"))}
    return {
        **kept,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_URL": url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "LAB_EC2_ENDPOINT": url,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


def run(program: str, *arguments: str, url: str, **variables: str) -> Answer:
    """Run one of Ansible's programs from the root of the repository."""
    return run_in(ROOT, program, *arguments, url=url, **variables)


def run_in(directory: Path, program: str, *arguments: str, url: str, **variables: str) -> Answer:
    """Run one of Ansible's programs from a directory."""
    result = subprocess.run(
        [program, *arguments],
        cwd=directory,
        env={**environment(url), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    return Answer(result.returncode, result.stdout, result.stderr)


def copy_for_one_region(inventory: Path, copy: Path) -> Path:
    """A copy of the inventory of AWS that names its region, as the README asks: each run asks about 40 without it."""
    shutil.copytree(inventory, copy)
    source = copy / "aws_ec2.yml"
    text = source.read_text(encoding="utf-8")
    assert "regions: []" in text
    source.write_text(text.replace("regions: []", f"regions: [{REGION}]"), encoding="utf-8")
    return copy


def ask(source: str | Path, url: str, **variables: str) -> Answer:
    """``ansible-inventory --list``."""
    return run("ansible-inventory", "-i", str(source), "--list", url=url, **variables)
