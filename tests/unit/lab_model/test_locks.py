"""The committed engine locks: exact, hashed, free of places, and described."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest
import yaml

from lab.wheels import build

FOLDER = Path(__file__).parents[3] / "roles/vllm/files/locks"
LOCKS: dict[str, dict[str, t.Any]] = yaml.safe_load((FOLDER / "locks.yml").read_text())


def requirements(name: str) -> dict[str, list[str]]:
    """Each ``package==version`` of a lock, with its hashes."""
    found: dict[str, list[str]] = {}
    text = re.sub(r"\\\n\s*", "", (FOLDER / f"{name}.txt").read_text())
    for line in text.splitlines():
        if line and not line.lstrip().startswith("#"):
            requirement, *hashes = line.split()
            found[requirement] = hashes
    return found


def test_every_lock_is_described_and_every_description_has_a_lock() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(LOCKS)
    assert {path.stem for path in FOLDER.glob("*.in")} == set(LOCKS)
    for name, lock in LOCKS.items():
        assert name == f"{lock['engine']}-{lock['version']}-{lock['accelerator']}"
        assert re.fullmatch(r"3\.\d\d", lock["python"])
        assert (lock["accelerator"] == "cuda") == {"cuda", "min_driver"}.issubset(lock)


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_is_exact_hashed_and_names_no_place(name: str) -> None:
    found = requirements(name)
    assert len(found) > 100
    for requirement, hashes in found.items():
        assert re.fullmatch(r"[a-z0-9.-]+==[0-9][A-Za-z0-9.+]*", requirement), requirement
        assert hashes, requirement
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", digest) for digest in hashes), requirement
    text = (FOLDER / f"{name}.txt").read_text()
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_the_engine_that_it_is_named_after(name: str) -> None:
    local = "+cpu" if LOCKS[name]["accelerator"] == "cpu" else ""
    assert f"vllm=={LOCKS[name]['version']}{local}" in requirements(name)


def test_the_cpu_lock_takes_its_wheels_from_the_wheelhouse() -> None:
    found = requirements(f"vllm-{build.VLLM}-cpu")
    for wheel in build.WHEELHOUSE:
        distribution, version = wheel.name.split("-")[:2]
        assert found[f"{distribution}=={version}"] == [f"--hash=sha256:{wheel.sha256}"]
    assert not {"torchaudio", "torchcodec", "triton"} & {requirement.partition("==")[0] for requirement in found}


def test_the_cuda_lock_compiles_with_the_cuda_that_it_runs_on() -> None:
    found = {requirement.partition("==")[0]: requirement.partition("==")[2] for requirement in requirements(
        f"vllm-{build.VLLM}-cuda"
    )}  # fmt: skip
    for package in ("cuda-toolkit", "nvidia-cuda-nvcc", "nvidia-cuda-runtime", "nvidia-cuda-crt", "nvidia-nvvm"):
        assert found[package].startswith(f"{LOCKS[f'vllm-{build.VLLM}-cuda']['cuda']}.")
