from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.modules import engine_release

from tests.unit.conftest import Result, RunModule


class Host:
    """A host with one instance: its directories, and a systemd with the test's answers."""

    def __init__(self, tmp_path: Path, run_module: RunModule) -> None:
        self.root = tmp_path / "opt"
        self.run_directory = tmp_path / "run"
        self.claim = tmp_path / "rollout.json"
        self.units = tmp_path / "units"
        self.units.mkdir()
        self.model = tmp_path / "model"
        self.model.mkdir()
        (self.model / "config.json").write_text("{}")
        self.systemctl = tmp_path / "bin" / "systemctl"
        self.systemctl.parent.mkdir()
        self._run = run_module
        self.stop()
        runtime = self.root / "runtimes" / "vllm-1" / "bin"
        runtime.mkdir(parents=True)
        (runtime / "python").write_text("#!/bin/sh\nexit 0\n")
        (runtime / "python").chmod(0o755)
        (runtime.parent / ".complete.json").write_text("{}")

    def _systemd_says(self, state: str, unit: str = "vllm@0.service") -> None:
        self.systemctl.write_text(f"#!/bin/sh\ncase $4 in {unit}) echo ActiveState={state};; esac\n")
        self.systemctl.chmod(0o755)

    def start(self, release: str, unit: str = "vllm@0.service") -> None:
        self._systemd_says("active", unit)
        (self.run_directory / "0").mkdir(parents=True, exist_ok=True)
        (self.run_directory / "0" / "release").write_text(release + "\n")

    def stop(self) -> None:
        self._systemd_says("inactive")

    def release(
        self,
        state: str,
        *,
        check: bool = False,
        diff: bool = False,
        more: dict[str, t.Any] | None = None,
        **options: t.Any,
    ) -> Result:
        stage = {
            "engine": "vllm",
            "version": "0.32.0",
            "runtime": "vllm-1",
            "model": "m",
            "model_path": str(self.model),
        }
        instance = {"index": 0, **({"served_name": "m"} if state == "staged" else {}), **options}
        arguments = {"state": state, "root": str(self.root), "instances": [instance], **(more or {})}
        arguments["unit_directory"] = str(self.units)
        arguments["claim"] = str(self.claim)
        return self._run(
            "engine_release", {**arguments, **(stage if state == "staged" else {})}, check=check, diff=diff
        )

    def deploy(self, **options: t.Any) -> str:
        """Stage a release, run it, and find it good."""
        name = str(self.release("staged", **options)["instances"][0]["release"])
        self.release("active", release=name)
        self.start(name)
        self.release("good")
        return name


@pytest.fixture
def host(tmp_path: Path, run_module: RunModule, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path, run_module)
    monkeypatch.setenv("PATH", f"{made.systemctl.parent}:/usr/bin:/bin")
    monkeypatch.setattr(engine_release, "RUN_DIRECTORY", str(made.run_directory))
    return made


def test_the_life_of_a_release(host: Host) -> None:
    staged = host.release("staged", options={"dtype": "auto"})
    name = staged["instances"][0]["release"]
    assert staged["changed"]
    assert staged["instances"][0]["pending"] == "it is new"

    assert host.release("active", release=name)["changed"]
    assert host.release("staged", options={"dtype": "auto"})["instances"][0]["pending"] == "it does not run"

    host.start(name)
    again = host.release("staged", options={"dtype": "auto"})
    assert not again["changed"]
    assert again["instances"][0]["pending"] == f"its release {name} has not passed the gate"

    assert host.release("good")["changed"]
    assert host.release("staged", options={"dtype": "auto"})["instances"][0]["pending"] == ""
    assert not host.release("active", release=name)["changed"]
    assert not host.release("good")["changed"]


def test_a_release_that_runs_as_another_engines_unit_is_deployed_again(host: Host) -> None:
    name = host.deploy()
    host.start(name, "sglang@0.service")
    [found] = host.release("staged")["instances"]
    assert found["pending"] == "it runs as sglang@0.service, and its release belongs to vllm@0.service"


def test_the_place_in_an_instance_that_spans_hosts_is_kept(host: Host) -> None:
    span = {"rank": 1, "nodes": ["a", "b"], "addresses": ["10.0.8.1", "10.0.8.2"], "link_port": 29400}
    alone = host.deploy(options={"dtype": "auto"})
    staged = host.release("staged", options={"dtype": "auto"}, span=span)["instances"][0]
    assert staged["release"] != alone
    assert (staged["serves"], staged["span"]) == (False, span)
    host.release("active", release=staged["release"])
    restored = host.release("restored")["instances"][0]
    assert (restored["release"], restored["serves"], restored["span"]) == (alone, True, {})
    kept = host.release("kept")["instances"][0]
    assert (kept["serves"], kept["span"]) == (True, {})
    manifest = json.loads((host.root / "releases" / staged["release"] / "manifest.json").read_text())
    assert manifest["span"] == span
    assert manifest["command"] == ["bin/vllm", "serve", "--config"]
    assert len(manifest["agreement"]) == 12


def test_a_changed_option_is_pending_with_the_reason_and_a_diff(host: Host) -> None:
    first = host.release("staged", options={"dtype": "auto"})["instances"][0]["release"]
    host.release("active", release=first)
    host.start(first)
    host.release("good")
    changed = host.release("staged", options={"dtype": "bfloat16"}, diff=True)
    second = changed["instances"][0]["release"]
    assert changed["instances"][0]["pending"] == f"its release changes from {first} to {second}"
    assert 'dtype: "auto"' in changed["diff"][0]["before"]
    assert 'dtype: "bfloat16"' in changed["diff"][0]["after"]


def test_check_mode_says_the_same_and_writes_nothing(host: Host) -> None:
    predicted = host.release("staged", check=True, options={"dtype": "auto"})
    assert predicted["changed"]
    assert not (host.root / "releases").exists()
    assert host.release("staged", options={"dtype": "auto"})["instances"] == predicted["instances"]


def test_options_are_judged_in_check_mode_too(host: Host) -> None:
    python = host.root / "runtimes" / "vllm-1" / "bin" / "python"
    python.write_text("#!/bin/sh\necho 'vllm: error: unrecognized arguments: --x' >&2\nexit 2\n")
    result = host.release("staged", check=True, options={"x": 1})
    assert result["failed"]
    assert "does not know the option x" in result["msg"]


def test_going_back_needs_a_good_release(host: Host) -> None:
    first = host.release("staged", options={"a": 1})["instances"][0]["release"]
    second = host.release("staged", options={"a": 2})["instances"][0]["release"]
    host.release("active", release=first)
    assert host.release("restored")["instances"][0]["release"] == ""
    host.release("good")
    host.release("active", release=second)
    assert host.release("restored", check=True)["instances"][0]["release"] == first
    back = host.release("restored")
    assert back["changed"]
    assert back["instances"][0]["current"] == first


def test_a_restart_runs_what_is_there(host: Host) -> None:
    assert "has no release" in host.release("kept")["instances"][0]["problem"]
    name = host.deploy(options={"a": 1})
    kept = host.release("kept")
    assert not kept["changed"]
    instance = kept["instances"][0]
    assert (instance["release"], instance["running"], instance["pending"]) == (name, name, "a restart was asked for")
    assert instance["described"][name] == {"engine": "vllm", "version": "0.32.0", "model": "m", "revision": ""}


def test_a_rollback_goes_to_the_good_release_before(host: Host) -> None:
    assert "has no earlier good release" in host.release("earlier")["instances"][0]["problem"]
    first = host.deploy(options={"a": 1})
    assert "has no earlier good release" in host.release("earlier")["instances"][0]["problem"]
    second = host.deploy(options={"a": 2})
    back = host.release("earlier")["instances"][0]
    assert (back["release"], back["pending"]) == (first, f"it goes back from {second} to {first}")


def test_a_rollback_from_what_never_passed_goes_to_the_last_good_one(host: Host) -> None:
    good = host.deploy(options={"a": 1})
    bad = host.release("staged", options={"a": 2})["instances"][0]["release"]
    host.release("active", release=bad)
    assert host.release("earlier")["instances"][0]["release"] == good


def test_a_rollback_that_was_broken_off_keeps_its_target(host: Host) -> None:
    first = host.deploy(options={"a": 1})
    host.deploy(options={"a": 2})
    host.release("active", release=first)
    assert host.release("earlier", release=first)["instances"][0]["release"] == first


def test_a_release_that_was_rolled_back_is_no_earlier_release(host: Host) -> None:
    first = host.deploy(options={"a": 1})
    host.deploy(options={"a": 2})
    host.release("active", release=first)
    host.release("good", more={"forget_previous": True})
    assert host.release("earlier")["instances"][0]["problem"]


@pytest.mark.parametrize(("gone", "said"), [("runtimes/vllm-1/.complete.json", "runtime"), ("../model", "model under")])
def test_a_release_that_is_no_longer_whole_is_no_way_back(host: Host, gone: str, said: str) -> None:
    host.deploy(options={"a": 1})
    host.deploy(options={"a": 2})
    path = host.root / gone
    path.rename(path.parent / "elsewhere")
    back = host.release("earlier")["instances"][0]
    assert back["pending"] == ""
    assert f"lacks its {said}" in back["problem"]


def test_the_unit_goes_with_the_release(host: Host) -> None:
    unit = host.units / "vllm@0.service"
    first = host.release("staged", more={"unit": "[Service]\nNice=1\n"})["instances"][0]["release"]
    assert not unit.exists()
    assert host.release("active", release=first)["changed"]
    assert unit.read_text() == "[Service]\nNice=1\n"
    host.release("good")
    second = host.release("staged", more={"unit": "[Service]\nNice=2\n"})["instances"][0]["release"]
    assert second != first
    host.release("active", release=second)
    assert "Nice=2" in unit.read_text()
    host.release("restored")
    assert "Nice=1" in unit.read_text()
    assert not host.release("active", release=first)["changed"]


def test_the_good_release_itself_is_what_a_failed_restart_comes_back_to(host: Host) -> None:
    name = host.deploy(options={"a": 1})
    assert host.release("restored")["instances"][0]["release"] == name


def test_an_instance_that_is_not_configured_is_found_and_removed(host: Host, tmp_path: Path) -> None:
    host.deploy(options={"port": 8100}, environment={"CUDA_VISIBLE_DEVICES": "1"})
    config = tmp_path / "haproxy.cfg"
    config.write_text("backend instances_8001\n    server engine-0 127.0.0.1:8100\n")
    more = {"edge_config": str(config)}
    assert host.release("undeclared", more=more)["instances"] == []
    [found] = host.release("undeclared", more={**more, "instances": [{"index": 5}]})["instances"]
    assert (found["index"], found["release"], found["pending"]) == (0, "", "it is no longer wanted")
    assert found["running"].startswith("vllm-")
    expected = {"index": 0, "name": "vllm-0", "unit": "vllm@0.service", "port": 8001, "gpus": [1], "served_name": "m"}
    assert expected.items() <= found["instance"].items()
    assert "Instance 0 runs. Stop its unit first." in host.release("removed")["msg"]
    host.stop()
    assert host.release("removed", check=True)["changed"]
    assert host.release("removed")["changed"]
    assert not (host.root / "instances" / "0").exists()
    assert not host.release("removed")["changed"]


def test_only_what_nothing_refers_to_is_pruned(host: Host) -> None:
    first = host.deploy(options={"a": 1})
    second = host.deploy(options={"a": 2})
    third, fourth, fifth = (str(host.release("staged", options={"a": n})["instances"][0]["release"]) for n in (3, 4, 5))
    # The third still runs, the fourth is the target of an unfinished rollout, and the fifth is staged.
    host.start(third)
    claim: dict[str, t.Any] = {"id": "r", "verb": "rollback", "who": "anna", "controller": "c", "since": ""}
    claim["targets"] = {"vllm-0": fourth}
    host.claim.write_text(json.dumps(claim))
    assert not host.release("pruned", more={"keep": 0})["changed"]
    host.claim.write_text(json.dumps({**claim, "finished": True}))
    host.stop()
    predicted = host.release("pruned", check=True, more={"keep": 0})
    pruned = host.release("pruned", more={"keep": 0})
    assert pruned["changed"]
    assert predicted["pruned"] == pruned["pruned"]
    assert {Path(path).name for path in pruned["pruned"]} == {third, fourth}
    assert {path.name for path in (host.root / "releases").iterdir()} == {".lock", first, second, fifth}


@pytest.mark.parametrize(
    ("state", "blocked", "problem"),
    [
        ("pruned", "releases/.lock", "The lock {} cannot be taken (Is a directory)"),
        ("good", "instances/0/good", "{} cannot be written or removed: "),
    ],
)
def test_what_cannot_be_written_is_named(host: Host, state: str, blocked: str, problem: str) -> None:
    name = host.release("staged")["instances"][0]["release"]
    host.release("active", release=name)
    path = host.root / blocked
    path.unlink(missing_ok=True)
    path.mkdir()
    result = host.release(state)
    assert result["failed"]
    assert problem.format(path) in result["msg"]


def test_confirming_a_release_removes_nothing(host: Host) -> None:
    for number in range(6):
        host.deploy(options={"a": number})
    assert len(list((host.root / "releases").glob("vllm-*"))) == 6


def test_staging_again_brings_a_lost_link_back(host: Host) -> None:
    host.deploy(options={"a": 1})
    name = host.release("staged", options={"a": 2})["instances"][0]["release"]
    link = host.root / "staged" / "0"
    assert link.resolve().name == name
    link.unlink()
    assert host.release("staged", check=True, options={"a": 2})["changed"]
    assert host.release("staged", options={"a": 2})["changed"]
    assert not host.release("staged", options={"a": 2})["changed"]
    assert link.resolve().name == name


def test_what_was_staged_for_an_instance_that_never_ran_is_dropped(host: Host) -> None:
    host.deploy(options={"a": 1})
    host.release("staged", index=3)
    assert not host.release("undeclared", index=3)["changed"]
    assert host.release("undeclared", check=True)["changed"]
    assert host.release("undeclared")["instances"] == []
    assert not (host.root / "staged" / "3").is_symlink()
    assert not host.release("undeclared")["changed"]


def test_a_restart_does_not_run_what_is_only_tried(host: Host) -> None:
    own = host.deploy(options={"a": 1})
    tried = host.release("staged", options={"a": 2})["instances"][0]["release"]
    assert host.release("active", release=tried, more={"trial": True})["instances"][0]["trial"] == tried
    host.start(tried)
    kept = host.release("kept")["instances"][0]
    assert (kept["release"], kept["current"], kept["running"], kept["trial"]) == (own, tried, tried, tried)
    assert host.release("staged", options={"a": 1})["instances"][0]["pending"] == (
        f"its release changes from {tried} to {own}"
    )
    assert host.release("earlier")["instances"][0]["release"] == own
    host.release("active", release=own)
    assert host.release("kept")["instances"][0]["trial"] == ""
