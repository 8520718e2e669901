"""A real Prometheus and Alertmanager with the role's configuration, a real edge, and engines that are stand-ins."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import typing as t
import urllib.parse
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.facts import series
from ansible_collections.inference.fleet.plugins.module_utils.facts.exporter import COLLECTORS
from ansible_collections.inference.fleet.plugins.module_utils.facts.exposition import Series, render
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring import receivers, rules, scrape
from ansible_collections.inference.fleet.plugins.plugin_utils.status.program import pack_status_program

from tests.debian import program
from tests.integration.edge.conftest import ENGINE_KEY, HAPROXY, KEY, Edge, eventually, free_port
from tests.project import ROOT, open_directly
from tests.unit.plugins.plugin_utils.report.test_page import Reader, check_page

MONITORING = "sk-the-key-of-monitoring-for-tests-only-0000000"
ROTATED = "sk-another-key-of-monitoring-for-tests-00000000"


class Hook(http.server.ThreadingHTTPServer):
    """A webhook that records the alerts that it gets."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, t.Any]] = []
        super().__init__(("127.0.0.1", 0), _Recording)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def got(self, name: str) -> list[dict[str, t.Any]]:
        return [one for one in self.alerts if one["labels"]["alertname"] == name]


class _Recording(http.server.BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        self.server.alerts += json.loads(self.rfile.read(int(self.headers["Content-Length"])))["alerts"]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *words: t.Any) -> None:
        pass


class Place(t.NamedTuple):
    """What a test has: where Prometheus answers, the files that it reads, the edge, and the webhook.

    ``textfiles`` in the directory is what the monitoring host's exporter reads, ``facts`` that of the edge's host.
    """

    url: str
    directory: Path
    edge: Edge
    hook: Hook

    def query(self, expression: str) -> list[dict[str, t.Any]]:
        words = urllib.parse.urlencode({"query": expression})
        with open_directly(f"{self.url}/api/v1/query?{words}") as answer:
            return list(json.load(answer)["data"]["result"])

    def values(self, expression: str) -> list[float]:
        return [float(one["value"][1]) for one in self.query(expression)]


@contextlib.contextmanager
def running(log: Path, *words: str) -> t.Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def write_targets(directory: Path, edge: Edge) -> None:
    labels = {"host": "gpu-1", "kind": "inference", "tier": "front", "ring": "stable", "__scheme__": "http"}

    def target(path: str, **more: str) -> dict[str, t.Any]:
        return {"targets": [f"127.0.0.1:{edge.port}"], "labels": {**labels, **more, "__metrics_path__": path}}

    engines = [
        target(f"/metrics/engine-{number}", engine="vllm", server=f"engine-{number}")
        for number in range(len(edge.instance_ports))
    ]
    (directory / "edge.json").write_text(json.dumps([target("/metrics")]))
    (directory / "node.json").write_text(json.dumps([target("/metrics/node")]))
    (directory / "engine.json").write_text(json.dumps(engines))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Place]:
    if os.geteuid() != 0 or not shutil.which(HAPROXY):
        pytest.skip("needs root and HAProxy")
    directory = tmp_path_factory.mktemp("monitoring")
    prometheus, alertmanager, exporter = (
        program(name) for name in ("prometheus", "prometheus-alertmanager", "prometheus-node-exporter")
    )
    ports = [free_port() for _ in range(6)]
    exporters = {ports[2]: directory / "textfiles", ports[5]: directory / "facts"}
    for textfiles in exporters.values():
        textfiles.mkdir()
    (directory / "key").write_text(MONITORING)
    (directory / "engine_key.env").write_text(f"ENGINE_API_KEY={ENGINE_KEY}\n")
    edge = Edge(tmp_path_factory.mktemp("edge"), ports[3:5])
    edge.set_keys({KEY: "team-a", MONITORING: "monitoring"})
    write_targets(directory, edge)
    options = scrape.ScrapeOptions(
        targets=str(directory),
        key_file=str(directory / "key"),
        ca_file="",
        interval="1s",
        jobs=["edge", "engine", "node"],
        exporter=f"127.0.0.1:{ports[2]}",
        host="watch-1",
    )
    hook = Hook()
    receiver = {
        "name": "on-call",
        "severities": ["page", "none"],
        "webhook": {"url": f"http://127.0.0.1:{hook.server_port}/"},
    }
    routes = receivers.alertmanager([receiver])
    routes["route"].update(group_wait="1s", group_interval="1s")
    (directory / "rules.yml").write_text(rules.rule_file())
    (directory / "prometheus.yml").write_text(
        rules.dump(scrape.prometheus(options, str(directory / "rules.yml"), f"127.0.0.1:{ports[1]}"))
    )
    (directory / "alertmanager.yml").write_text(rules.dump(routes))
    with contextlib.ExitStack() as stack:
        stack.callback(hook.shutdown)
        for port in ports[3:5]:
            words = [sys.executable, str(ROOT / "tests/fakes/engine.py"), "--port", str(port)]
            stack.enter_context(
                running(directory / "engine.log", *words, "--key-file", str(directory / "engine_key.env"))
            )
        stack.callback(edge.stop)
        edge.start_and_wait(edge_node_exporter_port=ports[5])
        collectors = [f"--collector.{name}" for name in COLLECTORS]
        for port, textfiles in exporters.items():
            stack.enter_context(
                running(
                    directory / "exporter.log",
                    exporter,
                    f"--web.listen-address=127.0.0.1:{port}",
                    "--collector.disable-defaults",
                    f"--collector.textfile.directory={textfiles}",
                    *collectors,
                )
            )
        stack.enter_context(
            running(
                directory / "alertmanager.log",
                alertmanager,
                f"--config.file={directory}/alertmanager.yml",
                f"--storage.path={directory}/alerts",
                f"--web.listen-address=127.0.0.1:{ports[1]}",
                "--cluster.listen-address=",
            )
        )
        stack.enter_context(
            running(
                directory / "prometheus.log",
                prometheus,
                f"--config.file={directory}/prometheus.yml",
                f"--storage.tsdb.path={directory}/data",
                f"--web.listen-address=127.0.0.1:{ports[0]}",
                # What fires before Alertmanager is known is sent again after this time.
                "--rules.alert.resend-delay=1s",
            )
        )
        found = Place(f"http://127.0.0.1:{ports[0]}", directory, edge, hook)
        eventually(lambda: answers(found), 60)
        yield found


def answers(place: Place) -> bool:
    with contextlib.suppress(OSError):
        return bool(place.query("up"))
    return False


def test_promtool_and_amtool_take_the_configuration(place: Place) -> None:
    for words in (("promtool", "check", "config", "prometheus.yml"), ("amtool", "check-config", "alertmanager.yml")):
        done = subprocess.run(
            [program(words[0]), *words[1:]], cwd=place.directory, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_target_is_up_and_labelled(place: Place) -> None:
    eventually(lambda: place.values("up") == [1.0] * 5, 60)
    assert {
        (one["metric"]["job"], one["metric"]["host"], one["metric"]["kind"], one["metric"].get("server"))
        for one in place.query("up")
    } == {
        ("edge", "gpu-1", "inference", None),
        ("engine", "gpu-1", "inference", "engine-0"),
        ("engine", "gpu-1", "inference", "engine-1"),
        ("node", "gpu-1", "inference", None),
        ("node", "watch-1", "monitoring", None),
    }
    # The edge's series and the engine's meet by host and server.
    joined = "vllm:num_requests_running and on (host, server) haproxy_server_status{state='UP'} == 1"
    eventually(lambda: len(place.query(joined)) == 2, 60)
    # Of the proxies, those of the scrapes are left out.
    assert place.query('{proxy=~"metrics_.*"}') == []


def test_capacity_and_share_of_failures_are_figures(place: Place) -> None:
    """The expressions of the alerts on what a real edge says: nothing is missing, so nothing can stay silent."""
    up = 'sum by (kind) (haproxy_server_status{proxy=~"instances_[0-9]+",server=~"engine-[0-9]+",state="UP"})'
    eventually(lambda: place.values(up) == [2.0], 60)
    assert place.edge.status("/v1/models", KEY) == 200
    answered = 'sum by (tier) (haproxy_backend_http_responses_total{proxy=~"instances_[0-9]+",tier="front"})'
    eventually(lambda: (place.values(answered) or [0])[0] >= 1, 60)


def test_a_hosts_own_figure_becomes_an_alert_at_the_webhook(place: Place) -> None:
    eventually(lambda: place.hook.got("DeadMan"), 60)
    file = place.directory / "textfiles" / "watchdog.prom"
    file.with_suffix(".new").write_text(
        'fleet_watchdog_gave_up{instance="1"} 1\nfleet_info{host="somebody-else",engine="vllm"} 1\n'
    )
    file.with_suffix(".new").rename(file)
    eventually(lambda: place.hook.got("WatchdogGaveUp"), 60)
    alert = place.hook.got("WatchdogGaveUp")[0]
    assert alert["status"] == "firing"
    assert {name: alert["labels"][name] for name in ("host", "server", "severity")} == {
        "host": "watch-1",
        "server": "engine-1",
        "severity": "page",
    }
    assert alert["annotations"]["runbook"].endswith("docs/alerts.md#watchdoggaveup")
    # A text file cannot speak for another host.
    assert [one["metric"]["host"] for one in place.query("fleet_info")] == ["watch-1"]
    file.unlink()
    eventually(lambda: [one for one in place.hook.got("WatchdogGaveUp") if one["status"] == "resolved"], 60)


def test_a_text_file_that_is_half_written_is_seen(place: Place) -> None:
    file = place.directory / "textfiles" / "half.prom"
    file.write_text("fleet_gate_passed{name=")
    eventually(lambda: place.values('node_textfile_scrape_error{host="watch-1"}') == [1.0], 60)
    file.unlink()
    eventually(lambda: place.values('node_textfile_scrape_error{host="watch-1"}') == [0.0], 60)


def test_the_status_page_is_made_of_what_prometheus_has(place: Place) -> None:
    """The program of the monitoring host, and facts as a host writes them."""
    program = place.directory / "status.pyz"
    program.write_bytes(pack_status_program())
    now = int(time.time())
    release = {"engine": "vllm", "version": "0.32.0", "model": "m"}
    facts = [
        *series.of_host({"host": "gpu-1", "tier": "inference"}),
        *series.of_release("0", "vllm-0.32.0-1f0c9a2e", release),
        *series.of_gate("vllm-0", {"passed": True, "at": times.moment(now - 60)}),
        *series.of_disk("weights", 4 * 10**9, 10**11),
        Series("fleet_client_expires_timestamp_seconds", {"client": "team-a"}, now + 2 * 86400),
        Series("fleet_drain_since_timestamp_seconds", {"target": "vllm-1", "by": "operator"}, now - 7200),
        *series.of_look({"gpus": 1}, now),
    ]
    (place.directory / "facts" / "facts.prom").write_text(render(facts))
    prices = place.directory / "textfiles" / "prices.prom"
    prices.write_text('fleet_price_dollars_per_hour{of="gpu-1"} 1.861\n')
    assert place.edge.status("/v1/models", KEY) == 200

    def page() -> Reader:
        options = [f"--prometheus={place.url}", f"--targets={place.directory}", "--host=watch-1"]
        path = place.directory / "status.html"
        command = [sys.executable, "-I", str(program), "write", *options, f"--page={path}"]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return check_page(path.read_text())

    eventually(lambda: "1.861" in page().text and "4 % free" in page().text, 60)
    text = page().text
    assert "1 of 1 host in service" in text
    assert "Instances active 2 of 2 vllm 0.32.0" in text
    assert "Answers with 5xx 0 of " in text
    assert "US dollars per hour 1.861" in text
    assert "it could not read gpus: journalctl -u inference-facts on the host" in text
    assert "gpu-1 vllm-1 drained operator not in the metrics; playbooks/status.yml shows it" in text
    assert "team-a - expires in 1d23h" in text
    assert "vllm-0 ✓" in text
    assert len(page().all("svg")) >= 2


def test_a_rotated_key_goes_on_without_a_reload(place: Place) -> None:
    place.edge.set_keys({KEY: "team-a", ROTATED: "monitoring"})
    eventually(lambda: place.values('up{job="edge"}') == [0.0], 60)
    (place.directory / "key").write_text(ROTATED)
    eventually(lambda: place.values('up{job="edge"}') == [1.0], 60)
