"""The stand-in as an engine that is deployed: what uv installs, what its parser refuses, how it starts and does not."""

from __future__ import annotations

import ast
import base64
import csv
import hashlib
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import typing as t
import zipfile
from pathlib import Path

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.module_utils._engine_log import explain
from ansible_collections.inference.fleet.plugins.module_utils._engines import (
    ENGINES,
    engine_problems,
    explain_refused_options,
    render_config,
)

from tests.fakes.engine import FAULTS
from tests.fakes.standin import faults, options, wheels

ROOT = Path(__file__).resolve().parents[3]
UV = Path(sys.executable).with_name("uv")
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
VERSION = wheels.VERSIONS["vllm"][0]
KEY = "sk-0123456789abcdef"
MODEL = "Qwen/Qwen3-VL-8B-Instruct"


def members(wheel: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def uv(*words: str | Path) -> subprocess.CompletedProcess[str]:
    # An environment of its own: no index of this machine is asked, and no cache of another run.
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "UV_NO_CONFIG": "1"}
    command = [UV, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def install(place: Path, folder: Path, lock: Path) -> subprocess.CompletedProcess[str]:
    """Do with a lock what module engine_runtime does."""
    assert uv("venv", "--quiet", "--python", sys.executable, place).returncode == 0
    find = ("--offline", "--no-cache", "--find-links", folder)
    return uv("pip", "sync", "--quiet", "--python", place / "bin" / "python", "--require-hashes", *find, lock)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runtime as the role makes it: from a lock with hashes, without an index."""
    place = tmp_path_factory.mktemp("standin")
    made = wheels.build_all()
    folder = wheels.write_wheels(made, place / "wheelhouse")
    wheels.write_locks(made, place / "locks", PYTHON, "cpu")
    done = install(place / "runtime", folder, place / "locks" / f"vllm-{VERSION}-cpu.txt")
    assert done.returncode == 0, done.stderr
    return place / "runtime"


def test_a_wheel_is_the_same_twice_and_its_record_is_right() -> None:
    wheel = wheels.build("vllm", VERSION)
    assert wheel == wheels.build("vllm", VERSION)
    files = members(wheel.data)
    record = {row[0]: row[1:] for row in csv.reader(files[f"vllm-{VERSION}.dist-info/RECORD"].decode().splitlines())}
    assert set(record) == set(files)
    for name, (digest, size) in record.items():
        if not name.endswith("/RECORD"):
            wanted = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest()).rstrip(b"=").decode()
            assert (digest, size) == (f"sha256={wanted}", str(len(files[name])))


def test_versions_differ_in_their_content_and_their_locks() -> None:
    first, second = (wheels.build("vllm", version) for version in wheels.VERSIONS["vllm"])
    assert first.data != second.data
    assert first.requirement != second.requirement


def test_what_is_shipped_needs_the_standard_library_and_itself() -> None:
    for name in wheels.SHIPPED["vllm"]:
        if not name.endswith(".py"):
            continue
        tree = ast.parse((ROOT / name).read_text(), feature_version=(3, 9))
        for node in ast.walk(tree):
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                found = [f"{node.module}.{alias.name}" for alias in node.names]
            for module in found:
                ours = {f"{module.replace('.', '/')}.py", f"{module.rpartition('.')[0].replace('.', '/')}.py"}
                known = module.split(".")[0] in sys.stdlib_module_names or ours & set(wheels.SHIPPED["vllm"])
                assert known, f"{name} imports {module}"


def test_wheels_of_other_sources_lie_elsewhere_and_the_same_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = wheels.write_wheels(wheels.build_all(), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(before) == sum(len(versions) for versions in wheels.VERSIONS.values())
    assert wheels.write_wheels(wheels.build_all(), tmp_path) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    monkeypatch.setitem(wheels.MODULES["vllm"], "vllm/__init__.py", "changed = True\n")
    assert wheels.write_wheels(wheels.build_all(), tmp_path) != folder


def test_the_role_takes_its_locks(tmp_path: Path) -> None:
    wheels.write_locks(wheels.build_all(), tmp_path, PYTHON, "cpu")
    locks = yaml.safe_load((tmp_path / "locks.yml").read_text())
    for version in wheels.VERSIONS["vllm"]:
        assert engine_problems({}, "vllm", version, "cpu", locks) == []
        lock = f"vllm-{version}-cpu"
        assert locks[lock]["python"] == PYTHON
        assert (tmp_path / f"{lock}.txt").read_text().count("--hash=sha256:") == 1
    assert "Valid are: none" in engine_problems({}, "vllm", VERSION, "cuda", locks)[0]


def test_a_wheel_that_was_changed_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = wheels.build_all()
    folder = wheels.write_wheels(made, tmp_path)
    wheels.write_locks(made, tmp_path / "locks", PYTHON, "cpu")
    monkeypatch.setitem(wheels.MODULES["vllm"], "vllm/__init__.py", "changed = True\n")
    (folder / made[0].name).write_bytes(wheels.build("vllm", VERSION).data)
    done = install(tmp_path / "runtime", folder, tmp_path / "locks" / f"{made[0].lock_name('cpu')}.txt")
    assert done.returncode != 0
    assert "Hash mismatch" in done.stderr


def test_the_command_tells_its_version(runtime: Path) -> None:
    done = subprocess.run([runtime / "bin" / "vllm", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == VERSION


def judge(runtime: Path, place: Path, given: dict[str, t.Any], **environment: str) -> str:
    """What the role is told of these options; empty when they are taken."""
    config = place / "config.yaml"
    config.write_text(render_config("vllm", given))
    done = subprocess.run(
        [runtime / "bin" / "python", "-c", ENGINES["vllm"].check_program, config],
        env={"PATH": os.environ["PATH"], **environment},
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return ""
    known = json.loads(done.stdout.strip().splitlines()[-1])
    return explain_refused_options("vllm", VERSION, done.stderr, known)


#: As role vllm renders them, in the lab.
RENDERED: dict[str, t.Any] = {
    "model": "/srv/model",
    "served-model-name": [MODEL],
    "host": "127.0.0.1",
    "port": 8100,
    "max-model-len": 2048,
    "gpu-memory-utilization": None,
    "kv-cache-memory-bytes": 67108864,
    "tensor-parallel-size": 1,
    "dtype": "bfloat16",
    "kv-cache-dtype": "auto",
    "quantization": None,
    "max-num-seqs": 8,
    "max-num-batched-tokens": None,
    "max-num-queued-reqs": None,
    "limit-mm-per-prompt": {"image": 4, "video": 1},
    "mm-processor-kwargs": None,
    "mm-processor-cache-gb": 0.1,
    "allowed-media-domains": ["none.invalid"],
    "enforce-eager": True,
    "enable-prefix-caching": True,
    "speculative-config": None,
    "sse-keep-alive-interval": 15,
    "shutdown-timeout": 60,
    "disable-fastapi-docs": True,
    "disable-uvicorn-access-log": True,
}


def test_the_table_has_every_option_that_the_role_renders() -> None:
    variables = yaml.safe_load((ROOT / "roles" / "vllm" / "vars" / "main.yml").read_text())
    known = {name for row in options.table("vllm_options") for name in row["names"]}
    assert {f"--{name}" for name in variables["__vllm_typed_options"]} <= known
    assert {f"--{name}" for name in RENDERED} <= known


def test_what_the_role_renders_is_taken(runtime: Path, tmp_path: Path) -> None:
    assert judge(runtime, tmp_path, RENDERED) == ""


@pytest.mark.parametrize(
    "given",
    [
        {"max-model-len": "auto"},
        {"max-model-len": "8k"},
        {"max-num-batched-tokens": "2k"},
        {"kv-cache-memory-bytes": "1G"},
        {"async-scheduling": False},
        {"enable_chunked_prefill": True},
        {"speculative-config": {"method": "eagle3", "model": "x", "num_speculative_tokens": 3}},
        {"lora-modules": ["a=b", "c=d"]},
        {"stream-interval": 4},
    ],
    ids=str,
)
def test_what_vllm_takes_is_taken(runtime: Path, tmp_path: Path, given: dict[str, t.Any]) -> None:
    assert judge(runtime, tmp_path, {**RENDERED, **given}) == ""


# The words are those of the real vLLM 0.32.0 to the same options.
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max-modle-len": 1}, "does not know the option max-modle-len (did you mean max-model-len or max-log-len?)"),
        ({"no-such": True}, "does not know the option no-such."),
        ({"max-num-seqs": "x"}, "argument --max-num-seqs: invalid int value: 'x'"),
        ({"tensor-parallel-size": 2.5}, "argument --tensor-parallel-size/-tp: invalid int value: '2.5'"),
        ({"max-num-batched-tokens": 1.5}, "argument --max-num-batched-tokens: invalid human_readable_int value: '1.5'"),
        ({"max-num-queued-reqs": "x"}, "Value x cannot be converted to <class 'int'>."),
        ({"dtype": "int3"}, "argument --dtype: invalid choice: 'int3'"),
        ({"compilation-config": 3}, "argument --compilation-config/-cc: Input should be an object"),
        ({"limit-mm-per-prompt": "oops"}, "argument --limit-mm-per-prompt: "),
        ({"model": None}, "No model specified!"),
    ],
    ids=str,
)
def test_what_vllm_refuses_is_refused(runtime: Path, tmp_path: Path, given: dict[str, t.Any], words: str) -> None:
    assert words in judge(runtime, tmp_path, {**RENDERED, **given})


def test_a_refusal_can_be_asked_for(runtime: Path, tmp_path: Path) -> None:
    assert "refuses its arguments: not today" in judge(runtime, tmp_path, RENDERED, FAKE_ENGINE_REFUSE="not today")


def test_a_misspelt_fault_is_refused_before_anything_stops(runtime: Path, tmp_path: Path) -> None:
    told = judge(runtime, tmp_path, RENDERED, FAKE_ENGINE_WRONG_ANSWR="1")
    assert "FAKE_ENGINE_WRONG_ANSWR is no fault; known are start_seconds, " in told


def test_faults_are_read_as_what_they_say() -> None:
    given = faults.from_environment(
        {
            "FAKE_ENGINE_SLOW_TOKEN": "0.5",
            "FAKE_ENGINE_WRONG_ANSWER": "True",
            "FAKE_ENGINE_GARBAGE": "False",
            "FAKE_ENGINE_FINISH_REASON": "abort",
            "FAKE_ENGINE_START_ERROR": "max_model_len",
            "FAKE_ENGINE_START_SECONDS": "3",
            "VLLM_CACHE_ROOT": "/var/cache",
        }
    )
    assert given.start == {"start_error": "max_model_len", "start_seconds": 3}
    assert given.run == {"slow_token": 0.5, "wrong_answer": True, "finish_reason": "abort"}
    assert not set(faults.START) & set(FAULTS)


@pytest.mark.parametrize("name", sorted(faults.START_ERRORS))
def test_every_error_of_a_start_is_explained_by_its_name(name: str) -> None:
    why = explain([faults.start_error(name), "RuntimeError: Engine core initialization failed."])
    assert why is not None
    assert why.kind == name


class Engine:
    """``vllm serve`` in this test, as the unit runs it."""

    def __init__(self, runtime: Path, place: Path, **environment: str) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self.port = int(unused.getsockname()[1])
        self._runtime = runtime
        self._place = place
        self._environment = {"FAKE_ENGINE_START_SECONDS": "0.2", **environment}
        self.log = place / "journal"

    def start(self, **given: t.Any) -> subprocess.Popen[bytes]:
        own = {"port": self.port, "model": str(ROOT / "lab" / "model" / "tiny"), "api-key": [KEY]}
        config = self._place / "config.yaml"
        config.write_text(render_config("vllm", {**RENDERED, **own, **given}))
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [self._runtime / "bin" / "vllm", "serve", "--config", config],
                env={"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", **self._environment},
                cwd=self._place,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

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

    def wait(self) -> None:
        end = time.monotonic() + 20
        while self.get("/health")[0] != 200 and time.monotonic() < end:
            time.sleep(0.02)
        assert self.get("/health")[0] == 200, self.journal


def ended(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(timeout=20)
    finally:
        process.kill()
        process.wait()


def test_it_starts_as_vllm_does_serves_and_leaves(runtime: Path, tmp_path: Path) -> None:
    engine = Engine(runtime, tmp_path, FAKE_ENGINE_START_SECONDS="1.5")
    process = engine.start()
    try:
        end = time.monotonic() + 20
        while "Resolved architecture" not in engine.journal and time.monotonic() < end:
            time.sleep(0.02)
        assert engine.get("/health")[0] == 0
        engine.wait()
        assert json.loads(engine.get("/version")[1]) == {"version": VERSION}
        model = json.loads(engine.get("/v1/models")[1])["data"][0]
        assert (model["id"], model["max_model_len"]) == (MODEL, 2048)
        process.send_signal(signal.SIGTERM)
        assert ended(process) == 0
    finally:
        process.kill()
        process.wait()
    said = [
        f"version {VERSION}",
        "non-default args: {",
        "Resolved architecture: Qwen3VLForConditionalGeneration",
        "Using max model len 2048",
        f"Initializing a V1 LLM engine (v{VERSION}) with config: ",
        "Starting to load model ",
        "Loading safetensors checkpoint shards:   0% Completed | 0/1 [",
        "Loading weights took ",
        "KV cache size: 16,384 tokens",
        "init engine (profile, create kv cache, warmup model) took ",
        "Starting vLLM server on ",
        "Application startup complete.",
        "[shutdown] EngineCore: start mode=drain timeout=60s",
    ]
    places = [engine.journal.find(words) for words in said]
    assert places == sorted(places)
    assert -1 not in places
    assert KEY not in engine.journal


def test_the_environment_of_a_release_decides_how_it_serves(runtime: Path, tmp_path: Path) -> None:
    engine = Engine(runtime, tmp_path, FAKE_ENGINE_WRONG_MODEL="another")
    process = engine.start()
    try:
        engine.wait()
        assert json.loads(engine.get("/v1/models")[1])["data"][0]["id"] == "another"
    finally:
        process.kill()
        process.wait()


def test_it_dies_when_it_was_told_to(runtime: Path, tmp_path: Path) -> None:
    engine = Engine(runtime, tmp_path, FAKE_ENGINE_DIES_AFTER="0.5")
    process = engine.start()
    engine.wait()
    assert ended(process) == 0
    why = explain(engine.journal.splitlines())
    assert why is not None
    assert "illegal memory access" in str(why)


@pytest.mark.parametrize(
    ("given", "environment", "kind"),
    [
        ({"max-model-len": 99999999}, {}, "max_model_len"),
        ({"model": "/no/such/model"}, {}, "model_missing"),
        ({}, {"FAKE_ENGINE_START_ERROR": "out_of_memory"}, "out_of_memory"),
        ({}, {"FAKE_ENGINE_START_ERROR": "nobody has foreseen this"}, "engine_error"),
    ],
)
def test_a_start_that_fails_is_explained(
    runtime: Path, tmp_path: Path, given: dict[str, t.Any], environment: dict[str, str], kind: str
) -> None:
    engine = Engine(runtime, tmp_path, **environment)
    assert ended(engine.start(**given)) == 1
    why = explain(engine.journal.splitlines())
    assert why is not None
    assert why.kind == kind
    assert KEY not in engine.journal


def test_a_port_that_is_taken_is_an_error_at_once(runtime: Path, tmp_path: Path) -> None:
    engine = Engine(runtime, tmp_path, FAKE_ENGINE_START_SECONDS="60")
    with socket.socket() as other:
        other.bind(("127.0.0.1", engine.port))
        other.listen()
        assert ended(engine.start()) == 1
    assert re.search(r"OSError: \[Errno 98\] Address already in use", engine.journal)


def test_a_config_that_is_more_than_the_roles_write_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("# written by hand\nport: 8100\nmodel:\n  name: x\n")
    with pytest.raises(ValueError, match=r"config\.yaml:3 is not 'name: JSON'"):
        options.read_config(str(config))
