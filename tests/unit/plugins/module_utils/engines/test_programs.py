from __future__ import annotations

import sys
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.module_utils.engines.programs import (
    missing_programs,
    wanted_programs,
)

from tests.project import ROOT

VLLM, SGLANG, GATEWAY = {"engine": "vllm"}, {"engine": "sglang"}, {"engine": "litellm"}


def load(path: Path) -> t.Any:
    return yaml.safe_load(path.read_text())


def names(instances: list[dict[str, t.Any]], accelerator: str, packages: t.Collection[str] = ()) -> list[str]:
    return [wanted["program"] for wanted in wanted_programs(instances, accelerator, packages)]


def test_each_engine_needs_what_it_compiles_with() -> None:
    assert names([VLLM, VLLM], "cuda") == ["gcc", "g++", "Python.h"]
    assert names([VLLM, SGLANG], "cuda") == ["gcc", "g++", "Python.h", "nvcc", "ffmpeg"]
    assert names([VLLM, SGLANG], "cpu") == []
    assert names([GATEWAY], "cuda") == []


def test_what_the_default_packages_bring_is_not_asked_for_before_they_are_installed() -> None:
    packages = load(ROOT / "roles/engine/vars/main.yml")["__engine_packages_accelerator"]["cuda"]
    assert names([VLLM], "cuda", packages) == []
    # No distribution has the locks' CUDA.
    assert names([SGLANG], "cuda", packages) == ["nvcc"]
    assert names([VLLM], "cuda", ["libnuma1"]) == ["gcc", "g++", "Python.h"]


def test_the_preflight_counts_on_the_same_packages() -> None:
    packages = load(ROOT / "roles/engine/vars/main.yml")["__engine_packages_accelerator"]["cuda"]
    default = load(ROOT / "roles/preflight/defaults/main.yml")["preflight_engine_packages"]
    assert str(packages) in default


def test_a_missing_compiler_is_reported_with_the_reason_and_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    wanted = wanted_programs([VLLM], "cuda")
    problems = missing_programs(wanted)
    assert len(problems) == 2
    assert problems[0].startswith("The host has no gcc: Triton compiles")
    assert "ends the engine" in problems[0]
    assert "apt-get install build-essential python3-dev" in problems[0]
    for name in ("gcc", "g++"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert missing_programs(wanted) == []


def test_the_header_is_looked_for_where_the_runtimes_python_has_it(tmp_path: Path) -> None:
    wanted = [need for need in wanted_programs([VLLM], "cuda") if need["program"] == "Python.h"]
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho False\n")
    bare.chmod(0o755)
    assert missing_programs(wanted, str(bare))[0].startswith("The host has no Python.h")
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    assert missing_programs(wanted, str(bare)) == []
