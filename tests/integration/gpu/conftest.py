"""The bundles of tests/gpu/render.yml, rendered once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import ROOT


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a bundle for each host of tests/gpu/inventory.yml but the variants of profiles."""
    directory = tmp_path_factory.mktemp("bundles")
    words = ["-i", "tests/gpu/inventory.yml", "tests/gpu/render.yml", "-e", f"gpu_bundles={directory}"]
    words += ["--limit", "all:!variants"]
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory
