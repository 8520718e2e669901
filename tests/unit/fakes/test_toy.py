"""The toy engine: a process of its own, and all that the collection needs to run it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.progress import SERVING, EngineProgress
from ansible_collections.inference.fleet.plugins.module_utils.engines.log import explain
from ansible_collections.inference.fleet.plugins.module_utils.engines.memory import engine_memory
from ansible_collections.inference.fleet.plugins.module_utils.engines.metrics import Load, load
from ansible_collections.inference.fleet.plugins.module_utils.engines.progress import progress
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES

from tests.fakes.standin import wheels
from tests.fakes.toy import overlay
from tests.fakes.toy.toy import ENGINE as TOY
from tests.project import ROOT
from tests.unit.fakes import runtimes

PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars:
    engine_accelerator: cpu
    engine_locks_dir: "{{ locks }}"
    engine_instances: [{index: 0, name: toy-0, engine: toy, gpus: [], engine_port: 8100, served_name: m}]
  tasks:
    - inference.fleet.vram_fit:
        model_path: "{{ model }}"
        engine: toy
        options: {context: 512, slots: 3}
        gpus: [{name: NVIDIA L40S, memory_mib: 46068}]
      register: found
    - ansible.builtin.assert: {that: found.verdict == 'fits'}
    - ansible.builtin.include_role: {name: inference.fleet.toy, tasks_from: validate}
    - ansible.builtin.include_role: {name: inference.fleet.toy, tasks_from: validate}
      vars: {toy_extra_args: {max-num-seqs: 3}}
"""
GIVEN: dict[str, t.Any] = {"alias": "m", "context": 128, "slots": 2, "patience": 1}


@pytest.fixture(autouse=True)
def third(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, TOY.name, TOY)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runtimes.make("toy", tmp_path_factory.mktemp("toy"))


def test_its_parser_says_what_is_wrong_before_it_is_started(runtime: Path, tmp_path: Path) -> None:
    right = {"weights": "/m", **GIVEN}
    assert runtimes.judge("toy", runtime, tmp_path, right) == ""
    unknown = runtimes.judge("toy", runtime, tmp_path, {**right, "contxt": 1})
    assert "toy 1.0.0 does not know the option contxt (did you mean context?)" in unknown
    other = runtimes.judge("toy", runtime, tmp_path, {**right, "max-num-seqs": 1})
    assert "max-num-seqs (did you mean slots?)" in other
    value = runtimes.judge("toy", runtime, tmp_path, {**right, "slots": "many"})
    assert value == (
        "toy 1.0.0 refuses its arguments: argument --slots: invalid int value: 'many' Nothing was stopped or changed."
    )


def test_what_it_writes_and_answers_is_understood(runtime: Path, tmp_path: Path) -> None:
    with runtimes.Engine("toy", runtime, tmp_path, GIVEN) as toy:
        toy.wait()
        lines = toy.journal.splitlines()
        assert progress(lines, TOY) == EngineProgress(SERVING, "serves", 100)
        assert engine_memory(lines, TOY).kv_cache_tokens == 256
        assert runtimes.KEY not in toy.journal
        assert load(toy.get("/metrics")[1]) == Load("toy", 0, 0, 0.0)
        assert json.loads(toy.get("/v1/models")[1])["data"][0]["id"] == "m"
        assert toy.get("/health")[0] == 404
        assert toy.end(signal.SIGTERM) == 0


def test_why_it_did_not_start_is_explained(runtime: Path, tmp_path: Path) -> None:
    with runtimes.Engine("toy", runtime, tmp_path, {**GIVEN, "context": 10**6}) as toy:
        assert toy.end() == 1
        why = explain(toy.journal.splitlines(), TOY)
    assert why is not None
    assert why.reason == "A context of 1000000 does not fit, 32768 do."


def test_a_copy_of_the_collection_gets_it_with_one_module_and_one_line(tmp_path: Path) -> None:
    copy = tmp_path / "ansible_collections/inference/fleet"
    shutil.copytree(ROOT / "plugins/module_utils", copy / "plugins/module_utils")
    (copy / "roles").mkdir()
    overlay.add_to(copy)
    program = (
        "from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES, kind_of_unit\n"
        "print(list(ENGINES), kind_of_unit('toy@0.service').title)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "['vllm', 'sglang', 'toy'] Toy\n"
    assert (copy / "roles/toy/tasks/main.yml").is_file()
    (copy / "plugins/module_utils/engines/registry.py").write_text("ENGINES = {}\n")
    with pytest.raises(ValueError, match="not as it was"):
        overlay.add_to(copy)


def test_modules_and_roles_of_a_copy_take_it_as_any_other(tmp_path: Path) -> None:
    copy = tmp_path / "collections/ansible_collections/inference/fleet"
    for folder in ("meta", "plugins", "roles"):
        shutil.copytree(ROOT / folder, copy / folder)
    overlay.add_to(copy)
    wheels.write_locks(wheels.build_all(), tmp_path / "locks", runtimes.PYTHON, "cpu")
    (tmp_path / "play.yml").write_text(PLAY)
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            *("-i", "localhost,", "play.yml"),
            *("-e", f"ansible_python_interpreter={sys.executable}"),
            *("-e", f"locks={tmp_path / 'locks'}", "-e", f"model={runtimes.TINY}"),
        ],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "collections"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert (
        "toy_extra_args sets max-num-seqs, which is an option of vLLM; Toy calls it slots." in done.stdout + done.stderr
    )
    assert "failed=1" in done.stdout
    assert done.stdout.count("validate | Check version, options and GPUs") >= 2
