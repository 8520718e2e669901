"""Hosts with recorded GPUs, made by the stand-in for nvidia-smi."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

from ansible_collections.inference.fleet.plugins.module_utils.gpu.host import Sources

ROOT = Path(__file__).parents[5]
FAKE = ROOT / "tests/fakes/nvidia_smi"
SCENARIOS: dict[str, t.Any] = json.loads((ROOT / "tests/unit/fixtures/nvidia/scenarios.json").read_text())


def _fake() -> t.Any:
    """The stand-in as a module; its file has no suffix, as a program has none."""
    loader = importlib.machinery.SourceFileLoader("nvidia_smi", str(FAKE))
    spec = importlib.util.spec_from_loader("nvidia_smi", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def fake_host(root: Path, scenario: str) -> Path:
    """Write the files of a host in ``scenario`` below ``root``, and say where."""
    assert _fake().main(["--fake-root", str(root), scenario]) == 0
    return root / scenario


def fake_nvidia_smi(scenario: str, *words: str) -> str:
    """What nvidia-smi prints in ``scenario``."""
    environment = {**os.environ, "NVIDIA_SMI_SCENARIO": scenario}
    command = [sys.executable, str(FAKE), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def sources(root: Path, timeout: float = 20.0) -> Sources:
    """Where to look on that host."""
    return Sources(
        nvidia_smi=str(root / "nvidia-smi"),
        proc=str(root / "proc"),
        sys=str(root / "sys"),
        library_dirs=(str(root / "lib"),),
        kernel_log=str(root / "kernel.log"),
        timeout=timeout,
    )


def module_arguments(root: Path) -> dict[str, t.Any]:
    """The same for the module gpu_info."""
    return {
        "nvidia_smi": str(root / "nvidia-smi"),
        "proc_root": str(root / "proc"),
        "sys_root": str(root / "sys"),
        "library_dirs": [str(root / "lib")],
        "kernel_log": str(root / "kernel.log"),
    }
