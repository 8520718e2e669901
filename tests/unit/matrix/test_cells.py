"""The supported versions: a single list, which all other places match."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest
import tomllib
import yaml

from tests.matrix.cells import CELLS, CORES, TARGETS, choose
from tests.project import ROOT


def load(path: str) -> t.Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_the_workflow_runs_every_cell() -> None:
    jobs = load(".github/workflows/test.yml")["jobs"]
    assert jobs["core"]["strategy"]["matrix"]["core"] == list(CORES)
    assert jobs["target"]["strategy"]["matrix"]["python"] == list(TARGETS)
    assert jobs["core"]["steps"][-1]["run"] == "script/test matrix -- core-${{ matrix.core }}"
    assert jobs["target"]["steps"][-1]["run"] == "script/test matrix -- target-${{ matrix.python }}"


def test_the_workflow_runs_every_part_of_script_test() -> None:
    text = (ROOT / "script/test").read_text(encoding="utf-8")
    default = re.search(r"parts=\((unit .*)\); }", text)
    assert default
    steps = [
        step.get("run", "") for job in load(".github/workflows/test.yml")["jobs"].values() for step in job["steps"]
    ]
    ran = {part for step in steps if step.startswith("script/test") for part in step.split()[1:]}
    assert set(default[1].split()) <= ran


def test_the_oldest_versions_are_those_that_the_collection_requires() -> None:
    assert load("meta/runtime.yml")["requires_ansible"] == f">={CORES[0]}.0"
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]
    assert ruff["target-version"] == f"py{TARGETS[0].replace('.', '')}"


def test_the_newest_ansible_core_is_the_one_of_the_controllers_lock() -> None:
    lock = (ROOT / "requirements/controller.txt").read_text(encoding="utf-8")
    assert re.search(rf"^ansible-core=={re.escape(CORES[-1])}\.\d+ ", lock, re.MULTILINE)


@pytest.mark.parametrize("core", CORES)
def test_a_lock_has_its_version_of_ansible_core(core: str) -> None:
    lock = (ROOT / f"requirements/core-{core}.txt").read_text(encoding="utf-8")
    assert re.search(rf"^ansible-core=={re.escape(core)}\.\d+ ", lock, re.MULTILINE)


def test_documentation_names_the_versions() -> None:
    page = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    assert f"ansible-core {', '.join(CORES[:-1])} or {CORES[-1]}" in page


def test_cells_are_chosen_by_name() -> None:
    assert choose([]) == list(CELLS)
    assert [cell.python for cell in choose(["target-3.9", "core-2.20"])] == ["3.9", "3.12"]
    with pytest.raises(ValueError, match=r"no cell core-2\.18; its cells are: core-2\.19 "):
        choose(["core-2.18"])


def test_every_cell_has_its_locks() -> None:
    missing = [name for cell in CELLS for name in cell.locks if not Path(ROOT / "requirements" / name).exists()]
    assert missing == []
