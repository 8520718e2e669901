"""What answers used, as a real HAProxy reads it from them and writes it into its log."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import http.client
import json
import re
import subprocess
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.facts.access_log import AccessCounters

from tests.e2e import clients
from tests.fakes.engine import MODEL as ENGINES_MODEL
from tests.fakes.engine import FakeEngine
from tests.integration.edge.conftest import (
    ENGINE_KEY,
    IS_HAPROXY_2_4,
    KEY,
    ROLE,
    Edge,
    Shared,
    eventually,
    shared_edge,
    shared_engines,
    sharing,
    unstarted_edge,
)
from tests.integration.edge.engine import Recorder
from tests.programs import load

pytestmark = pytest.mark.skipif(IS_HAPROXY_2_4, reason="HAProxy 2.4 has no filters in Lua")

STREAM = "text/event-stream; charset=utf-8"
MODEL = "Qwen/Qwen3-VL-8B-Instruct"
NOTHING = {"prompt": "-", "cached": "-", "completion": "-"}

Fields = dict[str, str]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Shared]:
    with sharing(tmp_path_factory) as both:
        yield both


edge, engines = shared_edge, shared_engines


def fields(line: str) -> Fields:
    """The named values of a line of the log."""
    return dict(word.partition("=")[::2] for word in line.split(" "))


def logged(edge: Edge, ask: t.Callable[[], object]) -> Fields:
    """What the log says of a request."""
    before = len(edge.access_log())
    ask()
    eventually(lambda: len(edge.access_log()) > before)
    return fields(edge.access_log()[before])


def tokens(found: Fields) -> Fields:
    return {name: found[name] for name in NOTHING}


def used(prompt: int, cached: int | str, completion: int | str) -> Fields:
    return {"prompt": str(prompt), "cached": str(cached), "completion": str(completion)}


def whole(edge: Edge, document: t.Any, **headers: str) -> Fields:
    """What is logged of an answer that comes at once."""
    body = document if isinstance(document, bytes) else json.dumps(document, separators=(",", ":")).encode()
    sent = {"Content_Type": "application/json", **headers}
    return logged(edge, lambda: edge.ask("/v1/says/200", KEY, method="POST", body=body, **sent))


def pieces(edge: Edge, texts: list[str], end: str = "end", path: str = "") -> Fields:
    """What is logged of a stream that comes in these pieces."""

    def ask() -> None:
        body = json.dumps(texts)
        with contextlib.suppress(http.client.IncompleteRead):
            edge.ask(f"/v1/{path or f'pieces/{end}'}", KEY, method="POST", body=body, Content_Type=STREAM)

    return logged(edge, ask)


def event(document: t.Any, name: str = "") -> str:
    """An event of a stream, as engines write it."""
    return (f"event: {name}\n" if name else "") + f"data: {json.dumps(document, separators=(',', ':'))}\n\n"


def usage(prompt: int = 1200, completion: int = 34, cached: int | None = 1024) -> dict[str, t.Any]:
    details = None if cached is None else {"cached_tokens": cached, "multimodal_tokens": None}
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
        "prompt_tokens_details": details,
    }


def chat(content: str = "Paris", **more: t.Any) -> dict[str, t.Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [choice],
        "usage": usage(),
        "prompt_logprobs": None,
        **more,
    }


def piece(content: str = "Paris", **more: t.Any) -> str:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    same = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    return event({**same, "choices": [choice], **more})


LAST = event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": MODEL, "choices": [], "usage": usage()})
DONE = "data: [DONE]\n\n"
REPORT = ": usage " + json.dumps(usage(1200, 7, None)) + "\n\n"

RESPONSE: dict[str, t.Any] = {
    "id": "resp_1",
    "instructions": 'Say "usage":{"input_tokens":1}.',
    "metadata": {"model": "another"},
    "model": MODEL,
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "Paris"}]}],
    # Of the client.
    "tools": [{"type": "function", "parameters": {"properties": {"usage": {"input_tokens": 1, "output_tokens": 1}}}}],
    "usage": {
        "input_tokens": 1200,
        "input_tokens_details": {"cached_tokens": 1024},
        "output_tokens": 34,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 1234,
    },
    "user": None,
}
MESSAGE = {
    "id": "chatcmpl-1",
    "type": "message",
    "role": "assistant",
    "content": [{"type": "text", "text": "Paris"}],
    "model": MODEL,
    "usage": {"input_tokens": 176, "output_tokens": 34, "cache_read_input_tokens": 1024},
}


@pytest.mark.parametrize(
    "document",
    [chat(), {**chat(), "object": "text_completion", "choices": [{"index": 0, "text": "Paris"}]}, RESPONSE, MESSAGE],
    ids=["chat", "completion", "response", "message"],
)
def test_a_whole_answer(edge: Edge, document: t.Any) -> None:
    found = whole(edge, document)
    assert tokens(found) == used(1200, 1024, 34)
    assert (found["answer"], found["model"], found["first_token_ms"]) == ("whole", MODEL, "-")


def test_an_answer_with_spaces_in_its_json(edge: Edge) -> None:
    assert tokens(whole(edge, json.dumps(chat(), indent=1).encode())) == used(1200, 1024, 34)


def test_cached_tokens_are_unknown_if_an_engine_does_not_report_them(edge: Edge) -> None:
    assert tokens(whole(edge, chat(usage=usage(cached=None)))) == used(1200, "-", 34)


START = event({"type": "message_start", "message": {**MESSAGE, "usage": {"input_tokens": 1200, "output_tokens": 0}}})
MESSAGES = [
    # As SGLang: the tokens of the prompt come first, those of the answer last.
    event(
        {
            "type": "message_start",
            "message": {**MESSAGE, "usage": {"input_tokens": 176, "cache_read_input_tokens": 1024, "output_tokens": 0}},
        },
        "message_start",
    ),
    event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "P"}}, "content"),
    event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 34}}, "delta"),
    event({"type": "message_stop"}, "message_stop"),
    DONE,
]
RESPONSES = [
    event({"type": "response.created", "response": {**RESPONSE, "usage": None}}, "response.created"),
    event({"type": "response.output_text.delta", "delta": "Paris"}),
    event({"response": {**RESPONSE, "output": [{"text": "P" * 30_000}]}, "type": "response.completed"}),
]
STREAMS = {
    "chat": [piece(""), piece(), piece(), LAST, DONE],
    "in each piece": [piece("", usage=usage(1200, 0, None)), piece(usage=usage(1200, 1, None)), LAST, DONE],
    "reported": [piece(""), REPORT, piece(), ": usage " + json.dumps(usage()) + "\n\n" + DONE],
    "waited for": [": keep-alive\n\n", ": keep-alive\n\n", piece(""), piece(), LAST, DONE],
    "message": MESSAGES,
    "response": RESPONSES,
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("size", [0, 100, 16_000])
def test_a_stream(edge: Edge, name: str, size: int) -> None:
    text = "".join(STREAMS[name])
    # As the engine sends it, or cut anywhere.
    sent = [text[i : i + size] for i in range(0, len(text), size)] if size else STREAMS[name]
    found = pieces(edge, sent)
    assert tokens(found) == used(1200, 1024, 34)
    assert (found["answer"], found["model"]) == ("stream", MODEL)
    assert 0 <= int(found["first_token_ms"]) <= int(found["total_ms"])
    assert int(found["first_token_ms"]) + int(found["tokens_ms"]) <= int(found["total_ms"]) + 5


def test_what_comes_before_the_first_token_is_none(edge: Edge) -> None:
    found = pieces(edge, [": keep-alive\n\n"] * 50 + [piece(), LAST, DONE])
    assert int(found["first_token_ms"]) >= 150
    begun = event({"type": "response.in_progress", "response": {**RESPONSE, "usage": None}})
    found = pieces(edge, [RESPONSES[0], *[begun] * 50, *RESPONSES[1:]], path="responses/pieces/end")
    assert int(found["first_token_ms"]) >= 150


@pytest.mark.parametrize("end", ["wait", "cut"])
def test_a_stream_that_is_broken_off_has_used_what_was_said_last(edge: Edge, end: str) -> None:
    reported = [piece(""), REPORT, *[piece("x" * 500)] * 40, "data: {" + '"usage":{"prompt_tokens":1']
    in_each = [piece("", usage=usage(1200, 0, None)), piece(usage=usage(1200, 7, None)), "data: {"]
    for texts in (reported, in_each):
        found = broken_off(edge, texts) if end == "wait" else pieces(edge, texts, end)
        assert found["end"].startswith("C" if end == "wait" else "S")
        assert tokens(found) == used(1200, "-", 7)
    found = broken_off(edge, MESSAGES[:2]) if end == "wait" else pieces(edge, MESSAGES[:2], end)
    assert tokens(found) == used(1200, 1024, "-")


def broken_off(edge: Edge, texts: list[str]) -> Fields:
    """What is logged of a stream whose client goes once all of it has come."""

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=30)
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": STREAM}
        connection.request("POST", "/v1/pieces/wait", json.dumps(texts), headers)
        answer = connection.getresponse()
        answer.read(sum(map(len, texts)))
        answer.close()
        connection.close()

    return logged(edge, ask)


def test_what_is_not_said_is_not_known(edge: Edge) -> None:
    assert tokens(whole(edge, {"object": "list"})) == NOTHING
    assert tokens(whole(edge, b"")) == NOTHING
    assert tokens(whole(edge, b'{"usage":{"prompt_tokens":1,')) == NOTHING
    assert tokens(whole(edge, chat(usage=None))) == NOTHING
    assert tokens(pieces(edge, [piece(), DONE])) == NOTHING
    assert tokens(pieces(edge, ["data: {}", " {]} \n\n", '"""\n\n\\'])) == NOTHING


TRICKS = [
    '"usage":{"prompt_tokens":1,"completion_tokens":1}',
    '","usage":{"prompt_tokens":1,"completion_tokens":1},"x":"',
    '\n\n: usage {"prompt_tokens":1,"completion_tokens":1}\n\n',
    ': usage {"prompt_tokens":1,"completion_tokens":1}',
    ": usage {{{{{{",
    '\n\ndata: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n',
    'data: {"type":"message_start"',
    "message_start",
    '\\"usage\\":{\\"prompt_tokens\\":1}\\',
    "\\",
    '"',
    "}]}}}" * 10,
    "{[" * 10,
]


@pytest.mark.parametrize("text", TRICKS)
def test_a_text_cannot_count(edge: Edge, text: str) -> None:
    assert tokens(whole(edge, chat(text))) == used(1200, 1024, 34)
    assert tokens(whole(edge, chat(text * (20_000 // len(text))))) == used(1200, 1024, 34)
    assert tokens(pieces(edge, [piece(text), piece(text), piece(text), LAST, DONE])) == used(1200, 1024, 34)
    assert tokens(pieces(edge, [piece(text), DONE])) == NOTHING


def test_another_object_of_the_answer_cannot_count(edge: Edge) -> None:
    false = {"usage": {"prompt_tokens": 1, "completion_tokens": 1}, "model": "false"}
    found = whole(edge, {"metadata": false, **chat(), "sglext": false, "echo": [false, {"message": false}]})
    assert (tokens(found), found["model"]) == (used(1200, 1024, 34), MODEL)
    assert tokens(whole(edge, {**chat(usage=None), "metadata": false})) == NOTHING
    assert tokens(pieces(edge, [piece(metadata=false), DONE])) == NOTHING


@pytest.mark.parametrize("model", ["a model", "x\ny", "x" * 200, '"', "", 7])
def test_a_model_is_a_word_in_the_log(edge: Edge, model: t.Any) -> None:
    found = whole(edge, chat(model=model))
    assert (found["model"], found["prompt"]) == ("-", "1200")


def test_a_huge_answer(edge: Edge) -> None:
    found = whole(edge, chat('Paris \\ "is" {a} [city]. ' * 100_000))
    assert (tokens(found), found["model"]) == (used(1200, 1024, 34), MODEL)
    assert int(found["bytes"]) > 2_000_000


def test_other_answers_are_not_looked_at(edge: Edge) -> None:
    def asked(status: int, **headers: str) -> Fields:
        sent = {"method": "POST", "body": json.dumps(chat()), "Content_Type": "application/json", **headers}
        return logged(edge, lambda: edge.ask(f"/v1/says/{status}", KEY, **sent))

    assert asked(200)["answer"] == "whole"
    assert asked(200, Content_Type="text/plain")["answer"] == "-"
    for status in (201, 400, 500, 503):
        assert (asked(status)["answer"], tokens(asked(status))) == ("-", NOTHING)
    assert logged(edge, lambda: edge.ask("/v1/x", KEY))["answer"] == "-"
    packed = logged(
        edge,
        lambda: edge.ask(
            "/v1/says/200",
            KEY,
            method="POST",
            body=gzip.compress(json.dumps(chat()).encode()),
            Content_Type="application/json",
            Answer_Encoding="gzip",
        ),
    )
    assert (packed["answer"], tokens(packed)) == ("-", NOTHING)


def test_http2(edge: Edge) -> None:
    if b"HTTP2" not in subprocess.run(["curl", "--version"], capture_output=True, check=True).stdout:
        pytest.skip("this curl has no HTTP/2")

    def ask(path: str, kind: str, body: str) -> subprocess.CompletedProcess[bytes]:
        curl = ["curl", "-sS", "--http2-prior-knowledge", "-H", f"Authorization: Bearer {KEY}", "--data-binary", "@-"]
        command = [*curl, "-H", f"Content-Type: {kind}", f"http://127.0.0.1:{edge.port}/v1/{path}"]
        return subprocess.run(command, input=body.encode(), capture_output=True, check=True)

    streamed = json.dumps([piece(), LAST, DONE])
    answer = json.dumps(chat())
    assert tokens(logged(edge, lambda: ask("says/200", "application/json", answer))) == used(1200, 1024, 34)
    assert tokens(logged(edge, lambda: ask("pieces/end", STREAM, streamed))) == used(1200, 1024, 34)


def test_what_is_logged_is_counted(unstarted: Edge) -> None:
    edge = unstarted.start_and_wait()
    whole(edge, chat())
    pieces(edge, [piece(), piece(), LAST, DONE])
    broken_off(edge, [piece(), REPORT, piece()])
    pieces(edge, [piece(), DONE])
    whole(edge, {"object": "list"})
    counters = AccessCounters()
    for line in edge.access_log():
        counters.add(line)
    found = counters.answers
    assert found.tokens == {("team-a", MODEL): (3600, 2048, 75), ("team-a", ""): (0, 0, 0)}
    known = {(model, known): count for (_client, model, known), count in found.answers.items()}
    assert known == {(MODEL, "whole"): 2, (MODEL, "partial"): 1, (MODEL, "unknown"): 1, ("", "unknown"): 1}
    assert found.first["team-a"][0] == 3
    # The tokens after the first.
    assert found.gaps["team-a"][0] == 33


def test_engines_are_asked_to_report(edge: Edge, engines: list[Recorder]) -> None:
    """And no client can ask for it."""
    for method, path in (("POST", "/v1/x"), ("GET", "/v1/x")):
        edge.ask(path, KEY, method=method, X_Fleet_Usage="2")
    given = [{k.lower(): v for k, v in seen.headers.items()} for engine in engines for seen in engine.seen]
    assert sorted(headers.get("x-fleet-usage", "") for headers in given) == ["", "end"]


def test_only_those_are_counted_who_should_be(unstarted: Edge, engines: list[Recorder]) -> None:
    limited = "sk-the-key-of-team-b-for-tests-only-000000000"
    unstarted.set_keys({KEY: "team-a", limited: "team-b"}, {"team-b": {"requests_per_minute": 100}})
    edge = unstarted.start_and_wait(edge_usage="limited")

    def asked(key: str) -> Fields:
        sent = {"method": "POST", "body": json.dumps(chat()), "Content_Type": "application/json"}
        return tokens(logged(edge, lambda: edge.ask("/v1/says/200", key, **sent)))

    assert (asked(KEY), asked(limited)) == (NOTHING, used(1200, 1024, 34))
    edge.configure(edge_usage="none")
    assert not re.search(r"^ +filter lua.bodies .* usage", edge.config.read_text(), re.MULTILINE)
    # What a gateway counts it still gets.
    asks = [line.strip() for line in edge.config.read_text().splitlines() if "set-header X-Fleet-Usage" in line]
    assert asks == ["http-request set-header X-Fleet-Usage always if { var(txn.usage) -m found }"]


def test_a_gateway_asks_engines_for_what_it_counts(unstarted: Edge, engines: list[Recorder]) -> None:
    gateway = "sk-the-key-of-gateway-for-tests-only-00000000"
    unstarted.set_keys({KEY: "team-a", gateway: "gateway"})
    edge = unstarted.start_and_wait(edge_usage="none")
    for key, asked in ((gateway, "always"), (gateway, "2"), (KEY, "always")):
        edge.ask("/v1/x", key, method="POST", X_Fleet_Usage=asked)
    given = [{k.lower(): v for k, v in seen.headers.items()} for engine in engines for seen in engine.seen]
    assert sorted(headers.get("x-fleet-usage", "") for headers in given) == ["", "", "always"]


#: The key of a client with a limit.
LIMITED = "sk-the-key-of-team-b-for-tests-only-000000000"


@pytest.fixture(scope="module", params=["vllm", "sglang"])
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> t.Iterator[tuple[Edge, clients.Service]]:
    """An edge in front of an engine with the usage report, and a service for clients."""
    report = load(ROLE.parent / "engine" / "files" / "usage_report.py")
    with FakeEngine(engine=request.param, key=ENGINE_KEY, token=0.02, with_cached=True, usage_report=report) as engine:
        given = t.cast("list[Recorder]", [engine])
        with unstarted_edge(tmp_path_factory.mktemp("clients"), given) as edge:
            edge.set_keys({KEY: "team-a", LIMITED: "team-b"}, {"team-b": {"requests_per_minute": 1000}})
            edge.start_and_wait()
            yield edge, clients.Service(f"http://127.0.0.1:{edge.port}", KEY, ENGINES_MODEL)


@pytest.mark.parametrize(
    "name", ["chat", "chat_in_a_stream", "chat_in_a_stream_without_usage", "langchain_in_a_stream"]
)
def test_clients_see_what_they_asked_for_and_the_log_has_all_of_it(
    service: tuple[Edge, clients.Service], name: str
) -> None:
    edge, one = service
    results: list[clients.Outcome] = []
    found = logged(edge, lambda: results.append(clients.outcome(one, name)))
    assert results == [clients.EXPECTED[name]]
    assert (found["prompt"], found["completion"]) == ("18", "1")
    assert int(found["cached"]) >= 0


def test_a_client_that_reads_the_first_choice_of_each_piece_can_go_on(service: tuple[Edge, clients.Service]) -> None:
    _edge, one = service
    text = "".join(piece.choices[0].delta.content or "" for piece in one.chat(stream=True))
    assert text == "Paris"


def test_langchain_adds_up_no_usage(service: tuple[Edge, clients.Service]) -> None:
    _edge, one = service
    chunks = list(one.langchain.stream("Count from one to twenty", stream_usage=True))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    assert whole.usage_metadata["input_tokens"] == 13
    assert whole.usage_metadata["output_tokens"] == 20


def test_a_stream_that_its_client_leaves_has_its_tokens_until_then(service: tuple[Edge, clients.Service]) -> None:
    """For clients with limits; to others streams say it at their end alone."""
    edge, other = service
    one = dataclasses.replace(other, key=LIMITED)

    def leave() -> None:
        with one.chat("Count without end", stream=True, max_tokens=400) as stream:
            for number, _piece in enumerate(stream):
                if number == 70:
                    break

    found = logged(edge, leave)
    assert found["end"].startswith("C")
    assert found["prompt"] == "11"
    # A report is at most a quarter of a second old.
    assert 1 <= int(found["completion"]) < 400
