"""Module alert_silence where no Alertmanager answers. With a real one: tests/integration/monitoring."""

from __future__ import annotations

import http.server
import threading
import typing as t
from pathlib import Path

import pytest

from tests.unit.conftest import RunModule

SILENCE = {"rollout": "r", "hosts": ["gpu-1"], "seconds": 60}


class _Other(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answer = b'{"message":"not here"}' if self.path.startswith("/json/") else b"<html>no</html>"
        self.send_response(404 if self.path.startswith("/404/") else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *words: t.Any) -> None:
        pass


@pytest.fixture
def other() -> t.Iterator[str]:
    """A server that is no Alertmanager."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("state", ["present", "absent"])
@pytest.mark.parametrize("check", [False, True])
def test_an_alertmanager_that_is_away_is_a_problem_and_no_failure(
    run_module: RunModule, state: str, check: bool
) -> None:
    result = run_module("alert_silence", {**SILENCE, "state": state, "url": "http://127.0.0.1:1"}, check=check)
    assert not result.get("failed")
    assert not result["changed"]
    assert result["problem"] == "Alertmanager at http://127.0.0.1:1: connection refused: nothing listens there"


@pytest.mark.parametrize(
    ("path", "said"),
    [("/404", "HTTP 404: <html>no</html>"), ("/json", "no list of silences"), ("/html", "not JSON")],
)
def test_another_service_on_its_port_is_a_problem(run_module: RunModule, other: str, path: str, said: str) -> None:
    result = run_module("alert_silence", {**SILENCE, "url": other + path})
    assert not result.get("failed")
    assert said in result["problem"]


def test_an_address_that_is_none_is_a_problem(run_module: RunModule) -> None:
    assert "no base URL" in run_module("alert_silence", {**SILENCE, "url": "alerts"})["problem"]


def test_before_its_installation_nothing_is_done(run_module: RunModule, tmp_path: Path) -> None:
    config = {"config": str(tmp_path / "alertmanager.yml"), "url": "http://127.0.0.1:1"}
    assert run_module("alert_silence", {**SILENCE, **config})["problem"] == ""
    (tmp_path / "alertmanager.yml").touch()
    assert "refused" in run_module("alert_silence", {**SILENCE, **config})["problem"]


@pytest.mark.parametrize("wrong", [{"hosts": []}, {"seconds": 0}])
def test_a_silence_of_nothing_is_refused(run_module: RunModule, wrong: dict[str, t.Any]) -> None:
    result = run_module("alert_silence", {**SILENCE, **wrong})
    assert "at least one host and more than 0 seconds" in result["msg"]
