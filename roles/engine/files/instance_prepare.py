#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""ExecStartPre of an engine's unit: everything that has to be true before an instance may start.

usage: instance_prepare.py ROOT INDEX

Reads the release under ROOT/instances/INDEX/current and writes to the unit's runtime directory
  config.yaml  the release's config with the engine's key, readable by the service user only
  release      the release's name, so that what runs can be told from what is configured
Leaves with 1 and one line on what to do when the weights are missing or an orphan holds the GPU's memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

# A driver keeps a few hundred MiB of each GPU for itself (609 MiB on an L40S).
ORPHAN_MIB = 1024


def main() -> None:
    root, index = sys.argv[1:]
    release = os.path.realpath(os.path.join(root, "instances", index, "current"))
    with open(os.path.join(release, "manifest.json"), encoding="utf-8") as file:
        manifest = json.load(file)
    check_weights(manifest["model_path"])
    check_gpus(manifest["environment"].get("CUDA_VISIBLE_DEVICES", ""))
    runtime_directory = os.environ["RUNTIME_DIRECTORY"]
    with open(os.path.join(release, "config.yaml"), encoding="utf-8") as file:
        config = file.read()
    write(os.path.join(runtime_directory, "config.yaml"), config + key_option(manifest["engine"]))
    write(os.path.join(runtime_directory, "release"), manifest["release"] + "\n")


def key_option(engine: str) -> str:
    """The engine's key as a line of its config; the key's file is a credential of the unit.

    vLLM takes the next key beside the current one, so that the edge can change over while instances restart one by one.
    """
    with open(os.path.join(os.environ["CREDENTIALS_DIRECTORY"], "engine_key"), encoding="utf-8") as file:
        values = dict(line.split("=", 1) for line in file.read().split() if "=" in line)
    current = values["ENGINE_API_KEY"]
    keys = [key for key in (current, values.get("ENGINE_API_KEY_NEXT")) if key]
    return f"api-key: {json.dumps(keys if engine == 'vllm' else current)}\n"


def write(path: str, content: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)


def check_weights(path: str) -> None:
    if not os.path.exists(os.path.join(path, "config.json")):
        sys.exit(f"model weights are missing at {path}: see `systemctl status inference-models.service`")


def check_gpus(visible: str) -> None:
    """Refuse while a GPU of this instance holds memory: its own process has ended, so whoever holds it is an orphan."""
    if not visible:
        return
    holders = query(visible, "--query-compute-apps=gpu_uuid,pid,process_name")
    for uuid, gpu, mib in query(visible, "--query-gpu=uuid,index,memory.used"):
        if mib.isdigit() and int(mib) > ORPHAN_MIB:
            who = ", ".join(f"pid {pid} {name}" for held, pid, name in holders if held == uuid) or "no living process"
            why = f"GPU {gpu} holds {mib} MiB that belong to no engine ({who})"
            sys.exit(f"{why}; the start is refused until it is free")


def query(gpus: str, what: str) -> list[list[str]]:
    command = ["nvidia-smi", f"--id={gpus}", what, "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {(done.stdout + done.stderr).strip()}; run playbooks/verify_gpu.yml")
    return [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]


if __name__ == "__main__":
    main()
