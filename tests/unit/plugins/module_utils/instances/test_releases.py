from __future__ import annotations

import dataclasses
import json
import os
import shutil
import stat
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import locked
from ansible_collections.inference.fleet.plugins.module_utils.instances.releases import Release, Releases
from ansible_collections.inference.fleet.plugins.module_utils.instances.staging import Staging, runtime_link
from ansible_collections.inference.fleet.plugins.module_utils.runtimes.runtime import lock_path

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
    """Put a Python into the runtime that answers the options' validation as ``script`` does."""
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
    assert os.listdir(root / "releases") == [".lock"]


def test_options_that_the_engine_takes_are_staged(root: Path) -> None:
    parser(root, "exit 0")
    Releases(str(root)).stage(RELEASE)
    assert Releases(str(root)).exists(RELEASE.name)


def test_the_check_of_options_leaves_no_cache_of_roots(root: Path) -> None:
    parser(root, 'case "$CACHE" in /var/cache/inference*) exit 1 ;; esac; mkdir -p "$CACHE"')
    release = dataclasses.replace(RELEASE, environment={"CACHE": "/var/cache/inference/vllm"})
    Releases(str(root)).stage(release)
    assert Path(Releases(str(root)).path(release.name), "environment").read_text() == (
        'CACHE="/var/cache/inference/vllm"\n'
    )


def test_what_an_interrupted_run_left_is_cleared(root: Path) -> None:
    (root / "releases" / ".staging-dead").mkdir(parents=True)
    name = stage(root)
    assert sorted(os.listdir(root / "releases")) == [".lock", name]


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


def test_what_is_only_tried_is_not_kept(root: Path) -> None:
    releases = Releases(str(root))
    own, tried, another = stage(root), stage(root, revision="r2"), stage(root, revision="r3")
    releases.activate(0, own)
    releases.mark_good(0)
    assert (releases.kept(0), releases.trial(0)) == (own, None)
    releases.activate(0, tried, trial=True)
    assert releases.linked(0, "current") == tried
    assert (releases.kept(0), releases.trial(0), releases.restorable(0)) == (own, tried, own)
    # Its own release, started again for a trial, is no other.
    releases.activate(0, own, trial=True)
    assert (releases.kept(0), releases.trial(0)) == (own, None)
    releases.activate(0, tried, trial=True)
    # A deployment ends the trial, also one of the release that was tried.
    releases.activate(0, tried)
    assert (releases.kept(0), releases.trial(0)) == (tried, None)
    releases.activate(0, another, trial=True)
    releases.activate(0, own)
    assert (releases.kept(0), releases.trial(0)) == (own, None)


def test_a_trial_that_was_broken_off_before_it_was_current_is_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    releases = Releases(str(root))
    own, tried = stage(root), stage(root, revision="r2")
    releases.activate(0, own)
    releases.mark_good(0)

    def end(*_words: object) -> t.NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(Releases, "point", end)
        with pytest.raises(KeyboardInterrupt):
            releases.activate(0, tried, trial=True)
    assert (releases.kept(0), releases.trial(0)) == (own, None)
    # And one that was deployed before it was a trial is marked first: it is never taken for what is wanted.
    releases.activate(0, tried, trial=True)
    assert releases.trial(0) == tried


def test_the_good_release_before_is_remembered(root: Path) -> None:
    releases = Releases(str(root))
    first, second = stage(root), stage(root, revision="r2")
    for name in (first, second):
        releases.activate(0, name)
        releases.mark_good(0)
    assert releases.linked(0, "previous") == first


def test_pruning_spares_what_is_referred_to_and_the_newest(root: Path) -> None:
    releases = Releases(str(root))
    names = [stage(root, revision=f"r{number}", runtime=f"rt{number}") for number in range(5)]
    releases.forget_staged(0)
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


def instances(root: Path, count: int, version: str) -> list[str]:
    """Stage a release for each of a host's instances, as site.yml does before the first one's turn."""
    (root / "runtimes" / f"rt-{version}").mkdir(exist_ok=True)
    return [
        stage(root, index=index, engine=("vllm", "sglang")[index % 2], runtime=f"rt-{version}", version=version)
        for index in range(count)
    ]


def upgrade(releases: Releases, names: list[str], keep: int) -> None:
    for index, name in enumerate(names):
        releases.activate(index, name)
        releases.mark_good(index)
        releases.prune(keep)


@pytest.mark.parametrize("keep", [0, 1, 3])
@pytest.mark.parametrize("count", range(1, 9))
def test_a_host_of_any_size_is_upgraded_and_keeps_its_way_back(root: Path, count: int, keep: int) -> None:
    releases = Releases(str(root))
    each = []
    for version in ("1", "2", "3"):
        each.append(instances(root, count, version))
        upgrade(releases, each[-1], keep)
    for index in range(count):
        assert releases.linked(index, "current") == each[2][index]
        assert releases.earlier(index) == each[1][index]
    history = set(os.listdir(root / "releases")) - {".lock", *each[1], *each[2]}
    assert len(history) == min(keep, count)
    assert not os.listdir(root / "staged")


def test_what_an_interrupted_run_staged_is_there_for_the_next_one(root: Path) -> None:
    releases = Releases(str(root))
    new = instances(root, 8, "2")
    # Interrupted between two instances, and between a release's activation and its gate.
    upgrade(releases, new[:3], keep=0)
    releases.activate(3, new[3])
    for _ in range(2):
        releases.prune(0)
        assert [releases.exists(name) for name in new] == [True] * 8
        # The next run finds them so, and keeps them.
        assert [releases.keep_staged(index, name) for index, name in enumerate(new)] == [False] * 8


def test_a_later_staging_drops_a_release_that_was_never_active(root: Path) -> None:
    releases = Releases(str(root))
    first, second = stage(root), stage(root, revision="r2")
    releases.prune(0)
    assert (releases.exists(first), releases.exists(second)) == (False, True)
    releases.activate(0, second)
    assert releases.staged(0) is None
    third = stage(root, revision="r3")
    # The variables were reverted: the running release is the configured one again.
    assert releases.keep_staged(0, second, dry_run=True)
    assert releases.keep_staged(0, second)
    assert not releases.keep_staged(0, second)
    releases.prune(0)
    assert (releases.exists(second), releases.exists(third)) == (True, False)
    with pytest.raises(FleetError, match=f"has just removed release {third}"):
        releases.keep_staged(0, third)


def test_what_runs_and_what_a_rollout_goes_to_is_no_garbage(root: Path) -> None:
    releases = Releases(str(root))
    names = [stage(root, revision=f"r{number}") for number in range(4)]
    releases.activate(0, names[3])
    releases.prune(0, used={names[0], names[1]})
    assert [releases.exists(name) for name in names] == [True, True, False, True]


def test_an_instance_that_goes_takes_what_was_staged_for_it_along(root: Path) -> None:
    releases = Releases(str(root))
    name = stage(root, index=4)
    assert releases.staged_indexes() == [4]
    assert releases.indexes() == []
    releases.forget(4, dry_run=True)
    assert releases.staged(4) == name
    releases.forget(4)
    releases.prune(0)
    assert not releases.exists(name)


def test_a_runtime_stays_from_its_installation_until_a_release_has_it(root: Path) -> None:
    releases, staging = Releases(str(root)), Staging(str(root))
    old, new = root / "runtimes" / RELEASE.runtime, root / "runtimes" / "vllm-2"
    staging.keep(runtime_link("vllm"), "runtimes", "vllm-2")
    new.mkdir()
    releases.prune(0)
    assert new.is_dir()
    assert not old.exists()
    name = stage(root, runtime="vllm-2")
    assert staging.runtimes() == set()
    releases.activate(0, name)
    releases.prune(0)
    assert new.is_dir()
    # As in a run that changes nothing.
    staging.keep(runtime_link("vllm"), "runtimes", "vllm-2")
    assert not releases.keep_staged(0, name)
    assert staging.runtimes() == set()


def test_a_runtime_that_another_run_installs_is_left_to_it(root: Path) -> None:
    runtime = root / "runtimes" / RELEASE.runtime
    with locked(lock_path(str(runtime))):
        assert Releases(str(root)).prune(0) == []
    assert Releases(str(root)).prune(0) == [str(runtime)]
    assert not runtime.exists()


def test_an_interrupted_removal_leaves_nothing_that_passes_for_whole(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = stage(root)
    releases = Releases(str(root))
    releases.forget_staged(0)

    def break_off(path: str, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise OSError(5, "Input/output error", path)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", break_off)
        with pytest.raises(OSError, match="Input/output"):
            releases.prune(0)
    assert not releases.exists(name)
    releases.prune(0)
    assert os.listdir(root / "releases") == [".lock"]


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
