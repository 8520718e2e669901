#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""ExecStartPre of an engine's unit, as root: waits until the instance has its weights, its GPUs and its port.

usage: instance_wait.py ROOT INDEX

The instance's own processes have ended by now, so what holds its GPU or port is an orphan or a stranger. A start in
spite of them would fail, again and again; it waits instead, says what is in the way (in the journal for people, in
waiting.json of the unit's runtime directory for programs), and goes on by itself once that is gone. The engine gets
each GPU by its UUID, in the file environment of the unit's runtime directory: an index means the neighbour's GPU as
soon as one of them is lost. An engine that takes numbers only gets those of this moment.

Which UUID an index has is kept in STATE. It is worked out again when the host has none of the GPUs that it had, as
after an EC2 stop and start.

A node of an instance that spans hosts waits for its address in their network, too, and the file environment tells the
engine which interface has it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import typing as t

# This program runs as root: nothing but what site.yml put there may be in the directory of programs.
sys.dont_write_bytecode = True
import waiting  # noqa: E402
from waiting import Waiting  # noqa: E402

STATE = "/var/lib/inference/gpus.json"

# A driver keeps a few hundred MiB of each GPU for itself (609 MiB on an L40S).
ORPHAN_MIB = 1024

# Seconds between two looks, and after which the same is said once more.
LOOK, REPEAT = 2, 60

# A kind of module waiting, and the same for a person.
Obstacle = tuple[str, str]


def main() -> None:
    root, index = sys.argv[1:]
    with open(os.path.join(root, "instances", index, "current", "manifest.json"), encoding="utf-8") as file:
        manifest = json.load(file)
    indexes = [gpu for gpu in manifest["environment"].get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    port = int(manifest["options"]["port"])
    span = manifest.get("span") or {}
    address = span["addresses"][span["rank"]] if span else ""
    weights = [path for path in (manifest["model_path"], manifest.get("draft_path")) if path]
    runtime_directory = os.environ["RUNTIME_DIRECTORY"]
    wait_for(
        lambda: (
            weights_obstacle(weights)
            or (gpu_obstacle(indexes) if indexes else None)
            or port_obstacle(port)
            or (network_obstacle(address) if address else None)
        ),
        runtime_directory,
    )
    environment = {}
    if indexes:
        present = query("--query-gpu=index,uuid")
        known = names_of_gpus(present)
        names = [known[index] for index in indexes]
        if len(names) > 1 and manifest["several_gpus_by"] == "index":
            now = {uuid: index for index, uuid in present}
            names = [now[name] for name in names]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(names)
    if address:
        environment |= dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), interface_of(address))
    if environment:
        write_environment(os.path.join(runtime_directory, "environment"), environment)


def write_environment(path: str, environment: dict[str, str]) -> None:
    """Write what the unit reads. The directory is the engines': a name that they could foresee might be a link."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".environment.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.writelines(f"{name}={value}\n" for name, value in environment.items())
    os.replace(temporary, path)


def wait_for(look: t.Callable[[], Obstacle | None], directory: str) -> None:
    """Return once ``look`` finds nothing in the way; what it finds is printed, and announced in ``directory``."""
    last, since, said_at = ("", ""), 0.0, 0.0
    while True:
        found = look()
        if not found:
            return waiting.withdraw(directory)
        # Memory that grows is the same obstacle.
        same = found[0], re.sub(r"\d+ MiB", "", found[1])
        if same != last:
            last, since = same, time.time()
            said_at = time.monotonic() - REPEAT
        if time.monotonic() - said_at >= REPEAT:
            waiting.announce(directory, Waiting(*found, since))
            print(f"{found[1]}; the start waits", file=sys.stderr, flush=True)
            said_at = time.monotonic()
        time.sleep(LOOK)


def weights_obstacle(paths: list[str]) -> Obstacle | None:
    """Which weights are not there; None for none."""
    for path in paths:
        if not os.path.exists(os.path.join(path, "config.json")):
            return waiting.MODEL_MISSING, f"The model's files are missing at {path}"
    return None


def gpu_obstacle(indexes: list[str]) -> Obstacle | None:
    """What is in the way of its GPUs; None for nothing."""
    try:
        present = query("--query-gpu=index,uuid")
        known = names_of_gpus(present)
        for index in indexes:
            if index not in known:
                there = ", ".join(sorted(known)) or "none"
                return waiting.GPU_LOST, f"GPU {index} is not there: the host has {there}"
            if known[index] not in [uuid for _index, uuid in present]:
                return waiting.GPU_LOST, f"GPU {index} ({known[index]}) is lost: see playbooks/verify_gpu.yml"
        own = [known[index] for index in indexes]
        holders = query("--query-compute-apps=gpu_uuid,pid,process_name")
        for uuid, mib in query("--query-gpu=uuid,memory.used"):
            if uuid in own and mib.isdigit() and int(mib) > ORPHAN_MIB:
                who = ", ".join(f"pid {pid} {name}" for held, pid, name in holders if held == uuid)
                index = indexes[own.index(uuid)]
                text = f"GPU {index} holds {mib} MiB that belong to no engine ({who or 'no living process'})"
                return waiting.GPU_HELD, text
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return waiting.GPU_UNKNOWN, f"nvidia-smi does not answer ({error})"
    return None


def port_obstacle(port: int) -> Obstacle | None:
    """Who listens on the port, whatever the address; None for no process."""
    command = ["ss", "-H", "-l", "-t", "-n", "-p", f"sport = :{port}"]
    listening = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.strip()
    if not listening:
        return None
    who = re.search(r'\(\("(?P<name>[^"]+)",pid=(?P<pid>\d+)', listening)
    return waiting.PORT_HELD, f"Port {port} is taken by {f'pid {who[2]} {who[1]}' if who else 'another process'}"


def network_obstacle(address: str) -> Obstacle | None:
    """What is in the way of a node; None for nothing."""
    if interface_of(address):
        return None
    return waiting.ADDRESS_MISSING, f"No interface has the node's address {address}"


def interface_of(address: str) -> str:
    """The interface that has an address; empty for none."""
    command = ["ip", "-o", "addr", "show", "to", address]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.split()
    return shown[1] if len(shown) > 1 else ""


def names_of_gpus(present: list[list[str]]) -> dict[str, str]:
    """The UUID of each index, as it was when the host's GPUs were first seen."""
    try:
        with open(STATE, encoding="utf-8") as file:
            known: dict[str, str] = json.load(file)
    except (OSError, ValueError):
        known = {}
    now = {index: uuid for index, uuid in present}
    if now and not set(known.values()) & set(now.values()):
        known = now
        os.makedirs(os.path.dirname(STATE), exist_ok=True)
        with open(f"{STATE}.new", "w", encoding="utf-8") as file:
            json.dump(known, file, indent=1)
        os.replace(f"{STATE}.new", STATE)
    return known


def query(what: str) -> list[list[str]]:
    """What nvidia-smi answers, as rows of cells.

    Raises:
        OSError, subprocess.SubprocessError, ValueError: it does not answer.
    """
    command = ["nvidia-smi", what, "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise ValueError((done.stdout + done.stderr).strip().splitlines()[-1:] or "it printed nothing")
    return [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]


if __name__ == "__main__":
    main()
