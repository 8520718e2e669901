"""The steps of tests/gpu/several.py with the stand-in for the engines, on a machine that only pretends to have GPUs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import typing as t
from pathlib import Path

import ansible
import pytest

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
    """What a run of three steps found, by what it is."""
    # Not pytest's own place, which the engines' user must not enter.
    with tempfile.TemporaryDirectory(prefix="gpu-machine-") as name:
        place = Path(name)
        place.chmod(0o755)
        found = [json.loads(line) for line in run_steps(place, rendered).splitlines()]
        yield {
            note.pop("what") + (f" ({note['target']})" if "edge" in str(note.get("target")) else ""): note
            for note in found
        }


def run_steps(place: Path, rendered: Path) -> str:
    """The results of the steps, a line each."""
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
    options = ["--skip=long", f"--bundles={place / 'bundles'}", f"--out={place / 'out'}", *sites]
    paths = [ROOT, ROOT / "collections", Path(ansible.__file__).parents[1]]
    done = subprocess.run(
        [
            *machine,
            PYTHON,
            "-m",
            "tests.gpu.several",
            "one:vllm",
            "both",
            "span:sglang",
            "--skip=again",
            "--skip=load",
            *options,
        ],
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
