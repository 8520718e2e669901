"""Memory and power while an instance is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.benchmark.meter import GpuMeter, known_uuids

#: index, uuid, memory.used, power.draw
ANSWER = "0, GPU-a, 41234, 210.53\n1, GPU-b, 40000, 300.10\n2, GPU-c, 10, 33.0\n"


def test_the_gpus_of_the_instance_are_added() -> None:
    meter = GpuMeter([0, 1])
    meter.take(ANSWER)
    meter.take(ANSWER.replace("41234", "42000").replace("210.53", "240.53"))
    meter.take(ANSWER.replace("210.53", "212.53"))
    assert meter.figures() == {"gpu_memory_gib": pytest.approx(82000 / 1024), "watts": 512.0}
    assert meter.problem == ""


def test_a_gpu_that_is_missing_gives_no_reading() -> None:
    meter = GpuMeter([0, 7])
    meter.take(ANSWER)
    assert meter.figures() == {}
    assert "shows 1 of the instance's 2 GPUs" in meter.problem


def test_gpus_that_a_reboot_numbered_in_another_order_are_the_instances_own(tmp_path: Path) -> None:
    record = tmp_path / "gpus.json"
    record.write_text('{"0": "GPU-c", "1": "GPU-b", "2": "GPU-a"}')
    meter = GpuMeter([0], uuids=known_uuids(str(record)))
    meter.take(ANSWER)
    assert meter.figures() == {"gpu_memory_gib": pytest.approx(10 / 1024), "watts": 33.0}
    gone = GpuMeter([0], uuids={0: "GPU-z"})
    gone.take(ANSWER)
    assert "shows 0 of the instance's 1 GPUs" in gone.problem


@pytest.mark.parametrize("text", [None, "", "[]", "{broken", '{"first": "GPU-a"}'])
def test_a_host_that_recorded_no_gpus_goes_by_the_index(tmp_path: Path, text: str | None) -> None:
    record = tmp_path / "gpus.json"
    if text is not None:
        record.write_text(text)
    meter = GpuMeter([1], uuids=known_uuids(str(record)))
    meter.take(ANSWER)
    assert meter.figures()["watts"] == 300.0


def test_power_that_is_not_shown_leaves_memory() -> None:
    meter = GpuMeter([0])
    meter.take("0, GPU-a, 1024, [N/A]\n")
    assert meter.figures() == {"gpu_memory_gib": 1.0}


def test_without_gpus_nothing_is_asked() -> None:
    meter = GpuMeter([], program="/does/not/exist")
    meter.read()
    assert (meter.figures(), meter.problem) == ({}, "the instance has no GPU")


def test_without_the_program_the_reason_is_kept() -> None:
    meter = GpuMeter([0], program="/does/not/exist")
    meter.read()
    assert meter.figures() == {}
    assert meter.problem.startswith("/does/not/exist gives no answer")


def test_the_program_is_asked(tmp_path: Path) -> None:
    program = tmp_path / "smi"
    program.write_text(f"#!/bin/sh\ncase $1 in --query-gpu=*power.draw*) printf '{ANSWER}';; *) exit 2;; esac\n")
    program.chmod(0o755)
    meter = GpuMeter([2], program=str(program))
    meter.read()
    assert meter.figures() == {"gpu_memory_gib": pytest.approx(10 / 1024), "watts": 33.0}
