from __future__ import annotations

import dataclasses
import json
import os
import stat
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils._errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils._releases import Release, Releases

RELEASE = Release(
    index=0,
    engine="vllm",
    version="0.32.0",
    runtime="vllm-0.32.0-cpu-aaaa",
    model="Qwen/Qwen3-VL-8B-Instruct",
    draft_path="",
    model_path="/srv/model",
    revision="r1",
    served_name="m",
    options={"dtype": "auto", "port": 8100},
    environment={"A": 'say "hi" \\ there'},
    unit="",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    runtime = tmp_path / "runtimes" / RELEASE.runtime / "bin"
    runtime.mkdir(parents=True)
    return tmp_path


def parser(root: Path, script: str) -> None:
    """Put a Python into the runtime that answers the check of the options as ``script`` does."""
    python = root / "runtimes" / RELEASE.runtime / "bin" / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)


def stage(root: Path, **changes: t.Any) -> str:
    release = dataclasses.replace(RELEASE, **changes)
    Releases(str(root)).stage(release, check_options=False)
    return release.name


def test_a_release_is_named_by_all_that_decides_what_runs() -> None:
    names = {RELEASE.name}
    for field in dataclasses.fields(RELEASE):
        value = getattr(RELEASE, field.name)
        other: t.Any = {**value, "x": "1"} if isinstance(value, dict) else 7 if field.name == "index" else f"{value}x"
        names.add(dataclasses.replace(RELEASE, **{field.name: other}).name)
    assert len(names) == 1 + len(dataclasses.fields(RELEASE))


def test_a_staged_release_is_complete_and_readable(root: Path) -> None:
    path = Path(Releases(str(root)).path(stage(root)))
    assert json.loads((path / "manifest.json").read_text())["revision"] == "r1"
    assert (path / "config.yaml").read_text() == 'dtype: "auto"\nport: 8100\n'
    assert (path / "environment").read_text() == 'A="say \\"hi\\" \\\\ there"\n'
    assert (path / "runtime" / "bin").is_dir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


def test_options_that_the_engine_refuses_leave_nothing_behind(root: Path) -> None:
    parser(root, "echo 'vllm serve: error: unrecognized arguments: --dtpye x' >&2; echo '[\"dtype\"]'; exit 2")
    with pytest.raises(FleetError, match=r"does not know the option dtpye \(did you mean dtype\?\)"):
        Releases(str(root)).stage(RELEASE)
    assert os.listdir(root / "releases") == []


def test_options_that_the_engine_takes_are_staged(root: Path) -> None:
    parser(root, "exit 0")
    Releases(str(root)).stage(RELEASE)
    assert Releases(str(root)).exists(RELEASE.name)


def test_what_an_interrupted_run_left_is_cleared(root: Path) -> None:
    (root / "releases" / ".staging-dead").mkdir(parents=True)
    name = stage(root)
    assert os.listdir(root / "releases") == [name]


def test_only_a_complete_release_can_be_activated(root: Path) -> None:
    (root / "releases" / "vllm-half").mkdir(parents=True)
    with pytest.raises(FleetError, match="no complete release vllm-half"):
        Releases(str(root)).activate(0, "vllm-half")


def test_the_good_release_comes_back(root: Path) -> None:
    releases = Releases(str(root))
    first, second = stage(root), stage(root, revision="r2")
    assert releases.activate(0, first)
    assert not releases.activate(0, first)
    assert releases.restorable(0) is None
    assert releases.mark_good(0)
    assert not releases.mark_good(0)
    releases.activate(0, second)
    assert releases.restorable(0) == first


def test_the_good_release_before_is_remembered(root: Path) -> None:
    releases = Releases(str(root))
    first, second = stage(root), stage(root, revision="r2")
    for name in (first, second):
        releases.activate(0, name)
        releases.mark_good(0)
    assert releases.linked(0, "previous") == first


def test_pruning_spares_what_is_named_and_the_newest(root: Path) -> None:
    releases = Releases(str(root))
    names = [stage(root, revision=f"r{number}", runtime=f"rt{number}") for number in range(5)]
    for number, name in enumerate(names):
        manifest = Path(releases.path(name)) / "manifest.json"
        content = json.loads(manifest.read_text())
        manifest.write_text(json.dumps({**content, "created": f"2026-01-0{number + 1}"}))
        (root / "runtimes" / f"rt{number}").mkdir()
    releases.activate(0, names[0])
    expected = {releases.path(names[1]), releases.path(names[2]), str(root / "runtimes" / "rt1")}
    expected |= {str(root / "runtimes" / "rt2"), str(root / "runtimes" / RELEASE.runtime)}
    assert set(releases.prune(keep=2, dry_run=True)) == expected
    assert releases.exists(names[1])
    assert set(releases.prune(keep=2)) == expected
    assert [releases.exists(name) for name in names] == [True, False, False, True, True]


def test_a_line_break_cannot_smuggle_a_variable_into_the_environment(root: Path) -> None:
    with pytest.raises(FleetError, match="line break"):
        stage(root, environment={"A": "1\nLD_PRELOAD=/tmp/x"})


def test_further_files_are_part_of_it(root: Path) -> None:
    first = stage(root, files={"a.py": "print(1)\n"})
    releases = Releases(str(root))
    assert (Path(releases.path(first)) / "a.py").read_text() == "print(1)\n"
    second = stage(root, files={"a.py": "print(2)\n"})
    assert first != second
    assert "# a.py: " in releases.described(first) != releases.described(second)


def test_what_loads_no_model_misses_none(root: Path) -> None:
    name = stage(root, engine="litellm", model_path="", options={"router_settings": {}})
    (root / "runtimes" / RELEASE.runtime / ".complete.json").write_text("{}")
    (root / "runtimes" / RELEASE.runtime / "bin" / "python").touch()
    assert Releases(str(root)).missing(name) == ""
