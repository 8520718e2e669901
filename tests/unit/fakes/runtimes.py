"""A runtime with the stand-in, installed as by module engine_runtime, and its use."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import time
import typing as t
from pathlib import Path

from ansible_collections.inference.fleet.plugins.module_utils.engines.base import ALL_KEYS, NOBODYS_KEY
from ansible_collections.inference.fleet.plugins.module_utils.engines.options import (
    explain_refused_options,
    render_config,
)
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES

from tests.fakes.standin import wheels
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[3]
TINY = ROOT / "lab" / "model" / "tiny"
UV = Path(sys.executable).with_name("uv")
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
KEY = "sk-0123456789abcdef"
#: A release's files beside its config.
FILES = (
    ROOT / "roles/engine/files/request_guard.py",
    ROOT / "roles/engine/files/usage_report.py",
    ROOT / "roles/sglang/files/sglang_start.py",
)
#: What names the model's directory.
MODEL_OPTIONS = {"vllm": "model", "sglang": "model-path", "toy": "weights"}
MODEL = "Qwen/Qwen3-VL-8B-Instruct"


def uv(*words: str | Path) -> subprocess.CompletedProcess[str]:
    # A separate environment: no index of this machine is used.
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "UV_NO_CONFIG": "1"}
    return subprocess.run([UV, *words], env=environment, capture_output=True, text=True, check=False)


def install(place: Path, folder: Path, lock: Path) -> subprocess.CompletedProcess[str]:
    """Make a runtime from a lock with hashes, without an index and without what an earlier run has cached."""
    assert uv("venv", "--quiet", "--python", sys.executable, place).returncode == 0
    find = ("--offline", "--no-cache", "--find-links", folder)
    return uv("pip", "sync", "--quiet", "--python", place / "bin" / "python", "--require-hashes", *find, lock)


def make(engine: str, place: Path) -> Path:
    """A runtime with the first version of the stand-in for ``engine``."""
    made = wheels.build_all()
    folder = wheels.write_wheels(made, place / "wheelhouse")
    wheels.write_locks(made, place / "locks", PYTHON, "cpu")
    done = install(place / "runtime", folder, place / "locks" / f"{engine}-{wheels.VERSIONS[engine][0]}-cpu.txt")
    assert done.returncode == 0, done.stderr
    return place / "runtime"


def judge(engine: str, runtime: Path, place: Path, given: dict[str, t.Any], **environment: str) -> str:
    """The error that a role reports for these options, with what it passes to the engine's parser; empty when valid."""
    config = place / "config.yaml"
    config.write_text(render_config(engine, given))
    done = subprocess.run(
        [runtime / "bin" / "python", "-c", ENGINES[engine].launch.check_program, config],
        env={"PATH": os.environ["PATH"], **environment},
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return ""
    known: list[str] = []
    with contextlib.suppress(ValueError, IndexError):
        known = json.loads(done.stdout.strip().splitlines()[-1])
    return explain_refused_options(engine, wheels.VERSIONS[engine][0], done.stderr, known)


class Engine:
    """A stand-in in this test, started as by its unit.

    Args:
        engine: one of wheels.VERSIONS, registered.
        runtime: where it is installed.
        place: for its config and its journal.
        given: its options, without port, model and key.
        environment: of its release.
    """

    def __init__(self, engine: str, runtime: Path, place: Path, given: dict[str, t.Any], **environment: str) -> None:
        self.port = free_port()
        self._engine = engine
        self._runtime = runtime
        self._place = place
        self._given = given
        self._environment = {"FAKE_ENGINE_START_SECONDS": "0.2", **environment}
        self.log = place / "journal"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Engine:
        own = {"port": self.port, MODEL_OPTIONS[self._engine]: str(TINY)}
        kept = ENGINES[self._engine].launch.key_options
        own |= {option: [KEY] if which == ALL_KEYS else KEY for option, which in kept.items() if which != NOBODYS_KEY}
        config = self._place / "config.yaml"
        config.write_text(render_config(self._engine, {**own, **self._given}))
        for file in FILES:
            shutil.copy(file, self._place)
        known = ENGINES[self._engine].launch
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [self._runtime / known.command[0], *known.command[1:], config],
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONUNBUFFERED": "1",
                    "PYTHONPATH": str(self._place),
                    **self._environment,
                },
                cwd=self._place,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self

    def __exit__(self, *_exception: object) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    @property
    def journal(self) -> str:
        return self.log.read_text()

    def get(self, path: str) -> tuple[int, str]:
        """Status and body; 0 where nothing listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {KEY}"})
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def chat(self, **headers: str) -> str:
        """What a streamed answer says whose client did not ask for usage."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "Hello!"}]}
        try:
            sent = {"Authorization": f"Bearer {KEY}", **headers}
            connection.request("POST", "/v1/chat/completions", json.dumps(body), sent)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def wait(self) -> None:
        """Until it is healthy."""
        self.until(lambda: self.get(ENGINES[self._engine].launch.health_path)[0] == 200)

    def until(self, true: t.Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not true():
            assert time.monotonic() < end, self.journal
            time.sleep(0.02)

    def end(self, signal: int | None = None) -> int:
        """The exit status, once it has exited; by a signal, where one is given."""
        assert self.process is not None
        if signal is not None:
            self.process.send_signal(signal)
        return self.process.wait(timeout=20)
