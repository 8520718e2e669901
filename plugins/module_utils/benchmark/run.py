# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Runs the client on a host, one repeat after the other, and leaves none behind."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.benchmark import client
from ansible_collections.inference.fleet.plugins.module_utils.benchmark.client import MeasuredEndpoint, Scenario
from ansible_collections.inference.fleet.plugins.module_utils.benchmark.figures import figures
from ansible_collections.inference.fleet.plugins.module_utils.benchmark.meter import GpuMeter, known_uuids
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_json, read_text, write_atomically
from ansible_collections.inference.fleet.plugins.module_utils.core.modes import make_directories
from ansible_collections.inference.fleet.plugins.module_utils.core.paths import STATE_DIRECTORY
from ansible_collections.inference.fleet.plugins.module_utils.core.processes import runs, start_ticks

#: The client that runs on this host, to be stopped by a later run if the controller was lost.
PATH = f"{STATE_DIRECTORY}/benchmark.json"

_LOOK_SECONDS = 1.0
_END_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class BenchmarkRun:
    """How a scenario is measured.

    Attributes:
        program: the client.
        endpoint: what is measured.
        key: the key that the client sends.
        gpus: the indices of the instance's GPUs.
        id: of the whole run; prompts follow from it, so those of two runs differ.
        repeats: how often each scenario is measured.
        request_timeout: seconds for one request.
        timeout: seconds for one repeat.
    """

    program: str
    endpoint: MeasuredEndpoint
    key: str = dataclasses.field(repr=False)
    gpus: t.Sequence[int]
    id: str
    repeats: int
    request_timeout: float
    timeout: float


def seed_of(run: str, scenario: str, repeat: int) -> int:
    """The seed of a repeat: it decides the prompts, so each repeat of each run has its own."""
    return int(hashlib.sha256(f"{run}/{scenario}/{repeat}".encode()).hexdigest()[:7], 16)


def measure(run: BenchmarkRun, scenario: Scenario, path: str = PATH) -> dict[str, t.Any]:
    """Measure a scenario.

    Returns:
        ``repeats`` with the figures of each; ``failed`` requests of all ``requests``; ``problem``, the reason where
        nothing could be measured or requests failed; memory and power under ``gpu``.
    """
    meter = GpuMeter(run.gpus, uuids=known_uuids())
    repeats, requests, failed, problem = [], 0, 0, ""
    prompt_tokens: list[int] = []
    for number in range(run.repeats):
        report = _one_repeat(run, scenario, number, meter, path)
        found = client.read_report(report.text)
        requests += len(found)
        bad = [one for one in found if one.problem]
        failed += len(bad)
        problem = problem or (bad[0].problem if bad else "") or ("" if found else report.problem)
        prompt_tokens += [one.prompt_tokens for one in found if not one.problem]
        own = figures(found, scenario)
        if not own:
            problem = problem or report.problem or "no request was answered"
            # A server that refuses one repeat refuses all.
            break
        repeats.append(own)
    return {
        "scenario": dataclasses.asdict(scenario),
        "repeats": repeats,
        "requests": requests,
        "failed": failed,
        "problem": problem,
        "prompt_tokens": max(prompt_tokens, default=0),
        "gpu": meter.figures(),
        "gpu_problem": meter.problem,
    }


class ClientReport(t.NamedTuple):
    """What the client has left: its report, and why it ended badly."""

    text: str
    problem: str


def _one_repeat(run: BenchmarkRun, scenario: Scenario, number: int, meter: GpuMeter, path: str) -> ClientReport:
    directory = tempfile.mkdtemp(prefix="inference-benchmark-")
    try:
        seed = seed_of(run.id, scenario.name, number)
        out = os.path.join(directory, "out")
        config = client.configure(scenario, run.endpoint, seed, out, run.request_timeout)
        # JSON is YAML, which the client reads.
        path_of_config = os.path.join(directory, "config.yaml")
        write_atomically(path_of_config, json.dumps(config), 0o600)
        words = client.command(run.program, path_of_config)
        problem = _run(words, client.environment(directory, run.key), directory, run.timeout, meter, path)
        return ClientReport(read_text(os.path.join(out, client.REPORT)) or "", problem)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _run(
    words: list[str], environment: dict[str, str], directory: str, timeout: float, meter: GpuMeter, path: str
) -> str:
    """Run the client to its end.

    Returns:
        Why it ended badly; empty where it did not.
    """
    make_directories(os.path.dirname(path))
    with open(os.path.join(directory, "log"), "wb") as log:
        # A session of its own: what it has started ends with it.
        process = subprocess.Popen(
            words,
            env=environment,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            write_atomically(path, json.dumps({"pid": process.pid, "started": start_ticks(process.pid)}) + "\n")
            return _watch(process, os.path.join(directory, "log"), timeout, meter)
        finally:
            _end(process.pid)
            process.wait()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _watch(process: subprocess.Popen[bytes], log: str, timeout: float, meter: GpuMeter) -> str:
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(_LOOK_SECONDS)
            return "" if code == 0 else f"the client ended with {code}: {_last_lines(log)}"
        meter.read()
        if time.monotonic() > deadline:
            return f"it was not done within {timeout:g} s (benchmark_timeout)"
        if is_alone():
            raise FleetError("The controller is gone; the measurement ends.")


def is_alone(descriptor: int = 1) -> bool:
    """Whether the reader of this module's result has gone: the controller, or its connection, has ended."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _fd, event in poll.poll(0))


def stop_left_over(path: str = PATH) -> bool:
    """Stop a client that an earlier run has left on this host, because its controller was lost.

    Returns:
        Whether there was one.
    """
    left = read_json(path)
    if not isinstance(left, dict):
        return False
    found = runs(int(left.get("pid") or 0), left.get("started"))
    if found:
        _end(int(left["pid"]))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return found


def _end(leader: int) -> None:
    """End the session of a client, politely and then not."""
    for number, patience in ((signal.SIGTERM, _END_SECONDS), (signal.SIGKILL, 1.0)):
        try:
            os.killpg(leader, number)
        except (ProcessLookupError, PermissionError):
            return
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and _lives(leader):
            time.sleep(0.1)


def _lives(leader: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(leader, os.WNOHANG)
    try:
        os.killpg(leader, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _last_lines(path: str) -> str:
    text = read_text(path) or ""
    reason = [line.strip("│ ") for line in text.splitlines() if "Reason:" in line or " ERROR " in line]
    said = reason[-1] if reason else (text.strip().splitlines() or ["it said nothing"])[-1]
    return " ".join(said.split())[:400]
