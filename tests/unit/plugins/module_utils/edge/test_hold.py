from __future__ import annotations

import json
import types
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.edge.hold import Held, Hold

from tests.programs import install_edge, load


@pytest.fixture
def program(tmp_path_factory: pytest.TempPathFactory) -> types.ModuleType:
    return load(install_edge(tmp_path_factory.mktemp("haproxy")) / "edge_presence.py")


def hold(directory: Path) -> Hold:
    return Hold(str(directory / "hold.map"), str(directory / "presence.json"), [])


def test_what_the_program_at_boot_writes_is_read_and_ended(program: types.ModuleType, tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in ("presence.json", "hold.map", "decided")]
    paths = program.PresencePaths(*files[:2], "http://127.0.0.1:9", files[2])
    program.start(paths, 900.0)
    held = hold(tmp_path).held()
    assert held is not None
    assert held.why == "nothing says when it ran last"
    actions = hold(tmp_path).release(check=True)
    assert actions == [
        f"end the hold since {held.since}: nothing says when it ran last, and its keys are those of the store now"
    ]
    assert hold(tmp_path).held() == held
    assert hold(tmp_path).release(check=False) == actions
    assert hold(tmp_path).held() is None
    assert hold(tmp_path).release(check=False) == []
    # In this boot the program changes nothing any more.
    before = (tmp_path / "presence.json").read_bytes()
    program.start(paths, 900.0)
    assert (tmp_path / "presence.json").read_bytes() == before
    assert hold(tmp_path).held() is None


def test_a_new_host_serves_once_it_has_its_keys(program: types.ModuleType, tmp_path: Path) -> None:
    hold(tmp_path).ensure(check=False)
    assert (tmp_path / "hold.map").exists()
    assert hold(tmp_path).release(check=False) == []
    files = [str(tmp_path / name) for name in ("presence.json", "hold.map", "decided")]
    paths = program.PresencePaths(*files[:2], "http://127.0.0.1:9", files[2])
    program.start(paths, 900.0)
    assert hold(tmp_path).held() is None


def test_the_record_of_when_ec2_started_it_stays(tmp_path: Path) -> None:
    record = tmp_path / "presence.json"
    record.write_text(json.dumps({"boot": "x", "started": "i-01 T", "stopped": True, "why": "it was powered off"}))
    hold(tmp_path).release(check=False)
    after = json.loads(record.read_text())
    assert (after["started"], after["why"]) == ("i-01 T", "")
    assert after["boot"] != "x"


def test_a_hold_without_a_readable_reason_is_one(tmp_path: Path) -> None:
    (tmp_path / "hold.map").write_text("# title\nkeys 2026-11-29T10:00:00Z\n")
    (tmp_path / "presence.json").write_text("{")
    assert hold(tmp_path).held() == Held("2026-11-29T10:00:00Z", "the reason is not recorded")


def test_a_record_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(FleetError, match=r"presence\.json cannot be written"):
        Hold(str(tmp_path / "hold.map"), str(tmp_path / "state" / "presence.json"), []).release(check=False)
