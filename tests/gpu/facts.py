"""The GPUs of this machine as metrics, by the program of inference-facts.service."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from ansible_collections.inference.fleet.plugins.module_utils.core.paths import STATE_DIRECTORY
from ansible_collections.inference.fleet.plugins.module_utils.facts import gpus, look, unit
from ansible_collections.inference.fleet.plugins.module_utils.gpu import smi as queries

from tests.gpu import units
from tests.gpu.hosts import CommandError, Host
from tests.gpu.runs import Run, rows, run_bundle, smi


def facts(run: Run) -> None:
    """What the program writes of the GPUs, and what nvidia-smi says of what it asks."""
    (run.out / "smi-facts.txt").write_text(smi(*queries.gpu_query(gpus.FIELDS)), encoding="utf-8")
    host = Host(run_bundle(run, "vllm-one"), run.sites)
    wanted = {"host": "gpu", "gpus": len(rows("--query-gpu=uuid")), "nvidia_smi": shutil.which("nvidia-smi")}
    done = host.module("edge_facts", tier="inference", **wanted)
    if done.get("failed"):
        raise CommandError(done["msg"])
    service = units.Unit(unit.SERVICE, (units.UNITS / unit.SERVICE).read_text(encoding="utf-8"))
    said = host.command(*shlex.split(service.one("ExecStart")))
    written = Path(STATE_DIRECTORY, "metrics", look.FILE)
    shutil.copy(written, run.out / "facts.prom")
    lines = [line for line in written.read_text(encoding="utf-8").splitlines() if line.startswith("fleet_gpu_")]
    run.note("facts", lines=lines, said=said.splitlines())
