"""The program of inference-watchdog.service as hosts run it: real HAProxy with its agent checks, an engine in a process
of its own. Only systemd is replaced, by a program that knows the engine's process; Molecule has the real one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import typing as t
import urllib.request
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy
from ansible_collections.inference.fleet.plugins.module_utils.gate.conduct import asked_of

from tests.integration.edge.conftest import ENGINE_KEY, KEY, Edge, free_port, unstarted_edge
from tests.integration.edge.conftest import eventually as eventually_within
from tests.integration.edge.engine import Recorder
from tests.project import open_directly

ENGINE = Path(__file__).resolve().parents[2] / "fakes" / "engine.py"
MODEL = "tiny"
#: Nothing of this is in any test's way on this machine.
QUICK = {"quiet": 1.5, "confirm": 1.5, "silent": 3, "interval": 0.3, "idle": 0, "pause": 0}

SYSTEMCTL = """#!/bin/sh
# In place of systemd: one unit, whose process the test starts again when it ends.
pid=$(cat {directory}/unit.pid)
case $1 in
show) kill -0 $pid 2> /dev/null && echo ActiveState=active || echo ActiveState=activating
  echo LoadState=loaded; echo SubState=running; echo MainPID=$pid; echo InvocationID=$pid;;
kill) kill -9 $pid;;
esac
"""


def eventually(condition: t.Callable[[], t.Any]) -> None:
    """A busy machine takes longer."""
    eventually_within(condition, seconds=40)


class Unit:
    """The engine's unit: its process, and another one when that ends."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port
        self.starts = 0
        self._ended = threading.Event()
        self._process = self._start()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def set_faults(self, **faults: t.Any) -> None:
        body = json.dumps(faults).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/fake/faults", data=body, method="POST")
        open_directly(request, timeout=10).close()

    def stop(self) -> None:
        self._ended.set()
        # Its process may have ended by itself, and the next one be about to start.
        while self._thread.is_alive():
            self._process.kill()
            self._thread.join(0.1)

    def _start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        process = subprocess.Popen(
            [
                *(sys.executable, str(ENGINE), "--port", str(self.port), "--model", MODEL),
                *("--key-file", str(self.directory / "engine_key.env")),
            ]
        )
        (self.directory / "unit.pid").write_text(str(process.pid))
        return process

    def _keep(self) -> None:
        while True:
            self._process.wait()
            if self._ended.wait(0.5):
                return
            self._process = self._start()


class Watched:
    """An edge with one engine, and the watchdog beside it."""

    def __init__(self, edge: Edge, unit: Unit, port: int) -> None:
        self.edge = edge
        self.unit = unit
        self.log = edge.directory / "watchdog.log"
        self._port = port
        self._program = edge.install_watchdog()
        self._process: subprocess.Popen[bytes] | None = None
        self._write_release()

    def start(self, **options: t.Any) -> None:
        places = {
            "root": self.edge.directory / "root",
            "state": self.edge.directory / "state",
            "config": self.edge.config,
            "record": self.edge.drains,
            "claim": self.edge.directory / "rollout.json",
            "socket": self.edge.socket,
            "master-socket": self.edge.master_socket,
            "key": self.edge.directory / "engine_key.env",
            "port": self._port,
        }
        words = [f"--{name}={value}" for name, value in {**places, **QUICK, **options}.items()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(self._program), *words],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PATH": f"{self.edge.directory}/bin:{os.environ['PATH']}"},
            )

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process:
            self._process.send_signal(number)
            assert self._process.wait(30) in (0, -number)
            self._process = None

    def said(self, text: str) -> bool:
        return text in self.log.read_text()

    def metric(self, name: str) -> float:
        path = self.edge.directory / "state" / "metrics" / "watchdog.prom"
        (line,) = [line for line in path.read_text().splitlines() if line.startswith(f'{name}{{instance="0"}}')]
        return float(line.rpartition(" ")[2])

    def up(self) -> bool:
        (server,) = [one for one in self.edge.servers() if one.backend.startswith("instances_")]
        return server.up

    def ask(self, **options: t.Any) -> int:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], **options}
        return self.edge.status("/v1/chat/completions", KEY, method="POST", body=json.dumps(body))

    def warm_up(self) -> None:
        """Let it finish ten requests, so that it no longer counts as just started, and the watchdog see it well."""
        for _ in range(12):
            assert self.ask() == 200
        eventually(self.is_well)

    def is_well(self) -> bool:
        path = self.edge.directory / "state" / "metrics" / "watchdog.prom"
        return path.exists() and 'fleet_watchdog_verdict{instance="0"} 0' in path.read_text()

    def _write_release(self) -> None:
        current = self.edge.directory / "root" / "instances" / "0" / "current"
        current.mkdir(parents=True)
        (current / "manifest.json").write_text(json.dumps({"engine": "vllm", "served_name": MODEL}))
        gate = self.edge.directory / "state" / "gate"
        gate.mkdir(parents=True)
        asked = asked_of(
            {
                **{"name": "vllm-0", "url": f"http://127.0.0.1:{self.unit.port}", "model": MODEL},
                **{"checks": ["models", "text", "wrong_key"], "expect_text_regex": None, "image_size": 64},
                **{"prompt_text": "What is the capital of France?", "expect_text": ["Paris"]},
                **{"prompt_image": "", "expect_image": {}, "prompt_speed": "", "speed_tokens": 64, "max_tokens": 32},
                **{"timeout": 10, "deadline": 60, "attempts": 2, "max_slowdown": 0, "slowdown_grace_ms": 0},
                **{"min_draft_share": 0.3, "judge_speed": False, "no_cache": False, "health_path": "/health"},
                **{"api_key_file": str(self.edge.directory / "engine_key.env"), "ca_path": None},
                "validate_certs": True,
            }
        )
        (gate / "vllm-0.json").write_text(json.dumps({"passed": True, "asked": asked}))


@pytest.fixture
def watched(tmp_path: Path) -> t.Iterator[Watched]:
    port, engine_port = free_port(), free_port()
    (tmp_path / "bin").mkdir()
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.write_text(SYSTEMCTL.format(directory=tmp_path))
    systemctl.chmod(0o755)
    with unstarted_edge(tmp_path, t.cast(list[Recorder], [])) as edge:
        edge.instance_ports = [engine_port]
        unit = Unit(tmp_path, engine_port)
        world = Watched(edge, unit, port)
        try:
            edge.start(edge_watchdog_port=port, edge_lame_duck=0)
            eventually(world.up)
            yield world
        finally:
            world.stop()
            unit.stop()


class Client(threading.Thread):
    """One request, and the status that it gets."""

    def __init__(self, world: Watched) -> None:
        super().__init__(daemon=True)
        self.world = world
        self.status = 0
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            self.status = self.world.ask()


def test_a_core_that_hangs_with_a_request_is_out_killed_gated_and_back(watched: Watched) -> None:
    watched.start()
    watched.warm_up()
    watched.unit.set_faults(freeze=True)
    client = Client(watched)
    eventually(lambda: not watched.up())
    client.join(30)
    assert client.status in (500, 502, 503)
    eventually(watched.up)
    assert watched.ask() == 200
    assert watched.unit.starts == 2
    eventually(lambda: watched.metric("fleet_watchdog_restarts_total") == 1)
    assert watched.metric("fleet_watchdog_hangs_total") == 1
    (hang,) = (watched.edge.directory / "state" / "hangs").iterdir()
    (request,) = json.loads((hang / "requests.json").read_text())
    assert request["client"] == "team-a"
    assert watched.said("has passed its gate")
    assert ENGINE_KEY not in watched.log.read_text() + "".join(path.read_text() for path in hang.iterdir())


def test_an_http_server_that_hangs_is_found(watched: Watched) -> None:
    watched.start()
    watched.warm_up()
    watched.unit.set_faults(mute=True)
    eventually(lambda: watched.unit.starts == 2)
    eventually(watched.up)
    assert watched.said("Its HTTP server does not answer")


def test_load_and_pauses_are_no_hang(watched: Watched) -> None:
    watched.start()
    watched.warm_up()
    watched.unit.set_faults(slow_first=1.0, slow_token=0.2)
    clients = [Client(watched) for _ in range(8)]
    for client in clients:
        client.join(60)
    assert [client.status for client in clients] == [200] * 8
    watched.unit.set_faults(freeze=True)
    client = Client(watched)
    time.sleep(1)
    watched.unit.set_faults()
    client.join(30)
    assert client.status == 200
    assert watched.unit.starts == 1
    assert watched.up()


def test_a_drained_host_is_left_alone_and_a_drain_is_not_ended(watched: Watched) -> None:
    watched.start()
    watched.warm_up()
    watched.edge.drain(state="drained", by="operator", wait_seconds=0)
    watched.unit.set_faults(freeze=True)
    time.sleep(6)
    assert watched.unit.starts == 1
    assert not watched.edge.healthy()
    watched.unit.set_faults()


def test_the_watchdog_killed_at_the_worst_moment_leaves_nothing_behind(watched: Watched) -> None:
    watched.start()
    watched.warm_up()
    watched.unit.set_faults(freeze=True)
    Client(watched)
    eventually(lambda: watched.said("hangs."))
    watched.stop(signal.SIGKILL)
    watched.start()
    eventually(lambda: watched.unit.starts >= 2 and watched.up() and watched.ask() == 200)


def test_without_a_watchdog_nothing_changes(watched: Watched) -> None:
    assert watched.up()
    assert watched.ask() == 200
    watched.start()
    watched.warm_up()
    watched.stop()
    assert watched.up()
    watched.edge.reload()
    eventually(watched.up)
    assert watched.ask() == 200


def test_a_gate_that_fails_keeps_it_out_and_a_drain_and_undrain_puts_it_back(watched: Watched) -> None:
    gate = watched.edge.directory / "state" / "gate" / "vllm-0.json"
    record = json.loads(gate.read_text())
    record["asked"]["expect_text"] = ["London"]
    gate.write_text(json.dumps(record))
    watched.start()
    watched.warm_up()
    watched.unit.set_faults(freeze=True)
    client = Client(watched)
    eventually(lambda: watched.said("is given up"))
    client.join(30)
    assert not watched.up()
    eventually(lambda: watched.metric("fleet_watchdog_gave_up") == 1)
    assert watched.ask() == 503
    watched.edge.drain(state="drained", by="operator", wait_seconds=0)
    eventually(lambda: watched.said("drained by operator"))
    watched.edge.drain(state="serving", by="operator")
    eventually(watched.up)
    assert watched.ask() == 200


def test_the_agent_says_why_in_haproxys_own_words(watched: Watched) -> None:
    watched.start(most=1, pause=600)
    watched.warm_up()
    watched.unit.set_faults(freeze=True)
    client = Client(watched)

    def row() -> dict[str, str]:
        rows = haproxy.workers(watched.edge.socket, watched.edge.master_socket)[0].statistics()
        (found,) = [one for one in rows if one["pxname"].startswith("instances_") and one["svname"] == "engine-0"]
        return found

    eventually(lambda: "DOWN (agent)" in row()["status"])
    assert any(word in row()["last_agt"] for word in ("hung", "restarted"))
    client.join(30)
