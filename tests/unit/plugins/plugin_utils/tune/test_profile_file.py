"""The file of a measured profile: valid where it is read, and careful with what is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet import measured
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.measured import ProfileUse
from ansible_collections.inference.fleet.plugins.plugin_utils.fleet.profiles import find_settings
from ansible_collections.inference.fleet.plugins.plugin_utils.tune import profile_file

ABOUT = {
    "version": "0.32.0",
    "model": "Qwen/Qwen3-VL-8B-Instruct",
    "revision": "main",
    "gpu": "L40S",
    "base": "balanced",
    "tune_for": "interactive",
    "run": "20261130T101500Z",
    "at": "2026-11-30T10:42:00Z",
    "host": "gpu-1",
    "limits": {"tune_max_itl": 0.05},
    "load": {"name": "at_32"},
    "figures": {"first_token_p95": {"before": 0.4, "after": 0.2}},
    "unknown": "is left out",
}
NAME = "measured-l40s-interactive"
WHY = "Run 20261130T101500Z on gpu-1: first token p95 0.40 s to 0.20 s, -50% better."


def test_names_are_of_the_gpu_and_the_goal() -> None:
    assert profile_file.default_name("NVIDIA L40S", "interactive") == NAME
    assert profile_file.default_name("RTX PRO 6000", "long_context") == "measured-rtx-pro-6000-long_context"
    assert profile_file.default_name("cpu", "balanced") == "measured-cpu-balanced"
    assert measured.check_name(profile_file.default_name("", "balanced"), "x")


def test_what_is_written_is_what_is_selected(tmp_path: Path) -> None:
    folder = str(tmp_path / "group_vars" / "engine_profiles")
    part = profile_file.make_part(ABOUT, {"max_num_seqs": 64, "max_num_batched_tokens": None}, WHY)
    assert "unknown" not in part
    path = Path(profile_file.write(folder, NAME, "vllm", part))
    text = path.read_text()
    assert text.startswith(f"---\n# Written by playbooks/tune.yml. Select it in group vars: engine_profile: {NAME}\n")
    assert text.count("Run 20261130T101500Z") == 2
    found = find_settings(NAME, "vllm", "L40S", ProfileUse(folder, "L40S", "Qwen/Qwen3-VL-8B-Instruct", "0.32.0"))
    assert found.values["max_num_seqs"] == 64
    assert found.values["max_num_batched_tokens"] is None
    assert profile_file.base_of(NAME, folder, "vllm") == "balanced"
    assert profile_file.base_of("throughput", folder, "vllm") == "throughput"


def test_the_part_of_another_engine_stays(tmp_path: Path) -> None:
    profile_file.write(str(tmp_path), NAME, "vllm", profile_file.make_part(ABOUT, {"max_num_seqs": 64}, WHY))
    other = {**ABOUT, "version": "0.5.23"}
    profile_file.write(str(tmp_path), NAME, "sglang", profile_file.make_part(other, {"schedule_policy": "fcfs"}, WHY))
    profile_file.write(str(tmp_path), NAME, "vllm", profile_file.make_part(ABOUT, {"max_num_seqs": 32}, WHY))
    document = measured.read(str(tmp_path), NAME)
    assert document
    assert {engine: own["settings"][0]["value"] for engine, own in document["engines"].items()} == {
        "vllm": 32,
        "sglang": "fcfs",
    }


def test_what_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="has the setting 'nonsense'"):
        profile_file.write(str(tmp_path), NAME, "vllm", profile_file.make_part(ABOUT, {"nonsense": 1}, WHY))
    assert list(tmp_path.iterdir()) == []


def test_a_place_is_checked_before_anything_and_stays_as_it_was(tmp_path: Path) -> None:
    profile_file.check_place(str(tmp_path / "group_vars" / "engine_profiles"), NAME)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FleetError, match="the profile cannot be written to /proc/none"):
        profile_file.check_place("/proc/none", NAME)
    with pytest.raises(FleetError, match="engine_profiles is empty"):
        profile_file.check_place("", NAME)
    with pytest.raises(FleetError, match="tune_profile is 'fast'"):
        profile_file.check_place(str(tmp_path), "fast")
    (tmp_path / f"{NAME}.yml").write_text("nonsense")
    with pytest.raises(FleetError, match="is not valid: it has no schema"):
        profile_file.check_place(str(tmp_path), NAME)
