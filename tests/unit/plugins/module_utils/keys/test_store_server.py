"""The key store in AWS over HTTP, used by several processes, some of which are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
import typing as t
import uuid

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.keys import holder, secrets_manager
from ansible_collections.inference.fleet.plugins.modules import api_key

from tests.unit.plugins.at_once import at_once
from tests.unit.plugins.module_utils.keys.aws_store import READS, REGION

fork = multiprocessing.get_context("fork")
Run = t.Callable[..., dict[str, t.Any]]


@pytest.fixture(scope="module")
def server() -> t.Iterator[str]:
    """moto as the lab runs it; its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def run(server: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The real module, with its own store."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "lab")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    defaults = {name: option.get("default") for name, option in api_key.ARGUMENTS.items()}
    where = {"backend": "aws_secretsmanager", "region": REGION, "endpoint_url": server, "prefix": uuid.uuid4().hex}

    def one(state: str, *names: str, **params: t.Any) -> dict[str, t.Any]:
        clients = [{"name": name} for name in names]
        return api_key.run({**defaults, **where, "state": state, "clients": clients, **params}, False, want_diff=True)

    return one


def test_a_rotation_over_http(run: Run) -> None:
    run("present", "a", "b")
    run("pending", "a", rotation_id="r1")
    key = run("read", "a", reveal=True, which="pending")["key"]
    old = run("read", "a", reveal=True)["key"]
    run("finished", overlap="0")
    assert run("read", "a", reveal=True)["key"] == key
    assert run("read", "a", reveal=True, which="previous")["key"] == old
    result = run("completed")
    assert [item["slot"] for item in result["hashes"]] == ["current", "current"]
    assert result["rotation"] is None


def test_of_several_processes_at_once_one_rotates(run: Run) -> None:
    run("present", "a", "b", "c")
    outcomes = at_once("abc", lambda name: run("pending", name))
    (winner,) = [outcome for outcome in outcomes if not outcome.message]
    lost = [outcome.message for outcome in outcomes if outcome is not winner]
    assert all(f"process {winner.pid} at " in message and "That process is at work" in message for message in lost)
    assert sorted(item["slot"] for item in run("read")["hashes"]) == ["current", "current", "current", "pending"]


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_a_process_that_is_killed_is_continued_by_the_next(run: Run, nth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run("present", "a", "b")
    connect = secrets_manager.connect

    def deadly(*options: t.Any) -> t.Any:
        service = connect(*options)
        writes = 0

        def kill(model: t.Any, **_more: t.Any) -> None:
            nonlocal writes
            writes += model.name not in READS
            if writes == nth:
                os.kill(os.getpid(), signal.SIGKILL)

        service._client.meta.events.register("before-call.secretsmanager", kill)
        return service

    def rotate() -> None:
        monkeypatch.setattr(secrets_manager, "connect", deadly)
        run("pending", "a", "b")

    process = fork.Process(target=rotate)
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    before = {item["sha256"] for item in run("read")["hashes"]}
    left = run("read")["rotation"]
    assert (left is None) == (nth <= 2)
    result = run("pending", "a", "b")
    assert before <= {item["sha256"] for item in result["hashes"]}
    assert [client["state"] for client in result["clients"]] == ["pending", "pending"]
    assert result["rotation"]["pid"] == holder.current().pid
    assert left is None or left["id"] == result["rotation"]["id"]
    assert left is None or left["pid"] == process.pid
