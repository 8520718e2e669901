"""An instance that spans hosts starts and exits as one: the real program, with small programs for the engine.

Each node has a loopback address of its own, so that nodes here meet as they do between hosts.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.instances import waiting

SHARED = Path(__file__).parents[3] / "plugins/module_utils"
# On a host they are beside the program.
HELPERS = f"{SHARED / 'net'}:{SHARED / 'instances'}"
PROGRAM = Path(__file__).parents[3] / "roles/engine/files/instance_run.py"

# The program with shorter times.
QUICK = """
import importlib.util, sys
sys.path[:0] = sys.argv.pop(1).split(":")
spec = importlib.util.spec_from_file_location("instance_run", sys.argv.pop(1))
program = sys.modules["instance_run"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(program)
program.ALIVE, program.SILENCE, program.RETRY, program.GRACE = 0.2, 3.0, 0.2, 1.0
program.main()
"""

# Records what happens to it; after SIGTERM it works on for as long as the file says, as in a drain.
ENGINE = """#!{python}
import os, pathlib, signal, subprocess, sys, time
place = pathlib.Path({place!r})
def note(word):
    with open(place / "log", "a") as file:
        file.write(f"{{word}} {{time.monotonic()}}\\n")
def stop(*_):
    note("stopping")
    time.sleep(float((place / "drain").read_text()))
    note("ended")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
child = subprocess.Popen(["sleep", "1000"])
(place / "pids").write_text(f"{{os.getpid()}} {{child.pid}}")
(place / "arguments").write_text(" ".join(sys.argv[1:]))
note("started")
while True:
    time.sleep(1)
"""


class OneNode:
    """A node's files, its program and its engine."""

    def __init__(self, place: Path, rank: int, port: int, names: list[str], agreement: str = "same") -> None:
        self.place = place
        release = place / "instances" / "0" / "current"
        program = release / "runtime" / "bin" / "engine"
        program.parent.mkdir(parents=True)
        program.write_text(ENGINE.format(python=sys.executable, place=str(place)))
        program.chmod(0o755)
        (place / "drain").write_text("0")
        self._manifest = release / "manifest.json"
        self.span: dict[str, t.Any] = {
            "rank": rank,
            "nodes": names,
            "addresses": [f"127.0.0.{number + 11}" for number in range(len(names))],
            "link_port": port,
        }
        self.agreement = agreement
        self.command = ["bin/engine", "--config"]
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        manifest = {
            "command": self.command,
            "files": {"start.py": ""},
            "span": self.span,
            "agreement": self.agreement,
        }
        self._manifest.write_text(json.dumps(manifest))
        self.process = subprocess.Popen(
            [sys.executable, "-c", QUICK, HELPERS, str(PROGRAM), str(self.place), "0"],
            env={**os.environ, "RUNTIME_DIRECTORY": str(self.place), "INVOCATION_ID": "4f2e"},
            stderr=(self.place / "journal").open("a"),
            text=True,
        )

    @property
    def waits(self) -> tuple[str, str] | None:
        """What a module on the host reports that the start waits for."""
        found = waiting.read(str(self.place), "4f2e")
        return (found.kind, found.what) if found else None

    @property
    def journal(self) -> str:
        return (self.place / "journal").read_text() if (self.place / "journal").exists() else ""

    @property
    def log(self) -> list[str]:
        """The state of its engine."""
        path = self.place / "log"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []

    def moment(self, word: str) -> float:
        lines = (self.place / "log").read_text().splitlines()
        return next(float(line.split()[1]) for line in reversed(lines) if line.startswith(word))

    @property
    def engine_pids(self) -> list[int]:
        return [int(pid) for pid in (self.place / "pids").read_text().split()]

    def status(self, within: float = 15) -> int:
        assert self.process
        return self.process.wait(within)

    def signal(self, which: int) -> None:
        assert self.process
        self.process.send_signal(which)

    def kill(self) -> None:
        """A power failure of the host: no more messages."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.engine_pids if (self.place / "pids").exists() else []:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def until(true: t.Callable[[], t.Any], within: float = 15) -> None:
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


@pytest.fixture
def nodes(tmp_path: Path) -> t.Iterator[list[OneNode]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.11", 0))
        port = probe.getsockname()[1]
    names = ["gpu-1", "gpu-2"]
    made = [OneNode(tmp_path / name, rank, port, names) for rank, name in enumerate(names)]
    yield made
    for node in made:
        node.kill()


def started(nodes: list[OneNode]) -> None:
    for node in nodes:
        node.start()
    until(lambda: all(node.log[-1:] == ["started"] for node in nodes))


def test_on_one_host_it_becomes_the_engine(nodes: list[OneNode]) -> None:
    alone = nodes[0]
    alone.span = {}
    alone.start()
    until(lambda: alone.log == ["started"])
    assert alone.process
    assert alone.engine_pids[0] == alone.process.pid
    assert (alone.place / "arguments").read_text() == f"--config {alone.place}/config.yaml"


def test_a_file_of_the_release_is_one_of_its_words(nodes: list[OneNode]) -> None:
    alone = nodes[0]
    alone.span = {}
    alone.command = ["bin/engine", "start.py", "--config"]
    alone.start()
    until(lambda: alone.log == ["started"])
    file = alone.place / "instances" / "0" / "current" / "start.py"
    assert (alone.place / "arguments").read_text() == f"{file} --config {alone.place}/config.yaml"


@pytest.mark.parametrize("first", [0, 1])
def test_no_engine_starts_before_all_nodes_are_there(nodes: list[OneNode], first: int) -> None:
    early, late = nodes[first], nodes[1 - first]
    early.start()
    until(lambda: "the start waits" in early.journal)
    time.sleep(1.5)
    assert early.log == []
    assert early.waits is not None
    assert early.waits[0] == "nodes_missing"
    late.start()
    until(lambda: early.log == late.log == ["started"])
    assert [node.waits for node in nodes] == [None, None]
    assert all("all of gpu-1, gpu-2 are there" in node.journal for node in nodes)


def test_nodes_whose_releases_differ_do_not_start(nodes: list[OneNode]) -> None:
    nodes[1].agreement = "another"
    for node in nodes:
        node.start()
    until(lambda: "gpu-1 has another release; the start waits" in nodes[1].journal)
    until(lambda: "gpu-2 has another release; not there yet: gpu-2;" in nodes[0].journal)
    assert nodes[0].waits == ("release_differs", "gpu-2 has another release; not there yet: gpu-2")
    assert nodes[1].waits == ("release_differs", "gpu-1 has another release")
    assert nodes[0].log == nodes[1].log == []


def test_a_node_that_comes_again_before_the_start_counts_once(nodes: list[OneNode], tmp_path: Path) -> None:
    third = OneNode(tmp_path / "gpu-3", 2, nodes[0].span["link_port"], ["gpu-1", "gpu-2", "gpu-3"])
    for node in nodes:
        node.span.update(nodes=third.span["nodes"], addresses=third.span["addresses"])
        node.start()
    until(lambda: "not there yet: gpu-3;" in nodes[0].journal)
    nodes[1].kill()
    until(lambda: "gpu-2 left; not there yet: gpu-2, gpu-3;" in nodes[0].journal)
    third.start()
    until(lambda: "not there yet: gpu-2; the start waits" in nodes[0].journal.splitlines()[-1])
    assert third.log == []
    nodes[1].start()
    try:
        until(lambda: nodes[0].log == nodes[1].log == third.log == ["started"])
    finally:
        third.kill()


@pytest.mark.parametrize("dying", [0, 1])
def test_an_engine_that_dies_ends_the_instance_on_all_nodes(nodes: list[OneNode], dying: int) -> None:
    started(nodes)
    os.kill(nodes[dying].engine_pids[0], signal.SIGKILL)
    assert [node.status() for node in nodes] == [1, 1]
    assert not any(alive(pid) for node in nodes for pid in node.engine_pids)
    assert f"the engine ended on gpu-{dying + 1} (status -9)" in nodes[1 - dying].journal


@pytest.mark.parametrize("dying", [0, 1])
def test_a_node_that_dies_ends_the_instance_at_once(nodes: list[OneNode], dying: int) -> None:
    nodes[1 - dying].place.joinpath("drain").write_text("1000")
    started(nodes)
    nodes[dying].kill()
    assert nodes[1 - dying].status() == 1
    assert f"gpu-{dying + 1} is gone; the instance ends" in nodes[1 - dying].journal
    assert not any(alive(pid) for pid in nodes[1 - dying].engine_pids)


@pytest.mark.parametrize("silent", [0, 1])
def test_a_node_that_falls_silent_is_gone(nodes: list[OneNode], silent: int) -> None:
    started(nodes)
    nodes[silent].signal(signal.SIGSTOP)
    assert nodes[1 - silent].status(within=30) == 1
    assert f"gpu-{silent + 1} is gone" in nodes[1 - silent].journal


def test_on_stop_the_first_node_finishes_its_work_before_the_others_stop(nodes: list[OneNode]) -> None:
    nodes[0].place.joinpath("drain").write_text("3")
    started(nodes)
    for node in nodes:
        node.signal(signal.SIGTERM)
    assert [node.status() for node in nodes] == [0, 0]
    assert nodes[0].log == ["started", "stopping", "ended"]
    assert nodes[1].moment("stopping") > nodes[0].moment("ended")


def test_a_stop_of_another_node_lets_the_first_finish_too(nodes: list[OneNode]) -> None:
    nodes[0].place.joinpath("drain").write_text("2")
    started(nodes)
    nodes[1].signal(signal.SIGTERM)
    assert nodes[1].status() == 0
    assert nodes[0].status() == 1
    assert nodes[0].log == ["started", "stopping", "ended"]
    assert "gpu-2 was asked to stop" in nodes[0].journal


def test_a_drain_ends_when_a_node_dies_in_it(nodes: list[OneNode]) -> None:
    nodes[0].place.joinpath("drain").write_text("1000")
    started(nodes)
    nodes[0].signal(signal.SIGTERM)
    until(lambda: nodes[0].log[-1] == "stopping")
    nodes[1].kill()
    assert nodes[0].status() == 0
    assert not any(alive(pid) for pid in nodes[0].engine_pids)


def test_it_stops_while_it_waits(nodes: list[OneNode]) -> None:
    for node in nodes[:1]:
        node.start()
    until(lambda: "the start waits" in nodes[0].journal)
    nodes[0].signal(signal.SIGTERM)
    assert nodes[0].status() == 0
    assert not (nodes[0].place / waiting.NAME).exists()


def test_an_address_that_the_node_does_not_have_is_reported(nodes: list[OneNode]) -> None:
    nodes[0].span["addresses"] = ["192.0.2.1", "192.0.2.2"]
    nodes[0].start()
    assert nodes[0].status() == 1
    assert "this node cannot listen on 192.0.2.1" in nodes[0].journal


def test_what_is_not_of_the_instance_is_not_heard(nodes: list[OneNode]) -> None:
    nodes[0].start()
    until(lambda: "the start waits" in nodes[0].journal)
    for words in (b"GET / HTTP/1.1\r\n\r\n", b'{"say": "hello", "rank": 7, "agreement": "same"}\n', b"[]\n"):
        with socket.create_connection(("127.0.0.11", nodes[0].span["link_port"]), timeout=5) as stranger:
            stranger.sendall(words)
            assert stranger.recv(100) == b""
    nodes[1].start()
    until(lambda: nodes[0].log == nodes[1].log == ["started"])


def test_an_engine_asks_itself_past_any_proxy(tmp_path: Path) -> None:
    release = tmp_path / "instances" / "0" / "current"
    (release / "runtime" / "bin").mkdir(parents=True)
    engine = release / "runtime" / "bin" / "engine"
    engine.write_text("#!/bin/sh\necho $no_proxy\n")
    engine.chmod(0o755)
    (release / "manifest.json").write_text(json.dumps({"command": ["bin/engine"], "files": {}, "span": None}))
    environment = {**os.environ, "RUNTIME_DIRECTORY": str(tmp_path), "no_proxy": "a.example", "NO_PROXY": ""}
    ran = subprocess.run(
        [sys.executable, "-c", QUICK, HELPERS, str(PROGRAM), str(tmp_path), "0"],
        env={**environment, "http_proxy": "http://proxy.example:3128"},
        capture_output=True,
        check=True,
        text=True,
    )
    assert ran.stdout.split(",")[:3] == ["a.example", "localhost", "127.0.0.1"]
