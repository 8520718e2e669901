"""The starts that are measured: which, with what changed, and from a state that is known."""

from __future__ import annotations

import ast
import compileall
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu.starts import DEFAULT, SAMPLING, VARIANTS, StartError, Variant, parse, share_compiled, vary


@pytest.mark.parametrize("engine", VARIANTS)
def test_the_default_starts_exist(engine: str) -> None:
    assert [label for label, _variants in parse(engine, "")] == list(DEFAULT[engine])


def test_starts_are_named_and_combined() -> None:
    found = parse("vllm", "fork,cold+plan")
    assert [label for label, _variants in found] == ["fork", "cold+plan"]
    assert found[1][1] == [VARIANTS["vllm"]["cold"], VARIANTS["vllm"]["plan"]]


def test_an_unknown_start_is_named() -> None:
    with pytest.raises(StartError, match="sglang has no start fork; it has cold, empty, "):
        parse("sglang", "cold+fork")


def test_a_change_is_one_of_every_instance() -> None:
    instance = {"index": 0, "environment": {"A": "1", "B": "2"}, "options": {"x": 1}}
    document = {"host": "one", "releases": [{"engine": "vllm", "instances": [instance]}]}
    varied = vary(document, [Variant({"B": "3"}), Variant({"C": "4"}, {"y": 2})])
    (changed,) = varied["releases"][0]["instances"]
    assert changed == {"index": 0, "environment": {"A": "1", "B": "3", "C": "4"}, "options": {"x": 1, "y": 2}}
    assert (varied["host"], varied["releases"][0]["engine"]) == ("one", "vllm")
    assert instance["environment"] == {"A": "1", "B": "2"}


def test_bytecode_is_looked_for(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text("pass\n")
    assert share_compiled(tmp_path) == 0
    compileall.compile_file(tmp_path / "one.py", quiet=1)
    assert share_compiled(tmp_path) == 0.5


def test_a_process_and_its_fork_write_what_their_main_threads_do(tmp_path: Path) -> None:
    program = """
import os, time
def work():
    time.sleep(0.3)
if os.fork():
    os.wait()
else:
    work()
"""
    environment = {**os.environ, "PYTHONPATH": str(SAMPLING), "START_SAMPLES": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    parent, child = sorted(tmp_path.iterdir(), key=lambda path: int(path.stem))
    command, *samples = child.read_text().splitlines()
    assert ast.literal_eval(command.removeprefix("# "))[1:] == ["-c", program]
    assert samples[-1].endswith(" __main__:<module>;__main__:work")
    assert "work" not in parent.read_text().split("\n", 1)[1]


def test_a_sampled_process_frees_what_it_drops(tmp_path: Path) -> None:
    program = """
import time, weakref
class Tensor: ...
def work():
    tensor = Tensor()
    time.sleep(0.1)
    return weakref.ref(tensor)
def is_left(tensor):
    # Time for a look that has begun.
    time.sleep(0.005)
    return tensor() is not None
print(sum(is_left(work()) for _ in range(20)))
"""
    environment = {**os.environ, "PYTHONPATH": str(SAMPLING), "START_SAMPLES": str(tmp_path)}
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def test_without_its_directory_nothing_is_sampled(tmp_path: Path) -> None:
    program = "import threading; print(threading.active_count())"
    environment = {name: value for name, value in os.environ.items() if name != "START_SAMPLES"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "PYTHONPATH": str(SAMPLING)},
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert (done.stdout, list(tmp_path.iterdir())) == ("1\n", [])
