"""The stand-in as vLLM: what its parser accepts and refuses, how it starts, and how a start fails."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.module_utils.engines import log
from ansible_collections.inference.fleet.plugins.module_utils.engines.log import Explanation
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES

from tests.fakes.engine import FAULTS
from tests.fakes.standin import faults, options, wheels
from tests.unit.fakes import runtimes
from tests.unit.fakes.runtimes import KEY, MODEL, ROOT

VERSION = wheels.VERSIONS["vllm"][0]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runtimes.make("vllm", tmp_path_factory.mktemp("vllm"))


def judge(runtime: Path, place: Path, given: dict[str, t.Any], **environment: str) -> str:
    return runtimes.judge("vllm", runtime, place, given, **environment)


def engine(runtime: Path, place: Path, given: dict[str, t.Any] | None = None, **environment: str) -> runtimes.Engine:
    own = {name: value for name, value in RENDERED.items() if name not in ("port", "model")}
    return runtimes.Engine("vllm", runtime, place, {**own, **(given or {})}, **environment)


def explain(text: str) -> Explanation:
    why = log.explain(text.splitlines(), ENGINES["vllm"])
    assert why is not None, text
    return why


def test_the_command_prints_its_version(runtime: Path) -> None:
    done = subprocess.run([runtime / "bin" / "vllm", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == VERSION


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
    "middleware": "request_guard.RequestGuard",
    "enforce-eager": True,
    "enable-prefix-caching": True,
    "enable-prompt-tokens-details": True,
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
    refusal = judge(runtime, tmp_path, RENDERED, FAKE_ENGINE_WRONG_ANSWR="1")
    assert "FAKE_ENGINE_WRONG_ANSWR is no fault; known are start_seconds, " in refusal


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
    assert explain(f"{faults.start_error(name)}\nRuntimeError: Engine core initialization failed.").kind == name


def test_it_starts_as_vllm_does_serves_and_leaves(runtime: Path, tmp_path: Path) -> None:
    with engine(runtime, tmp_path, FAKE_ENGINE_START_SECONDS="1.5") as fake:
        fake.until(lambda: "Resolved architecture" in fake.journal)
        assert fake.get("/health")[0] == 0
        fake.wait()
        assert json.loads(fake.get("/version")[1]) == {"version": VERSION}
        model = json.loads(fake.get("/v1/models")[1])["data"][0]
        assert (model["id"], model["max_model_len"]) == (MODEL, 2048)
        assert fake.end(signal.SIGTERM) == 0
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
    places = [fake.journal.find(words) for words in said]
    assert places == sorted(places)
    assert -1 not in places
    assert KEY not in fake.journal


def test_the_environment_of_a_release_decides_how_it_serves(runtime: Path, tmp_path: Path) -> None:
    with engine(runtime, tmp_path, FAKE_ENGINE_WRONG_MODEL="another") as fake:
        fake.wait()
        assert json.loads(fake.get("/v1/models")[1])["data"][0]["id"] == "another"


def test_it_dies_after_the_configured_time(runtime: Path, tmp_path: Path) -> None:
    with engine(runtime, tmp_path, FAKE_ENGINE_DIES_AFTER="0.5") as fake:
        fake.wait()
        assert fake.end() == 0
        assert "illegal memory access" in str(explain(fake.journal))


@pytest.mark.parametrize(
    ("given", "environment", "kind"),
    [
        ({"max-model-len": 99999999}, {}, "max_model_len"),
        ({"model": "/no/such/model"}, {}, "model_missing"),
        ({}, {"FAKE_ENGINE_START_ERROR": "out_of_memory"}, "out_of_memory"),
        ({}, {"FAKE_ENGINE_START_ERROR": "no rule matches this"}, "engine_error"),
    ],
)
def test_a_start_that_fails_is_explained(
    runtime: Path, tmp_path: Path, given: dict[str, t.Any], environment: dict[str, str], kind: str
) -> None:
    with engine(runtime, tmp_path, given, **environment) as fake:
        assert fake.end() == 1
        assert explain(fake.journal).kind == kind
        assert KEY not in fake.journal


def test_a_port_that_is_taken_is_an_error_at_once(runtime: Path, tmp_path: Path) -> None:
    fake = engine(runtime, tmp_path, FAKE_ENGINE_START_SECONDS="60")
    with socket.socket() as other:
        other.bind(("127.0.0.1", fake.port))
        other.listen()
        with fake:
            assert fake.end() == 1
    assert re.search(r"OSError: \[Errno 98\] Address already in use", fake.journal)


def test_a_config_that_is_more_than_the_roles_write_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("# written by hand\nport: 8100\nmodel:\n  name: x\n")
    with pytest.raises(ValueError, match=r"config\.yaml:3 is not 'name: JSON'"):
        options.read_config(str(config))


def test_usage_is_said_as_its_options_want_it(runtime: Path, tmp_path: Path) -> None:
    with engine(runtime, tmp_path) as fake:
        fake.wait()
        assert "usage" not in fake.chat()
        reported = fake.chat(**{"X-Fleet-Usage": "always"})
        assert '"choices": []' not in reported
        assert re.search(r'\n\n: usage \{.*"cached_tokens": 8\}\}\n\ndata: \[DONE\]\n\n$', reported)
    with engine(runtime, tmp_path, {"enable-force-include-usage": True, "enable-prompt-tokens-details": False}) as fake:
        fake.wait()
        said = fake.chat()
        assert said.count('"usage": {') == said.count("data: {")
        assert '"choices": [], "usage": {' in said
        assert "cached_tokens" not in said


def test_its_pace_and_its_answers_may_depend_on_its_options() -> None:
    pace = {"max_num_batched_tokens": {"4096": 2, "8192": 3}, "max_num_seqs": {"64": 1.5}}
    assert faults.times_as_fast({}, None) == 1
    assert faults.times_as_fast({"max_num_batched_tokens": 4096, "max_num_seqs": 64}, pace) == 3
    assert faults.times_as_fast({"max_num_batched_tokens": None, "max_num_seqs": 32}, pace) == 1
    assert faults.is_wrong({"max_num_batched_tokens": 8192}, {"max_num_batched_tokens": [8192]})
    assert not faults.is_wrong({"max_num_batched_tokens": 4096}, {"max_num_batched_tokens": [8192]})
    assert not faults.is_wrong({}, None)
    given = faults.from_environment(
        {"FAKE_ENGINE_PACE": json.dumps(pace), "FAKE_ENGINE_WRONG_WHERE": '{"max_num_seqs": [64]}'}
    )
    assert given.start == {"pace": pace, "wrong_where": {"max_num_seqs": [64]}}
