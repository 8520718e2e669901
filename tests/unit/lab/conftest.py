"""A recorded but not running lab, in the test's own directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import machine
from lab.state import Lab


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """State, cache, home and the machine's records below the test's directory, without this shell's settings."""
    monkeypatch.setattr(machine, "RUN", tmp_path / "run")
    monkeypatch.setenv("INFERENCE_FLEET_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("INFERENCE_FLEET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path


@pytest.fixture
def lab() -> Lab:
    made = Lab("trial", "10.99.0.0/24")
    made.new_host("inference-1", role="inference", ring="canary")
    made.new_host("inference-2", role="inference", ring="stable", engine="sglang")
    made.new_host("gateway-1", role="gateway")
    made.new_host("scratch-1")
    return made
