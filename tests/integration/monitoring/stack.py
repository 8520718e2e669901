"""A real Prometheus and Alertmanager with the role's configuration, a real edge, and engines that are stand-ins.

Prometheus' data are on a small file system of their own, which a test fills. gpu-1 and gpu-2 have a node exporter each,
whose text files a test writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import typing as t
import urllib.parse
from pathlib import Path

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.module_utils.facts.exporter import COLLECTORS
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring import receivers, rules, scrape

from tests.debian import command, program
from tests.fakes.webhook import Hook
from tests.integration.edge.conftest import ENGINE_KEY, HAPROXY, KEY, Edge, eventually, free_port
from tests.project import ROOT, open_directly

MONITORING = "sk-the-key-of-monitoring-for-tests-only-0000000"
#: The hosts with a node exporter, besides the monitoring host.
HOSTS = ("gpu-1", "gpu-2")
WATCH = "watch-1"
#: Role monitoring's name for the file with the key.
KEY_FILE = "monitoring.key"
#: MiB of the file system with Prometheus' data.
DATA_SIZE = 24


@dataclasses.dataclass(frozen=True)
class Place:
    """What a test has.

    Attributes:
        url: where Prometheus answers.
        alertmanager: where Alertmanager answers.
        directory: the files that they read.
        edge: of gpu-1.
        hook: the webhook of the receiver.
    """

    url: str
    alertmanager: str
    directory: Path
    edge: Edge
    hook: Hook

    def query(self, expression: str) -> list[dict[str, t.Any]]:
        words = urllib.parse.urlencode({"query": expression})
        with open_directly(f"{self.url}/api/v1/query?{words}") as answer:
            return list(json.load(answer)["data"]["result"])

    def values(self, expression: str) -> list[float]:
        return [float(one["value"][1]) for one in self.query(expression)]

    @property
    def data(self) -> Path:
        """Prometheus' data, a file system of its own."""
        return self.directory / "data"

    @property
    def alerts(self) -> list[dict[str, t.Any]]:
        """Those that Alertmanager knows, with whether one is suppressed."""
        with open_directly(f"{self.alertmanager}/api/v2/alerts") as answer:
            return list(json.load(answer))

    @property
    def silences(self) -> list[dict[str, t.Any]]:
        """Those that are not over."""
        with open_directly(f"{self.alertmanager}/api/v2/silences") as answer:
            return [one for one in json.load(answer) if one["status"]["state"] != "expired"]

    def write(self, host: str, name: str, text: str) -> Path:
        """A text file of a host's node exporter."""
        file = self.directory / host / f"{name}.prom"
        file.with_suffix(".new").write_text(text)
        return file.with_suffix(".new").rename(file)


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


def write_targets(directory: Path, edge: Edge, exporters: t.Mapping[str, int]) -> None:
    labels = {"host": "gpu-1", "kind": "inference", "tier": "front", "ring": "stable", "__scheme__": "http"}

    def target(port: int, path: str, **more: str) -> dict[str, t.Any]:
        return {"targets": [f"127.0.0.1:{port}"], "labels": {**labels, **more, "__metrics_path__": path}}

    engines = [
        target(edge.port, f"/metrics/engine-{number}", engine="vllm", server=f"engine-{number}")
        for number in range(len(edge.instance_ports))
    ]
    (directory / "edge.json").write_text(json.dumps([target(edge.port, "/metrics")]))
    (directory / "engine.json").write_text(json.dumps(engines))
    nodes = [target(port, "/metrics", host=host) for host, port in exporters.items()]
    (directory / "node.json").write_text(json.dumps(nodes))


def rule_file() -> str:
    """The rules, with one that waits for fewer scrapes: here is one in a second."""
    document = yaml.safe_load(rules.rule_file())
    (missing,) = (one for group in document["groups"] for one in group["rules"] if one["alert"] == "FiguresMissing")
    assert missing["for"] == "1m"
    missing["for"] = "2s"
    return rules.dump(document)


@contextlib.contextmanager
def small_disk(path: Path, size: int) -> t.Iterator[None]:
    """A file system of so many MiB at a directory."""
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}m", "fleet-test", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"needs to mount a file system: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def open_place(directory: Path, edge_directory: Path, stack: contextlib.ExitStack) -> Place:
    """Start all of it, and wait until Prometheus answers. ``stack`` ends it."""
    if os.geteuid() != 0 or not shutil.which(HAPROXY):
        pytest.skip("needs root and HAProxy")
    prometheus, exporter = program("prometheus"), program("prometheus-node-exporter")
    engine_ports = [free_port(), free_port()]
    port, alertmanager_port = free_port(), free_port()
    exporters = {host: free_port() for host in (*HOSTS, WATCH)}
    (directory / KEY_FILE).write_text(MONITORING)
    (directory / "engine_key.env").write_text(f"ENGINE_API_KEY={ENGINE_KEY}\n")
    edge = Edge(edge_directory, engine_ports)
    edge.set_keys({KEY: "team-a", MONITORING: "monitoring"})
    write_targets(directory, edge, {host: exporters[host] for host in HOSTS})
    options = scrape.ScrapeOptions(
        targets=str(directory),
        key_file=str(directory / KEY_FILE),
        ca_file="",
        interval="1s",
        jobs=["edge", "engine", "node"],
        exporter=f"127.0.0.1:{exporters[WATCH]}",
        host=WATCH,
    )
    hook = Hook()
    receiver = {
        "name": "on-call",
        "severities": ["page", "none"],
        "webhook": {"url": hook.url},
    }
    routes = receivers.alertmanager([receiver])
    routes["route"].update(group_wait="1s", group_interval="1s")
    (directory / "rules.yml").write_text(rule_file())
    (directory / "prometheus.yml").write_text(
        rules.dump(scrape.prometheus(options, str(directory / "rules.yml"), f"127.0.0.1:{alertmanager_port}"))
    )
    (directory / "alertmanager.yml").write_text(rules.dump(routes))
    stack.callback(hook.shutdown)
    stack.enter_context(small_disk(directory / "data", DATA_SIZE))
    for engine_port in engine_ports:
        words = [sys.executable, str(ROOT / "tests/fakes/engine.py"), "--port", str(engine_port)]
        stack.enter_context(running(directory / "engine.log", *words, "--key-file", str(directory / "engine_key.env")))
    stack.callback(edge.stop)
    edge.start_and_wait()
    for host, exporter_port in exporters.items():
        (directory / host).mkdir()
        stack.enter_context(
            running(
                directory / f"{host}.log",
                exporter,
                f"--web.listen-address=127.0.0.1:{exporter_port}",
                "--collector.disable-defaults",
                f"--collector.textfile.directory={directory / host}",
                *[f"--collector.{name}" for name in COLLECTORS],
            )
        )
    stack.enter_context(
        running(
            directory / "alertmanager.log",
            *command("prometheus-alertmanager"),
            f"--config.file={directory}/alertmanager.yml",
            f"--storage.path={directory}/alerts",
            f"--web.listen-address=127.0.0.1:{alertmanager_port}",
            "--cluster.listen-address=",
        )
    )
    stack.enter_context(
        running(
            directory / "prometheus.log",
            prometheus,
            f"--config.file={directory}/prometheus.yml",
            f"--storage.tsdb.path={directory}/data/tsdb",
            f"--web.listen-address=127.0.0.1:{port}",
            # What fires before Alertmanager is known is sent again after this time.
            "--rules.alert.resend-delay=1s",
            "--query.lookback-delta=6s",
        )
    )
    place = Place(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{alertmanager_port}", directory, edge, hook)
    eventually(lambda: answers(place), 60)
    return place


def answers(place: Place) -> bool:
    with contextlib.suppress(OSError):
        return bool(place.query("up"))
    return False
