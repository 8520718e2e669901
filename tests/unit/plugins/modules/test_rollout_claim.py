from __future__ import annotations

import json
import typing as t
from pathlib import Path

from tests.unit.conftest import Result, RunModule

RESTART = {"verb": "rolling_restart", "who": "anna@laptop", "controller": "laptop:/r", "since": "2027-01-15T07:00:00Z"}


class Host:
    def __init__(self, path: Path, run_module: RunModule) -> None:
        self.path = path
        self._run = run_module

    def note(self, state: str, *, check: bool = False, **options: t.Any) -> Result:
        args = {"state": state, "id": "r1", **RESTART, "path": str(self.path), **options}
        return self._run("rollout_claim", args, check=check)

    @property
    def file(self) -> dict[str, t.Any]:
        document: dict[str, t.Any] = json.loads(self.path.read_text())
        return document


def test_the_life_of_a_claim(tmp_path: Path, run_module: RunModule) -> None:
    host = Host(tmp_path / "lib" / "rollout.json", run_module)
    claimed = host.note("claimed", targets={"vllm-0": "vllm-new"})
    assert not claimed["changed"]
    assert claimed["refused"] is None
    assert (host.file["held"], host.file["targets"]) == (True, {"vllm-0": "vllm-new"})
    host.note("done", instance="vllm-0", seconds=41.04)
    assert list(host.file["done"]) == ["vllm-0"]
    assert host.file["seconds"] == {"vllm-0": 41.0}
    host.note("released")
    assert (host.file["held"], host.file["finished"]) == (False, False)
    host.note("claimed", since="later")
    assert (host.file["held"], host.file["since"]) == (True, RESTART["since"])
    host.note("released", finished=True)
    assert (host.file["held"], host.file["finished"]) == (False, True)


def test_two_controllers_do_not_get_one_host(tmp_path: Path, run_module: RunModule) -> None:
    host = Host(tmp_path / "rollout.json", run_module)
    host.note("claimed")
    before = host.path.read_text()
    refused = host.note("claimed", id="r2", controller="desk:/r", who="ben@desk")
    assert refused["refused"]["who"] == "anna@laptop"
    assert host.path.read_text() == before
    host.note("released", id="r2")
    assert host.path.read_text() == before
    host.note("claimed", id="r2", controller="desk:/r", who="ben@desk", take_over=True)
    assert host.file["who"] == "ben@desk"


def test_check_mode_says_the_same_and_writes_nothing(tmp_path: Path, run_module: RunModule) -> None:
    host = Host(tmp_path / "lib" / "rollout.json", run_module)
    assert host.note("claimed", check=True)["claim"]["id"] == "r1"
    assert not host.path.parent.exists()


def test_a_broken_file_is_named_with_what_to_do(tmp_path: Path, run_module: RunModule) -> None:
    host = Host(tmp_path / "rollout.json", run_module)
    host.path.write_text("{")
    assert "is not valid JSON" in host.note("claimed")["msg"]
    host.path.write_text('{"id": 1}')
    assert "Remove it" in host.note("claimed")["msg"]


def test_done_needs_an_instance(tmp_path: Path, run_module: RunModule) -> None:
    host = Host(tmp_path / "rollout.json", run_module)
    host.note("claimed")
    assert host.note("done")["failed"]


def test_what_a_rollout_protected_is_kept_until_it_is_taken_back(tmp_path: Path, run_module: RunModule) -> None:
    host = Host(tmp_path / "rollout.json", run_module)
    assert host.note("looked", id="")["claim"] is None
    assert host.note("protected", group="fleet")["claim"] is None
    host.note("claimed")
    host.note("protected", group="fleet")
    # The run was killed: the next one, of any rollout and controller, finds it.
    host.note("claimed")
    host.note("claimed", id="r2", controller="desk:/r", take_over=True)
    host.note("released", id="r2", controller="desk:/r", finished=True)
    assert host.note("looked", id="")["claim"]["protected"] == "fleet"
    host.note("protected", id="", controller="", group="")
    assert host.file["protected"] == ""
