"""A small model, its source on a disk and in memory, and the systemd of a host that fetches it."""

from __future__ import annotations

import contextlib
import io
import json
import random
import subprocess
import sys
import threading
import typing as t
from pathlib import Path

from ansible_collections.inference.fleet.plugins.module_utils.model import fetch as fetching
from ansible_collections.inference.fleet.plugins.module_utils.model.fetch import File, RangedSource, Snapshot, Spec

MODEL = "Qwen/Qwen3-VL-8B-Instruct"
SLUG = "Qwen--Qwen3-VL-8B-Instruct"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
EVERYTHING: dict[str, list[str]] = {"include": [], "exclude": []}


def model_files(size: int = 100_000, seed: int = 0) -> dict[str, bytes]:
    made = random.Random(seed)  # noqa: S311 - weights, not secrets
    index = {"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}
    return {
        "config.json": b"{}",
        "model.safetensors.index.json": json.dumps(index).encode(),
        SHARDS[0]: made.randbytes(size),
        SHARDS[1]: made.randbytes(size + 1),
    }


def write_files(directory: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)
    return directory


def make_spec(root: Path, files: t.Iterable[File], revision: str = "r1", **changes: t.Any) -> Spec:
    snapshot = Snapshot(revision, "", tuple(files))
    values: dict[str, t.Any] = {
        "slug": SLUG,
        "name": MODEL,
        "source": {"kind": "path", "path": "/nowhere", "in_place": False},
        "selection": EVERYTHING,
        "root": str(root),
        "mount": fetching.mount_of(str(root)),
        "python": sys.executable,
        "environment": {},
        "parallel": 2,
        "snapshots": (snapshot,),
        **changes,
    }
    return Spec(**values)


def write_release(engine_root: Path, name: str, model_path: str, link: str = "") -> None:
    """A release that names a model, and an instance's link to it."""
    directory = engine_root / "releases" / name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "manifest.json").write_text(json.dumps({"model_path": model_path}))
    if link:
        instance = engine_root / "instances/0"
        instance.mkdir(parents=True, exist_ok=True)
        (instance / link).unlink(missing_ok=True)
        (instance / link).symlink_to(directory)


class Memory:
    """A source that holds its files, and fails as configured.

    Args:
        files: their content.
        faults: what each next read does instead: ``cut`` ends it half-way, ``wrong`` changes a byte, an exception is
            raised.
    """

    def __init__(self, files: dict[str, bytes], faults: t.Iterable[t.Any] = ()) -> None:
        self._files = files
        self._faults = list(faults)
        self.reads: list[tuple[str, int]] = []

    def read(self, file: File, offset: int) -> t.Iterator[bytes]:
        self.reads.append((file.path, offset))
        fault = self._faults.pop(0) if self._faults else None
        if isinstance(fault, Exception):
            raise fault
        content = self._files[file.path][offset:]
        if fault == "cut":
            content = content[: len(content) // 2]
        if fault == "wrong":
            content = bytes([content[0] ^ 1]) + content[1:]
        for start in range(0, len(content), 1000):
            yield content[start : start + 1000]


class Ranged(RangedSource):
    """A source of ranges that holds its files, and fails as configured.

    Args:
        files: their content.
        faults: what each next read does instead: ``cut`` ends it half-way, ``more`` sends more than was asked for,
            ``wrong`` changes a byte, an exception is raised.
        ranges: at a time.
        range_size: bytes of one.
    """

    def __init__(
        self, files: dict[str, bytes], faults: t.Iterable[t.Any] = (), ranges: int = 4, range_size: int = 10_000
    ) -> None:
        self.ranges = ranges
        self.range_size = range_size
        self._files = files
        self._faults = list(faults)
        self._lock = threading.Lock()
        self.reads: list[tuple[str, int, int]] = []

    def read_range(self, file: File, start: int, end: int) -> t.Iterator[bytes]:
        with self._lock:
            self.reads.append((file.path, start, end))
            fault = self._faults.pop(0) if self._faults else None
        if isinstance(fault, Exception):
            raise fault
        content = self._files[file.path][start:end]
        if fault == "cut":
            content = content[: len(content) // 2]
        if fault == "more":
            content += b"more"
        if fault == "wrong":
            content = bytes([content[0] ^ 1]) + content[1:]
        for offset in range(0, len(content), 1000):
            yield content[offset : offset + 1000]


class Systemd:
    """Stands in for the units: does their work at once, with the same program.

    Attributes:
        said: the calls.
    """

    said: t.ClassVar[list[str]] = []
    source: t.ClassVar[t.Callable[[], Memory | Ranged] | None] = None
    enabled: t.ClassVar[bool] = False
    #: Set by the test: where the module wrote the program and the specs.
    program: t.ClassVar[Path] = Path()
    specs: t.ClassVar[Path] = Path()

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def is_enabled(self) -> bool:
        return Systemd.enabled

    def reload(self) -> None:
        Systemd.said.append("reload")

    def enable(self) -> None:
        Systemd.said.append("enable")
        Systemd.enabled = True

    def fetch(self, slug: str, revision: str, status_path: str) -> None:
        Systemd.said.append(f"fetch {revision}")
        run_directory = str(Path(status_path).parent)
        if Systemd.source is not None:
            spec = fetching.load_spec(str(self.specs), slug)
            # Standard output belongs to the module's result.
            with contextlib.redirect_stdout(io.StringIO()):
                progress = fetching.Progress(spec, spec.wanted, f"{run_directory}.json")
                fetching.Fetch(spec, spec.wanted, Systemd.source, progress).run()
                progress.end("complete")
            return
        directories = ["--spec-directory", str(self.specs), "--run-directory", run_directory]
        command = [sys.executable, str(self.program), *directories, "fetch", slug]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
