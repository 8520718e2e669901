"""The stand-in as SGLang: what its parser accepts and refuses, how it starts, what it reports."""

from __future__ import annotations

import json
import signal
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.engines.log import explain
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES

from tests.fakes.standin import wheels
from tests.unit.fakes import runtimes
from tests.unit.fakes.runtimes import KEY, MODEL

VERSION = wheels.VERSIONS["sglang"][0]
GIVEN: dict[str, t.Any] = {
    "served-model-name": MODEL,
    "host": "127.0.0.1",
    "context-length": 2048,
    "max-running-requests": 8,
    "mem-fraction-static": 0.2,
    "device": "cpu",
    "attention-backend": "torch_native",
    "disable-overlap-schedule": True,
    "enable-metrics": True,
    "enable-cache-report": True,
    "log-level": "warning",
}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runtimes.make("sglang", tmp_path_factory.mktemp("sglang"))


def engine(runtime: Path, place: Path, given: dict[str, t.Any] | None = None, **environment: str) -> runtimes.Engine:
    return runtimes.Engine("sglang", runtime, place, {**GIVEN, **(given or {})}, **environment)


# The words are those of the real SGLang 0.5.23 to the same options.
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ""),
        ({"context-length": "8k", "max-queued-requests": 5, "chunked-prefill-size": -1}, ""),
        ({"enable-metrics": False}, ""),
        ({"json-model-override-args": {"a": 1}, "allowed-media-domains": ["a.example", "b.example"]}, ""),
        ({"max-runing-requests": 1}, "does not know the option max-runing-requests (did you mean max-running-requests"),
        ({"max-running-requests": "x"}, "argument --max-running-requests: invalid int value: 'x'"),
        ({"attention-backend": "nope"}, "argument --attention-backend: invalid choice: 'nope'"),
        ({"lora-strict-loading": True}, "'lora_strict_loading' with action 'BooleanOptionalAction'"),
        ({"disable-cuda-graph": True}, "'disable_cuda_graph' with action 'DeprecatedStoreTrueAction'"),
        ({"model-path": None}, "the following arguments are required: --model-path/--model"),
    ],
    ids=str,
)
def test_what_sglang_takes_and_refuses(runtime: Path, tmp_path: Path, given: dict[str, t.Any], words: str) -> None:
    refusal = runtimes.judge("sglang", runtime, tmp_path, {"model-path": "/srv/model", **GIVEN, **given})
    assert (refusal == "") == (words == "")
    assert words in refusal


def test_it_is_healthy_after_a_first_question_of_its_own_and_leaves(runtime: Path, tmp_path: Path) -> None:
    with engine(runtime, tmp_path, {"log-level": "info"}, FAKE_ENGINE_START_SECONDS="3") as fake:
        fake.until(lambda: fake.get("/health")[0] == 503)
        fake.wait()
        assert [model["id"] for model in json.loads(fake.get("/v1/models")[1])["data"]] == [MODEL]
        assert "sglang:num_running_reqs" in fake.get("/metrics")[1]
        assert fake.end(signal.SIGTERM) == 0
    said = [
        "server_args=",
        "Load weight begin.",
        "Multi-thread loading shards:   0% Completed | 0/1 [",
        "Load weight end. elapsed=",
        "KV Cache is allocated.",
        "max_total_num_tokens=8192, ",
        "Application startup complete.",
        "The server is fired up and ready to roll!",
    ]
    places = [fake.journal.find(words) for words in said]
    assert places == sorted(places)
    assert -1 not in places


@pytest.mark.parametrize(("level", "logged"), [("info", True), ("warning", False)])
def test_its_key_is_in_the_journal_unless_the_level_forbids_it(
    runtime: Path, tmp_path: Path, level: str, logged: bool
) -> None:
    with engine(runtime, tmp_path, {"log-level": level}) as fake:
        fake.wait()
        assert (KEY in fake.journal) == logged


def test_metrics_must_be_asked_for(runtime: Path, tmp_path: Path) -> None:
    with engine(runtime, tmp_path, {"enable-metrics": False}) as fake:
        fake.wait()
        assert fake.get("/metrics")[0] == 404


@pytest.mark.parametrize(
    ("given", "environment", "kind"),
    [
        ({"model-path": "/no/such/model"}, {}, "model_missing"),
        ({"context-length": 99999999}, {}, "engine_error"),
        ({}, {"FAKE_ENGINE_START_ERROR": "out_of_memory"}, "out_of_memory"),
        ({}, {"FAKE_ENGINE_REFUSE": "not today"}, "engine_error"),
    ],
)
def test_a_start_that_fails_is_explained(
    runtime: Path, tmp_path: Path, given: dict[str, t.Any], environment: dict[str, str], kind: str
) -> None:
    with engine(runtime, tmp_path, given, **environment) as fake:
        assert fake.end() == 1
        why = explain(fake.journal.splitlines(), ENGINES["sglang"])
        assert why is not None
        assert why.kind == kind


def test_usage_is_said_as_its_options_want_it(runtime: Path, tmp_path: Path) -> None:
    with engine(runtime, tmp_path) as fake:
        fake.wait()
        assert "usage" not in fake.chat()
        reported = fake.chat(**{"X-Fleet-Usage": "always"})
        assert '"choices": []' not in reported
        assert '"cached_tokens": 8' in reported.partition("\n\n: usage ")[2]
    with engine(
        runtime, tmp_path, {"stream-response-default-include-usage": True, "enable-cache-report": False}
    ) as fake:
        fake.wait()
        said = fake.chat()
        assert said.count('"usage": {') == 1
        assert '"choices": [], "usage": {' in said
        assert "cached_tokens" not in said
