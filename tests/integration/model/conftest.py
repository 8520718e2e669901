"""The fetch program with the real huggingface_hub, hf_xet and boto3, against a hub and an S3 on the loopback."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.model import fetch as fetching
from ansible_collections.inference.fleet.plugins.module_utils.model.fetch import Snapshot, Spec
from ansible_collections.inference.fleet.plugins.module_utils.model.hub import Hub as HubClient
from ansible_collections.inference.fleet.plugins.module_utils.model.sources import from_hub

from tests.fakes import hub as fake_hub

REPOSITORY = Path(__file__).resolve().parents[3]
LOCK = REPOSITORY / "roles/model/files/fetcher.txt"
SOURCES = REPOSITORY / "plugins/module_utils/model"
PROGRAMS = {"fetch.py": "model_fetch.py", "ranges.py": "model_ranges.py", "workers.py": "model_workers.py"}
MODEL = "Qwen/Qwen3-VL-8B-Instruct"


def weights(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 - weights, not secrets


def model_files(megabytes: int = 3) -> dict[str, bytes]:
    """A model of two shards."""
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    return {
        "config.json": b'{"architectures": ["Qwen3VLForConditionalGeneration"]}',
        "model.safetensors.index.json": json.dumps(index).encode(),
        "tokenizer.json": weights(80_000, 9),
        ".gitattributes": b"*.safetensors filter=lfs",
        "pytorch_model.bin": weights(70_000, 8),
        "chat/template.jinja": b"{{ messages }}",
        names[0]: weights(megabytes * 1024 * 1024, 1),
        names[1]: weights(megabytes * 1024 * 1024 + 12_345, 2),
    }


WANTED = (
    "chat/template.jinja",
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
)


def install_tool() -> str:
    """An interpreter with the lock's packages, installed as on a host."""
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:8]
    directory = REPOSITORY / ".cache" / f"fetcher-{digest}"
    python = directory / "bin/python"
    if not (directory / ".complete").exists():
        shutil.rmtree(directory, ignore_errors=True)
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(directory)], check=True)
        sync = [uv, "pip", "sync", "--quiet", "--python", str(python), "--require-hashes", str(LOCK)]
        subprocess.run(sync, check=True)
        (directory / ".complete").touch()
    return str(python)


@pytest.fixture(scope="session")
def tool() -> str:
    return install_tool()


@pytest.fixture
def hub() -> t.Iterator[fake_hub.Hub]:
    with fake_hub.start(page=3) as started:
        yield started


def install_program(directory: Path) -> Path:
    """The program, as it is on a host."""
    for source, installed in PROGRAMS.items():
        shutil.copy(SOURCES / source, directory / installed)
    return directory / "model_fetch.py"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_program(tmp_path_factory.mktemp("libexec"))


@dataclasses.dataclass
class Host:
    """A host's directories, and the program that runs in them."""

    base: Path
    tool: str
    program: Path
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    root: str = ""

    @property
    def specs(self) -> Path:
        return self.base / "models.d"

    @property
    def run_directory(self) -> Path:
        return self.base / "run"

    def record(self, source: dict[str, t.Any], snapshot: Snapshot, name: str = MODEL) -> Spec:
        self.specs.mkdir(exist_ok=True)
        root = self.root or str(self.base / "models")
        spec = Spec(
            slug=name.replace("/", "--"),
            name=name,
            source=source,
            selection={"include": [], "exclude": []},
            root=root,
            mount=fetching.mount_of(root),
            python=self.tool,
            environment={},
            parallel=4,
            snapshots=(snapshot,),
        )
        (self.specs / f"{spec.slug}.json").write_text(json.dumps(spec.as_json()))
        return spec

    def plan(self, hub: fake_hub.Hub, transfer: str = "http", token: str = "", revision: str = "") -> Spec:
        """What the module writes before a fetch from ``hub``."""
        snapshot = from_hub(HubClient(hub.url, MODEL, token), revision, "", {"include": [], "exclude": []}, hub.url)
        source: dict[str, t.Any] = {"kind": "hub", "endpoint": hub.url, "repository": MODEL, "xet": transfer == "xet"}
        if token:
            path = self.base / "token"
            path.write_text(token + "\n")
            source["token_file"] = str(path)
        return self.record(source, snapshot)

    def start(self, *words: str) -> subprocess.Popen[str]:
        directories = ["--spec-directory", str(self.specs), "--run-directory", str(self.run_directory)]
        command = [sys.executable, str(self.program), *directories, "--engine-root", str(self.base / "engine"), *words]
        # None of this machine's own settings may reach the program.
        clean = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        environment = {**clean, "HF_HOME": str(self.base / "hf"), **self.environment}
        return subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str) -> tuple[int, str]:
        process = self.start(*words)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def fetch(self, spec: Spec) -> tuple[int, str]:
        return self.run("fetch", spec.slug)

    def kill_half_way(self, spec: Spec, hub: fake_hub.Hub) -> int:
        """Start a fetch and kill it in the middle; return the number of bytes on the disk."""
        hub.faults.bytes_per_second = 4 * 1024 * 1024
        process = self.start("fetch", spec.slug)
        wait_until(lambda: self.status(spec).get("done_bytes", 0) > 5 * 1024 * 1024)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return fetching.present_bytes(spec, spec.wanted)

    def status(self, spec: Spec) -> dict[str, t.Any]:
        return fetching.read_document(str(self.run_directory / f"{spec.slug}.json")) or {}


@pytest.fixture
def host(tmp_path: Path, tool: str, program: Path) -> Host:
    return Host(tmp_path, tool, program)


def wait_until(condition: t.Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def assert_complete(spec: Spec, files: dict[str, bytes]) -> None:
    directory = Path(spec.directory(spec.wanted))
    assert fetching.unfinished(spec, spec.wanted) == []
    assert fetching.corrupted(spec, spec.wanted) == []
    there = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    assert there == {*WANTED, fetching.MANIFEST}
    for path in WANTED:
        assert (directory / path).read_bytes() == files[path], path
    assert sorted(os.listdir(directory.parent)) == [".lock", spec.wanted.revision]
