"""Every way in which a host can accept the wrong keys is reported, and never with a key."""

from __future__ import annotations

import json
import socket
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.keys import fingerprint
from ansible_collections.inference.fleet.plugins.module_utils.keys import proof as key_proof
from ansible_collections.inference.fleet.plugins.module_utils.net.http import Reply

from tests.fakes.engine import MODEL, FakeEngine
from tests.unit.conftest import Result, RunModule

KEY = "sk-0123456789abcdef0123456789abcdef"
DEAD = "sk-fedcba9876543210fedcba9876543210"


class Prove(t.Protocol):
    def __call__(self, **options: t.Any) -> Result: ...


@pytest.fixture
def engine() -> t.Iterator[FakeEngine]:
    with FakeEngine(key=KEY) as fake:
        yield fake


@pytest.fixture
def prove(engine: FakeEngine, run_module: RunModule) -> Prove:
    def run(**options: t.Any) -> Result:
        defaults = {
            "live": [{"name": "team-a", "key": KEY}],
            "dead": [{"name": "team-b", "key": DEAD}],
            "edges": [engine.url],
            "model": MODEL,
            "timeout": 5,
            "patience": 0,
        }
        result = run_module("key_proof", {**defaults, **options})
        shown = json.dumps(result, ensure_ascii=False)
        assert KEY not in shown
        assert DEAD not in shown
        assert not result.get("changed", False)
        return result

    return run


def test_a_live_key_is_answered_and_a_dead_one_refused_on_every_route(prove: Prove, engine: FakeEngine) -> None:
    result = prove(engines=[engine.url])
    assert not result.get("failed", False)
    assert result["answered"] == [f"team-a {fingerprint(KEY)}"]
    assert result["refused"] == 2 * len(key_proof.ROUTES)


def test_a_key_that_should_be_dead_is_named_with_every_route(prove: Prove, engine: FakeEngine) -> None:
    engine.faults.set("no_auth")
    result = prove()
    assert result["failed"]
    assert len(result["failures"]) == len(key_proof.ROUTES)
    assert f"does not refuse the dead key of team-b {fingerprint(DEAD)}: GET /v1/models gave 200" in result["msg"]


@pytest.mark.parametrize(("with_unknown_key", "unlike"), [(404, 0), (401, 1)])
def test_a_route_that_an_instance_does_not_have_is_none_for_a_dead_key(with_unknown_key: int, unlike: int) -> None:
    def ask(url: str, key: str, method: str, path: str, document: t.Any) -> Reply:
        absent = path == "/v1/score"
        return Reply(
            with_unknown_key if absent and key == key_proof.UNKNOWN_KEY else 404 if absent else 401, {}, b"", 0.0
        )

    prover = key_proof.Prover(ask, [], ["http://127.0.0.1:4001"], MODEL, 0, 1)
    proof = prover.prove([], [key_proof.ClientKey("team-b", DEAD)], 0)
    assert len(proof.failures) == unlike
    assert proof.refused == len(key_proof.ROUTES) - unlike


@pytest.mark.parametrize(("code", "accepted"), [("429", True), ("budget_exceeded", True), ("queue_full", False)])
def test_a_client_at_its_limits_counts_as_accepted(code: str, accepted: bool) -> None:
    def ask(url: str, key: str, method: str, path: str, document: t.Any) -> Reply:
        return Reply(429, {}, json.dumps({"error": {"message": "no", "code": code}}).encode(), 0.0)

    prover = key_proof.Prover(ask, ["http://127.0.0.1:4000"], [], MODEL, 0, 1)
    proof = prover.prove([key_proof.ClientKey("team-a", KEY)], [], 1)
    assert (proof.failures == []) == accepted


def test_a_key_that_should_live_is_named(prove: Prove, engine: FakeEngine) -> None:
    engine.faults.set("reject")
    result = prove()
    assert f"does not accept the live key of team-a {fingerprint(KEY)}: POST /v1/chat/completions" in result["msg"]
    assert result["answered"] == []


def test_an_answer_without_a_word_is_none(prove: Prove, engine: FakeEngine) -> None:
    engine.faults.set("empty")
    result = prove()
    assert "without a word" in result["msg"]
    assert result["answered"] == []


def test_a_busy_service_is_asked_again(prove: Prove, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_proof, "_PAUSE", 0.01)
    engine.faults.set("status", 503)
    engine.faults.set("status_times", 2)
    assert not prove(patience=30).get("failed", False)
    engine.faults.set("status", 500)
    engine.faults.set("status_times", 1)
    assert "gave 500" in prove(patience=30)["msg"], "an error of the engine's own is no reason to ask again"


def test_a_host_where_nothing_listens_proves_nothing(prove: Prove) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        result = prove(edges=[url])
    assert "does not accept the live key" in result["msg"]
    assert "could not be seen to refuse the dead key" in result["msg"]
    assert (result["answered"], result["refused"]) == ([], 0)


def test_completions_are_bounded(prove: Prove, engine: FakeEngine) -> None:
    engine.faults.set("empty")
    assert prove(completions=0)["answered"] == [f"team-a {fingerprint(KEY)}"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"edges": []}, "edges is empty"), ({"edges": ["127.0.0.1:8000"]}, "which is no base URL")],
)
def test_bad_input(prove: Prove, options: dict[str, t.Any], message: str) -> None:
    assert message in prove(**options)["msg"]
