"""The committed engine locks: exact, hashed, free of places, and described."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest
import yaml

from lab.wheels import build

FOLDERS = sorted((Path(__file__).parents[3] / "roles").glob("*/files/locks"))
LOCKS: dict[str, dict[str, t.Any]] = {}
for folder in FOLDERS:
    LOCKS |= yaml.safe_load((folder / "locks.yml").read_text())


def lock_text(name: str) -> str:
    [path] = [folder / f"{name}.txt" for folder in FOLDERS if (folder / f"{name}.txt").exists()]
    return path.read_text()


def requirements(name: str) -> dict[str, list[str]]:
    """Each ``package==version`` of a lock, with its hashes."""
    found: dict[str, list[str]] = {}
    text = re.sub(r"\\\n\s*", "", lock_text(name))
    for line in text.splitlines():
        if line and not line.lstrip().startswith("#"):
            # A lock for several Pythons says which of them a package is for.
            requirement, *words = line.split()
            found[requirement] = [word for word in words if word.startswith("--")]
    return found


def test_every_lock_is_described_and_every_description_has_a_lock() -> None:
    for suffix in ("txt", "in"):
        assert {path.stem for folder in FOLDERS for path in folder.glob(f"*.{suffix}")} == set(LOCKS)
    for name, lock in LOCKS.items():
        kind = "" if lock["accelerator"] == "any" else f"-{lock['accelerator']}"
        assert name == f"{lock['engine']}-{lock['version']}{kind}"
        assert re.fullmatch(r"(>=)?3\.\d\d", lock["python"])
        assert (lock["accelerator"] == "cuda") == {"cuda", "min_driver"}.issubset(lock)


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_is_exact_hashed_and_names_no_place(name: str) -> None:
    found = requirements(name)
    assert len(found) > 100
    for requirement, hashes in found.items():
        assert re.fullmatch(r"[a-z0-9.-]+==[0-9][A-Za-z0-9.+]*", requirement), requirement
        assert hashes, requirement
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", digest) for digest in hashes), requirement
    text = lock_text(name)
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_the_engine_that_it_is_named_after(name: str) -> None:
    lock = LOCKS[name]
    local = "+cpu" if (lock["engine"], lock["accelerator"]) == ("vllm", "cpu") else ""
    assert f"{lock['engine']}=={lock['version']}{local}" in requirements(name)


def test_the_cpu_locks_take_their_wheels_from_the_wheelhouse() -> None:
    locks = [requirements(name) for name in LOCKS if LOCKS[name]["accelerator"] == "cpu"]
    for wheel in build.WHEELHOUSE:
        distribution, version = wheel.name.split("-")[:2]
        requirement = f"{distribution.replace('_', '-')}=={version}"
        wanting = [lock[requirement] for lock in locks if requirement in lock]
        assert wanting, requirement
        assert all(hashes == [f"--hash=sha256:{wheel.sha256}"] for hashes in wanting)
    for lock in locks:
        packages = {requirement.partition("==")[0] for requirement in lock}
        assert not {"torchaudio", "torchcodec", "flashinfer-python"} & packages
        assert not [package for package in packages if package.startswith(("nvidia-", "cuda-"))]


@pytest.mark.parametrize("name", [name for name in LOCKS if LOCKS[name]["accelerator"] == "cuda"])
def test_a_cuda_lock_compiles_with_the_cuda_that_it_runs_on(name: str) -> None:
    found = dict(requirement.split("==") for requirement in requirements(name))
    for package in ("cuda-toolkit", "nvidia-cuda-nvcc", "nvidia-cuda-runtime", "nvidia-cuda-crt", "nvidia-nvvm"):
        assert found[package].startswith(f"{LOCKS[name]['cuda']}.")
