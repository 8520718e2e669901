"""The program before each start of an engine: it waits for weights, GPU and port, and sets the engine's GPUs."""

from __future__ import annotations

import json
import subprocess
import sys
import types
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.instances import waiting
from ansible_collections.inference.fleet.plugins.module_utils.instances.waiting import Waiting

from tests.programs import load

PROGRAM = Path(__file__).parents[3] / "roles/engine/files/instance_wait.py"
UUIDS = ("GPU-a", "GPU-b", "GPU-c")


class Host:
    """A host with an instance 0, its own nvidia-smi and ss, and a clock that its waiting moves."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place = tmp_path
        self.run_directory = tmp_path / "run"
        self.run_directory.mkdir()
        self.bin = tmp_path / "bin"
        self.bin.mkdir()
        self.slept: list[float] = []
        self.announced: list[Waiting | None] = []
        (tmp_path / "model").mkdir()
        self.has_weights()
        monkeypatch.setitem(sys.modules, "waiting", waiting)
        monkeypatch.setenv("INVOCATION_ID", "4f2e")
        self.program = load(PROGRAM)
        monkeypatch.setattr(self.program, "STATE", str(tmp_path / "gpus.json"))
        clock = types.SimpleNamespace(
            sleep=self._sleep, monotonic=lambda: sum(self.slept), time=lambda: 1000 + sum(self.slept)
        )
        monkeypatch.setattr(self.program, "time", clock)
        monkeypatch.setenv("PATH", f"{self.bin}:/usr/bin:/bin")
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(self.run_directory))
        self.changes: list[t.Callable[[], None]] = []
        self._monkeypatch = monkeypatch
        self.has(UUIDS)
        self.listens("")

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.announced.append(waiting.read(str(self.run_directory), "4f2e"))
        assert self.changes, "it waits for something that never comes"
        self.changes.pop(0)()

    def _write(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def has(self, uuids: t.Sequence[str], used: t.Mapping[str, int] | None = None, holders: str = "") -> None:
        """Set these GPUs, in this order."""
        index = "\n".join(f"{number}, {uuid}" for number, uuid in enumerate(uuids))
        memory = "\n".join(f"{uuid}, {(used or {}).get(uuid, 600)}" for uuid in uuids)
        self._write(
            "nvidia-smi",
            f'case $1 in\n--query-gpu=index,uuid) echo "{index}";;\n--query-gpu=uuid,memory.used) echo "{memory}";;\n'
            f'*) echo "{holders}";;\nesac',
        )

    def breaks(self) -> None:
        self._write("nvidia-smi", "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")

    def has_weights(self) -> None:
        (self.place / "model" / "config.json").write_text("{}")

    def has_address(self, address: str) -> None:
        self._write("ip", f"echo '2: ens6    inet {address}/24 scope global ens6'")

    def listens(self, line: str) -> None:
        self._write("ss", f"echo '{line}'" if line else "true")

    def start(self, gpus: str = "", several_gpus_by: str = "uuid", address: str = "") -> str:
        """Run it; return what it passed to the engine."""
        release = self.place / "instances" / "0" / "current"
        release.mkdir(parents=True, exist_ok=True)
        manifest = {
            "model_path": str(self.place / "model"),
            "environment": {"CUDA_VISIBLE_DEVICES": gpus} if gpus else {},
            "options": {"port": 8100},
            "several_gpus_by": several_gpus_by,
            "span": {"rank": 1, "addresses": ["10.0.8.1", address]} if address else {},
        }
        (release / "manifest.json").write_text(json.dumps(manifest))
        self._monkeypatch.setattr(self.program.sys, "argv", ["instance_wait.py", str(self.place), "0"])
        self.program.main()
        assert waiting.read(str(self.run_directory), "4f2e") is None, "a wait that is over is withdrawn"
        written = self.run_directory / "environment"
        return written.read_text() if written.exists() else ""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_gpus_are_given_by_uuid(host: Host) -> None:
    assert host.start("2") == "CUDA_VISIBLE_DEVICES=GPU-c\n"
    assert host.start("0,1") == "CUDA_VISIBLE_DEVICES=GPU-a,GPU-b\n"
    assert host.slept == []


def test_a_link_that_an_engine_has_laid_is_not_followed(host: Host, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("root's")
    (host.run_directory / "environment").symlink_to(other)
    host.has(UUIDS)
    host.start(gpus="1")
    assert other.read_text() == "root's"


def test_an_engine_that_takes_numbers_gets_those_of_this_moment(host: Host) -> None:
    assert host.start("1", "index") == "CUDA_VISIBLE_DEVICES=GPU-b\n", "one GPU has no need of numbers"
    host.has(UUIDS[1:])
    assert host.start("1,2", "index") == "CUDA_VISIBLE_DEVICES=0,1\n"


def test_the_gpu_of_a_neighbour_is_not_taken_for_one_that_is_lost(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.start("1")
    host.has((UUIDS[0], UUIDS[2]))
    host.changes = [lambda: None, lambda: host.has(UUIDS)]
    assert host.start("1") == "CUDA_VISIBLE_DEVICES=GPU-b\n"
    assert "GPU 1 (GPU-b) is lost" in capsys.readouterr().err
    assert [one.kind for one in host.announced if one] == ["gpu_lost"] * 2
    assert len(host.slept) == 2


def test_a_node_gets_the_interface_of_its_network(host: Host) -> None:
    environment = host.start("0", address="127.0.0.1")
    assert environment == "CUDA_VISIBLE_DEVICES=GPU-a\nGLOO_SOCKET_IFNAME=lo\nNCCL_SOCKET_IFNAME=lo\n"


def test_a_node_waits_for_its_address(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.changes = [lambda: host.has_address("10.0.8.2")]
    host.start(address="10.0.8.2")
    assert "No interface has the node's address 10.0.8.2" in capsys.readouterr().err
    assert [one.kind for one in host.announced if one] == ["address_missing"]


def test_another_machine_has_other_gpus(host: Host) -> None:
    """EC2 moves an instance that is stopped and started."""
    host.start("1")
    host.has(("GPU-x", "GPU-y"))
    assert host.start("1") == "CUDA_VISIBLE_DEVICES=GPU-y\n"


def test_it_waits_until_an_orphan_is_gone_and_names_it(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.has(UUIDS, {"GPU-b": 40000}, "GPU-b, 77, python")
    host.changes = [
        lambda: host.has(UUIDS, {"GPU-b": 39000}, "GPU-b, 77, python"),
        lambda: host.has(UUIDS, {"GPU-b": 39000}),
        lambda: host.has(UUIDS, {"GPU-c": 40000}),
    ]
    assert host.start("1") == "CUDA_VISIBLE_DEVICES=GPU-b\n"
    assert capsys.readouterr().err.splitlines() == [
        "GPU 1 holds 40000 MiB that belong to no engine (pid 77 python); the start waits",
        "GPU 1 holds 39000 MiB that belong to no engine (no living process); the start waits",
    ]
    held = "GPU 1 holds 40000 MiB that belong to no engine (pid 77 python)"
    gone = "GPU 1 holds 39000 MiB that belong to no engine (no living process)"
    same = Waiting("gpu_held", held, 1000)
    assert host.announced == [same, same, Waiting("gpu_held", gone, 1004)], "memory that shrinks is the same obstacle"


def test_it_waits_for_weights_and_names_their_directory(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    (host.place / "model" / "config.json").unlink()
    host.changes = [host.has_weights]
    host.start()
    missing = f"The model's files are missing at {host.place / 'model'}"
    assert host.announced == [Waiting("model_missing", missing, 1000)]
    assert capsys.readouterr().err == f"{missing}; the start waits\n"


def test_it_says_so_again_each_minute(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    taken = 'LISTEN 0 5 127.0.0.1:8100 0.0.0.0:* users:(("nc",pid=77,fd=3))'
    host.listens(taken)
    host.changes = [*[lambda: None] * 31, lambda: host.listens("")]
    assert host.start() == ""
    assert capsys.readouterr().err.splitlines() == ["Port 8100 is taken by pid 77 nc; the start waits"] * 2
    assert set(host.announced) == {Waiting("port_held", "Port 8100 is taken by pid 77 nc", 1000)}


def test_a_driver_that_does_not_answer_is_waited_for(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.breaks()
    host.changes = [lambda: host.has(UUIDS)]
    assert host.start("0") == "CUDA_VISIBLE_DEVICES=GPU-a\n"
    assert "Driver/library version mismatch" in capsys.readouterr().err
    assert [one.kind for one in host.announced if one] == ["gpu_unknown"]


def test_a_gpu_that_never_existed_is_reported_with_the_existing_ones(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.changes = [lambda: host.has(("GPU-w", "GPU-x", "GPU-y", "GPU-z"))]
    assert host.start("3") == "CUDA_VISIBLE_DEVICES=GPU-z\n"
    assert "GPU 3 is not there: the host has 0, 1, 2; the start waits" in capsys.readouterr().err


def test_nothing_is_left_beside_the_programs(tmp_path: Path) -> None:
    for path in (PROGRAM, Path(waiting.__file__)):
        (tmp_path / path.name).write_text(path.read_text())
    command = [sys.executable, str(tmp_path / PROGRAM.name), str(tmp_path), "0"]
    # As on a host, whatever the tests' own environment says of compiled files.
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"})
    assert "manifest.json" in done.stderr, "it came past its imports"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["instance_wait.py", "waiting.py"]
