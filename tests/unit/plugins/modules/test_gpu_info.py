from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.module_utils.gpu import host
from ansible_collections.inference.fleet.plugins.modules import gpu_info

from ..module_utils.gpu.nvidia_hosts import fake_host, module_arguments

if t.TYPE_CHECKING:
    from ...conftest import RunModule


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_SETTLE_SECONDS", 0.0)


def arguments(root: Path, scenario: str, **changes: t.Any) -> dict[str, t.Any]:
    return {**module_arguments(fake_host(root, scenario)), "instance_type": "g6e.12xlarge", **changes}


def test_a_healthy_host_is_ok_and_unchanged(run_module: RunModule, tmp_path: Path) -> None:
    result = run_module("gpu_info", arguments(tmp_path, "serving"))
    assert result["changed"] is False
    assert (result["verdict"], result["reasons"], result["report"]) == ("ok", [], [])
    assert result["summary"] == "ok: 4 x NVIDIA L40S, driver 595.71.05"
    assert (result["gpu_summary"], result["gravest"]) == ("4 x NVIDIA L40S", "")
    assert result["driver"]["library_version"] == "595.71.05"
    assert [gpu["memory_used_mib"] for gpu in result["gpus"]] == [41523] * 4
    assert result["processes"][0]["unit"] == "vllm@0.service"
    assert result["expected"] == {"count": 4, "name": "L40S", "memory_mib": 46068, "source": "g6e.12xlarge"}
    assert result["xids"] == []


def test_check_mode_returns_the_same(run_module: RunModule, tmp_path: Path) -> None:
    given = arguments(tmp_path, "gpu_lost")
    assert run_module("gpu_info", given) == run_module("gpu_info", given, check=True)


def test_a_bad_host_is_reported_and_does_not_fail_by_itself(run_module: RunModule, tmp_path: Path) -> None:
    result = run_module("gpu_info", arguments(tmp_path, "missing_gpu"))
    assert result.get("failed") is None
    assert result["verdict"] == "failed"
    assert result["reasons"] == [
        {
            "severity": "failed",
            "check": "gpu_count",
            "gpu": None,
            "found": "3 GPUs",
            "wanted": "4 GPUs (g6e.12xlarge)",
            "advice": "Drain the host, then stop and start the EC2 instance (it moves to other hardware), "
            "or replace it.",
        }
    ]
    assert result["report"] == [
        "[failed] gpu_count: found 3 GPUs; wanted 4 GPUs (g6e.12xlarge). Drain the host, then stop and start "
        "the EC2 instance (it moves to other hardware), or replace it."
    ]
    assert result["gravest"] == "gpu_count: found 3 GPUs; wanted 4 GPUs (g6e.12xlarge)"


@pytest.mark.parametrize(
    ("fail_on", "scenario", "fails"),
    [
        ("never", "missing_gpu", False),
        ("failed", "missing_gpu", True),
        ("degraded", "missing_gpu", True),
        ("failed", "xid_31", False),
        ("degraded", "xid_31", True),
        ("degraded", "healthy", False),
    ],
)
def test_it_fails_from_the_verdict_on_that_was_asked_for(
    run_module: RunModule, tmp_path: Path, fail_on: str, scenario: str, fails: bool
) -> None:
    instance_type = "g6e.12xlarge" if scenario == "missing_gpu" else "g6e.xlarge"
    result = run_module("gpu_info", arguments(tmp_path, scenario, fail_on=fail_on, instance_type=instance_type))
    assert result.get("failed", False) is fails
    if fails:
        assert result["msg"].startswith(result["summary"])
        assert result["report"][0] in result["msg"]


def test_a_cpu_host_needs_no_gpu(run_module: RunModule, tmp_path: Path) -> None:
    given = arguments(tmp_path, "not_installed", accelerator="cpu", fail_on="degraded")
    result = run_module("gpu_info", given)
    assert result["verdict"] == "ok"
    assert result["summary"] == "ok: the accelerator is cpu, so no GPU is needed and none was looked at"
    assert "gpus" not in result


def test_what_is_set_for_the_host_counts_more_than_its_type(run_module: RunModule, tmp_path: Path) -> None:
    given = arguments(tmp_path, "missing_gpu", expected_count=3)
    assert run_module("gpu_info", given)["verdict"] == "ok"
    wrong = run_module("gpu_info", {**given, "expected_name": "H200", "expected_memory": 143771})
    assert [reason["check"] for reason in wrong["reasons"]] == ["gpu_name", "gpu_memory"] * 3


def test_memory_units_and_xids_are_passed_on(run_module: RunModule, tmp_path: Path) -> None:
    given = arguments(tmp_path, "foreign_process", instance_type="g6e.xlarge")
    assert run_module("gpu_info", given)["verdict"] == "failed"
    assert run_module("gpu_info", {**given, "orphan_mib": 9000})["verdict"] == "degraded"
    assert run_module("gpu_info", {**given, "allowed_units": ["session-*.scope"]})["verdict"] == "ok"
    given = arguments(tmp_path / "xid", "xid_79", instance_type="g6e.xlarge", ignored_xids=[79])
    assert run_module("gpu_info", given)["verdict"] == "ok"


def test_a_slow_nvidia_smi_is_given_up(run_module: RunModule, tmp_path: Path) -> None:
    result = run_module("gpu_info", arguments(tmp_path, "hang", timeout=1))
    assert result["reasons"][0]["found"].endswith("did not answer in 1 s")


@pytest.mark.parametrize("version", ["", "CUDA 13", "580.", "v580"])
def test_an_invalid_version_is_refused(run_module: RunModule, tmp_path: Path, version: str) -> None:
    result = run_module("gpu_info", arguments(tmp_path, "healthy", min_driver=version))
    assert result["failed"] is True
    assert result["msg"] == (
        f"min_driver is {version!r}, which is no driver version. Give digits and dots, such as 580 or 580.65.06."
    )


def test_documentation_and_arguments_agree() -> None:
    documented = yaml.safe_load(gpu_info.DOCUMENTATION)["options"]
    assert documented.keys() == gpu_info.ARGUMENT_SPEC.keys()
    for name, option in gpu_info.ARGUMENT_SPEC.items():
        for key in ("type", "choices", "default", "elements"):
            assert documented[name].get(key) == option.get(key), name
