"""The probe of the monitoring host, against a server that answers, refuses, or is not there."""

from __future__ import annotations

import http.server
import json
import threading
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.engines.metrics import parse

from tests.programs import ROOT, load

probe = load(ROOT / "roles" / "monitoring" / "files" / "fleet_probe.py")


class _Server(http.server.BaseHTTPRequestHandler):
    status = 200
    seen: t.ClassVar[list[tuple[str, str, t.Any]]] = []

    def do_GET(self) -> None:
        self._answer({"data": [{"id": "first"}, {"id": "second"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((self.path, self.headers["Authorization"], body))
        self._answer({"choices": [{"message": {"content": "Hello"}}]})

    def _answer(self, document: t.Any) -> None:
        data = json.dumps(document).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *words: t.Any) -> None:
        pass


@pytest.fixture
def server() -> t.Iterator[str]:
    _Server.status = 200
    _Server.seen.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{running.server_port}"
        running.shutdown()


def run(tmp_path: Path, **changes: t.Any) -> dict[tuple[str, str], float]:
    """Run it once; the figures by name and target."""
    (tmp_path / "key").write_text("sk-monitoring\n")
    settings = {
        "urls": [],
        "targets": str(tmp_path / "edge.json"),
        "key_file": str(tmp_path / "key"),
        "ca_file": "",
        "model": "",
        "output": str(tmp_path / "probe.prom"),
        **changes,
    }
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    assert probe.main(["--settings", str(tmp_path / "settings.json")]) == 0
    assert [path.name for path in tmp_path.glob("*.new")] == []
    return {(one.name, one.labels.get("target", "")): one.value for one in parse((tmp_path / "probe.prom").read_text())}


def test_it_asks_each_front_edge_for_a_completion_with_the_key(tmp_path: Path, server: str) -> None:
    targets = [
        {"targets": [server], "labels": {"tier": "front", "__scheme__": "http"}},
        {"targets": ["127.0.0.1:9"], "labels": {"tier": "back", "__scheme__": "http"}},
    ]
    (tmp_path / "edge.json").write_text(json.dumps(targets))
    found = run(tmp_path)
    assert found["fleet_probe_success", f"http://{server}"] == 1
    assert len([name for name, _target in found if name == "fleet_probe_success"]) == 1
    ((path, authorization, body),) = _Server.seen
    assert (path, authorization, body["model"]) == ("/v1/chat/completions", "Bearer sk-monitoring", "first")


def test_an_address_and_a_model_that_were_set(tmp_path: Path, server: str) -> None:
    assert run(tmp_path, urls=[f"http://{server}/"], model="second")["fleet_probe_success", f"http://{server}"] == 1
    assert _Server.seen[0][2]["model"] == "second"


@pytest.mark.parametrize("status", [401, 503])
def test_a_refusal_is_a_failure_with_its_reason(
    tmp_path: Path, server: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    _Server.status = status
    assert run(tmp_path, urls=[f"http://{server}"])["fleet_probe_success", f"http://{server}"] == 0
    said = capsys.readouterr().err
    assert f"/v1/models answered {status}" in said
    assert "sk-monitoring" not in said


def test_nothing_there_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(tmp_path, urls=["http://127.0.0.1:9"])
    assert found["fleet_probe_success", "http://127.0.0.1:9"] == 0
    assert found["fleet_probe_last_look_timestamp_seconds", ""] > 0
    assert "ConnectionRefusedError" in capsys.readouterr().err
