"""A Prometheus that does not answer as one: what is wrong is said, and nothing is raised."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.status import prometheus

from tests.unit.plugins.plugin_utils.status.status_fleet import NOW


class Answering(http.server.BaseHTTPRequestHandler):
    """Answers as the server's attribute ``answer`` says: status, type and body."""

    def do_GET(self) -> None:
        status, kind, body = self.server.answer  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *_given: t.Any) -> None:
        pass


@contextlib.contextmanager
def serving(status: int, kind: str, body: bytes) -> t.Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.answer = (status, kind, body)  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "kind", "body", "said"),
    [
        (200, "text/html", b"<html>Grafana</html>", "it answers 200 with text/html, which is not Prometheus' API"),
        (404, "text/plain", b"404 page not found", "it answers 404 with text/plain, which is not"),
        (401, "application/json", b'{"error": {"message": "no key"}}', "it answers in another format than"),
        (200, "application/json", b"[1, 2]", "it answers in another format than Prometheus' API"),
        (200, "application/json", b'{"status": "success", "data": {"resultType": "matrix"}}', "another format"),
        (422, "application/json", b'{"status": "error", "error": "too many samples"}', "too many samples"),
        (200, "text/plain", b"x" * (5 * 1024 * 1024), "its answer is too large"),
    ],
)
def test_another_format_is_named(status: int, kind: str, body: bytes, said: str) -> None:
    with serving(status, kind, body) as url:
        found = prometheus.read_history(url, NOW, 3600)
    assert found.problem.startswith(f"Prometheus at {url}: ")
    assert said in found.problem
    assert found.found == {}


def test_one_without_the_fleets_metrics_is_named() -> None:
    body = b'{"status": "success", "data": {"resultType": "matrix", "result": []}}'
    with serving(200, "application/json", body) as url:
        assert prometheus.read_history(url, NOW, 3600).problem == f"Prometheus at {url} has no metric of the fleet."


def test_one_that_is_not_there_is_named() -> None:
    found = prometheus.read_history("http://127.0.0.1:1", NOW, 3600)
    assert "Prometheus at http://127.0.0.1:1: it does not answer (" in found.problem


def test_one_that_takes_too_long_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = prometheus.read_history(f"http://127.0.0.1:{silent.getsockname()[1]}", NOW, 3600)
    assert "it did not answer within" in found.problem


@pytest.mark.parametrize("url", ["prometheus", "ftp://host", "http://", "http://host:port", "http://[::1", "//host"])
def test_an_address_that_is_none_is_named(url: str) -> None:
    assert "status_prometheus_url is one such as" in prometheus.read_history(url, NOW, 3600).problem


def test_its_password_is_never_shown() -> None:
    for url in ("http://user:secret@127.0.0.1:1/x?token=secret", "http://user:secret@[bad"):
        found = prometheus.read_history(url, NOW, 3600)
        assert "secret" not in found.problem + found.source
    assert prometheus.shown("http://user:secret@127.0.0.1:1/x?token=secret") == "http://127.0.0.1:1/x"


def test_without_the_library_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "_MISSING", "aiohttp is missing on this controller")
    assert "aiohttp is missing" in prometheus.read_history("http://127.0.0.1:9090", NOW, 3600).problem
