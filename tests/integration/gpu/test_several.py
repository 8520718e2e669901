"""The steps of tests/gpu/several.py with the stand-in for the engines, on a machine that only pretends to have GPUs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import typing as t
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ansible
import pytest

from tests.benchmark_client import install_client
from tests.fakes.standin import wheels
from tests.project import ROOT

ENGINES = ("vllm", "sglang")
#: One that the engines' user may run.
PYTHON = "/usr/bin/python3"
SCENARIO = "two_h200"
UUIDS = [f"GPU-b0000000-0000-4000-8000-00000000000{index}" for index in range(2)]

Note = dict[str, t.Any]


def make_site(engine: str, directory: Path) -> None:
    """The stand-in as a directory of packages, as an engine is brought."""
    contents = {path: (ROOT / path).read_text() for path in wheels.SHIPPED[engine]} | wheels.MODULES[engine]
    contents[f"{engine}-1.0.dist-info/METADATA"] = f"Metadata-Version: 2.1\nName: {engine}\nVersion: 1.0\n"
    for path, text in contents.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(text)


def make_nvidia_smi(directory: Path) -> None:
    """The stand-in for nvidia-smi, with two GPUs and nothing on them."""
    program = directory / "nvidia-smi"
    shutil.copy(ROOT / "tests/fakes/nvidia_smi", program)
    shutil.copytree(ROOT / "tests/unit/fixtures/nvidia", directory / "fixtures")


@pytest.fixture(scope="module")
def notes(rendered: Path) -> t.Iterator[dict[str, Note]]:
    """What some runs of the steps found, by what it is. They wait more than they work, so they run side by side."""
    runs = (
        ("one:vllm", "both", "span:sglang", "--skip=long", "--skip=again", "--skip=load"),
        ("facts", "watch:vllm", "affinity:vllm", "profiles:vllm-seed,vllm-throughput,vllm-balanced", "--quick"),
        ("starts:vllm:profiled+imports,cold+fork", "--quick"),
        ("benchmark:vllm-one", "--quick", f"--client={install_client()}"),
    )
    # Not pytest's own place, which the engines' user must not enter.
    with tempfile.TemporaryDirectory(prefix="gpu-machine-") as name, ThreadPoolExecutor(len(runs)) as pool:
        places = [Path(name, str(number)) for number in range(len(runs))]
        Path(name).chmod(0o755)
        results = pool.map(lambda place, steps: run_steps(place, rendered, steps), places, runs)
        found = [json.loads(line) for result in results for line in result.splitlines()]
        yield {
            note.pop("what") + (f" ({note['target']})" if "edge" in str(note.get("target")) else ""): note
            for note in found
        }


def run_steps(place: Path, rendered: Path, steps: t.Sequence[str]) -> str:
    """The results of the steps, a line each, on a machine of their own."""
    place.mkdir(mode=0o755)
    for part in ("changes", "bin", "out", "smi"):
        (place / part).mkdir()
    shutil.copytree(rendered, place / "bundles")
    (place / "bundles").chmod(0o755)
    for engine in ENGINES:
        make_site(engine, place / engine)
    make_nvidia_smi(place / "smi")
    program = place / "bin/nvidia-smi"
    program.write_text(f'#!/bin/sh\nNVIDIA_SMI_SCENARIO={SCENARIO} exec {PYTHON} {place}/smi/nvidia-smi "$@"\n')
    program.chmod(0o755)
    machine = ["unshare", "--mount", "--net", str(ROOT / "tests/integration/gpu/machine.sh"), str(place)]
    sites = [f"--site={engine}={place / engine}" for engine in ENGINES]
    options = [f"--bundles={place / 'bundles'}", f"--out={place / 'out'}", *sites]
    paths = [ROOT, ROOT / "collections", Path(ansible.__file__).parents[1]]
    done = subprocess.run(
        [*machine, PYTHON, "-m", "tests.gpu.several", *steps, *options],
        env={**os.environ, "PYTHONPATH": ":".join(map(str, paths)), "PATH": f"/usr/local/bin:{os.environ['PATH']}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return (place / "out/results.jsonl").read_text()


@pytest.mark.parametrize(
    "what",
    [
        "vllm on one GPU: gate",
        "both: gate of vllm-0",
        "both: gate of sglang-1",
        "both: gate through the edge (edge)",
        "both: gate through the edge (edge-8001)",
        "sglang on two hosts: gate",
        "sglang on two hosts: gate after it came back",
        "vllm under its watchdog: gate",
    ],
)
def test_an_instance_passes_the_gate(notes: dict[str, Note], what: str) -> None:
    assert notes[what]["passed"], notes[what]


def test_the_counters_follow_the_streams(notes: dict[str, Note]) -> None:
    note = notes["vllm on one GPU: counters"]
    assert (note["most"], note["after"], note["complete"]) == (8, 0, 8)


def test_each_engine_answers_at_its_own_port_of_the_edge(notes: dict[str, Note]) -> None:
    assert notes["both: edge"]["serves"]
    assert notes["both: names at edge"]["models"] == ["Qwen/Qwen3-VL-8B-Instruct"]
    assert notes["both: names at edge-8001"]["models"] == ["sglang-8b"]
    streams = notes["both: streams through the edge at the same time"]
    assert streams["most"] == [8, 8]
    assert [each["complete"] for each in streams["figures"]] == [8, 8]


def test_an_instance_keeps_its_gpu_when_the_host_numbers_them_the_other_way(notes: dict[str, Note]) -> None:
    visible = [notes[f"both: GPU of {name}"]["visible"] for name in ("vllm-0", "sglang-1")]
    assert visible == [[f"CUDA_VISIBLE_DEVICES={UUIDS[1]}"], [f"CUDA_VISIBLE_DEVICES={UUIDS[0]}"]]


def test_an_instance_on_two_hosts_ends_with_one_of_them_and_comes_back(notes: dict[str, Note]) -> None:
    ended = notes["sglang on two hosts: second host's processes killed"]
    assert ended["health_gone_after"] < 15
    assert ended["ended_after"] < 15
    assert notes["sglang on two hosts: back"]["restarts"] == "1"


LOADS = (
    "first picture",
    "long prompt",
    "streams at once",
    "clients that leave",
    "grammar",
    "pause",
    "burst after the pause",
    "other prompts at once after the second start",
    "streams after the second start",
)


@pytest.mark.parametrize("load", LOADS)
def test_no_load_is_taken_for_a_hang(notes: dict[str, Note], load: str) -> None:
    note = notes[f"vllm under its watchdog: {load}"]
    assert "error" not in note, note
    assert {"longest_without_progress_s", "longest_without_http_s"} <= set(note)
    # On a busy machine the stand-in may be suspected.
    assert 2 not in note["verdicts"]
    assert not [line for line in note["watchdog"] if " hangs. " in line]


def test_an_engine_without_requests_is_asked_a_question(notes: dict[str, Note]) -> None:
    assert notes["vllm under its watchdog: pause"]["finished"] >= 1


def test_a_hang_ends_with_a_kill_and_a_gate(notes: dict[str, Note]) -> None:
    assert notes["vllm under its watchdog: after all loads"]["hangs"] == 0
    hang = notes["vllm under its watchdog: hang"]
    assert hang["edge_said"].startswith("DOWN (agent")
    assert hang["out"] <= hang["killed"] <= hang["serves"] <= hang["back"]
    assert (hang["restarts_by_systemd"], hang["answers"], hang["metrics"]["restarts_total"]) == ("1", 200, 1)
    assert [client["after"] > 0 for client in hang["clients"]] == [True] * 4
    (evidence,) = hang["evidence"]
    assert {"hang.txt", "journal.txt", "metrics.txt", "processes.txt", "requests.json"} <= set(evidence)


@pytest.mark.parametrize(
    "way", ["each session at one instance", "the edge by affinity", "the edge by the fewest requests"]
)
def test_every_turn_of_every_session_is_answered(notes: dict[str, Note], way: str) -> None:
    note = notes[f"affinity: chat, {way}"]
    assert (note["answers"], note["errors"]) == (18, [])
    assert note["later_first_token_ms"]["p50"] > 0
    assert sum(note.get("answered", {"all": 18}).values()) == 18


@pytest.mark.parametrize("profile", ["vllm-seed", "vllm-throughput", "vllm-balanced"])
def test_each_profile_gets_the_same_load(notes: dict[str, Note], profile: str) -> None:
    assert not [what for what in notes if "broke off" in what]
    note = notes[f"{profile}: load"]
    assert (note["requests"], note["failed"], note["at_once"], note["varied"]) == (8, [], 4, True)
    assert note["first_token_ms"]["p95"] >= note["first_token_ms"]["p50"] > 0
    assert note["tokens_per_second"] > 0


@pytest.mark.parametrize("scenario", ["at_1", "picture"])
def test_a_host_is_measured_as_a_benchmark_does(notes: dict[str, Note], scenario: str) -> None:
    assert notes["vllm-one: checked"]["problems"] == []
    note = notes[f"vllm-one: {scenario}"]
    assert (note["requests"], note["failed"], note["problem"]) == (2, 0, "")
    assert note["gpu"]["watts"] == 92
    assert len(note["repeats"]) == 1


def test_the_gpus_are_written_as_metrics(notes: dict[str, Note]) -> None:
    lines = notes["facts"]["lines"]
    assert {"fleet_gpu_count 2", 'fleet_gpu_verdict{gpu="1"} 0', 'fleet_gpu_power_watts{gpu="0"} 92'} <= set(lines)


STARTS = [f"starts of vllm: {name}" for name in ("first", "second", "profiled+imports", "cold+fork")]


@pytest.mark.parametrize("start", STARTS)
def test_a_start_is_measured_and_gated(notes: dict[str, Note], start: str) -> None:
    note = notes[start]
    assert {"core: memory", "server"} <= set(note["parts"])
    assert sum(note["parts"].values()) == pytest.approx(note["seconds"], abs=0.5)
    assert notes[f"{start}: gate"]["passed"]


def test_a_profiled_start_says_what_the_time_goes_to(notes: dict[str, Note]) -> None:
    assert notes["starts of vllm: profiled+imports: imports"]["packages"]["asyncio"] > 0
    (server,) = [note for what, note in notes.items() if ": time of " in what and "serve" in note["command"]]
    assert sum(server["function"].values()) > 0.3


def test_the_packages_of_the_engine_are_taken_out_of_the_page_cache(notes: dict[str, Note]) -> None:
    assert "mib" in notes["starts of vllm: cold+fork: out of the page cache"]
    assert notes["starts of vllm: bytecode"]["after"]["vllm"] == 1.0
