"""Memory and power while an instance is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.benchmark.meter import GpuMeter

#: index, memory.used, power.draw
ANSWER = "0, 41234, 210.53\n1, 40000, 300.10\n2, 10, 33.0\n"


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


def test_power_that_is_not_shown_leaves_memory() -> None:
    meter = GpuMeter([0])
    meter.take("0, 1024, [N/A]\n")
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
