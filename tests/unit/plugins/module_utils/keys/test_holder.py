from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.keys import holder as key_holder
from ansible_collections.inference.fleet.plugins.module_utils.keys.holder import (
    ALIVE,
    GONE,
    MINE,
    UNKNOWN,
    RotationHolder,
)

ROOT = Path(__file__).resolve().parents[5]

# A module in a shell in a worker of Ansible, as ansible-playbook runs it on its own machine.
PLAYBOOK = """
import os, subprocess, sys
print(os.getpid(), flush=True)
if os.fork() == 0:
    sys.exit(subprocess.run(["sh", "-c", "true; $PYTHON -c \\"$MODULE\\"; true"]).returncode)
sys.exit(os.wait()[1] >> 8)
"""
MODULE = """
import dataclasses, json
from ansible_collections.inference.fleet.plugins.module_utils.keys import holder
print(json.dumps(dataclasses.asdict(holder.current())))
"""


@pytest.fixture
def sleeper() -> t.Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def holder(pid: int, **changes: t.Any) -> RotationHolder:
    me = key_holder.current()
    started = key_holder.start_ticks(pid) or 0
    return dataclasses.replace(me, pid=pid, pid_started=started, **changes)


def run(name: str, directory: Path) -> tuple[int, RotationHolder]:
    program = directory / name
    program.write_text(PLAYBOOK)
    paths = os.pathsep.join([str(ROOT / "collections"), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHON": sys.executable, "MODULE": MODULE}
    done = subprocess.run(
        [sys.executable, str(program), "site.yml"], env=environment, capture_output=True, text=True, check=True
    )
    pid, document = done.stdout.splitlines()
    return int(pid), RotationHolder(**json.loads(document))


def test_the_holder_is_the_playbook_and_not_the_task(tmp_path: Path) -> None:
    pid, found = run("ansible-playbook", tmp_path)
    assert found.pid == pid
    assert found.status(key_holder.current()) == GONE


def test_outside_of_ansible_it_is_the_process_itself(tmp_path: Path) -> None:
    pid, found = run("something-else", tmp_path)
    assert found.pid != pid
    assert key_holder.current().pid == os.getpid()


def test_it_says_who_and_where() -> None:
    me = key_holder.current()
    assert me.said == f"{me.by} on {os.uname().nodename}, process {os.getpid()}"
    assert me.boot
    assert me.pid_namespace


def test_a_process_is_mine_or_alive_or_gone(sleeper: subprocess.Popen[bytes]) -> None:
    me = key_holder.current()
    other = holder(sleeper.pid)
    assert key_holder.current().status(me) == MINE
    assert other.status(me) == ALIVE
    # Its number may be another process's by now.
    assert dataclasses.replace(other, pid_started=other.pid_started - 1).status(me) == GONE
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert other.status(me) == GONE
    sleeper.wait()
    assert other.status(me) == GONE


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"boot": "before", "machine": "m"}, GONE),
        ({"boot": "before", "machine": "another"}, UNKNOWN),
        ({"boot": "before", "machine": ""}, UNKNOWN),
        ({"pid_namespace": 1, "machine": "m"}, UNKNOWN),
        ({"boot": "", "machine": "m"}, UNKNOWN),
    ],
)
def test_what_cannot_be_seen_from_here(changes: dict[str, t.Any], status: str) -> None:
    me = dataclasses.replace(key_holder.current(), machine="m")
    assert holder(os.getpid(), **changes).status(me) == status
