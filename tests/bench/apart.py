"""Parts in a process of their own: once Ansible's loader has rendered an edge, other parts cannot be imported."""

from __future__ import annotations

import subprocess
import sys

from tests.project import ROOT


def measure_apart(module: str) -> None:
    """Run a module, whose figures go where the others do.

    Raises:
        SystemExit: it failed.
    """
    done = subprocess.run([sys.executable, "-m", module], cwd=ROOT, stdout=sys.__stdout__, check=False)
    if done.returncode:
        raise SystemExit(f"bench: {module} failed")


def report(part: str, text: str) -> None:
    print(f"{part:9} {text}", flush=True)
