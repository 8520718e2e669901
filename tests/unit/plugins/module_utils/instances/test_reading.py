"""What a start reads is read before, where there is room and time, and only what is not in memory."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.instances.reading import (
    FileToRead,
    choose,
    files_of,
    read_ahead,
)
from ansible_collections.inference.fleet.plugins.module_utils.instances.releases import Releases

from tests.page_cache import drop

MIB = 1 << 20
AMPLE = 1 << 40


class Host:
    """A host whose instance 0 runs release ``old`` and is to start ``new``.

    Args:
        place: a directory.
    """

    def __init__(self, place: Path) -> None:
        self.root = place / "opt"
        self.model = place / "models/tiny"
        self.draft = place / "models/draft"
        for name, runtime in (("one", 1), ("two", 2)):
            packages = self.root / f"runtimes/{name}/lib/python3.12/site-packages/engine"
            self.write(packages / "__pycache__/core.cpython-312.pyc", runtime)
            self.write(packages / "libcore.so", runtime)
            self.write(packages / "libtorch.so.2", runtime)
            self.write(packages / "core.py", runtime)
            self.write(packages / "include/core.h", runtime)
        self.write(self.model / "model.safetensors", 3)
        self.write(self.draft / "model.safetensors", 1)
        # Another name for the same weights.
        (self.model / "again.safetensors").symlink_to("model.safetensors")
        self.release("old", "one")
        self.release("new", "one")
        (self.root / "instances/0").mkdir(parents=True)
        (self.root / "instances/0/current").symlink_to("../../releases/old")

    @staticmethod
    def write(path: Path, mib: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(mib * MIB))

    def release(self, name: str, runtime: str, draft: bool = False) -> None:
        place = self.root / "releases" / name
        place.mkdir(parents=True, exist_ok=True)
        (place / "runtime").unlink(missing_ok=True)
        (place / "runtime").symlink_to(f"../../runtimes/{runtime}")
        paths = {"model_path": str(self.model), "draft_path": str(self.draft) if draft else ""}
        (place / "manifest.json").write_text(json.dumps({"engine": "vllm", "runtime": runtime, **paths}))

    def files(self) -> list[FileToRead]:
        return files_of(Releases(str(self.root)), 0, "new")

    def names(self) -> list[str]:
        return [Path(file.path).name for file in self.files()]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    drop(tmp_path)
    return host


def test_a_restart_reads_bytecode_and_weights(host: Host) -> None:
    assert host.names() == ["core.cpython-312.pyc", "again.safetensors"]


def test_another_runtime_is_read_with_its_libraries(host: Host) -> None:
    host.release("new", "two")
    assert host.names() == ["core.cpython-312.pyc", "again.safetensors", "libcore.so", "libtorch.so.2"]


def test_the_draft_model_is_read(host: Host) -> None:
    host.release("new", "one", draft=True)
    assert host.names() == ["core.cpython-312.pyc", "again.safetensors", "model.safetensors"]


def test_a_first_start_reads_its_libraries(host: Host) -> None:
    (host.root / "instances/0/current").unlink()
    assert "libcore.so" in host.names()


def test_what_is_not_in_memory_is_read_once(host: Host) -> None:
    first = read_ahead(host.files(), AMPLE, 0, 60)
    assert (first.present, first.read, first.left) == (0, 4 * MIB, 0)
    again = read_ahead(host.files(), AMPLE, 0, 60)
    assert (again.present, again.read, again.left) == (4 * MIB, 0, 0)


def test_a_dry_run_reads_nothing(host: Host) -> None:
    assert read_ahead(host.files(), AMPLE, 0, 60, dry_run=True).left == 4 * MIB
    assert sum(file.present for file in host.files()) == 0


def test_without_time_nothing_is_read(host: Host) -> None:
    result = read_ahead(host.files(), AMPLE, 0, 0)
    assert (result.read, result.left) == (0, 4 * MIB)


def test_only_what_there_is_room_for_is_read(host: Host) -> None:
    result = read_ahead(host.files(), 5 * MIB, 3 * MIB, 60)
    assert (result.read, result.left) == (MIB, 3 * MIB)
    assert [file.missing for file in host.files()] == [0, 3 * MIB]


def test_a_file_that_disappears_is_left_out(host: Host) -> None:
    files = host.files()
    (host.model / "model.safetensors").unlink()
    result = read_ahead(files, AMPLE, 0, 60)
    assert (result.read, result.left) == (MIB, 3 * MIB)
    assert host.names() == ["core.cpython-312.pyc"]


@pytest.mark.parametrize(
    ("available", "chosen"),
    [
        (100, ["weights", "library"]),
        # What is in memory for the start already is no room.
        (89, ["weights"]),
        (69, ["library"]),
        (30, []),
        (0, []),
    ],
)
def test_room_is_given_in_the_order_in_which_files_matter(available: int, chosen: list[str]) -> None:
    files = [FileToRead("bytecode", 10, 10), FileToRead("weights", 60, 20), FileToRead("library", 30, 10)]
    assert [file.path for file in choose(files, available, 0)] == chosen
    assert choose(files, available, available) == []
