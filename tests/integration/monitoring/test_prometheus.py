"""What a real Prometheus reads of a fleet, and what reaches the receiver of its alerts."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time

from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.facts import series
from ansible_collections.inference.fleet.plugins.module_utils.facts.exposition import Series, render
from ansible_collections.inference.fleet.plugins.module_utils.watchdog import exposition, judge
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.history import GAVE_UP, InstanceHistory
from ansible_collections.inference.fleet.plugins.plugin_utils.status.program import pack_status_program

from tests.debian import program
from tests.integration.edge.conftest import KEY, eventually
from tests.integration.monitoring.stack import WATCH, Place
from tests.pages import Reader, check_page


def test_promtool_and_amtool_take_the_configuration(place: Place) -> None:
    for words in (("promtool", "check", "config", "prometheus.yml"), ("amtool", "check-config", "alertmanager.yml")):
        done = subprocess.run(
            [program(words[0]), *words[1:]], cwd=place.directory, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_target_is_up_and_labelled(place: Place) -> None:
    eventually(lambda: place.values("up") == [1.0] * 6, 60)
    assert {
        (one["metric"]["job"], one["metric"]["host"], one["metric"]["kind"], one["metric"].get("server"))
        for one in place.query("up")
    } == {
        ("edge", "gpu-1", "inference", None),
        ("engine", "gpu-1", "inference", "engine-0"),
        ("engine", "gpu-1", "inference", "engine-1"),
        ("node", "gpu-1", "inference", None),
        ("node", "gpu-2", "inference", None),
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


def test_an_instance_that_the_watchdog_gave_up_is_a_page(place: Place) -> None:
    eventually(lambda: place.hook.got("DeadMan"), 60)
    now = time.time()
    history = InstanceHistory(hangs=4, restarts=(now - 60,), restarts_total=3).out(GAVE_UP, "it hung again", now)
    figures = exposition.render("act", {1: (judge.HANG, history)}, now)
    # A text file cannot speak for another host.
    file = place.write(WATCH, "watchdog", f'{figures}fleet_info{{host="somebody-else",engine="vllm"}} 1\n')
    eventually(lambda: place.hook.got("WatchdogGaveUp"), 60)
    alert = place.hook.got("WatchdogGaveUp")[0]
    assert {name: alert["labels"][name] for name in ("host", "server", "severity")} == {
        "host": WATCH,
        "server": "engine-1",
        "severity": "page",
    }
    assert alert["annotations"]["runbook"].endswith("docs/alerts.md#watchdoggaveup")
    assert [one["metric"]["host"] for one in place.query("fleet_info")] == [WATCH]
    assert place.values('fleet_watchdog_hangs_total{server="engine-1"}') == [4.0]
    file.unlink()
    eventually(lambda: place.hook.got("WatchdogGaveUp", "resolved"), 60)


def test_the_status_page_is_made_of_what_prometheus_has(place: Place) -> None:
    """The program of the monitoring host, and facts as a host writes them."""
    archive = place.directory / "status.pyz"
    archive.write_bytes(pack_status_program())
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
    place.write("gpu-1", "facts", render(facts))
    place.write(WATCH, "prices", 'fleet_price_dollars_per_hour{of="gpu-1"} 1.861\n')
    assert place.edge.status("/v1/models", KEY) == 200

    def page() -> Reader:
        options = [f"--prometheus={place.url}", f"--targets={place.directory}", f"--host={WATCH}"]
        path = place.directory / "status.html"
        command = [sys.executable, "-I", str(archive), "write", *options, f"--page={path}"]
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


def test_a_text_file_that_is_half_written_is_seen(place: Place) -> None:
    file = place.write(WATCH, "half", "fleet_gate_passed{name=")
    eventually(lambda: place.values('node_textfile_scrape_error{host="watch-1"}') == [1.0], 60)
    file.unlink()
    eventually(lambda: place.values('node_textfile_scrape_error{host="watch-1"}') == [0.0], 60)


def test_a_full_disk_of_prometheus_is_seen_disturbs_no_client_and_is_over_when_there_is_room(place: Place) -> None:
    fill, began = place.data / "fill", time.time()
    try:
        with fill.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"\0" * 65536):
                pass
        # Nothing can be stored, so the figures end. Rules are still evaluated, and alerts are sent.
        eventually(lambda: place.hook.got("FiguresMissing", after=began), 90)
        assert place.query("up") == []
        assert [place.edge.status("/v1/models", KEY) for _ in range(20)] == [200] * 20
        assert place.edge.healthy()
    finally:
        fill.unlink()
    eventually(lambda: place.values("up") == [1.0] * 6, 60)
    eventually(lambda: place.hook.got("FiguresMissing", "resolved", began), 60)
