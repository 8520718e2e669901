"""Wheels and locks of the stand-in: the same bytes from the same sources, and uv takes no others."""

from __future__ import annotations

import ast
import base64
import csv
import hashlib
import io
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.module_utils.engines.options import engine_problems
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES

from tests.fakes.standin import wheels
from tests.fakes.toy.toy import ENGINE as TOY
from tests.unit.fakes.runtimes import PYTHON, ROOT, install

VERSION = wheels.VERSIONS["vllm"][0]


def members(wheel: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("engine", sorted(wheels.VERSIONS))
def test_a_wheel_is_the_same_twice_and_its_record_is_right(engine: str) -> None:
    version = wheels.VERSIONS[engine][0]
    wheel = wheels.build(engine, version)
    assert wheel == wheels.build(engine, version)
    files = members(wheel.data)
    record = {
        row[0]: row[1:] for row in csv.reader(files[f"{engine}-{version}.dist-info/RECORD"].decode().splitlines())
    }
    assert set(record) == set(files)
    for name, (digest, size) in record.items():
        if not name.endswith("/RECORD"):
            expected = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest()).rstrip(b"=").decode()
            assert (digest, size) == (f"sha256={expected}", str(len(files[name])))


def test_versions_differ_in_their_content_and_their_locks() -> None:
    first, second = (wheels.build("vllm", version) for version in wheels.VERSIONS["vllm"])
    assert first.data != second.data
    assert first.requirement != second.requirement


@pytest.mark.parametrize("engine", sorted(wheels.VERSIONS))
def test_what_is_shipped_needs_the_standard_library_and_itself(engine: str) -> None:
    for name in wheels.SHIPPED[engine]:
        if not name.endswith(".py"):
            continue
        tree = ast.parse((ROOT / name).read_text(), feature_version=(3, 9))
        for node in ast.walk(tree):
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                found = [f"{node.module}.{alias.name}" for alias in node.names]
            for module in found:
                ours = {f"{module.replace('.', '/')}.py", f"{module.rpartition('.')[0].replace('.', '/')}.py"}
                known = module.split(".")[0] in sys.stdlib_module_names or ours & set(wheels.SHIPPED[engine])
                assert known, f"{name} imports {module}"


def test_wheels_of_other_sources_lie_elsewhere_and_the_same_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = wheels.write_wheels(wheels.build_all(), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(before) == sum(len(versions) for versions in wheels.VERSIONS.values())
    assert wheels.write_wheels(wheels.build_all(), tmp_path) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    monkeypatch.setitem(wheels.MODULES["vllm"], "vllm/__init__.py", "changed = True\n")
    assert wheels.write_wheels(wheels.build_all(), tmp_path) != folder


def test_the_role_takes_its_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, TOY.name, TOY)
    wheels.write_locks(wheels.build_all(), tmp_path, PYTHON, "cpu")
    locks = yaml.safe_load((tmp_path / "locks.yml").read_text())
    for engine, version in [(engine, version) for engine, versions in wheels.VERSIONS.items() for version in versions]:
        assert engine_problems({}, engine, version, "cpu", locks) == []
        lock = f"{engine}-{version}-cpu"
        assert locks[lock]["python"] == PYTHON
        assert (tmp_path / f"{lock}.txt").read_text().count("--hash=sha256:") == 1
    assert "Valid are: none" in engine_problems({}, "vllm", VERSION, "cuda", locks)[0]


def test_a_wheel_that_was_changed_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = wheels.build_all()
    folder = wheels.write_wheels(made, tmp_path)
    wheels.write_locks(made, tmp_path / "locks", PYTHON, "cpu")
    monkeypatch.setitem(wheels.MODULES["vllm"], "vllm/__init__.py", "changed = True\n")
    (folder / made[0].name).write_bytes(wheels.build("vllm", VERSION).data)
    done = install(tmp_path / "runtime", folder, tmp_path / "locks" / f"{made[0].lock_name('cpu')}.txt")
    assert done.returncode != 0
    assert "Hash mismatch" in done.stderr
