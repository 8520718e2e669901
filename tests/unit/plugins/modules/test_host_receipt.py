from __future__ import annotations

import json
import stat
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.receipts import places
from ansible_collections.inference.fleet.plugins.modules import host_receipt

from tests.fakes.haproxy import FakeHaproxy
from tests.unit.conftest import Result, RunModule

Receipt = t.Callable[..., Result]


@pytest.fixture
def receipt(run_module: RunModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Receipt:
    """The module on a host that has HAProxy's maps, one instance and its model below one directory."""
    monkeypatch.setattr(places, "UNIT_DIRECTORY", str(tmp_path / "systemd"))
    monkeypatch.setattr(places, "CONFIGURATION", [str(tmp_path / "etc")])
    program = tmp_path / "bin/systemctl"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\nshift 3\nfor unit; do printf 'ActiveState=active\\nUnitFileState=enabled\\n\\n'; done\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    release = tmp_path / "opt/releases/vllm-1"
    release.mkdir(parents=True)
    (tmp_path / "opt/instances/0").mkdir(parents=True)
    (tmp_path / "opt/instances/0/current").symlink_to("../../releases/vllm-1")
    (release / "manifest.json").write_text(json.dumps({"engine": "vllm", "model_path": str(tmp_path / "model")}))
    for name in ("etc", "maps", "model", "systemd"):
        (tmp_path / name).mkdir()
    (tmp_path / "model/weights").write_bytes(b"0" * 100)
    (tmp_path / "etc/haproxy.cfg").write_text("global\n")
    (tmp_path / "maps/keys.map").write_text("aa team-a\n")

    def run(state: str, digest: str = "one", check: bool = False, **further: t.Any) -> Result:
        arguments: dict[str, t.Any] = {
            "state": state,
            "digest": digest,
            "root": str(tmp_path / "opt"),
            "state_dir": str(tmp_path / "var"),
            "maps": str(tmp_path / "maps"),
            "socket": str(tmp_path / "admin.sock"),
            "master_socket": str(tmp_path / "master.sock"),
            **further,
        }
        return run_module("host_receipt", arguments, check=check)

    return run


@pytest.fixture
def edge(tmp_path: Path) -> t.Iterator[FakeHaproxy]:
    with FakeHaproxy(tmp_path) as fake:
        fake.worker.maps[str(tmp_path / "maps/keys.map")] = [("aa", "team-a")]
        fake.worker.servers["vllm-0"] = {"up": 2, "admin": 0}
        yield fake


def test_a_bare_host_is_not_converged(receipt: Receipt) -> None:
    result = receipt("looked")
    assert not result["converged"]
    assert result["reasons"] == ["no run has converged the host yet"]


@pytest.mark.usefixtures("edge")
def test_a_recorded_host_is_converged(receipt: Receipt, tmp_path: Path) -> None:
    assert not receipt("recorded")["changed"]
    result = receipt("looked")
    assert result["converged"]
    assert result["reasons"] == []
    assert result["drain"] == {}
    path = tmp_path / "var/receipt.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = json.loads(path.read_text())["found"]
    assert found["unit"]["vllm@0.service"] == "active enabled"
    assert found["edge"]["instances_8000/vllm-0"] == "serving"


@pytest.mark.usefixtures("edge")
def test_check_mode_leaves_no_receipt(receipt: Receipt, tmp_path: Path) -> None:
    receipt("recorded", check=True)
    assert not (tmp_path / "var").exists()


@pytest.mark.usefixtures("edge")
def test_a_host_with_changed_inputs_is_not_converged(receipt: Receipt) -> None:
    receipt("recorded")
    result = receipt("looked", digest="two")
    assert not result["converged"]
    assert result["reasons"] == [host_receipt.CHANGED_INPUTS]


def test_an_emptied_map_is_found(receipt: Receipt, edge: FakeHaproxy, tmp_path: Path) -> None:
    receipt("recorded")
    edge.worker.maps[str(tmp_path / "maps/keys.map")] = []
    [reason] = receipt("looked")["reasons"]
    assert reason.startswith(f"edge {tmp_path}/maps/keys.map: sha256:")


def test_a_server_that_was_drained_past_the_modules_is_found(receipt: Receipt, edge: FakeHaproxy) -> None:
    receipt("recorded")
    edge.worker.servers["vllm-0"]["admin"] = 8
    assert receipt("looked")["reasons"] == ["edge instances_8000/vllm-0: drained, was serving"]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("etc/haproxy.cfg", "#\n"),
        ("model/weights", ""),
        ("opt/releases/vllm-1/manifest.json", "{}"),
        ("opt/staged/0", "vllm-2"),
        ("systemd/vllm@0.service.d", ""),
        ("var/rollout.json", "{}"),
    ],
)
@pytest.mark.usefixtures("edge")
def test_what_changes_on_the_host_is_found(receipt: Receipt, tmp_path: Path, path: str, text: str) -> None:
    receipt("recorded")
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_text(text)
    reasons = receipt("looked")["reasons"]
    assert [reason for reason in reasons if reason.startswith(f"file {tmp_path / path}: ")]


@pytest.mark.usefixtures("edge")
def test_a_host_that_was_away_is_not_converged(receipt: Receipt, tmp_path: Path) -> None:
    (tmp_path / "maps/hold.map").write_text("# title\n")
    receipt("recorded")
    (tmp_path / "maps/hold.map").write_text("# title\nkeys 2026-11-29T10:00:00Z\n")
    (tmp_path / "var/presence.json").write_text(json.dumps({"why": "EC2 had stopped it"}))
    result = receipt("looked")
    assert not result["converged"]
    assert result["reasons"][0] == (
        "its edge is held since 2026-11-29T10:00:00Z: EC2 had stopped it, and its keys are not confirmed"
    )


def test_an_edge_that_is_gone_is_found(receipt: Receipt, tmp_path: Path) -> None:
    with FakeHaproxy(tmp_path):
        receipt("recorded")
    assert "edge process: absent, was runs" in receipt("looked")["reasons"]


@pytest.mark.parametrize("text", ["{", '{"format": 99}'])
def test_a_receipt_that_cannot_be_read_leads_to_a_whole_run(receipt: Receipt, tmp_path: Path, text: str) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var/receipt.json").write_text(text)
    result = receipt("looked")
    assert not result["converged"]
    assert str(tmp_path / "var/receipt.json") in result["reasons"][0]


def test_who_drained_the_host_is_reported(receipt: Receipt, tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    mark = {"state": "drained", "by": "operator", "reason": "disk", "since": "2026-11-29T00:00:00Z"}
    (tmp_path / "var/drain.json").write_text(json.dumps(mark))
    assert receipt("looked")["drain"]["by"] == "operator"


def test_a_receipt_that_is_a_directory_leads_to_a_whole_run(receipt: Receipt, tmp_path: Path) -> None:
    (tmp_path / "var/receipt.json").mkdir(parents=True)
    result = receipt("looked")
    assert not result.get("failed")
    assert not result["converged"]
    assert result["reasons"] == [f"{tmp_path}/var/receipt.json cannot be read (Is a directory)"]


def test_a_receipt_that_cannot_be_written_is_no_failure(receipt: Receipt, tmp_path: Path) -> None:
    (tmp_path / "var/receipt.json").mkdir(parents=True)
    result = receipt("recorded")
    assert not result.get("failed")
    assert not result["recorded"]
    assert (tmp_path / "var/receipt.json").is_dir()


def test_places_of_another_shape_lead_to_a_whole_run(receipt: Receipt, tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    document = {"format": 1, "digest": "one", "places": {"trees": []}, "found": {}}
    (tmp_path / "var/receipt.json").write_text(json.dumps(document))
    assert receipt("looked")["reasons"] == [f"{tmp_path}/var/receipt.json is no receipt"]


@pytest.mark.usefixtures("edge")
def test_systemd_that_does_not_answer_leads_to_a_whole_run(receipt: Receipt, tmp_path: Path) -> None:
    receipt("recorded")
    (tmp_path / "bin/systemctl").write_text("#!/bin/sh\nexit 1\n")
    result = receipt("looked")
    assert not result.get("failed")
    assert "systemctl does not answer" in result["reasons"][0]


@pytest.mark.usefixtures("edge")
def test_a_damaged_note_of_drains_is_found_and_no_failure(receipt: Receipt, tmp_path: Path) -> None:
    receipt("recorded")
    (tmp_path / "var/drain.json").write_text("{")
    result = receipt("looked")
    assert not result.get("failed")
    assert result["drain"] == {}
    assert [reason for reason in result["reasons"] if "drain.json: new" in reason]


def test_it_says_whether_all_instances_serve(
    receipt: Receipt, edge: FakeHaproxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[t.Any]] = []

    def serve(instances: list[t.Any]) -> bool:
        asked.append(instances)
        return True

    monkeypatch.setattr(host_receipt, "all_serve", serve)
    instances = [{"unit": "vllm@0.service", "engine_port": 8100}]
    assert receipt("looked", instances=instances)["serving"] is True
    assert asked == [instances]

    def fail(_instances: list[t.Any]) -> bool:
        raise FleetError("systemctl does not answer")

    monkeypatch.setattr(host_receipt, "all_serve", fail)
    assert receipt("looked", instances=instances)["serving"] is False
