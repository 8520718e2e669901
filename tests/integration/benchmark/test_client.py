"""The benchmark client itself, aiperf from its lock, against the stand-in for an engine."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.benchmark import run as benchmark
from ansible_collections.inference.fleet.plugins.module_utils.benchmark.client import MeasuredEndpoint, Scenario
from ansible_collections.inference.fleet.plugins.module_utils.core.processes import start_ticks

from tests.benchmark_client import install_client
from tests.fakes.engine import FakeEngine
from tests.project import ROOT

TOKENIZER = str(ROOT / "lab/model/tiny")
KEY = "sk-engine-0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def program() -> str:
    return install_client()


@pytest.fixture
def engine() -> t.Iterator[FakeEngine]:
    with FakeEngine(key=KEY, first_token=0.02, token=0.002) as running:
        yield running


@pytest.fixture(autouse=True)
def _reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "is_alone", lambda: False)


def measure(program: str, engine: FakeEngine, place: Path, load: Scenario, **changes: t.Any) -> dict[str, t.Any]:
    endpoint = MeasuredEndpoint(engine.url, engine.model, TOKENIZER)
    settings = {"repeats": 1, "request_timeout": 60.0, "timeout": 120.0, "id": "r1", "key": KEY, **changes}
    run = benchmark.BenchmarkRun(program=program, endpoint=endpoint, gpus=[], **settings)
    return benchmark.measure(run, load, str(place / "state.json"))


def prompts(engine: FakeEngine) -> list[list[t.Any]]:
    """The messages of each completion, in the order in which they came."""
    return [body["messages"] for method, path, _key, body in engine.requests if path.endswith("/chat/completions")]


def said(messages: list[t.Any]) -> str:
    return json.dumps(messages)


def test_no_prompt_comes_twice_in_repeats_warm_ups_and_runs(program: str, engine: FakeEngine, tmp_path: Path) -> None:
    load = Scenario("at_4", 4, 8, 4, 40, 8)
    first = measure(program, engine, tmp_path, load, repeats=2)
    assert (first["requests"], first["failed"], first["problem"]) == (16, 0, "")
    assert [one["tokens_per_second"] > 0 for one in first["repeats"]] == [True, True]
    # The stand-in takes 20 ms; what a busy machine adds is open.
    assert all(0.02 <= one["first_token"] < 5 for one in first["repeats"])
    assert all(one["between_tokens"] >= 0.001 for one in first["repeats"])
    measure(program, engine, tmp_path, load, id="r2")
    found = [said(messages) for messages in prompts(engine)]
    assert len(found) == 3 * (8 + 4)
    assert len(set(found)) == len(found)
    # Nor the beginning of one, which is what a cache of prefixes goes by.
    assert len({text[:80] for text in found}) == len(found)
    bodies = [body for _method, path, _key, body in engine.requests if path.endswith("/chat/completions")]
    assert all(body["ignore_eos"] and body["stream"] and body["max_completion_tokens"] == 8 for body in bodies)
    assert not list(tmp_path.glob("inference-benchmark-*"))


def test_a_conversation_carries_what_was_said(program: str, engine: FakeEngine, tmp_path: Path) -> None:
    found = measure(program, engine, tmp_path, Scenario("conversation", 1, 1, 1, 12, 4, turns=5))
    assert (found["requests"], found["failed"]) == (5, 0)
    assert found["repeats"][0]["seconds"] >= 5 * 0.02
    measured = prompts(engine)[5:]
    assert [len(messages) for messages in measured] == [1, 3, 5, 7, 9]
    assert measured[4][:7] == measured[3]


def test_a_document_is_asked_again_and_a_new_one_in_each_repeat(
    program: str, engine: FakeEngine, tmp_path: Path
) -> None:
    load = Scenario("document", 1, 5, 0, 8, 4, document_tokens=200)
    found = measure(program, engine, tmp_path, load, repeats=2)
    assert (found["requests"], found["failed"]) == (10, 0)
    assert set(found["repeats"][0]) >= {"first_asked", "asked_again"}
    documents = [messages[0]["content"] for messages in prompts(engine)]
    assert len(set(documents[:5])) == len(set(documents[5:])) == 1
    assert documents[0] != documents[5]
    assert len(documents[0]) > 400
    assert len({said(messages) for messages in prompts(engine)}) == 10


def test_a_picture_is_sent(program: str, engine: FakeEngine, tmp_path: Path) -> None:
    found = measure(program, engine, tmp_path, Scenario("picture", 1, 2, 1, 12, 4, picture="64x32"))
    pictures = [
        part["image_url"]["url"]
        for messages in prompts(engine)
        for part in messages[0]["content"]
        if part["type"] == "image_url"
    ]
    assert len(set(pictures)) == 3
    assert all(url.startswith("data:image/") for url in pictures)
    assert found["requests"] == 2


def test_a_server_that_refuses_is_the_reason(program: str, engine: FakeEngine, tmp_path: Path) -> None:
    engine.faults.set("status", 500)
    found = measure(program, engine, tmp_path, Scenario("at_1", 1, 2, 0, 12, 4), repeats=3)
    assert found["repeats"] == []
    assert found["failed"] == found["requests"] == 2
    assert found["problem"].startswith("500: ")
    engine.faults.clear()
    wrong = measure(program, engine, tmp_path, Scenario("at_1", 1, 2, 0, 12, 4), key="sk-wrong-0123456789abcdef012345")
    assert wrong["problem"].startswith("401: ")
    assert "sk-wrong-0123456789abcdef012345" not in json.dumps(wrong)


def test_the_key_is_in_no_argument_and_a_stopped_client_leaves_nothing(
    program: str, engine: FakeEngine, tmp_path: Path
) -> None:
    engine.faults.set("hang")
    state = tmp_path / "state.json"
    done: list[dict[str, t.Any]] = []
    load = Scenario("at_2", 2, 4, 0, 12, 4)
    thread = threading.Thread(target=lambda: done.append(measure(program, engine, tmp_path, load)))
    thread.start()
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and not prompts(engine):
        time.sleep(0.1)
    assert prompts(engine), "the client asked nothing"
    leader = json.loads(state.read_text())["pid"]
    shown = subprocess.run(
        ["ps", "-s", str(leader), "-o", "pid=,args="], capture_output=True, text=True, check=True
    ).stdout
    assert "aiperf" in shown
    assert KEY not in shown
    pids = [int(line.split()[0]) for line in shown.splitlines()]
    assert benchmark.stop_left_over(str(state))
    thread.join(60)
    assert [pid for pid in pids if start_ticks(pid) is not None] == []
    assert done[0]["repeats"] == []
