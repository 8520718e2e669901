"""The program on a host's files. Its reading of the journal is in tests/integration/edge/test_facts.py."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.clients import edge_values
from ansible_collections.inference.fleet.plugins.module_utils.clients.limits import Limits
from ansible_collections.inference.fleet.plugins.module_utils.engines.metrics import parse
from ansible_collections.inference.fleet.plugins.module_utils.facts import look

from tests.certificates import certificate

NVIDIA_SMI = Path(__file__).parents[4] / "fakes" / "nvidia_smi"
NOON = "2026-11-29T12:00:00Z"
MARK = {"state": "drained", "by": "operator", "reason": "fan", "since": NOON}
CLAIM = {"id": "r1", "verb": "site", "who": "ann", "controller": "c:/x", "since": NOON}


def write(path: Path, document: t.Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))


class Host:
    """A host with everything that a look reads, but for its journal."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.state, self.root = place / "state", place / "opt"
        self.memory, self.output = self.state / "facts.json", self.state / "metrics"
        self.keys_map = place / "keys.map"
        self.certificate = certificate(place / "tls")
        self.said: list[str] = []
        self.state.mkdir()
        for index in ("0", "1"):
            release = self.root / "releases" / f"vllm-{index}"
            manifest = {"engine": "vllm", "version": "0.32.0", "model": "m", "model_path": str(place)}
            write(release / "manifest.json", manifest)
            (self.root / "instances" / index).mkdir(parents=True)
            (self.root / "instances" / index / "current").symlink_to(release)
            write(self.state / "gate" / f"vllm-{index}.json", {"at": NOON, "passed": True})
        write(self.state / "drain.json", MARK)
        write(self.state / "rollout.json", CLAIM)
        write(self.keys_map, f"{'a' * 64} {edge_values.render('team-a', Limits({'expires': NOON}))}\n")

    def look(self, nvidia_smi: str = "", gpus: int = 0) -> dict[str, list[float]]:
        """One look; the values of each metric, and problems by their subjects."""
        places = look.HostPlaces(
            str(self.state),
            str(self.root),
            str(self.keys_map),
            [str(self.certificate)],
            nvidia_smi,
            gpus,
            memory=str(self.memory),
            journal=str(self.place / "journal"),
            accountant=str(self.place / "accountant.json"),
        )
        self.said.clear()
        text = look.HostLook(places, self.said.append).take({"host": "gpu-1", "tier": "inference"})
        found: dict[str, list[float]] = {}
        for sample in parse(text):
            name = sample.labels["what"] if sample.name == "fleet_look_problems" else sample.name.removeprefix("fleet_")
            found.setdefault(name, []).append(sample.value)
        # No journal is there.
        assert found.pop("log") == [1]
        return found


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def problems(found: dict[str, list[float]]) -> dict[str, float]:
    return {what: found[what][0] for what in look.SUBJECTS if what in found and found[what] != [0]}


def test_everything_is_read(host: Host) -> None:
    found = host.look()
    assert problems(found) == {}
    counts = {name: len(values) for name, values in found.items() if name not in look.SUBJECTS}
    assert counts == {
        "info": 1,
        "release_info": 2,
        "gate_passed": 2,
        "gate_timestamp_seconds": 2,
        "drain_since_timestamp_seconds": 1,
        "rollout_claim_timestamp_seconds": 1,
        "client_expires_timestamp_seconds": 1,
        "certificate_expires_timestamp_seconds": 1,
        "disk_available_bytes": 2,
        "disk_size_bytes": 2,
        "last_look_timestamp_seconds": 1,
    }


def test_a_bare_host_has_no_problems(host: Host) -> None:
    shutil.rmtree(host.state)
    host.state.mkdir()
    shutil.rmtree(host.root)
    host.keys_map.unlink()
    assert problems(host.look()) == {}


def test_a_gateway_with_the_settings_of_an_accountant_should_have_one(host: Host) -> None:
    assert "accountant_wanted" not in host.look()
    (host.place / "accountant.json").write_text("{}")
    assert host.look()["accountant_wanted"] == [1]


@pytest.mark.parametrize("content", ["", "{", "[]", "5", '"text"', "null", "{}", '{"at": 5, "state": 1}', "\0\udcff"])
@pytest.mark.parametrize(
    ("file", "subject", "metric", "left"),
    [
        ("opt/releases/vllm-0/manifest.json", "releases", "release_info", 1),
        ("state/gate/vllm-1.json", "gates", "gate_passed", 1),
        ("state/drain.json", "drains", "drain_since_timestamp_seconds", 0),
        ("state/rollout.json", "rollout", "rollout_claim_timestamp_seconds", 0),
    ],
)
def test_a_broken_file_leaves_out_its_own_series(
    host: Host, file: str, subject: str, metric: str, left: int, content: str
) -> None:
    everything = host.look()
    (host.place / file).write_bytes(content.encode("utf-8", "surrogateescape"))
    found = host.look()
    assert len(found.get(metric, [])) == left
    # An empty document is a host of which nothing is recorded.
    empty = {"drains": ("null", "{}"), "rollout": ("null",)}
    assert problems(found) == ({} if content in empty.get(subject, ()) else {subject: 1})
    rest = {
        name: len(values) for name, values in found.items() if values and name not in (metric, "gate_timestamp_seconds")
    }
    assert rest.items() <= {name: len(values) for name, values in everything.items()}.items()


def test_an_unreadable_file_is_named(host: Host) -> None:
    (host.state / "gate" / "vllm-1.json").unlink()
    (host.state / "gate" / "vllm-1.json").mkdir()
    host.certificate.unlink()
    assert problems(host.look()) == {"gates": 1, "certificates": 1}
    assert any("vllm-1.json" in line and line.startswith("gates cannot be read: ") for line in host.said)
    assert any(str(host.certificate) in line for line in host.said)


def test_nothing_of_a_key_is_written(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    run(host)
    written = (host.output / look.FILE).read_text() + host.memory.read_text() + capsys.readouterr().out
    assert "aaaaaaaa" not in written


def test_gpus_are_looked_at_where_there_should_be_some(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "gpu_count" not in host.look()
    monkeypatch.setenv("NVIDIA_SMI_SCENARIO", "missing_gpu")
    found = host.look(str(NVIDIA_SMI), 4)
    assert (found["gpu_count"], found["gpu_expected"]) == ([3], [4])
    # The addresses last: an XID of a GPU that is gone has the index that it had.
    assert json.loads(host.memory.read_text())["gpus"]


def test_fields_that_nvidia_smi_does_not_know_are_asked_for_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_SMI_SCENARIO", "old_driver")
    for _look in range(2):
        found = host.look(str(NVIDIA_SMI), 1)
        assert (found["gpu_count"], problems(found)) == ([1], {})
    assert len(json.loads(host.memory.read_text())["unknown"]) == 2


def test_xids_are_of_this_boot(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_SMI_SCENARIO", "healthy")
    host.look(str(NVIDIA_SMI), 1)
    memory = json.loads(host.memory.read_text())
    host.memory.write_text(json.dumps({**memory, "xids": [["0000:30:00", 79, 1795953600.25]]}))
    found = host.look(str(NVIDIA_SMI), 1)
    assert (found["gpu_xid_last_timestamp_seconds"], found["gpu_verdict"]) == ([1795953600.25], [2])
    memory = json.loads(host.memory.read_text())
    host.memory.write_text(json.dumps({**memory, "boot": "the one before"}))
    found = host.look(str(NVIDIA_SMI), 1)
    assert ("gpu_xid_last_timestamp_seconds" in found, found["gpu_verdict"]) == (False, [0])


@pytest.mark.parametrize("scenario", ["not_loaded", "mismatch", "silent"])
def test_without_an_answer_nothing_is_said_of_gpus(host: Host, monkeypatch: pytest.MonkeyPatch, scenario: str) -> None:
    monkeypatch.setenv("NVIDIA_SMI_SCENARIO", scenario)
    found = host.look(str(NVIDIA_SMI), 1)
    if scenario == "silent":
        assert found["gpu_count"] == [0]
    else:
        assert "gpu_count" not in found
        assert problems(found) == {"gpus": 1}
    assert found["gpu_expected"] == [1]


def test_a_program_that_hangs_is_not_joined_by_another(host: Host, tmp_path: Path, monkeypatch: t.Any) -> None:
    monkeypatch.setattr(look, "_SMI_PATIENCE", 0.5)
    program = tmp_path / "smi"
    starts = tmp_path / "starts"
    # It cannot be killed as long as the test looks: its place is taken by this process, of the name that is looked for.
    program.write_text(f"#!/bin/sh\necho x >> {starts}\nexec sleep 60\n")
    program.chmod(0o755)
    assert problems(host.look(str(program), 1)) == {"gpus": 1}
    memory = json.loads(host.memory.read_text())
    assert memory["smi"] > 0
    name = Path(f"/proc/{os.getpid()}/comm").read_text().strip()
    host.memory.write_text(json.dumps({**memory, "smi": os.getpid()}))
    hanging = tmp_path / name
    program.rename(hanging)
    assert problems(host.look(str(hanging), 1)) == {"gpus": 1}
    assert starts.read_text() == "x\n"
    assert any("still hangs" in line for line in host.said)


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 1}', '{"version": 1, "place": 5}'])
def test_a_broken_memory_begins_anew(host: Host, content: str) -> None:
    host.look()
    whole = json.loads(host.memory.read_text())
    host.memory.write_text(content)
    places = look.HostPlaces(str(host.state), memory=str(host.memory), journal=str(host.place / "none"))
    reading = look.HostLook(places, host.said.append)
    reading.take({})
    assert reading.problems["log"] == 2
    assert any("Counters begin at 0" in line for line in host.said)
    assert json.loads(host.memory.read_text()).keys() == whole.keys()


def run(host: Host) -> None:
    words = [f"--state={host.state}", f"--root={host.root}", f"--keys-map={host.keys_map}", f"--memory={host.memory}"]
    words += [f"--output={host.output}", f"--journal={host.place / 'journal'}", "--host=gpu-1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["facts.pyz", *words])
        look.main()


def test_the_file_is_everybodys_to_read_and_replaced_at_once(host: Host) -> None:
    before = os.umask(0o077)
    try:
        run(host)
    finally:
        os.umask(before)
    written = host.output / look.FILE
    assert [stat.S_IMODE(path.stat().st_mode) for path in (host.output, written)] == [0o755, 0o644]
    assert stat.S_IMODE(host.memory.stat().st_mode) == 0o600
    with written.open() as reader:
        run(host)
        # An open reader keeps the old file, and no temporary file has a name that the collector reads.
        assert reader.read().rstrip().splitlines()[-1].startswith("fleet_last_look_timestamp_seconds ")
    assert [path.name for path in host.output.iterdir()] == [look.FILE]
    assert written.stat().st_ino != os.stat(host.memory).st_ino
