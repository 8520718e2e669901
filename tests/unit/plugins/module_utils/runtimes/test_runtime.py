"""The real uv installs a real wheel, built here, into a real virtual environment; no index is used."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.runtimes.runtime import (
    RuntimeSpec,
    install,
    is_complete,
    runtime_id,
)

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def make_wheel(directory: Path) -> str:
    """A wheel with one module; returns its SHA-256."""
    files = {
        "tiny_engine.py": b"ANSWER = 42\n",
        "tiny_engine-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-engine\nVersion: 1.0\n",
        "tiny_engine-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    path = directory / "tiny_engine-1.0-py3-none-any.whl"
    record = ""
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in files.items():
            wheel.writestr(name, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(data)}\n"
        wheel.writestr("tiny_engine-1.0.dist-info/RECORD", record + "tiny_engine-1.0.dist-info/RECORD,,\n")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def spec(tmp_path: Path) -> RuntimeSpec:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    digest = make_wheel(wheels)
    made = RuntimeSpec(
        name="tiny-1.0-cpu",
        root=str(tmp_path / "opt" / "runtimes"),
        lock=f"tiny-engine==1.0 \\\n    --hash=sha256:{digest}\n",
        python=PYTHON,
        uv_requirement="uv",
        environment={
            "UV_OFFLINE": "1",
            "UV_CACHE_DIR": str(tmp_path / "cache"),
            # The interpreter of this test alone: a machine may have others, and shims that lead nowhere.
            "PATH": f"{sys.base_prefix}/bin:/usr/bin:/bin",
            "UV_PYTHON_DOWNLOADS": "never",
        },
        find_links=[str(wheels)],
        min_free_bytes=0,
        compile_bytecode=True,
    )
    os.makedirs(os.path.dirname(made.uv))
    os.symlink(Path(sys.prefix) / "bin" / "uv", made.uv)
    return made


def test_a_runtime_runs_what_its_lock_names(spec: RuntimeSpec) -> None:
    actions = install(spec)
    assert actions[-1] == "install 1 packages"
    python = os.path.join(spec.path, "bin", "python")
    done = subprocess.run(
        [python, "-c", "import tiny_engine; print(tiny_engine.ANSWER)"], capture_output=True, check=True
    )
    assert done.stdout == b"42\n"
    assert list(Path(spec.path).rglob("__pycache__/tiny_engine*.pyc"))


def test_a_complete_runtime_is_left_alone(spec: RuntimeSpec) -> None:
    install(spec)
    assert install(dataclasses.replace(spec, find_links=["/nonexistent"])) == []


def test_half_an_installation_is_not_a_runtime_and_is_taken_up_again(spec: RuntimeSpec) -> None:
    install(spec)
    os.unlink(os.path.join(spec.path, ".complete.json"))
    assert not is_complete(spec.path)
    assert install(spec)
    assert is_complete(spec.path)


def test_a_package_with_another_hash_is_refused(spec: RuntimeSpec) -> None:
    wrong = dataclasses.replace(spec, lock=f"tiny-engine==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    with pytest.raises(FleetError, match="is not the one in the lock: check the mirror"):
        install(wrong)
    assert not is_complete(wrong.path)


def test_a_disk_that_is_too_small_is_refused_with_the_figures(spec: RuntimeSpec) -> None:
    with pytest.raises(FleetError, match=r"has [\d.]+ GiB free and it needs 1024\.0 GiB"):
        install(dataclasses.replace(spec, min_free_bytes=1024**4))


def test_a_python_that_is_not_installed_is_named(spec: RuntimeSpec) -> None:
    with pytest.raises(FleetError, match=r"no Python 3\.99"):
        install(dataclasses.replace(spec, python="3.99"))


def test_the_name_follows_the_content() -> None:
    names = {runtime_id("v", "a", "3.12"), runtime_id("v", "b", "3.12"), runtime_id("v", "a", "3.11")}
    assert len(names) == 3


def closed_to_others(runtime: str) -> list[str]:
    """What the engines' user could not read or enter."""
    return [
        str(path)
        for path in [Path(runtime), *Path(runtime).rglob("*")]
        if not path.is_symlink() and path.stat().st_mode & 0o044 != 0o044
    ]


def test_the_engines_user_can_read_a_runtime_that_was_installed_under_a_strict_umask(spec: RuntimeSpec) -> None:
    before = os.umask(0o077)
    try:
        install(spec)
        # A cache that an earlier run has filled with unreadable files is linked into the next runtime.
        for path in Path(spec.environment["UV_CACHE_DIR"]).rglob("*"):
            path.chmod(path.stat().st_mode & 0o700)
        other = dataclasses.replace(spec, name="tiny-other")
        install(other)
    finally:
        os.umask(before)
    assert closed_to_others(os.path.dirname(spec.root)) == [
        str(path) for path in Path(spec.root).glob(".*") if path.suffix == ".lock"
    ]


def test_a_runtime_that_an_earlier_run_has_left_closed_is_opened_by_the_next(spec: RuntimeSpec) -> None:
    install(spec)
    Path(spec.path, "lib").chmod(0o750)
    Path(spec.path).chmod(0o750)
    assert not is_complete(spec.path)
    assert install(spec)
    assert is_complete(spec.path)
    assert closed_to_others(spec.path) == []
    assert install(spec) == []
