"""Running a client: a program in its place, with its files. tests/integration/benchmark runs the real one."""

from __future__ import annotations

import json
import os
import sys
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.benchmark import run as benchmark
from ansible_collections.inference.fleet.plugins.module_utils.benchmark.client import MeasuredEndpoint, Scenario
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.processes import start_ticks

LOAD = Scenario("at_1", 1, 2, 1, 100, 10)

CLIENT = """
import json, os, subprocess, sys, time
config = json.load(open(sys.argv[3]))
place = config["benchmark"]["artifacts"]["dir"]
with open(os.environ["HOME"] + "/../asked", "a") as file:
    file.write(json.dumps([config, os.environ.get("OPENAI_API_KEY")]) + "\\n")
{behaviour}
os.makedirs(place)
with open(place + "/profile_export.jsonl", "w") as file:
    for number in range(2):
        began, ended = 10**9 * number, 10**9 * (number + 1)
        metadata = dict(benchmark_phase="profiling", request_start_ns=began, request_end_ns=ended)
        metrics = dict(usage_completion_tokens=dict(value=10), time_to_first_token=dict(value=50.0))
        file.write(json.dumps(dict(metadata=metadata, metrics=metrics)) + "\\n")
{end}
"""


class Place:
    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.state = path / "state" / "benchmark.json"
        monkeypatch.setenv("TMPDIR", str(path))
        monkeypatch.setattr(benchmark.tempfile, "tempdir", str(path))
        monkeypatch.setattr(benchmark, "_LOOK_SECONDS", 0.05)
        # pytest's own output is no pipe to a controller.
        monkeypatch.setattr(benchmark, "is_alone", lambda: False)

    def run(self, behaviour: str = "", end: str = "", timeout: float = 30, repeats: int = 2) -> dict[str, t.Any]:
        program = self.path / "client"
        program.write_text(f"#!{sys.executable}\n" + CLIENT.format(behaviour=behaviour, end=end))
        program.chmod(0o755)
        endpoint = MeasuredEndpoint("http://127.0.0.1:1", "m", "/m")
        made = benchmark.BenchmarkRun(str(program), endpoint, "sk-x", [], "20261130T100000Z", repeats, 10, timeout)
        return benchmark.measure(made, LOAD, str(self.state))

    def asked(self) -> list[t.Any]:
        return [json.loads(line) for line in (self.path / "asked").read_text().splitlines()]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


def test_each_repeat_has_its_figures_and_prompts_of_its_own(place: Place) -> None:
    found = place.run()
    assert [one["tokens_per_second"] for one in found["repeats"]] == [10.0, 10.0]
    assert (found["requests"], found["failed"], found["problem"]) == (4, 0, "")
    assert found["scenario"]["name"] == "at_1"
    seeds = [config["randomSeed"] for config, _key in place.asked()]
    assert len(set(seeds)) == 2
    assert {key for _config, key in place.asked()} == {"sk-x"}
    assert not list(place.path.glob("inference-benchmark-*"))
    assert not place.state.exists()


def test_seeds_differ_between_runs_scenarios_and_repeats() -> None:
    made = {benchmark.seed_of(run, name, n) for run in ("r1", "r2") for name in ("at_1", "at_8") for n in range(3)}
    assert len(made) == 12
    assert benchmark.seed_of("r1", "at_1", 0) == benchmark.seed_of("r1", "at_1", 0)


def test_a_client_that_fails_gives_the_reason_and_is_not_asked_again(place: Place) -> None:
    found = place.run(behaviour="print('  ERROR    All 2 inference request(s) failed'); sys.exit(1)")
    assert found["repeats"] == []
    assert "the client ended with 1" in found["problem"]
    assert "All 2 inference request(s) failed" in found["problem"]
    assert len(place.asked()) == 1


def test_one_that_takes_too_long_is_ended_with_all_that_it_started(place: Place) -> None:
    child = "pid = subprocess.Popen(['sleep', '600']).pid; open(os.environ['HOME'] + '/../child', 'w').write(str(pid))"
    began = time.monotonic()
    found = place.run(behaviour=f"{child}; time.sleep(600)", timeout=0.5)
    assert time.monotonic() - began < 20
    assert "not done within 0.5 s (benchmark_timeout)" in found["problem"]
    assert start_ticks(int((place.path / "child").read_text())) is None


def test_it_ends_when_the_controller_is_gone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "is_alone", lambda: True)
    with pytest.raises(FleetError, match="The controller is gone"):
        place.run(behaviour="open(os.environ['HOME'] + '/../me', 'w').write(str(os.getpid())); time.sleep(600)")
    if (place.path / "me").exists():
        assert start_ticks(int((place.path / "me").read_text())) is None


def test_whether_the_reader_has_gone() -> None:
    reader, writer = os.pipe()
    assert not benchmark.is_alone(writer)
    os.close(reader)
    assert benchmark.is_alone(writer)
    os.close(writer)


def test_what_an_earlier_run_left_is_stopped(tmp_path: Path) -> None:
    process = benchmark.subprocess.Popen(["sleep", "600"], start_new_session=True)
    path = tmp_path / "benchmark.json"
    path.write_text(json.dumps({"pid": process.pid, "started": start_ticks(process.pid)}))
    assert benchmark.stop_left_over(str(path))
    assert start_ticks(process.pid) is None
    process.wait()
    assert not path.exists()
    assert not benchmark.stop_left_over(str(path))


def test_another_process_with_its_number_is_left_alone(tmp_path: Path) -> None:
    process = benchmark.subprocess.Popen(["sleep", "600"], start_new_session=True)
    path = tmp_path / "benchmark.json"
    path.write_text(json.dumps({"pid": process.pid, "started": 1}))
    assert not benchmark.stop_left_over(str(path))
    assert process.poll() is None
    process.kill()
    process.wait()
