"""The benchmark client itself, aiperf from its lock, installed once below .cache."""

from __future__ import annotations

import yaml
from ansible_collections.inference.fleet.plugins.module_utils.runtimes.runtime import RuntimeSpec, install

from tests.project import ROOT

LOCKS = ROOT / "roles/benchmark/files/locks"


def install_client() -> str:
    """Install it as role benchmark does on a host, unless it is there; its program."""
    [(name, lock)] = yaml.safe_load((LOCKS / "locks.yml").read_text()).items()
    spec = RuntimeSpec(
        name=name,
        root=str(ROOT / ".cache/benchmark/runtimes"),
        lock=(LOCKS / f"{name}.txt").read_text(),
        python=lock["python"],
        uv_requirement=(ROOT / "roles/engine/files/uv.txt").read_text(),
        environment={},
        find_links=[],
        min_free_bytes=2 * 1024**3,
        # Each import compiles what it needs, which is a part of it.
        compile_bytecode=False,
    )
    install(spec)
    return f"{spec.path}/bin/aiperf"
