from __future__ import annotations

import os
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.facts import gpus
from ansible_collections.inference.fleet.plugins.module_utils.gpu import smi

NVIDIA_SMI = Path(__file__).parents[4] / "fakes" / "nvidia_smi"
XID_79 = "1795953600.250000 h kernel: NVRM: Xid (PCI:0000:30:00): 79, pid=1, GPU has fallen off the bus."


def ask(scenario: str) -> list[smi.GpuReading]:
    environment = {**os.environ, "NVIDIA_SMI_SCENARIO": scenario}
    words = [str(NVIDIA_SMI), *smi.gpu_query(gpus.FIELDS)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    return gpus.parse(done.stdout + done.stderr, gpus.FIELDS)


def values(scenario: str, log: gpus.XidLog | None = None, ignored: t.Collection[int] = ()) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for one in gpus.of_gpus(ask(scenario), log or gpus.XidLog(), ignored):
        found.setdefault(one.name.removeprefix("fleet_gpu_"), []).append(one.value)
    return found


def test_a_healthy_gpu() -> None:
    assert values("healthy") == {
        "count": [1],
        "verdict": [0],
        "ecc_uncorrected_total": [0],
        "remap_pending": [False],
        "remap_failure": [False],
        "clock_event_reasons": [1],
        "power_watts": [34],
    }


@pytest.mark.parametrize(
    ("scenario", "verdict", "name", "value"),
    [
        ("ecc_error", 2, "ecc_uncorrected_total", 2),
        ("pending_remap", 2, "remap_pending", True),
        ("remap_failure", 2, "remap_failure", True),
        ("slowdown", 1, "clock_event_reasons", 0x40),
        ("narrow_link", 1, "count", 1),
    ],
)
def test_each_fault_has_its_value_and_its_verdict(scenario: str, verdict: int, name: str, value: float) -> None:
    found = values(scenario)
    assert max(found["verdict"]) == verdict
    if name == "clock_event_reasons":
        assert int(max(found[name])) & 0xE8
    elif name == "ecc_uncorrected_total":
        assert max(found[name]) > 0
    else:
        assert value in found[name]


def test_a_lost_gpu_is_missing_from_the_count() -> None:
    assert values("four")["count"] == [4]
    assert values("missing_gpu")["count"] == [3]


def test_an_xid_fails_its_gpu_alone() -> None:
    log = gpus.XidLog()
    log.add(XID_79)
    log.add("1795953601.0 h kernel: usb 1-1: new device")
    found = ask("four")
    assert values("four", log)["verdict"] == [2, 0, 0, 0]
    assert values("four", log, [79])["verdict"] == [0, 0, 0, 0]
    [seen] = gpus.of_xids(log, gpus.places(found))
    assert (seen.labels, seen.value) == ({"gpu": "0", "xid": "79"}, 1795953600.25)
    # A GPU that never answered is known by its address alone.
    [seen] = gpus.of_xids(gpus.XidLog.read(log.document()), {})
    assert seen.labels == {"gpu": "0000:30:00", "xid": "79"}
