"""The traffic driver as a separate program, against the stand-in for an engine."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core import processes
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.traffic import driver
from ansible_collections.inference.fleet.plugins.plugin_utils.traffic.config import pid_path, read_config

from tests.fakes.engine import FakeEngine

ROOT = Path(__file__).resolve().parents[5]
KEY = "sk-test-0123456789-0123456789"
CHAT = "/v1/chat/completions"
TOKENS = 40
Report = dict[str, t.Any]


class Drive:
    """A driver while it is open, and its report."""

    def __init__(self, directory: Path, url: str, **config: t.Any) -> None:
        self.output = directory / "traffic" / "report.json"
        self.config: dict[str, t.Any] = {
            "url": url,
            "model": "Qwen/Qwen3-VL-8B-Instruct",
            "api_key": KEY,
            "output": str(self.output),
        }
        # A stream of the engine below takes about 0.3 s.
        self.config.update({"owner_pid": os.getpid(), "stream_tokens": TOKENS, "requests_per_second": 20, **config})
        # An earlier report would be mistaken for this one's.
        self.output.unlink(missing_ok=True)
        self.log = directory / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, driver.__file__],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd="/",
                env={**os.environ, "PYTHONPATH": str(ROOT / "collections")},
            )
        assert self.process.stdin is not None
        with self.process.stdin:
            self.process.stdin.write(json.dumps(self.config).encode())

    def __enter__(self) -> Drive:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.process.kill()
        self.process.wait()

    def read(self) -> Report | None:
        return json.loads(self.output.read_text()) if self.output.exists() else None

    def until(self, condition: t.Callable[[Report], object], seconds: float = 30) -> Report:
        """The first report that matches."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            report = self.read()
            if report and condition(report):
                return report
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(f"not within {seconds} s: {self.read()}")

    def ready(self) -> Report:
        return self.until(lambda report: report["first_answer"])

    def ended(self, seconds: float = 40) -> Report:
        """The last report, once the driver has exited by itself."""
        status = self.process.wait(seconds)
        report = self.read()
        assert report is not None, self.log.read_text()
        assert self.log.read_text() == ""
        assert report["ended"] is not None
        assert not Path(pid_path(str(self.output))).exists()
        assert sorted(path.name for path in self.output.parent.iterdir()) == ["report.json"]
        assert KEY not in self.output.read_text()
        assert status == (driver.NO_ANSWER if report["ended_because"] == "no_first_answer" else 0)
        check_sums(report)
        return report

    def stop(self) -> Report:
        self.process.send_signal(signal.SIGTERM)
        return self.ended()


def check_sums(report: Report) -> None:
    requests, streams = report["requests"], report["streams"]
    assert requests["sent"] == requests["ok"] + requests["failed"] + requests["in_flight"]
    assert streams["begun"] == sum(streams[name] for name in ("whole", "failed", "cut", "in_flight"))
    row = report["seconds"]
    assert sum(bucket["ok"] for bucket in row) == requests["ok"] + streams["whole"]
    failed = requests["failed"] + streams["failed"] + streams["cut"]
    assert sum(bucket["failed"] for bucket in row) == failed
    counted = sum(sum(counts.values()) for counts in report["error_counts"].values())
    assert counted == failed
    assert len(report["errors"]) == min(failed, 200)


def asked(engine: FakeEngine) -> int:
    return sum(method == "POST" and path == CHAT for method, path, _key, _body in engine.requests)


@pytest.fixture
def engine() -> t.Iterator[FakeEngine]:
    with FakeEngine(key=KEY, token=0.005) as running:
        yield running


def test_a_healthy_server_fails_nothing(engine: FakeEngine, tmp_path: Path) -> None:
    with Drive(tmp_path, f"{engine.url}/v1") as drive:
        drive.until(lambda report: report["streams"]["whole"] >= 8 and report["requests"]["ok"] >= 40)
        report = drive.stop()
    assert (report["errors"], report["error_counts"]) == ([], {"request": {}, "stream": {}})
    assert report["streams"]["in_flight"] == report["requests"]["in_flight"] == report["requests"]["skipped"] == 0
    assert report["ended_because"] == "stopped"
    assert asked(engine) == report["requests"]["sent"] + report["streams"]["begun"]
    assert report["longest_gap"]["seconds"] < 2
    assert report["began"] <= report["longest_gap"]["at"] <= report["ended"]
    assert report["longest_stream_stall"]["seconds"] < 2
    assert 0 < report["latency"]["p50"] <= report["latency"]["p95"] <= report["latency"]["max"]
    assert 0 < report["first_token"]["p50"] <= report["first_token"]["p95"]
    assert sum(bucket["tokens"] for bucket in report["seconds"]) == report["streams"]["whole"] * TOKENS
    assert max(bucket["in_flight"] for bucket in report["seconds"]) >= 4
    assert report["bucket_seconds"] == 1
    assert 0 < report["driver"]["cpu_seconds"] < 5


def test_it_sends_the_configured_requests(engine: FakeEngine, tmp_path: Path) -> None:
    own = {"stream_prompt": "Count from one to twenty.", "request_prompt": "Hello", "request_tokens": 3}
    with Drive(tmp_path, engine.url, ignore_eos=False, **own) as drive:
        drive.until(lambda report: report["streams"]["whole"] >= 1 and report["requests"]["ok"] >= 1)
        drive.stop()
    seen = {json.dumps(body, sort_keys=True): key for _method, path, key, body in engine.requests if path == CHAT}
    common = {"model": "Qwen/Qwen3-VL-8B-Instruct", "temperature": 0}
    short = {**common, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
    long = {
        "messages": [{"role": "user", "content": "Count from one to twenty."}],
        "max_tokens": TOKENS,
        "stream": True,
    }
    expected = [json.dumps(body, sort_keys=True) for body in (short, {**common, **long})]
    assert seen == dict.fromkeys(expected, f"Bearer {KEY}")


def test_the_key_is_in_no_argument_and_no_file(engine: FakeEngine, tmp_path: Path) -> None:
    engine.faults.set("echo_key")
    with Drive(tmp_path, engine.url) as drive:
        command = Path(f"/proc/{drive.process.pid}/cmdline").read_bytes()
        environment = Path(f"/proc/{drive.process.pid}/environ").read_bytes()
        report = drive.ended()
    assert KEY.encode() not in command + environment
    assert report["ended_because"] == "no_first_answer"
    assert report["first_answer"]["what"].startswith("500 Internal Server Error: no session for Bearer sk-…")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert KEY[:12] not in path.read_text()


# The failure for each fault: (fault and its value, a request's error, a stream's error).
FAULTS: list[tuple[dict[str, t.Any], str | None, str]] = [
    ({"status": 503}, "503 Service Unavailable: the fake is set to fail", "same"),
    ({"reject": True}, "401 Unauthorized: Unauthorized", "same"),
    ({"not_json": True}, "200, but no chat completion: <html><h1>It works!</h1></html>", "same"),
    ({"hang": True}, "timeout: nothing for 1 s", "same"),
    ({"finish_reason": "abort"}, "200, but finish_reason abort", "cut after 40 tokens: finish_reason abort"),
    ({"cut": True}, None, "cut after 1 token: connection reset"),
    ({"stall": True}, None, "cut after 1 token: timeout: nothing for 1 s"),
    ({"stream_error": True}, None, "cut after 1 token: error event: EngineCore died"),
    ({"truncate": True}, None, "cut after 40 tokens: the stream ended without finish_reason and [DONE]"),
    ({"not_streaming": True}, None, "200, but no stream of events"),
]


@pytest.mark.parametrize(("fault", "request_says", "stream_says"), FAULTS, ids=[next(iter(case[0])) for case in FAULTS])
def test_each_failure_is_seen_and_counted(
    engine: FakeEngine, tmp_path: Path, fault: dict[str, t.Any], request_says: str | None, stream_says: str
) -> None:
    expected_stream = request_says if stream_says == "same" else stream_says
    # Where silence is not tested, a busy machine may be silent for longer.
    timeout = 1 if "timeout" in str(expected_stream) else 30
    with Drive(tmp_path, engine.url, timeout=timeout, streams=2, requests_per_second=5) as drive:
        drive.ready()
        for name, value in fault.items():
            engine.faults.set(name, value)
        drive.until(lambda report: _counts(report, bool(request_says)) >= 3)
        engine.faults.clear()
        report = drive.stop()
    seen = {(error["kind"], error["what"]) for error in report["errors"]}
    expected = {("stream", expected_stream), *({("request", request_says)} if request_says else ())}
    assert seen >= expected
    # The fault also hits streams that had begun before.
    assert {(kind, _uncounted(what)) for kind, what in seen} == {
        (kind, _uncounted(str(what))) for kind, what in expected
    }
    assert report["streams"]["cut" if "cut after" in str(expected_stream) else "failed"] >= 1
    assert report["streams"]["failed" if "cut after" in str(expected_stream) else "cut"] == 0
    assert (report["requests"]["failed"] > 0) == bool(request_says)
    assert asked(engine) == report["requests"]["sent"] + report["streams"]["begun"], "nothing is asked twice"
    if "timeout" in str(expected_stream):
        assert min(error["seconds"] for error in report["errors"]) >= 1


def _uncounted(what: str) -> str:
    return re.sub(r"after \d+ tokens?", "after some tokens", what)


def _counts(report: Report, requests: bool) -> int:
    streams = report["streams"]["failed"] + report["streams"]["cut"]
    return min(streams, report["requests"]["failed"]) if requests else streams


def test_as_many_are_counted_as_were_refused(engine: FakeEngine, tmp_path: Path) -> None:
    with Drive(tmp_path, engine.url, streams=0) as drive:
        drive.ready()
        engine.faults.set("status_times", 7)
        engine.faults.set("status", 503)
        drive.until(lambda report: report["requests"]["failed"] >= 7 and report["requests"]["ok"] >= 20)
        report = drive.stop()
    assert report["requests"]["failed"] == 7
    assert report["error_counts"] == {"request": {"503 Service Unavailable": 7}, "stream": {}}


def start_engine(port: int) -> subprocess.Popen[bytes]:
    program = [sys.executable, str(ROOT / "tests" / "fakes" / "engine.py"), "--port", str(port), "--token", "0.02"]
    return subprocess.Popen([*program, "--key", KEY], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_server_that_is_killed_cuts_what_it_was_streaming(tmp_path: Path) -> None:
    with FakeEngine() as free:
        port = free.port
    first = start_engine(port)
    try:
        _wait_for_port(port)
        # So long that none ends before the kill, so slow that no second one begins after it.
        with Drive(tmp_path, f"http://127.0.0.1:{port}", stream_tokens=10000, requests_per_second=5, grace=0) as drive:
            drive.until(
                lambda report: (
                    report["streams"]["in_flight"] == 4 and sum(row["tokens"] for row in report["seconds"]) > 40
                )
            )
            first.kill()
            first.wait()
            drive.until(lambda report: report["streams"]["failed"] >= 4 and report["requests"]["failed"] >= 5)
            time.sleep(1)
            second = start_engine(port)
            try:
                _wait_for_port(port)
                before = (drive.read() or {})["requests"]["ok"]
                drive.until(
                    lambda report: report["streams"]["in_flight"] == 4 and report["requests"]["ok"] > before + 3
                )
                report = drive.stop()
            finally:
                second.kill()
                second.wait()
    finally:
        first.kill()
        first.wait()
    assert report["streams"]["cut"] == 4
    assert report["streams"]["in_flight"] == 4, "begun after the second start, and not waited for"
    cut = [error["what"] for error in report["errors"] if error["what"].startswith("cut after ")]
    assert len(cut) == 4
    assert all(what.endswith(("connection reset", "connection closed without a whole answer")) for what in cut)
    others = {error["what"] for error in report["errors"]} - set(cut)
    assert "connection refused" in others
    assert others <= {"connection refused", "connection reset", "connection closed without a whole answer"}
    assert report["longest_gap"]["seconds"] > 1


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on {port}")


def test_it_ends_with_its_owner(engine: FakeEngine, tmp_path: Path) -> None:
    owner = subprocess.Popen(["sleep", "300"])
    try:
        engine.faults.set("slow_token", 1.0)
        with Drive(tmp_path, engine.url, owner_pid=owner.pid, grace=60) as drive:
            drive.until(lambda report: report["streams"]["in_flight"] == 4)
            # Its parent has not reaped it: a zombie is gone, too.
            owner.kill()
            began = time.monotonic()
            report = drive.ended(10)
        assert time.monotonic() - began < 5, "streams in flight are not waited for"
    finally:
        owner.kill()
        owner.wait()
    assert report["ended_because"] == "owner_gone"
    assert report["streams"]["in_flight"] == 4


def test_without_an_owner_it_does_not_begin(engine: FakeEngine, tmp_path: Path) -> None:
    owner = subprocess.Popen(["true"])
    owner.wait()
    engine.faults.set("hang")
    with Drive(tmp_path, engine.url, owner_pid=owner.pid) as drive:
        drive.process.wait(10)
        report = drive.read()
    assert report is not None
    assert report["ended_because"] == "owner_gone"
    assert not report["first_answer"]["ok"]


def test_its_time_is_bounded(engine: FakeEngine, tmp_path: Path) -> None:
    with Drive(tmp_path, engine.url, max_seconds=4) as drive:
        report = drive.ended()
    assert report["ended_because"] == "max_seconds"
    assert 4 <= report["ended"] - report["began"] < 30


def test_the_report_survives_a_kill(engine: FakeEngine, tmp_path: Path) -> None:
    with Drive(tmp_path, engine.url) as drive:
        drive.until(lambda report: report["streams"]["whole"] >= 4)
        assert json.loads(Path(pid_path(str(drive.output))).read_text()) == {
            "pid": drive.process.pid,
            "started": processes.start_ticks(drive.process.pid),
        }
        drive.process.kill()
        drive.process.wait()
        killed = time.time()
        report = drive.read()
    assert report is not None
    assert report["ended"] is None
    assert killed - report["written"] < 3
    check_sums(report)


def test_streams_in_flight_get_a_grace_and_are_no_failures_after_it(engine: FakeEngine, tmp_path: Path) -> None:
    with Drive(tmp_path, engine.url, stream_tokens=100, grace=30) as drive:
        drive.until(lambda report: report["streams"]["in_flight"] == 4)
        report = drive.stop()
    assert report["streams"]["whole"] == report["streams"]["begun"] >= 4
    engine.faults.set("slow_token", 5.0)
    with Drive(tmp_path, engine.url, grace=0.5) as drive:
        drive.until(lambda report: report["streams"]["in_flight"] == 4)
        began = time.monotonic()
        report = drive.stop()
        assert 0.5 <= time.monotonic() - began < 5
    assert report["streams"] == {"begun": 4, "whole": 0, "failed": 0, "cut": 0, "in_flight": 4}


def test_requests_are_sent_on_time_while_earlier_ones_hang(engine: FakeEngine, tmp_path: Path) -> None:
    with Drive(tmp_path, engine.url, streams=0, requests_per_second=10, grace=0) as drive:
        drive.ready()
        engine.faults.set("hang")
        report = drive.until(lambda report: report["requests"]["in_flight"] >= 30)
        drive.stop()
    # Not faster either: the first one is sent ahead of the others.
    assert report["requests"]["sent"] <= 10 * (report["written"] - report["began"]) + 1
    assert report["longest_gap"]["seconds"] > 2, "a gap that still lasts"


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ("reject", "401 Unauthorized: Unauthorized"),
        ("status", "500 Internal Server Error: the fake is set to fail"),
        ("not_json", "200, but no chat completion: <html><h1>It works!</h1></html>"),
    ],
)
def test_without_a_first_answer_there_is_no_load(engine: FakeEngine, tmp_path: Path, fault: str, what: str) -> None:
    engine.faults.set(fault, 500 if fault == "status" else True)
    with Drive(tmp_path, engine.url) as drive:
        report = drive.ended(20)
    assert report["first_answer"] == {"ok": False, "what": what}
    assert report["requests"]["sent"] == asked(engine) == 1
    assert report["streams"]["begun"] == 0


class Stubborn(http.server.BaseHTTPRequestHandler):
    """Answers, and keeps every connection open, whatever the client sends."""

    protocol_version = "HTTP/1.1"
    seen: t.ClassVar[dict[int, list[str]]] = {}

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.setdefault(self.client_address[1], []).append(self.headers["Connection"])
        choice = {"message": {"role": "assistant", "content": "Paris"}, "finish_reason": "stop"}
        body = json.dumps({"choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = False

    def log_message(self, format: str, *args: t.Any) -> None:  # noqa: A002 - the base class calls it so
        return


def test_half_of_the_requests_open_a_new_connection_and_the_others_reuse_theirs(tmp_path: Path) -> None:
    Stubborn.seen.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stubborn) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.02,))
        serving.start()
        with Drive(tmp_path, f"http://127.0.0.1:{server.server_address[1]}", streams=0) as drive:
            drive.until(lambda report: report["requests"]["ok"] >= 20)
            report = drive.stop()
        server.shutdown()
        serving.join()
    assert report["errors"] == []
    new = [said for said in Stubborn.seen.values() if said == ["close"]]
    kept = [said for said in Stubborn.seen.values() if set(said) == {"keep-alive"}]
    assert len(new) + len(kept) == len(Stubborn.seen), "a connection that was to be closed is not used again"
    assert abs(len(new) - sum(map(len, kept))) <= 1
    assert max(map(len, kept)) > 1


def test_connections_that_the_server_closes_while_they_are_idle_are_no_failure(
    engine: FakeEngine, tmp_path: Path
) -> None:
    engine.keep_alive = 0.4
    # One is kept for the request after the next, which comes after two seconds.
    config = {"requests_per_second": 1, "streams": 0}
    with Relay(engine.port) as relay, Drive(tmp_path, f"http://127.0.0.1:{relay.port}", **config) as drive:
        drive.until(lambda report: report["requests"]["ok"] >= 5)
        report = drive.stop()
    assert report["errors"] == []
    assert relay.accepted == report["requests"]["sent"] == asked(engine)


def test_over_tls(engine: FakeEngine, tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*make, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Relay(engine.port, context) as relay:
        url = f"https://localhost:{relay.port}"
        with Drive(tmp_path, url) as drive:
            assert drive.ended(20)["first_answer"]["what"] == "no TLS connection (CERTIFICATE_VERIFY_FAILED)"
        with Drive(tmp_path, url, ca_path=str(certificate)) as drive:
            drive.until(lambda report: report["streams"]["whole"] >= 4 and report["requests"]["ok"] >= 20)
            report = drive.stop()
            assert report["errors"] == []
            assert relay.accepted < report["requests"]["sent"] + report["streams"]["begun"]
        with Drive(tmp_path, f"https://127.0.0.1:{relay.port}", validate_certs=False) as drive:
            drive.until(lambda report: report["requests"]["ok"] >= 3)
            assert drive.stop()["errors"] == []


class Relay:
    """A proxy for a port, with or without TLS, which counts the connections."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self._behind = port
        self.accepted = 0
        self._loop = asyncio.new_event_loop()
        listening = asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self._server = self._loop.run_until_complete(listening)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        behind_reader, behind_writer = await asyncio.open_connection("127.0.0.1", self._behind)
        await asyncio.gather(self._copy(reader, behind_writer), self._copy(behind_reader, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unknown": 1}, "configuration is not one"),
        ({"api_key": "sk-a\r\nX: y"}, "api_key holds characters"),
        ({"streams": 0, "requests_per_second": 0}, "streams is 0 and requests_per_second is 0"),
        ({"streams": -1}, "streams is -1"),
        ({"timeout": 0}, "timeout and max_seconds have to be more than 0"),
        ({"output": "report.json"}, "no absolute path"),
    ],
)
def test_a_wrong_configuration_is_refused(change: dict[str, t.Any], message: str) -> None:
    config = {"url": "http://127.0.0.1:8000", "model": "m", "output": "/tmp/report.json", "api_key": KEY}
    with pytest.raises(FleetError, match=message) as refused:
        read_config(json.dumps({**config, **change}))
    assert KEY not in refused.value.message
    assert "sk-a" not in refused.value.message


def test_a_wrong_configuration_ends_the_program(tmp_path: Path) -> None:
    with Drive(tmp_path, "ftp://127.0.0.1") as drive:
        assert drive.process.wait(20) == driver.BAD_CONFIG
        assert "url is 'ftp://127.0.0.1'" in drive.log.read_text()
