"""Programs of Debian's packages: installed, or unpacked by script/test where installed ones would start services."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def program(name: str) -> str:
    """The path of a program. Without it the test is skipped."""
    unpacked = sorted((ROOT / ".cache" / "debian").glob(f"*/usr/bin/{name}"))
    found = shutil.which(name) or (str(unpacked[0]) if unpacked else None)
    if not found:
        pytest.skip(f"needs {name}; script/test integration brings it")
    return found
