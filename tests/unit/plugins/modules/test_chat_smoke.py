"""Every fault of a server fails the gate, for its own reason, within its limits and without showing a key."""

from __future__ import annotations

import functools
import json
import socket
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.keys import fingerprint
from ansible_collections.inference.fleet.plugins.module_utils.gate import conduct
from ansible_collections.inference.fleet.plugins.module_utils.gate.gate import Gate
from ansible_collections.inference.fleet.plugins.module_utils.gate.machine import Machine

from tests.fakes.cache import FakeCache
from tests.fakes.engine import MODEL, FakeEngine
from tests.unit.conftest import Result, RunModule

KEY = "sk-0123456789abcdef0123456789abcdef"


class Smoke(t.Protocol):
    def __call__(self, *, check: bool = False, **options: t.Any) -> Result: ...


@pytest.fixture
def engine() -> t.Iterator[FakeEngine]:
    with FakeEngine(key=KEY) as fake:
        yield fake


class QuietMachine(Machine):
    """A machine that is as fast as the test says."""

    work = 50.0

    def work_ms(self) -> float:
        return self.work

    def load(self) -> dict[str, t.Any]:
        return {"load": 3.25, "processors": 2, "requests": 6}


@pytest.fixture
def machine() -> QuietMachine:
    return QuietMachine()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch, machine: QuietMachine) -> list[float]:
    """The gate's waits between attempts, without real time."""
    waited: list[float] = []
    monkeypatch.setattr(conduct, "Gate", functools.partial(Gate, machine=machine, sleep=waited.append))
    return waited


@pytest.fixture
def smoke(engine: FakeEngine, run_module: RunModule, waits: list[float]) -> Smoke:
    def run(*, check: bool = False, **options: t.Any) -> Result:
        defaults = {"url": engine.url, "model": MODEL, "api_key": KEY, "timeout": 5, "deadline": 30}
        given = {name: value for name, value in {**defaults, **options}.items() if value is not None}
        result = run_module("chat_smoke", given, check=check)
        shown = json.dumps(result, ensure_ascii=False)
        # An option that is a secret is only echoed as VALUE_SPECIFIED_IN_NO_LOG_PARAMETER.
        assert KEY not in shown
        assert KEY[:-4] not in shown
        assert not result.get("changed", False)
        return result

    return run


def check_of(result: Result, name: str) -> dict[str, t.Any]:
    found: dict[str, t.Any] = next(check for check in result["checks"] if check["name"] == name)
    return found


def failures_of(result: Result) -> dict[str, str]:
    return {check["name"]: check["reason"] for check in result["checks"] if not check["passed"]}


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_a_sound_engine_passes(smoke: Smoke, engine: FakeEngine, kind: str) -> None:
    engine.engine = kind
    result = smoke()
    assert not result.get("failed", False), result["msg"]
    assert result["passed"]
    assert [check["name"] for check in result["checks"] if check["passed"]] == [
        "models",
        "text",
        "stream",
        "image",
        "schema",
        "speed",
        "local_files",
        "wrong_key",
        "no_key",
    ]
    assert check_of(result, "text")["evidence"]["answer"] == "Paris"
    assert [s["answer"] for s in check_of(result, "image")["evidence"]["squares"]] == ["Red", "Blue"]
    assert result["figures"]["completion_tokens"] in range(64, 80)
    assert result["figures"]["ttft_ms"] > 0
    assert result["figures"]["tokens_per_second"] > 0
    assert result["attempts"] == 9


def test_what_is_asked_is_what_a_client_asks(smoke: Smoke, engine: FakeEngine) -> None:
    smoke(checks=["models", "text", "stream", "image", "speed", "wrong_key", "no_key"])
    by_path = [(method, path) for method, path, _key, _body in engine.requests]
    assert by_path == [("GET", "/v1/models"), *[("POST", "/v1/chat/completions")] * 7]
    bodies = [body for *_rest, body in engine.requests if body]
    assert all(body["temperature"] == 0 and body["model"] == MODEL for body in bodies)
    assert bodies[1]["stream_options"] == {"include_usage": True}
    assert bodies[2]["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert bodies[4]["max_tokens"] in range(64, 80)
    assert bodies[4]["ignore_eos"] is True
    keys = [key for _method, _path, key, _body in engine.requests]
    assert keys[:6] == [f"Bearer {KEY}"] * 6
    assert keys[6] is not None
    assert keys[6].startswith("Bearer sk-wrong-")
    assert keys[7] is None


# Each fault of the server, the checks that must fail, and a part of the message.
FAULTS: list[tuple[dict[str, t.Any], dict[str, str], str]] = [
    (
        {"garbage": True},
        {"text": "repetition", "stream": "repetition", "image": "repetition", "schema": "no_schema"},
        "it repeats itself",
    ),
    (
        {"wrong_answer": True},
        {"text": "wrong_answer", "stream": "wrong_answer", "image": "wrong_answer", "schema": "no_schema"},
        'the answer "London" with finish_reason stop; expected "Paris"',
    ),
    (
        {"empty": True},
        {"text": "empty", "stream": "empty", "image": "empty", "schema": "no_schema"},
        "an empty answer",
    ),
    ({"cannot": "schema"}, {"schema": "no_schema"}, "expected the JSON string"),
    ({"blind": True}, {"image": "wrong_answer"}, 'for the blue square the answer "Red"'),
    (
        {"finish_reason": "abort"},
        dict.fromkeys(("text", "stream", "image", "schema", "speed"), "finish_reason"),
        "finish_reason abort",
    ),
    ({"no_usage": True}, dict.fromkeys(("text", "stream", "image", "schema", "speed"), "no_usage"), "without usage"),
    ({"wrong_model": "other/model"}, {"models": "model_missing"}, "200 with the models other/model"),
    ({"no_auth": True}, {"wrong_key": "key_accepted", "no_key": "key_accepted"}, "200 with no key; expected 401"),
    ({"reject": True}, {"models": "unauthorized"}, f"401: Unauthorized, to the key {fingerprint(KEY)}"),
    (
        {"status": 500},
        {**dict.fromkeys(("text", "stream", "image", "schema", "speed", "local_files"), "status")},
        "500: the fake is set to fail",
    ),
    (
        {"not_json": True},
        {**dict.fromkeys(("text", "stream", "image", "schema", "speed"), "malformed"), "local_files": "file_opened"},
        "not JSON",
    ),
    ({"not_streaming": True}, {"stream": "malformed", "speed": "malformed"}, "no event stream"),
    ({"truncate": True}, {"stream": "truncated", "speed": "truncated"}, "ended without [DONE] after 2 events"),
    ({"cut": True}, {"stream": "truncated", "speed": "truncated"}, "200, then the connection"),
    ({"stream_error": True}, {"stream": "truncated", "speed": "truncated"}, "EngineCore died"),
]


@pytest.mark.parametrize(("faults", "reasons", "said"), FAULTS, ids=["-".join(faults) for faults, *_rest in FAULTS])
def test_each_fault_fails_the_gate_for_its_own_reason(
    smoke: Smoke, engine: FakeEngine, waits: list[float], faults: dict[str, t.Any], reasons: dict[str, str], said: str
) -> None:
    for name, value in faults.items():
        engine.faults.set(name, value)
    result = smoke()
    assert result["failed"]
    assert not result["passed"]
    assert failures_of(result) == reasons
    assert said in result["msg"]
    assert f"gate ({engine.url})" in result["msg"]
    for name in reasons:
        assert f"{name}: asked " in result["msg"]
        assert check_of(result, name)["try"] in result["msg"]
    # None of these means a server that is not ready yet: a retry would only hide it.
    assert waits == []


def test_sglang_answers_to_any_name_and_still_fails(smoke: Smoke, engine: FakeEngine) -> None:
    engine.engine = "sglang"
    result = smoke(model="other/model")
    assert failures_of(result) == {"models": "model_missing"}


def test_a_wrong_model_name_shows_the_servers_own_words(smoke: Smoke) -> None:
    result = smoke(model="other/model", checks=["text"])
    assert "404: The model `other/model` does not exist." in result["msg"]


def test_a_key_in_a_servers_error_is_not_shown(smoke: Smoke, engine: FakeEngine) -> None:
    engine.faults.set("echo_key")
    result = smoke()
    assert "500: no session for Bearer" in result["msg"]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_server_that_is_not_ready_is_asked_again(
    smoke: Smoke, engine: FakeEngine, waits: list[float], status: int
) -> None:
    engine.faults.set("status", status)
    engine.faults.set("status_times", 2)
    result = smoke()
    assert not result.get("failed", False), result["msg"]
    attempts = check_of(result, "text")["attempts"]
    assert [attempt["reason"] for attempt in attempts] == ["status", "status", None]
    assert f"{status}: the fake is set to fail" in attempts[0]["got"]
    assert waits == [1.0, 2.0]


def test_retries_are_bounded_and_their_reasons_kept(smoke: Smoke, engine: FakeEngine, waits: list[float]) -> None:
    engine.faults.set("status", 503)
    result = smoke(attempts=4, checks=["text"])
    assert [attempt["reason"] for attempt in check_of(result, "text")["attempts"]] == ["status"] * 4
    assert "(4 attempts)" in result["msg"]
    assert len(waits) == 3
    assert len(engine.requests) == 4


def test_retry_after_is_honoured(smoke: Smoke, engine: FakeEngine, waits: list[float]) -> None:
    engine.faults.set("status", 429)
    engine.faults.set("status_times", 1)
    engine.faults.set("retry_after", 7)
    assert not smoke(checks=["text"]).get("failed", False)
    assert waits == [7.0]


def test_a_retry_after_beyond_the_deadline_ends_the_gate(smoke: Smoke, engine: FakeEngine, waits: list[float]) -> None:
    engine.faults.set("status", 503)
    engine.faults.set("retry_after", 3600)
    result = smoke(checks=["text"], deadline=20)
    assert failures_of(result) == {"text": "status"}
    assert waits == []


def test_a_dead_port_fails_and_ends_the_gate(smoke: Smoke, waits: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    result = smoke(url=url)
    assert check_of(result, "models")["reason"] == "unreachable"
    assert "connection refused: nothing listens there" in result["msg"]
    assert "Not asked after that: text, stream, image, schema, speed, local_files, wrong_key, no_key." in result["msg"]
    assert len(result["checks"]) == 1
    assert result["not_asked"] == ["text", "stream", "image", "schema", "speed", "local_files", "wrong_key", "no_key"]
    assert len(waits) == 2


@pytest.mark.parametrize("fault", ["hang", "stall"])
def test_a_server_that_hangs_fails_in_time(smoke: Smoke, engine: FakeEngine, fault: str) -> None:
    engine.faults.set(fault)
    began = time.monotonic()
    result = smoke(checks=["models", "stream", "speed"], timeout=0.3, attempts=2)
    assert time.monotonic() - began < 20
    assert failures_of(result) == {"stream": "timeout"}
    assert result["not_asked"] == ["speed"]
    assert "no whole answer within 0.3 s" in result["msg"]
    # A stream that has begun is not retried.
    assert ("attempts" in check_of(result, "stream")) == (fault == "hang")


def test_the_deadline_holds_for_all_checks_together(smoke: Smoke, engine: FakeEngine) -> None:
    engine.faults.set("hang")
    began = time.monotonic()
    result = smoke(checks=["text", "image"], timeout=60, deadline=0.5, attempts=100)
    assert time.monotonic() - began < 20
    assert failures_of(result) == {"text": "deadline"}
    assert result["not_asked"] == ["image"]
    assert "the deadline of 0.5 s" in result["msg"]


def test_slow_answers_count_against_the_deadline(smoke: Smoke, engine: FakeEngine) -> None:
    engine.faults.set("slow_first", 0.3)
    result = smoke(checks=["text"] * 5, deadline=0.7)
    *passed, last = [check.get("reason") for check in result["checks"]]
    assert (passed, last) == ([None] * len(passed), "deadline")
    # At most two have room before it; on a busy machine fewer.
    assert len(passed) <= 2
    assert result["not_asked"] == ["text"] * (4 - len(passed))


GOOD = {"ttft_ms": 10.0, "tokens_per_second": 10000.0}


def test_a_slow_engine_fails_against_the_last_good_figures(
    smoke: Smoke, engine: FakeEngine, waits: list[float]
) -> None:
    engine.faults.set("slow_first", 0.4)
    engine.faults.set("slow_token", 0.002)
    result = smoke(baseline=GOOD, checks=["speed"], attempts=2, judge_speed=True)
    assert failures_of(result) == {"speed": "slow"}
    assert "times the last good 10 ms" in result["msg"]
    assert "slower than the last good 10000.0" in result["msg"]
    assert len(check_of(result, "speed")["attempts"]) == 2
    assert len(waits) == 1


def test_a_single_slow_measurement_is_made_again(smoke: Smoke, engine: FakeEngine) -> None:
    engine.faults.set("slow_first", 0.6)
    engine.faults.set("slow_times", 1)
    result = smoke(baseline={"ttft_ms": 10.0}, checks=["speed"], judge_speed=True)
    assert not result.get("failed", False), result["msg"]
    assert [attempt["reason"] for attempt in check_of(result, "speed")["attempts"]] == ["slow", None]
    assert result["figures"]["ttft_ms"] < 600


def test_a_slow_machine_does_not_fail_a_good_release(smoke: Smoke, engine: FakeEngine, machine: QuietMachine) -> None:
    good = {"ttft_ms": 100.0, "tokens_per_second": 300.0, "work_ms": 50.0}
    # All of this machine is 8 times slower than before: the engine, and the work beside it.
    engine.faults.set("slow_first", 0.8)
    engine.faults.set("slow_token", 0.02)
    machine.work = 400.0
    result = smoke(baseline=good, checks=["speed"], judge_speed=True)
    assert not result.get("failed", False), result["msg"]
    machine.work = 50.0
    assert failures_of(smoke(baseline=good, checks=["speed"], judge_speed=True, attempts=1)) == {"speed": "slow"}


def test_a_slow_release_is_found_on_a_slow_machine_too(smoke: Smoke, engine: FakeEngine, machine: QuietMachine) -> None:
    engine.faults.set("slow_first", 0.8)
    machine.work = 150.0
    good = {"ttft_ms": 50.0, "tokens_per_second": 300.0, "work_ms": 50.0}
    result = smoke(baseline=good, checks=["speed"], judge_speed=True, attempts=1)
    assert failures_of(result) == {"speed": "slow"}
    assert "(allowed: 6.0 times)" in result["msg"]


def test_through_an_edge_speed_is_recorded_with_the_load_and_not_judged(
    smoke: Smoke, engine: FakeEngine, tmp_path: Path
) -> None:
    path = tmp_path / "edge.json"
    engine.faults.set("slow_first", 0.5)
    result = smoke(record=str(path), baseline={"ttft_ms": 36.0, "tokens_per_second": 60.0})
    assert not result.get("failed", False), result["msg"]
    record = json.loads(path.read_text())
    assert (record["judged"], record["good"]) == (False, None)
    assert record["figures"]["ttft_ms"] > 500
    assert {name: record["figures"][name] for name in ("load", "processors", "requests")} == {
        "load": 3.25,
        "processors": 2,
        "requests": 6,
    }
    assert "at a load of 3.2 on 2 processors with 6 other requests." in result["msg"]


@pytest.mark.parametrize(
    ("kind", "judge_speed", "judged"),
    [("vllm", None, True), ("sglang", None, True), ("litellm", None, False), ("vllm", False, False)],
)
def test_speed_is_judged_at_the_ports_of_engines(
    smoke: Smoke, engine: FakeEngine, kind: str, judge_speed: bool | None, judged: bool
) -> None:
    instance = {"name": f"{kind}-0", "engine": kind, "engine_port": engine.port}
    result = smoke(url=None, instances=[instance], judge_speed=judge_speed, checks=["speed"])
    assert result["targets"][0]["judged"] is judged


@pytest.mark.parametrize("options", [{"max_slowdown": 0}, {"max_slowdown": 100000}])
def test_the_floor_can_be_lowered_and_removed(smoke: Smoke, engine: FakeEngine, options: dict[str, t.Any]) -> None:
    engine.faults.set("slow_first", 0.4)
    assert smoke(baseline=GOOD, checks=["speed"], judge_speed=True)["failed"]
    assert not smoke(baseline=GOOD, checks=["speed"], judge_speed=True, **options).get("failed", False)


def test_an_answer_too_short_to_measure_is_no_figure(smoke: Smoke, engine: FakeEngine) -> None:
    engine.faults.set("no_ignore_eos")
    result = smoke(checks=["speed"], prompt_speed="What is the capital of France?")
    assert failures_of(result) == {"speed": "no_data"}
    assert "1 tokens, too few to measure a rate" in result["msg"]


def test_without_the_check_speed_the_stream_gives_the_figures(smoke: Smoke) -> None:
    result = smoke(checks=["stream"])
    assert result["figures"]["ttft_ms"] > 0
    assert result["figures"]["tokens_per_second"] is None


# --- record and baseline


def test_the_record_keeps_the_last_good_figures(smoke: Smoke, engine: FakeEngine, tmp_path: Path) -> None:
    path = tmp_path / "state" / "gate" / "edge.json"
    first = smoke(record=str(path), judge_speed=True)
    record = json.loads(path.read_text())
    assert record["passed"]
    assert record["good"]["figures"] == first["figures"]
    engine.faults.set("garbage")
    smoke(record=str(path), judge_speed=True)
    after = json.loads(path.read_text())
    assert not after["passed"]
    assert after["good"] == record["good"]
    assert KEY not in path.read_text()


def test_the_record_is_the_baseline_of_the_next_gate(smoke: Smoke, engine: FakeEngine, tmp_path: Path) -> None:
    path = tmp_path / "edge.json"
    smoke(record=str(path), judge_speed=True)
    engine.faults.set("slow_first", 0.5)
    result = smoke(record=str(path), checks=["speed"], attempts=1, judge_speed=True)
    assert failures_of(result) == {"speed": "slow"}
    assert result["good"] == json.loads(path.read_text())["good"]["figures"]


def test_another_model_is_not_compared(smoke: Smoke, engine: FakeEngine, tmp_path: Path) -> None:
    path = tmp_path / "edge.json"
    smoke(record=str(path), judge_speed=True)
    engine.model = "a/larger-one"
    engine.faults.set("slow_first", 0.5)
    result = smoke(record=str(path), model="a/larger-one", checks=["speed"], judge_speed=True)
    assert not result.get("failed", False), result["msg"]


def test_check_mode_asks_and_writes_nothing(smoke: Smoke, engine: FakeEngine, tmp_path: Path) -> None:
    assert smoke(record=str(tmp_path / "gate" / "edge.json"), check=True)["passed"]
    assert list(tmp_path.iterdir()) == []
    engine.faults.set("garbage")
    assert smoke(check=True)["failed"]


def test_a_corrupt_record_is_a_warning_and_replaced(smoke: Smoke, tmp_path: Path) -> None:
    path = tmp_path / "edge.json"
    path.write_text("{")
    result = smoke(record=str(path))
    assert result["passed"]
    assert f"{path} is not valid JSON" in str(result["record_problems"])
    assert json.loads(path.read_text())["passed"]


def test_a_baseline_of_ones_own_has_to_be_readable(smoke: Smoke, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text("{")
    assert f"{path} is not valid JSON" in smoke(baseline=str(path))["msg"]


def test_a_record_that_cannot_be_written_says_nothing_of_the_target(
    smoke: Smoke, engine: FakeEngine, tmp_path: Path
) -> None:
    (tmp_path / "gate").write_text("a file, not a directory")
    result = smoke(record=str(tmp_path / "gate" / "edge.json"))
    assert result["passed"]
    assert "Failed to write the record" in str(result["record_problems"])
    engine.faults.set("garbage")
    assert smoke(record=str(tmp_path / "gate" / "edge.json"))["failed"]


# --- self-test


def test_a_gate_that_fails_as_expected_is_a_success(smoke: Smoke, engine: FakeEngine, tmp_path: Path) -> None:
    result = smoke(
        url=None,
        api_key=None,
        attempts=1,
        expect_failure=True,
        checks=["models", "text"],
        record=str(tmp_path / "never.json"),
        targets=[
            {"name": "wrong key", "url": engine.url, "api_key": "sk-never-made", "expect_reason": "unauthorized"},
            {"name": "wrong model", "url": engine.url, "api_key": KEY, "model": "x", "expect_reason": "model_missing"},
            {"name": "dead port", "url": "http://127.0.0.1:9", "api_key": KEY, "expect_reason": "unreachable"},
        ],
    )
    assert not result.get("failed", False), result["msg"]
    assert [target["passed"] for target in result["targets"]] == [False, False, False]
    assert list(tmp_path.iterdir()) == []


def test_a_gate_that_passes_against_expectation_is_a_failure(smoke: Smoke) -> None:
    result = smoke(expect_failure=True)
    assert result["failed"]
    assert "where it had to fail: it cannot be trusted" in result["msg"]


def test_a_gate_that_fails_for_another_reason_proves_nothing(smoke: Smoke, engine: FakeEngine) -> None:
    engine.faults.set("garbage")
    result = smoke(expect_failure=True, expect_reason="unauthorized")
    assert result["failed"]
    assert "with no_schema, repetition instead of unauthorized, which proves nothing" in result["msg"]


# --- answers out of a cache


def test_every_question_is_a_new_one(smoke: Smoke, engine: FakeEngine) -> None:
    smoke()
    first = {json.dumps(body) for *_rest, body in engine.requests if body}
    engine.requests.clear()
    smoke(no_cache=True)
    second = [body for *_rest, body in engine.requests if body]
    assert not first & {json.dumps(body) for body in second}
    assert all(body["cache"] == {"no-cache": True, "no-store": True} for body in second)
    assert all("cache" not in json.loads(body) for body in first)


@pytest.mark.parametrize("careless", [False, True], ids=["whole request", "careless"])
def test_a_cache_does_not_pass_for_the_engine_behind_it(smoke: Smoke, engine: FakeEngine, careless: bool) -> None:
    with FakeCache(engine.url, KEY, careless=careless) as cache:
        assert smoke(url=cache.url, checks=["models", "text", "stream", "image", "schema", "speed"])["passed"]
        engine.stop()
        result = smoke(url=cache.url, attempts=1)
    assert result["failed"]
    failed = failures_of(result)
    assert failed["schema"] == ("stale" if careless else "status")
    if careless:
        assert cache.hits > 4
        assert "the schema allowed only" in result["msg"]
        assert "a cache answers, and the engine behind it was not asked" in result["msg"]
    else:
        assert failed["text"] == failed["speed"] == "status"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"marks": True}, "out of a cache, as its header x-litellm-cache-key says"),
        ({"aged": 3600.0}, "s before its question (field created)"),
    ],
)
def test_a_cached_answer_is_known_by_its_marks(
    smoke: Smoke, engine: FakeEngine, options: dict[str, t.Any], said: str
) -> None:
    with FakeCache(engine.url, KEY, careless=True, **options) as cache:
        smoke(url=cache.url, checks=["text"])
        result = smoke(url=cache.url, checks=["text"])
    assert result["reason"] == "stale"
    assert said in result["msg"]


def test_an_answer_counts_once(smoke: Smoke, engine: FakeEngine) -> None:
    with FakeCache(engine.url, KEY, careless=True) as cache:
        result = smoke(url=cache.url, checks=["text", "text"])
    assert [check.get("reason") for check in result["checks"]] == [None, "stale"]
    assert "to an earlier question once more" in result["msg"]


def test_an_answer_of_another_length_is_another_questions(smoke: Smoke, engine: FakeEngine) -> None:
    result = smoke(checks=["speed"])
    assert result["passed"]
    with FakeCache(engine.url, KEY, careless=True) as cache:
        smoke(url=cache.url, checks=["speed"], speed_tokens=64)
        result = smoke(url=cache.url, checks=["speed"], speed_tokens=128)
    assert result["reason"] == "stale"
    assert "were asked for" in result["msg"]


@pytest.mark.parametrize("check", ["text", "schema", "image"])
def test_the_gate_shows_that_it_refuses_a_stale_answer(smoke: Smoke, engine: FakeEngine, check: str) -> None:
    target = {"name": "cached", "url": engine.url, "checks": [check, check], "replay": True, "expect_reason": "stale"}
    result = smoke(url=None, expect_failure=True, targets=[target])
    assert not result.get("failed", False), result["msg"]
    del target["replay"]
    assert smoke(url=None, expect_failure=True, targets=[target])["failed"]


# --- capabilities

ALL_CAPABILITIES = ["logprobs", "prompt_logprobs", "sampling", "long_prompt", "tools", "forced_tool"]


def instance_of(engine: FakeEngine) -> dict[str, t.Any]:
    return {"name": f"{engine.engine}-0", "engine": engine.engine, "engine_port": engine.port}


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_a_capable_engine_passes(smoke: Smoke, engine: FakeEngine, kind: str) -> None:
    engine.engine = kind
    engine.max_model_len = 2048
    result = smoke(url=None, instances=[instance_of(engine)], checks=["models", *ALL_CAPABILITIES])
    assert not result.get("failed", False), result["msg"]
    asked = {name: body for name, (*_rest, body) in zip(["models", *ALL_CAPABILITIES], engine.requests)}
    assert asked["logprobs"]["top_logprobs"] == 2
    assert len(asked["long_prompt"]["messages"][0]["content"].split()) == 1025
    assert asked["tools"]["tool_choice"] == "auto"
    assert asked["forced_tool"]["tool_choice"]["function"]["name"] == "paint"


@pytest.mark.parametrize("capability", ["image", "schema", *ALL_CAPABILITIES])
def test_an_engine_that_ends_on_a_request_is_reported(smoke: Smoke, engine: FakeEngine, capability: str) -> None:
    engine.faults.set("dies_on", capability)
    checks = ["models", "text", capability, "no_key"]
    result = smoke(url=None, instances=[instance_of(engine)], checks=checks)
    (target,) = result["targets"]
    assert failures_of(target) == {capability: "engine_ended"}
    assert f"The engine ended on {capability}." in result["msg"]
    assert target["not_asked"] == ["no_key"]


def test_a_failure_of_an_engine_that_lives_is_no_end(smoke: Smoke, engine: FakeEngine) -> None:
    engine.faults.set("status", 500)
    result = smoke(url=None, instances=[instance_of(engine)], checks=["models", "logprobs"])
    assert failures_of(result["targets"][0]) == {"logprobs": "status"}


@pytest.mark.parametrize("capability", ["logprobs", "prompt_logprobs", "sampling", "forced_tool"])
def test_an_engine_that_passes_over_a_capability_fails(smoke: Smoke, engine: FakeEngine, capability: str) -> None:
    engine.faults.set("cannot", [capability])
    result = smoke(checks=ALL_CAPABILITIES)
    assert failures_of(result) == {capability: "not_capable"}
    assert check_of(result, capability)["try"] in result["msg"]


def test_an_engine_without_tools_passes(smoke: Smoke, engine: FakeEngine) -> None:
    engine.faults.set("no_tools")
    result = smoke(checks=["tools", "forced_tool"])
    assert not result.get("failed", False), result["msg"]
    assert [check["evidence"] for check in result["checks"]] == [{"tools": "off"}] * 2


def test_a_cache_does_not_stand_in_for_a_capability(smoke: Smoke, engine: FakeEngine) -> None:
    with FakeCache(engine.url, KEY, marks=True) as cache:
        cache.name_of = lambda path, body: path  # type: ignore[method-assign]
        result = smoke(url=cache.url, checks=["text", "logprobs"])
    assert failures_of(result) == {"logprobs": "stale"}


# --- files of the host


def test_every_way_to_name_a_file_is_asked_for(smoke: Smoke, engine: FakeEngine) -> None:
    assert smoke(checks=["local_files"])["passed"]
    parts = [body["messages"][0]["content"][0] for *_rest, body in engine.requests]
    urls = {(part["type"], part[part["type"]]["url"]) for part in parts}
    paths = ("/etc/hostname", "/nonexistent/inference-fleet")
    kinds = ("image_url", "video_url", "audio_url")
    assert urls == {(kind, f"{scheme}{path}") for kind in kinds for scheme in ("file://", "") for path in paths}


def test_an_engine_that_looks_at_files_fails_although_it_refuses_them(smoke: Smoke, engine: FakeEngine) -> None:
    engine.faults.set("opens_files")
    result = smoke(checks=["local_files"])
    assert failures_of(result) == {"local_files": "file_opened"}
    assert "400: Failed to load image: not a PNG for the image_url file:///etc/hostname" in result["msg"]
    assert "No such file or directory: '…' where there is no file" in result["msg"]


@pytest.mark.parametrize(("faults", "reason"), [({"status": 500}, "status"), ({"reject": True}, "unauthorized")])
def test_what_is_no_refusal_of_a_file_fails(
    smoke: Smoke, engine: FakeEngine, faults: dict[str, t.Any], reason: str
) -> None:
    engine.set_faults(faults)
    assert failures_of(smoke(checks=["local_files"])) == {"local_files": reason}


def test_an_answer_about_a_file_fails(smoke: Smoke, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.faults.set("opens_files")
    monkeypatch.setattr("tests.fakes.engine.colour_of", lambda png: "red")
    result = smoke(checks=["local_files"])
    assert "200 for the image_url file:///etc/hostname; expected a refusal" in result["msg"]


def test_a_busy_server_does_not_fail_the_self_test(smoke: Smoke, engine: FakeEngine, waits: list[float]) -> None:
    engine.set_faults({"status": 503, "status_times": 2})
    target = {"name": "cached", "url": engine.url, "replay": True, "attempts": 3, "expect_reason": "stale"}
    result = smoke(url=None, expect_failure=True, attempts=1, checks=["text", "text"], targets=[target])
    assert not result.get("failed", False), result["msg"]
    assert len(waits) == 2


# --- several targets


def test_instances_are_gated_one_by_one_with_the_key_of_the_host(
    smoke: Smoke, engine: FakeEngine, tmp_path: Path
) -> None:
    key_file = tmp_path / "engine_key.env"
    key_file.write_text(f"ENGINE_API_KEY={KEY}\n")
    with FakeEngine(key=KEY) as second:
        second.faults.set("wrong_answer")
        result = smoke(
            url=None,
            api_key=None,
            api_key_file=str(key_file),
            record_dir=str(tmp_path / "gate"),
            instances=[
                {"name": "vllm-0", "engine_port": engine.port, "index": 0, "gpus": []},
                {"name": "vllm-1", "engine_port": second.port, "index": 1, "gpus": []},
            ],
        )
    assert result["failed"]
    assert [(target["name"], target["passed"]) for target in result["targets"]] == [("vllm-0", True), ("vllm-1", False)]
    assert "vllm-1" in result["msg"]
    assert "vllm-0" not in result["msg"]
    assert json.loads((tmp_path / "gate" / "vllm-0.json").read_text())["passed"]
    assert not json.loads((tmp_path / "gate" / "vllm-1.json").read_text())["passed"]


def test_a_target_has_its_own_key_and_checks(smoke: Smoke, engine: FakeEngine) -> None:
    with FakeEngine(key="sk-the-key-of-the-other") as second:
        result = smoke(
            url=None,
            targets=[
                {"name": "a", "url": engine.url, "checks": ["models"]},
                {"name": "b", "url": second.url, "api_key": "sk-the-key-of-the-other"},
            ],
        )
    assert not result.get("failed", False), result["msg"]
    assert [len(target["checks"]) for target in result["targets"]] == [1, 9]


# --- input


def test_without_a_key_the_key_checks_are_skipped_and_named(run_module: RunModule) -> None:
    with FakeEngine() as open_engine:
        result = run_module("chat_smoke", {"url": open_engine.url, "model": MODEL})
        assert not result.get("failed", False), result["msg"]
        assert result["skipped"] == ["wrong_key", "no_key"]
        assert "7 checks passed, wrong_key and no_key skipped without a key." in result["msg"]
        result = run_module("chat_smoke", {"url": open_engine.url, "model": MODEL, "checks": ["no_key"]})
        assert result["failed"]
        assert "none of its checks can be made without a key" in result["msg"]
        assert result["reason"] == "no_data"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"checks": []}, "checks is empty"),
        ({"checks": ["health"]}, "health"),
        ({"model": ""}, "model is empty"),
        ({"api_key": ""}, "api_key holds no key"),
        ({"api_key_file": "/nonexistent/key"}, "mutually exclusive"),
        ({"api_key": None, "api_key_file": "/nonexistent/key"}, "/nonexistent/key, which does not exist"),
        ({"url": None}, "Give url, targets or instances"),
        ({"url": None, "targets": []}, "Give url, targets or instances"),
        ({"url": "127.0.0.1"}, "no base URL"),
        ({"targets": [{"name": "a", "url": "http://127.0.0.1:1"}]}, "mutually exclusive"),
        ({"url": None, "instances": [{"name": "vllm-0", "port": 8000}]}, "without name or engine_port"),
        ({"expect_text_regex": "("}, "expect_text_regex is '('"),
        ({"expect_image": {}}, "leave image out of checks"),
        ({"expect_image": {"mauve": ["mauve"]}}, "'mauve'"),
        ({"timeout": 0}, "timeout is 0"),
        ({"deadline": -1}, "deadline is -1"),
        ({"attempts": 0}, "attempts is 0; it must be at least 1"),
        ({"max_slowdown": 0.5}, "must be 0 (no limit) or at least 1"),
        ({"speed_tokens": 4}, "speed_tokens is 4; it must be at least 8"),
    ],
)
def test_bad_options_are_refused_before_anything_is_asked(
    smoke: Smoke, engine: FakeEngine, options: dict[str, t.Any], said: str
) -> None:
    result = smoke(**options)
    assert result["failed"]
    assert said in result["msg"]
    assert engine.requests == []


def test_other_golden_answers(smoke: Smoke, engine: FakeEngine) -> None:
    assert not smoke(
        checks=["text", "image"],
        prompt_text="What is the capital of Japan?",
        expect_text=[],
        expect_text_regex="tok.o",
        expect_image={"#1e3cdc": ["blue"], "green": []},
    ).get("failed", False)


def test_a_file_with_a_key_that_root_alone_reads_needs_become(
    smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: str) -> str:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("ansible_collections.inference.fleet.plugins.module_utils.gate.conduct.read_text", denied)
    result = smoke(api_key=None, api_key_file=str(tmp_path / "key"))
    assert "cannot be read: Permission denied. Use become." in result["msg"]


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
@pytest.mark.parametrize(
    ("share", "reason", "said"),
    [
        (0.6, None, ""),
        (0.1, "drafts_refused", "10% of the proposed tokens taken; wanted are 30%"),
        (None, "no_drafts", "none of which a draft model had proposed"),
    ],
)
def test_a_draft_model_has_to_be_worth_it(
    smoke: Smoke, engine: FakeEngine, kind: str, share: float | None, reason: str | None, said: str
) -> None:
    engine.engine = kind
    if share is not None:
        engine.faults.set("draft_share", share)
    result = smoke(checks=["models", "drafts"])
    check = check_of(result, "drafts")
    assert check.get("reason") == reason
    assert said in check.get("got", "")
    if share is not None:
        assert check["evidence"]["draft_share"] == pytest.approx(share, abs=0.01)
    assert result.get("failed", False) == (reason is not None)


def test_drafts_are_looked_at_only_where_that_is_asked(smoke: Smoke, engine: FakeEngine) -> None:
    engine.faults.set("draft_share", 0.0)
    assert smoke()["passed"]
    assert smoke(checks=["drafts"], min_draft_share=0.0).get("failed", False) is (engine.engine == "sglang")
