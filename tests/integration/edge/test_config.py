"""Optional features: TLS, Prometheus, further services."""

from __future__ import annotations

import http.client
import socket
import ssl
import subprocess
import urllib.error
from pathlib import Path

import pytest

from tests.certificates import certificate
from tests.integration.edge.conftest import ENGINE_KEY, HAPROXY, KEY, Edge, eventually, free_port
from tests.integration.edge.engine import Recorder
from tests.project import open_directly


def test_tls(unstarted: Edge, engines: list[Recorder], tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    unstarted.start_and_wait(edge_tls_certificate=str(pem))
    context = ssl.create_default_context(cafile=str(pem))
    connection = http.client.HTTPSConnection("127.0.0.1", unstarted.port, context=context)
    connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {KEY}"})
    assert connection.getresponse().status == 200
    connection.close()
    (request,) = [request for engine in engines for request in engine.seen]
    assert request.headers["x-forwarded-proto"] == "https"
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    with context.wrap_socket(
        socket.create_connection(("127.0.0.1", unstarted.port)), server_hostname="127.0.0.1"
    ) as raw:
        assert raw.selected_alpn_protocol() == "h2"


def curl(edge: Edge, *arguments: str, body: bytes = b"") -> str:
    """The status of a request over HTTP/2."""
    headers = ["-H", f"Authorization: Bearer {KEY}"]
    answer = subprocess.run(
        ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--http2-prior-knowledge", *headers, *arguments],
        input=body,
        capture_output=True,
        check=False,
    )
    return answer.stdout.decode()


def test_http2_has_the_same_limits(unstarted: Edge, engines: list[Recorder]) -> None:
    if b"HTTP2" not in subprocess.run(["curl", "--version"], capture_output=True, check=True).stdout:
        pytest.skip("this curl has no HTTP/2")
    unstarted.start_and_wait(edge_max_body_bytes=50_000)
    url = f"http://127.0.0.1:{unstarted.port}"
    assert curl(unstarted, f"{url}/v1/models") == "200"
    assert curl(unstarted, f"{url}/metrics") == "404"
    assert curl(unstarted, f"{url}/v1/x", "--data-binary", "@-", body=b"x" * 40_000) == "200"
    # A client that keeps sending may lose the answer, so only passed requests count here.
    assert curl(unstarted, f"{url}/v1/x", "--data-binary", "@-", body=b"x" * 60_000) != "200"
    # Without a length, which HTTP/2 allows.
    assert curl(unstarted, f"{url}/v1/x", "-X", "POST", "-T", "-", body=b"x" * 5000) == "200"
    assert curl(unstarted, f"{url}/v1/x", "-X", "POST", "-T", "-", body=b"x" * 60_000) != "200"
    assert [len(request.body) for engine in engines for request in engine.seen if request.method == "POST"].count(5000)
    assert max(len(request.body) for engine in engines for request in engine.seen) == 40_000


def test_prometheus_is_there_when_asked_for(unstarted: Edge) -> None:
    port = free_port()
    unstarted.start_and_wait(edge_exporter_port=port)
    with open_directly(f"http://127.0.0.1:{port}/metrics") as answer:
        assert b'haproxy_server_status{proxy="instances_' in answer.read()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        open_directly(f"http://127.0.0.1:{port}/")


def test_two_services_share_keys_and_drain_but_not_health(unstarted: Edge, engines: list[Recorder]) -> None:
    other = free_port()
    services = [
        {"port": unstarted.port, "instances": [{"name": "engine-0", "port": engines[0].port}]},
        {"port": other, "instances": [{"name": "engine-1", "port": engines[1].port}]},
    ]
    unstarted.start_and_wait(edge_services=services)
    second = Edge.__new__(Edge)
    second.port = other
    assert (unstarted.status("/v1/models", KEY), second.status("/v1/models", KEY)) == (200, 200)
    assert [len(engine.seen) for engine in engines] == [1, 1]
    unstarted.drain(state="drained", instance="engine-1", metrics=[])
    eventually(lambda: not second.healthy())
    assert unstarted.healthy()
    unstarted.drain(state="drained", metrics=[])
    assert (unstarted.status("/v1/models", KEY), second.status("/v1/models", KEY)) == (503, 503)


def test_it_does_not_start_without_the_engines_key(unstarted: Edge) -> None:
    unstarted.configure()
    check = [HAPROXY, "-c", "-f", str(unstarted.config)]
    assert subprocess.run(check, capture_output=True, check=False).returncode == 0
    (unstarted.maps / "engine_key.map").unlink()
    refused = subprocess.run(check, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "engine_key.map" in refused.stderr


def test_a_new_key_for_the_engines_is_shown_without_a_reload(edge: Edge, engines: list[Recorder]) -> None:
    assert edge.status("/v1/x", KEY) == 200
    edge.set_engine_key("sk-another-engine-key-that-stays-here-00000000")
    assert edge.set_keys({KEY: "team-a"})["actions"][0].startswith("show the engines' key sk-…")
    assert edge.status("/v1/x", KEY) == 200
    shown = [
        request.headers["authorization"] for engine in engines for request in engine.seen if request.path == "/v1/x"
    ]
    assert sorted(shown) == sorted([f"Bearer {ENGINE_KEY}", "Bearer sk-another-engine-key-that-stays-here-00000000"])
