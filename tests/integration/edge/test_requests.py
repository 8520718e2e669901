"""Which requests are accepted, where they go, and what the engine sees of them."""

from __future__ import annotations

import http.client
import socket
import typing as t

import pytest

from tests.integration.edge.conftest import (
    ENGINE_KEY,
    KEY,
    Edge,
    Shared,
    error_of,
    eventually,
    shared_edge,
    shared_engines,
    sharing,
)
from tests.integration.edge.engine import Recorder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Shared]:
    with sharing(tmp_path_factory) as both:
        yield both


edge, engines = shared_edge, shared_engines


def seen(engines: list[Recorder]) -> list[str]:
    return [request.path for engine in engines for request in engine.seen]


def test_a_known_key_gets_in(edge: Edge, engines: list[Recorder]) -> None:
    assert edge.status("/v1/models", KEY) == 200
    assert seen(engines) == ["/v1/models"]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
def test_the_scheme_is_case_insensitive(edge: Edge, scheme: str) -> None:
    assert edge.status("/v1/models", Authorization=f"{scheme} {KEY}") == 200


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer sk-wrong",
        f"Bearer {KEY}x",
        f"Bearer {KEY[:-1]}",
        f"Bearer {KEY.upper()}",
        f"Bearer {KEY} {KEY}",
        f"Bearer {KEY},{KEY}",
        f"Basic {KEY}",
        KEY,
        "Bearer",
        "Bearer ",
        "",
    ],
)
def test_anything_else_is_401(edge: Edge, engines: list[Recorder], authorization: str) -> None:
    answer = edge.ask("/v1/models", Authorization=authorization)
    assert answer[0] == 401
    assert answer[1]["www-authenticate"] == "Bearer"
    assert error_of(answer)["code"] == "invalid_api_key"
    assert seen(engines) == []


def test_no_key_is_401_and_says_what_to_send(edge: Edge) -> None:
    answer = edge.ask("/v1/models")
    assert answer[0] == 401
    assert "Authorization: Bearer" in error_of(answer)["message"]


def test_two_keys_in_one_request_are_401(edge: Edge) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", edge.port)
    connection.putrequest("GET", "/v1/models")
    connection.putheader("Authorization", f"Bearer {KEY}")
    connection.putheader("Authorization", "Bearer sk-other")
    connection.endheaders()
    assert connection.getresponse().status == 401
    connection.close()


@pytest.mark.parametrize("header", ["X-API-Key", "Api-Key", "X-Authorization"])
def test_a_key_in_another_header_does_not_count(edge: Edge, header: str) -> None:
    assert edge.status("/v1/models", **{header: KEY}) == 401


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/models"])
def test_clients_of_anthropics_interface_get_in(edge: Edge, engines: list[Recorder], path: str) -> None:
    """https://github.com/vllm-project/vllm/issues/51572."""
    assert edge.status(path, X_API_Key=KEY, Anthropic_Version="2023-06-01") == 200
    (request,) = [request for engine in engines for request in engine.seen]
    assert {name.lower(): value for name, value in request.headers.items()}["authorization"] == f"Bearer {ENGINE_KEY}"
    assert KEY not in str(request.headers)
    eventually(lambda: edge.access_log()[-1].startswith("client=team-a "))


@pytest.mark.parametrize("more", [{"Authorization": "Bearer sk-other"}, {"Authorization": ""}, {"x-api-key": KEY}])
def test_a_key_of_anthropics_does_not_count_beside_another(edge: Edge, more: dict[str, str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", edge.port)
    connection.putrequest("GET", "/v1/models")
    for name, value in [("X-API-Key", KEY), ("Anthropic-Version", "2023-06-01"), *more.items()]:
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.getresponse().status == 401
    connection.close()


TRICKS = [
    "/",
    "/metrics",
    "/invocations",
    "/tokenize",
    "/v1",
    "/V1/models",
    "//v1/models",
    "/v1//models",
    "/v1//",
    "/v1/../metrics",
    "/v1/./models",
    "/v1/..",
    "/v1/%2e%2e/metrics",
    "/v1/%2E%2e/metrics",
    "/v1/..%2fmetrics",
    "/v1/%2e%2e%2fmetrics",
    "/v1%2f../metrics",
    "/v1/%252e%252e/metrics",
    "/v1/..;/metrics",
    "/v1/;/models",
    "/v1/..\\metrics",
    "/v1/%5c..%5cmetrics",
    "/v1/%00",
    "/v1/models%0d%0aX:1",
    "/v1/models%20x",
    "/v1/%2f",
    "/v1/loads",
    "/v1/loads?all=1",
    "/v1/%6co%61ds",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/health/",
    "/health/../metrics",
    "/health%2f",
    "/HEALTH",
    "/x?/v1/models",
]


@pytest.mark.parametrize("path", TRICKS)
def test_only_the_allow_list_gets_through(edge: Edge, engines: list[Recorder], path: str) -> None:
    # http.client refuses some of these paths.
    with socket.create_connection(("127.0.0.1", edge.port)) as raw:
        raw.sendall(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n\r\n".encode()
        )
        answer = raw.makefile("rb").read().decode()
    assert answer.startswith("HTTP/1.1 404 ")
    assert '"code":"unknown_url"' in answer
    assert seen(engines) == []


@pytest.mark.parametrize("path", ["/v1/files/a/b", "/v1/files/a%2Fb", "/v1/a.b", "/v1/x?a=/../b"])
def test_a_plain_path_gets_through_as_it_is(edge: Edge, engines: list[Recorder], path: str) -> None:
    assert edge.status(path, KEY) == 200
    assert seen(engines) == [path]


def test_a_path_that_is_not_listed_is_404_without_a_key_too(edge: Edge) -> None:
    answer = edge.ask("/metrics")
    assert answer[0] == 404
    assert error_of(answer)["code"] == "unknown_url"


def test_the_form_for_proxies_reaches_the_engine_as_a_path(edge: Edge, engines: list[Recorder]) -> None:
    assert edge.status("http://elsewhere/v1/models?a=b", KEY) == 200
    assert edge.status("http://elsewhere/metrics", KEY) == 404
    assert seen(engines) == ["/v1/models?a=b"]


def test_the_engine_sees_the_edges_key_and_never_the_clients(edge: Edge, engines: list[Recorder]) -> None:
    edge.ask(
        f"/v1/chat/completions?key={KEY}&n=1",
        KEY,
        method="POST",
        body=b"{}",
        X_API_Key=KEY,
        Api_Key=KEY,
        Proxy_Authorization=f"Bearer {KEY}",
        Cookie=f"key={KEY}",
        X_Request_ID="mine",
        Connection="close, Authorization",
    )
    (request,) = [request for engine in engines for request in engine.seen]
    assert request.headers["authorization"] == f"Bearer {ENGINE_KEY}"
    assert KEY not in str(request)
    assert request.path == "/v1/chat/completions?key=sk-&n=1"
    assert request.body == b"{}"
    assert request.headers["x-forwarded-for"] == "127.0.0.1"


def test_every_answer_has_a_request_id_of_the_edges_own(edge: Edge, engines: list[Recorder]) -> None:
    given = edge.ask("/v1/models", KEY, X_Request_ID="the-clients")[1]["x-request-id"]
    refused = edge.ask("/metrics")[1]["x-request-id"]
    (request,) = [request for engine in engines for request in engine.seen]
    assert request.headers["x-request-id"] == given
    assert len({given, refused, "the-clients"}) == 3


def test_an_upgrade_to_http2_is_not_passed_on(edge: Edge, engines: list[Recorder]) -> None:
    edge.ask("/v1/models", KEY, Upgrade="h2c", Connection="Upgrade, HTTP2-Settings", HTTP2_Settings="AAMAAABk")
    (request,) = [request for engine in engines for request in engine.seen]
    assert "upgrade" not in {name.lower() for name in request.headers}


def test_an_engine_that_refuses_the_edge_is_no_401(edge: Edge) -> None:
    answer = edge.ask("/v1/status/401", KEY)
    assert answer[0] == 502
    assert error_of(answer)["code"] == "bad_gateway"


def test_the_access_log_names_the_client_and_shows_no_key(edge: Edge) -> None:
    before = len(edge.access_log())
    edge.ask(f"/v1/models?key={KEY}", KEY)
    edge.ask(f"/v1/{KEY}", KEY)
    edge.ask("/v1/models", "sk-a-wrong-key-that-somebody-tried")
    edge.ask("/health")
    first, second, third = edge.access_log()[before:]
    assert "client=team-a key=" in first
    assert "path=/v1/models status=200 instance=engine-" in first
    assert "path=/v1/sk- status=200" in second
    assert "client=- key=" in third
    assert "status=401" in third
    everything = edge.log.read_text()
    assert not [secret for secret in (KEY, ENGINE_KEY, "somebody-tried") if secret in everything]


@pytest.mark.parametrize("line", ["GET /v1/models#x HTTP/1.1", "NO HTTP AT ALL", "GET /v1/a b HTTP/1.1"])
def test_what_is_not_http_gets_no_further(edge: Edge, engines: list[Recorder], line: str) -> None:
    with socket.create_connection(("127.0.0.1", edge.port)) as raw:
        raw.sendall(f"{line}\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n\r\n".encode())
        assert raw.makefile("rb").read().startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))
    assert seen(engines) == []


@pytest.mark.parametrize(
    "part",
    [
        '{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}',
        '{"type": "image_url", "image_url": {"url": "FILE:///etc/passwd"}}',
        '{"type":"video_url","video_url":{"url":"/dev/zero"}}',
        '{"type": "audio_url", "audio_url": { "url" : "../a.wav"}}',
        '{"type": "input_image", "image_url": "/etc/passwd"}',
        r'{"type": "image_url", "image_url": {"url": "\/dev\/zero"}}',
    ],
)
def test_no_file_of_the_host_is_asked_for(edge: Edge, engines: list[Recorder], part: str) -> None:
    body = f'{{"messages": [{{"role": "user", "content": [{part}]}}]}}'
    answer = edge.ask("/v1/chat/completions", KEY, method="POST", body=body.encode())
    assert answer[0] == 400
    error = error_of(answer)
    assert (error["code"], error["type"]) == ("media_not_allowed", "invalid_request_error")
    assert seen(engines) == []


@pytest.mark.parametrize(
    "part",
    [
        '{"type": "image_url", "image_url": {"url": "data:image/png;base64,/9j/4AAQ"}}',
        '{"type": "input_audio", "input_audio": {"data": "/9j/", "format": "wav"}}',
        r'{"type": "text", "text": "say {\"image_url\": \"file:///etc/passwd\"}"}',
    ],
)
def test_media_in_the_request_pass(edge: Edge, engines: list[Recorder], part: str) -> None:
    body = f'{{"messages": [{{"role": "user", "content": [{part}]}}]}}'
    assert edge.status("/v1/chat/completions", KEY, method="POST", body=body.encode()) == 200
    assert seen(engines) == ["/v1/chat/completions"]
