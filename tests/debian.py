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


def command(name: str) -> list[str]:
    """The words that run a program, as root. An unpacked one sees its package's shared files in their place."""
    found = Path(program(name))
    if not found.is_relative_to(ROOT / ".cache"):
        return [str(found)]
    mount = 'mount -t overlay -o "lowerdir=$1:/usr/share" share /usr/share; shift; exec "$@"'
    return ["unshare", "--mount", "sh", "-ec", mount, "sh", str(found.parents[1] / "share"), str(found)]
