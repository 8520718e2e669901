"""The edge's handling of an engine's answers: errors, redirects, and browser access."""

from __future__ import annotations

import json
import socket
import typing as t

import pytest

from tests.integration.edge.conftest import (
    KEY,
    Answer,
    Edge,
    Shared,
    error_of,
    shared_edge,
    shared_engines,
    sharing,
)
from tests.integration.edge.engine import Recorder

ORIGIN = "https://chat.example.com"
OTHER = "http://localhost:3000"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Shared]:
    with sharing(tmp_path_factory, edge_cors_origins=[ORIGIN, OTHER]) as both:
        yield both


edge, engines = shared_edge, shared_engines


def says(edge: Edge, status: int, body: t.Any, content_type: str = "application/json") -> Answer:
    """An engine's answer with this body."""
    data = body.encode() if isinstance(body, str) else json.dumps(body, ensure_ascii=False).encode()
    return edge.ask(f"/v1/says/{status}", KEY, method="POST", body=data, Content_Type=content_type)


OPENAIS = {"error": {"message": "No.", "type": "BadRequestError", "param": "n", "code": 400}}


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_an_error_of_openais_shape_passes_as_it_is(edge: Edge, status: int) -> None:
    answer = says(edge, status, OPENAIS)
    assert (answer[0], json.loads(answer[2])) == (status, OPENAIS)


@pytest.mark.parametrize("status", [200, 201])
@pytest.mark.parametrize("body", [{"detail": "x"}, {"object": "error", "message": "x"}, "plain"])
def test_what_is_no_error_passes_as_it_is(edge: Edge, status: int, body: t.Any) -> None:
    data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    assert (says(edge, status, body)[0], says(edge, status, body)[2]) == (status, data)


@pytest.mark.parametrize(
    ("status", "body", "message", "code"),
    [
        # FastAPI, for what has no handler.
        (404, {"detail": "Not Found"}, "Not Found", "unknown_url"),
        (405, {"detail": "Method Not Allowed"}, "Method Not Allowed", "method_not_allowed"),
        (422, {"detail": [{"loc": ["body"], "msg": "Field required"}]}, "Field required", "bad_request"),
        (400, {"detail": "There was an error parsing the body"}, "There was an error parsing the body", "bad_request"),
        # SGLang.
        (
            400,
            {"object": "error", "message": 'Not \n "so": ünïcode \\', "type": "BadRequest", "param": None, "code": 400},
            'Not \n "so": ünïcode \\',
            "bad_request",
        ),
        (503, {"object": "error", "message": "Starting", "type": "x", "code": 503}, "Starting", "unavailable"),
        # Middlewares.
        (403, {"error": "Forbidden"}, "Forbidden", "forbidden"),
        (500, {"error": {"message": None}}, "The engine failed on this request.", "internal_error"),
        (429, {"something": "else"}, "There are too many requests. Try again.", "rate_limit_exceeded"),
        (502, [], "The engine broke off its answer.", "engine_failed"),
        (400, "", "The request is not valid.", "bad_request"),
        (400, '{"detail": "cut', "The request is not valid.", "bad_request"),
    ],
)
def test_an_error_of_another_shape_becomes_openais(
    edge: Edge, status: int, body: t.Any, message: str, code: str
) -> None:
    answer = says(edge, status, body)
    assert answer[0] == status
    error = error_of(answer)
    assert (error["message"], error["code"], error["param"]) == (message, code, None)
    kinds = {429: "rate_limit_error"}
    assert error["type"] == kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    assert answer[1].get("retry-after") == ("5" if status in (429, 503) else None)
    assert len(answer[1]["x-request-id"]) == 36


@pytest.mark.parametrize("status", [404, 500])
def test_plain_text_becomes_the_message(edge: Edge, status: int) -> None:
    answer = says(edge, status, "Internal Server Error", "text/plain; charset=utf-8")
    assert (answer[0], error_of(answer)["message"]) == (status, "Internal Server Error")


def test_a_page_does_not(edge: Edge) -> None:
    answer = says(edge, 404, "<h1>no</h1>", "text/html")
    assert error_of(answer)["message"] == "There is no such path here."


def test_a_long_error_is_still_one(edge: Edge) -> None:
    answer = says(edge, 400, {"detail": [{"msg": "too long", "input": "x" * 200_000}]})
    assert (answer[0], error_of(answer)["code"]) == (400, "bad_request")
    answer = says(edge, 400, {"object": "error", "message": '"' * 100_000})
    assert (answer[0], error_of(answer)["code"]) == (400, "bad_request")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        # As vLLM 0.32 said it.
        (501, {"error": {"message": "Only base64 data URLs are supported for now.", "type": "NotImplementedError"}}),
        (500, {"error": {"message": "Cannot load local files without `--allowed-local-media-path`."}}),
        (
            500,
            {"error": {"message": "Image size exceeds limit of 1 pixels, could be decompression bomb DOS attack."}},
        ),
        # As SGLang 0.5.23 does.
        (500, {"object": "error", "message": "Internal server error: Error while loading data /etc/passwd: x"}),
        (500, {"object": "error", "message": "Could not decode image: broken data stream when reading image file"}),
        (501, {"object": "error", "message": "completions does not support this", "code": 501}),
        (501, ""),
    ],
)
def test_what_a_client_did_wrong_is_no_failure_of_the_engine(edge: Edge, status: int, body: t.Any) -> None:
    answer = says(edge, status, body)
    assert (answer[0], error_of(answer)["type"]) == (400, "invalid_request_error")
    assert error_of(answer)["message"]


def test_a_failure_of_the_engine_stays_one(edge: Edge) -> None:
    assert says(edge, 500, {"error": {"message": "CUDA out of memory", "code": 500}})[0] == 500


@pytest.mark.parametrize("path", ["/v1/x", "/v1/x?a=b/", "/v1/models/Qwen/Qwen3-VL"])
def test_a_slash_at_the_end_makes_no_difference(edge: Edge, engines: list[Recorder], path: str) -> None:
    plain, question, query = path.partition("?")
    assert edge.status(f"{plain}/{question}{query}", KEY, method="POST", body=b"{}") == 200
    assert [request.path for engine in engines for request in engine.seen] == [path]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_client_is_sent_elsewhere(edge: Edge, status: int) -> None:
    answer = says(edge, status, "")
    assert (answer[0], error_of(answer)["code"], answer[1].get("location")) == (404, "unknown_url", None)


# Browsers


def cross(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith("access-control-")}


ASKED = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization,x-stainless-lang"}


@pytest.mark.parametrize("origin", [ORIGIN, OTHER])
def test_a_browser_may_ask_before_it_sends_a_key(edge: Edge, engines: list[Recorder], origin: str) -> None:
    status, headers, body = edge.ask("/v1/chat/completions", method="OPTIONS", Origin=origin, **ASKED)
    assert (status, body) == (204, b"")
    assert headers["access-control-allow-origin"] == origin
    assert headers["access-control-allow-methods"] == "GET, POST, DELETE, OPTIONS"
    assert headers["access-control-allow-headers"] == "authorization,x-stainless-lang"
    assert headers["vary"] == "Origin"
    assert [request for engine in engines for request in engine.seen] == []


@pytest.mark.parametrize("origin", ["https://evil.example.com", f"{ORIGIN}.evil.example.com", "null", ""])
def test_other_pages_may_not(edge: Edge, origin: str) -> None:
    answer = edge.ask("/v1/chat/completions", method="OPTIONS", Origin=origin, **ASKED)
    assert (answer[0], cross(answer[1])) == (401, {})
    answer = edge.ask("/v1/x", KEY, Origin=origin)
    assert (answer[0], cross(answer[1])) == (200, {})


def test_nothing_but_the_question_is_without_a_key(edge: Edge, engines: list[Recorder]) -> None:
    assert edge.status("/v1/x", method="OPTIONS", Origin=ORIGIN) == 401
    assert edge.status("/metrics", method="OPTIONS", Origin=ORIGIN, **ASKED) == 404
    assert edge.status("/v1/../metrics", method="OPTIONS", Origin=ORIGIN, **ASKED) == 404
    assert [request for engine in engines for request in engine.seen] == []


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/v1/x", KEY, 200),
        ("/v1/status/500", KEY, 500),
        ("/v1/status/401", KEY, 502),
        ("/v1/break", KEY, 502),
        ("/v1/x", None, 401),
        ("/v1/x", "sk-wrong", 401),
        ("/metrics", KEY, 404),
        ("/health", None, 200),
    ],
)
def test_a_page_reads_every_answer(edge: Edge, path: str, key: str | None, status: int) -> None:
    answer = edge.ask(path, key, Origin=ORIGIN)
    assert answer[0] == status
    headers_of_cors = cross(answer[1])
    assert set(headers_of_cors) == {"access-control-allow-origin", "access-control-expose-headers"}
    assert headers_of_cors["access-control-allow-origin"] == ORIGIN
    assert {"X-Request-ID", "Retry-After"} <= set(headers_of_cors["access-control-expose-headers"].split(", "))


def test_headers_that_are_asked_for_cannot_break_the_answer(edge: Edge) -> None:
    with socket.create_connection(("127.0.0.1", edge.port)) as raw:
        raw.sendall(
            f"OPTIONS /v1/x HTTP/1.1\r\nHost: x\r\nOrigin: {ORIGIN}\r\nConnection: close\r\n"
            'Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-a, "<é>: b\r\n\r\n'.encode()
        )
        answer = raw.makefile("rb").read().decode().lower()
    assert "access-control-allow-headers: x-a,  b" in answer.replace("\r\n", "\n")


def test_a_star_is_every_page(unstarted: Edge) -> None:
    unstarted.start_and_wait(edge_cors_origins=["*"])
    answer = unstarted.ask("/v1/x", method="OPTIONS", Origin="https://any.example.com", **ASKED)
    assert (answer[0], answer[1]["access-control-allow-origin"]) == (204, "*")
    answer = unstarted.ask("/v1/x", KEY, Origin="null")
    assert (answer[0], answer[1]["access-control-allow-origin"]) == (200, "*")
    assert cross(unstarted.ask("/v1/x", KEY)[1]) == {}


def test_without_the_variable_no_page_reads_anything(unstarted: Edge) -> None:
    unstarted.start_and_wait()
    assert unstarted.status("/v1/x", method="OPTIONS", Origin=ORIGIN, **ASKED) == 401
    assert cross(unstarted.ask("/v1/x", KEY, Origin=ORIGIN)[1]) == {}


# One model

LIST = {
    "object": "list",
    "data": [
        {"id": "org/other", "object": "model", "created": 1, "permission": [{"id": "x", "object": "model_permission"}]},
        {"id": "org/model", "object": "model", "created": 2, "permission": [{"id": "org/none"}], "root": "/a"},
    ],
}


@pytest.fixture
def listing(engines: list[Recorder]) -> t.Iterator[None]:
    for engine in engines:
        engine.models = LIST
    yield
    for engine in engines:
        engine.models = None


@pytest.mark.parametrize("name", ["org/model", "org%2Fmodel", "org/model/"])
def test_one_model_is_found_in_the_list(edge: Edge, engines: list[Recorder], listing: None, name: str) -> None:
    answer = edge.ask(f"/v1/models/{name}", KEY)
    assert (answer[0], answer[1]["content-type"]) == (200, "application/json")
    assert json.loads(answer[2]) == LIST["data"][1]
    assert [request.path for engine in engines for request in engine.seen] == ["/v1/models"]


@pytest.mark.parametrize("name", ["org/none", "org", "model", "org/mode", "x", 'org/model","object":"model'])
def test_a_model_that_is_not_in_the_list_is_404(edge: Edge, listing: None, name: str) -> None:
    answer = edge.ask(f"/v1/models/{name}", KEY)
    assert (answer[0], error_of(answer)["code"]) == (404, "model_not_found")
    assert name in error_of(answer)["message"]


def test_the_list_itself_passes_as_it_is(edge: Edge, listing: None) -> None:
    assert json.loads(edge.ask("/v1/models", KEY)[2]) == LIST


def test_without_a_list_no_model_is_found(edge: Edge) -> None:
    answer = edge.ask("/v1/models/org/model", KEY)
    assert (answer[0], error_of(answer)["code"]) == (404, "model_not_found")
