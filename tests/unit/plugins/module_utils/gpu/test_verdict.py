from __future__ import annotations

import copy
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.gpu import host
from ansible_collections.inference.fleet.plugins.module_utils.gpu import xid as gpu_xid
from ansible_collections.inference.fleet.plugins.module_utils.gpu.driver_rules import version_tuple
from ansible_collections.inference.fleet.plugins.module_utils.gpu.hardware import expected_hardware
from ansible_collections.inference.fleet.plugins.module_utils.gpu.host import GpuDriver, Observation, observe
from ansible_collections.inference.fleet.plugins.module_utils.gpu.kernel import XidEvent
from ansible_collections.inference.fleet.plugins.module_utils.gpu.reason import Wanted
from ansible_collections.inference.fleet.plugins.module_utils.gpu.verdict import judge, summarise

from .nvidia_hosts import SCENARIOS, fake_host, sources

UNITS = ("vllm@*.service", "sglang@*.service")


def wanted(instance_type: str | None = "g6e.xlarge", **changes: t.Any) -> Wanted:
    return Wanted(
        **{"min_driver": "580", "hardware": expected_hardware(instance_type), "allowed_units": UNITS, **changes}
    )


class Look(t.Protocol):
    def __call__(self, scenario: str) -> Observation: ...


@pytest.fixture(scope="module")
def seen_once(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[dict[str, Observation]]:
    """The state in each scenario: reading it takes processes, judging does not."""
    root = tmp_path_factory.mktemp("hosts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host, "_SETTLE_SECONDS", 0.0)
        yield _Scenarios(root)


class _Scenarios(dict[str, Observation]):
    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root

    def __missing__(self, scenario: str) -> Observation:
        timeout = 0.5 if scenario == "hang" else 20.0
        self[scenario] = observe(sources(fake_host(self.root, scenario), timeout), 600)
        return self[scenario]


@pytest.fixture
def look(seen_once: dict[str, Observation]) -> Look:
    """Read the host of a scenario; each test may change the result."""
    return lambda scenario: copy.deepcopy(seen_once[scenario])


# scenario: instance type, verdict, and the findings as (severity, check, GPU, a part of the text)
CASES: dict[str, tuple[str, str, list[tuple[str, str, int | None, str]]]] = {
    "healthy": ("g6e.xlarge", "ok", []),
    "four": ("g6e.12xlarge", "ok", []),
    "serving": ("g6e.12xlarge", "ok", []),
    "h200": (
        "p5en.48xlarge",
        "failed",
        [("failed", "gpu_count", None, "found 1 GPU; wanted 8 GPUs (p5en.48xlarge)")],
    ),
    "two_h200": (
        "p5en.48xlarge",
        "failed",
        [("failed", "gpu_count", None, "found 2 GPUs; wanted 8 GPUs (p5en.48xlarge)")],
    ),
    "two_h200_as_one": (
        "p5en.48xlarge",
        "failed",
        [("failed", "gpu_count", None, "found 2 GPUs; wanted 8 GPUs (p5en.48xlarge)")],
    ),
    "missing_gpu": (
        "g6e.12xlarge",
        "failed",
        [("failed", "gpu_count", None, "found 3 GPUs; wanted 4 GPUs (g6e.12xlarge)")],
    ),
    "old_driver": (
        "g6e.xlarge",
        "failed",
        [
            ("failed", "driver_version", None, "found 570.133.20; wanted >= 580. Install the NVIDIA driver >= 580"),
            ("note", "fields", None, "nvidia-smi does not know gpu_recovery_action, ecc.errors."),
        ],
    ),
    "mismatch": (
        "g6e.xlarge",
        "failed",
        [("failed", "driver_library", None, "found kernel module 595.71.05, libraries 595.91.07; wanted one version")],
    ),
    "mismatch_but_answers": (
        "g6e.xlarge",
        "failed",
        [("failed", "driver_library", None, "found kernel module 595.71.05, libraries 595.91.07; wanted one version")],
    ),
    "not_loaded": (
        "g6e.xlarge",
        "failed",
        [("failed", "driver", None, "the kernel module is not loaded; the kernel runs nouveau instead")],
    ),
    "not_installed": (
        "g6e.xlarge",
        "failed",
        [("failed", "driver", None, "found no nvidia-smi and no NVIDIA kernel module; wanted driver >= 580")],
    ),
    "no_smi": ("g6e.xlarge", "failed", [("failed", "driver", None, "found kernel module 595.71.05 but no nvidia-smi")]),
    "no_libcuda": ("g6e.xlarge", "failed", [("failed", "cuda_library", None, "found no libcuda.so.1")]),
    "no_devices": ("g6e.xlarge", "failed", [("failed", "gpu_count", None, "found 0 GPUs; wanted 1 GPU")]),
    "silent": ("g6e.xlarge", "failed", [("failed", "gpu_count", None, "found 0 GPUs; wanted 1 GPU")]),
    "gpu_lost": (
        "g6e.12xlarge",
        "failed",
        [
            ("failed", "gpu_lost", None, "GPU2: 0000:32:00.0: GPU is lost"),
            ("failed", "xid_79", None, "XID 79 on 0000:32:00, last 2026-11-21T17:42:10+0000: GPU has fallen off"),
        ],
    ),
    "gpu_lost_others_answer": (
        "g6e.12xlarge",
        "failed",
        [
            ("failed", "gpu_lost", None, "GPU2: 0000:32:00.0: GPU is lost"),
            ("failed", "gpu_count", None, "found 3 GPUs; wanted 4 GPUs (g6e.12xlarge)"),
            ("failed", "xid_79", None, "XID 79 on 0000:32:00"),
        ],
    ),
    "reset_required": (
        "g6e.xlarge",
        "failed",
        [
            ("failed", "driver_version", None, "found no version"),
            ("failed", "readable", 0, "'[GPU requires reset]' as uuid, name, driver_version and 21 more"),
        ],
    ),
    "unreadable": ("g6e.xlarge", "degraded", [("degraded", "readable", 0, "'[Unknown Error]' as temperature.gpu;")]),
    "hang": ("g6e.xlarge", "failed", [("failed", "nvidia_smi", None, "did not answer in 0.5 s")]),
    "warning": (
        "g6e.xlarge",
        "degraded",
        [
            ("degraded", "nvidia_smi", None, "infoROM is corrupted at gpu 0000:30:00.0"),
            ("degraded", "inforom", 0, "found 'invalid'; wanted 'valid'"),
        ],
    ),
    "small_gpu": (
        "g6e.xlarge",
        "failed",
        [
            ("failed", "gpu_name", 0, "found NVIDIA L4; wanted L40S (g6e.xlarge)"),
            ("failed", "gpu_memory", 0, "found 23034 MiB; wanted 46068 MiB (g6e.xlarge)"),
        ],
    ),
    "ecc_error": (
        "g6e.12xlarge",
        "failed",
        [
            (
                "failed",
                "ecc",
                1,
                "found 3 uncorrectable ECC errors since the driver was loaded; wanted 0. Drain the host",
            )
        ],
    ),
    "ecc_history": ("g6e.xlarge", "ok", [("note", "ecc", 0, "2 uncorrectable ECC errors in the GPU's lifetime")]),
    "ecc_sram": ("g6e.xlarge", "failed", [("failed", "ecc_sram", 0, "above NVIDIA's threshold")]),
    "pending_remap": (
        "g6e.xlarge",
        "failed",
        [
            ("failed", "remapped_rows", 0, "found a pending row remap; wanted none. Drain the host and reboot it."),
            ("degraded", "xid_63", 0, "a row of GPU memory was remapped"),
        ],
    ),
    "remap_failure": ("g6e.xlarge", "failed", [("failed", "remapped_rows", 0, "a row that could not be remapped")]),
    "retired_page": ("g6e.xlarge", "failed", [("failed", "retired_pages", 0, "a pending page retirement")]),
    "recovery_action": ("g6e.xlarge", "failed", [("failed", "recovery_action", 0, "found 'GPU Reset'; wanted 'None'")]),
    "mig": (
        "",
        "failed",
        [
            ("failed", "mig", 0, "(nvidia-smi -i 0 -mig 0)"),
            ("note", "gpu_count", None, "no instance type"),
        ],
    ),
    "prohibited": ("g6e.xlarge", "failed", [("failed", "compute_mode", 0, "found 'Prohibited'")]),
    "narrow_link": ("g6e.xlarge", "degraded", [("degraded", "pcie_width", 0, "found PCIe x8; wanted x16")]),
    "slowdown": (
        "g6e.xlarge",
        "degraded",
        [
            (
                "degraded",
                "slowdown",
                0,
                "hardware slowdown, software thermal slowdown, hardware thermal slowdown (0x68) at 93 C",
            )
        ],
    ),
    "orphan": (
        "g6e.xlarge",
        "failed",
        [
            (
                "failed",
                "gpu_orphan",
                0,
                "found 41523 MiB in use by no process (an orphan); wanted at most 600 MiB. These have a GPU open: "
                "PID 5200 (VLLM::Worker_TP, vllm@0.service, /dev/nvidia0); end what holds it",
            )
        ],
    ),
    "foreign_process": (
        "g6e.xlarge",
        "failed",
        [("failed", "gpu_process", 0, "PID 6000 (/home/ubuntu/venv/bin/python3, user 4000000, session-3.scope) holds")],
    ),
    "small_foreign_process": (
        "g6e.xlarge",
        "degraded",
        [("degraded", "gpu_process", 0, "(dcgmproftester, user root, nvidia-dcgm.service) holds 300 MiB")],
    ),
    "vanished_process": (
        "g6e.xlarge",
        "failed",
        [("failed", "gpu_process", 0, "PID 6002 ([Not Found]), which is not a process of this host, holds 30000 MiB")],
    ),
    "unowned_memory": (
        "g6e.xlarge",
        "degraded",
        [("degraded", "gpu_memory_unowned", 0, "24000 of 44000 MiB in use belong to no listed process")],
    ),
    "unknown_size": ("g6e.xlarge", "ok", []),
    "xid_79": (
        "g6e.xlarge",
        "failed",
        [("failed", "xid_79", 0, "wanted none in this boot. Drain the host, then stop and start the EC2 instance")],
    ),
    "xid_94": ("g6e.xlarge", "failed", [("failed", "xid_94", 0, "last 8123.334455 s after boot: contained")]),
    "xid_63": ("g6e.xlarge", "degraded", [("degraded", "xid_63", 0, "a row of GPU memory was remapped")]),
    "xid_31": ("g6e.xlarge", "degraded", [("degraded", "xid_31", 0, "on 0000:30:00, 3 times, last 2026-11-21T17:44")]),
    "xid_45": ("g6e.xlarge", "ok", [("note", "xid_45", 0, "work was removed")]),
    "xid_unknown": ("g6e.xlarge", "degraded", [("degraded", "xid_999", 0, "not in this project's table")]),
    "xid_74": (
        "",
        "failed",
        [("failed", "xid_74", 0, "NVLink error"), ("note", "gpu_count", None, "no instance type")],
    ),
}


def test_every_scenario_is_judged() -> None:
    assert CASES.keys() == SCENARIOS.keys()


@pytest.mark.parametrize("scenario", CASES)
def test_scenario(scenario: str, look: Look) -> None:
    instance_type, verdict, findings = CASES[scenario]
    found, reasons = judge(look(scenario), wanted(instance_type))
    assert [(reason.severity, reason.check, reason.gpu) for reason in reasons] == [item[:3] for item in findings]
    for reason, (_severity, _check, _gpu, part) in zip(reasons, findings):
        assert part in reason.text()
        assert reason.advice.endswith(".")
    assert found == verdict


def test_an_empty_observation_is_never_ok() -> None:
    verdict, reasons = judge(Observation(GpuDriver(nvidia_smi="/usr/bin/nvidia-smi"), [], [], [], []), wanted())
    assert (verdict, reasons[0].check) == ("failed", "gpu_count")


@pytest.mark.parametrize(
    ("failure", "message", "check"),
    [
        ("no_library", "NVIDIA-SMI couldn't find libnvidia-ml.so", "driver_library"),
        ("no_permission", "Insufficient Permissions", "nvidia_smi"),
        ("other", "Failed to initialize NVML: Unknown Error", "nvidia_smi"),
        ("other", "", "nvidia_smi"),
    ],
)
def test_the_other_failures_of_nvidia_smi(failure: str, message: str, check: str) -> None:
    driver = GpuDriver(nvidia_smi="/usr/bin/nvidia-smi", loaded=True, failure=failure, message=message)
    verdict, reasons = judge(Observation(driver, [], [], [], []), wanted())
    assert (verdict, [reason.check for reason in reasons]) == ("failed", [check])


def test_a_mismatch_of_unknown_libraries_takes_the_version_from_the_message() -> None:
    message = "Failed to initialize NVML: Driver/library version mismatch NVML library version: 595.91"
    driver = GpuDriver(nvidia_smi="smi", module_version="595.71.05", failure="mismatch", message=message)
    _verdict, reasons = judge(Observation(driver, [], [], [], []), wanted())
    assert reasons[0].found == "kernel module 595.71.05, libraries 595.91"


def test_a_host_without_nvidia_smi_under_nouveau_says_so() -> None:
    _verdict, reasons = judge(Observation(GpuDriver(nouveau=True), [], [], [], []), wanted())
    assert "the kernel runs nouveau instead" in reasons[0].found


@pytest.mark.parametrize(
    ("min_driver", "verdict"), [("595.71.05", "ok"), ("595.71.06", "failed"), ("595.80", "failed"), ("580.126", "ok")]
)
def test_versions_are_compared_by_number(min_driver: str, verdict: str, look: Look) -> None:
    assert judge(look("healthy"), wanted(min_driver=min_driver))[0] == verdict


def test_a_version_is_a_row_of_numbers() -> None:
    assert version_tuple("580.65.06") < version_tuple("580.126") < version_tuple("595")


def test_more_gpus_than_the_type_has_is_a_wrong_inventory(look: Look) -> None:
    verdict, reasons = judge(look("four"), wanted("g6e.4xlarge"))
    assert verdict == "failed"
    assert "found 4 GPUs; wanted 1 GPU (g6e.4xlarge). Correct the instance type" in reasons[0].text()


def test_an_unknown_instance_type_is_not_passed_over(look: Look) -> None:
    verdict, reasons = judge(look("healthy"), wanted("g99.xlarge"))
    assert (verdict, reasons[0].check) == ("degraded", "gpu_count")
    assert "nothing known about g99.xlarge" in reasons[0].text()


def test_two_percent_less_memory_is_another_setting_and_not_another_gpu(look: Look) -> None:
    seen = look("healthy")
    seen.gpus[0]["memory_total_mib"] = 45500
    assert judge(seen, wanted())[0] == "ok"
    seen.gpus[0]["memory_total_mib"] = 45000
    assert judge(seen, wanted())[0] == "failed"
    seen.gpus[0]["memory_total_mib"] = None
    assert judge(seen, wanted())[0] == "failed"


def test_what_does_not_apply_is_no_fault(look: Look) -> None:
    seen = look("healthy")
    for key in seen.gpus[0].keys() - {"index", "uuid", "name", "memory_total_mib", "errors", "bus_id"}:
        seen.gpus[0][key] = None
    assert judge(seen, wanted()) == ("ok", [])


@pytest.mark.parametrize(
    ("mask", "verdict"),
    [(0x1, "ok"), (0x17, "ok"), (0x100, "ok"), *((bit, "degraded") for bit in (0x8, 0x20, 0x40, 0x80))],
)
def test_only_slowdowns_count_among_the_clock_reasons(mask: int, verdict: str, look: Look) -> None:
    seen = look("healthy")
    seen.gpus[0]["clocks_event_reasons"] = mask
    assert judge(seen, wanted())[0] == verdict


def test_the_limits_of_foreign_memory_can_be_set(look: Look) -> None:
    seen = look("foreign_process")
    assert judge(seen, wanted(allowed_units=(*UNITS, "session-*.scope")))[0] == "ok"
    assert judge(seen, wanted(orphan_mib=9000))[0] == "degraded"
    assert judge(look("orphan"), wanted(orphan_mib=42000))[0] == "ok"


def test_an_engine_of_a_unit_that_is_not_allowed_is_foreign(look: Look) -> None:
    verdict, reasons = judge(look("serving"), wanted("g6e.12xlarge", allowed_units=("vllm@*.service",)))
    assert verdict == "failed"
    assert [reason.gpu for reason in reasons] == [2, 3]


def test_an_xid_can_be_ignored(look: Look) -> None:
    seen = look("xid_79")
    assert judge(seen, wanted(ignored_xids=frozenset({79}))) == ("ok", [])
    assert judge(seen, wanted(ignored_xids=frozenset({78})))[0] == "failed"


def test_a_kernel_log_that_cannot_be_read_is_reported(look: Look) -> None:
    seen = look("healthy")
    seen.xids = None
    verdict, reasons = judge(seen, wanted())
    assert (verdict, [reason.check for reason in reasons]) == ("degraded", ["kernel_log"])


@pytest.mark.parametrize("xid", [46, 48, 61, 62, 64, 74, 79, 94, 95, 109, 110, 119, 120, 136, 140, 143, 171, 172])
def test_xids_that_end_service(xid: int) -> None:
    assert severity(xid) == "failed"


@pytest.mark.parametrize("xid", [13, 31, 63, 69, 92, 156, 157])
def test_xids_that_degrade_a_gpu(xid: int) -> None:
    assert severity(xid) == "degraded"


@pytest.mark.parametrize("xid", [43, 45, 121, 154])
def test_xids_that_only_explain(xid: int) -> None:
    assert severity(xid) == "note"


def severity(xid: int) -> str:
    seen = Observation(GpuDriver(), [], [], [], [XidEvent(xid, "0000:30:00", "", 1, "", "")])
    _verdict, reasons = judge(seen, wanted())
    return next(reason.severity for reason in reasons if reason.check == f"xid_{xid}")


def test_every_known_xid_has_a_severity_and_an_advice() -> None:
    for meaning in (*gpu_xid.MEANINGS.values(), gpu_xid.UNKNOWN):
        assert meaning.severity in ("failed", "degraded", "note")
        assert meaning.advice.endswith(".")


@pytest.mark.parametrize(
    ("scenario", "instance_type", "summary"),
    [
        ("four", "g6e.12xlarge", "ok: 4 x NVIDIA L40S, driver 595.71.05"),
        (
            "missing_gpu",
            "g6e.12xlarge",
            "failed: 3 x NVIDIA L40S, driver 595.71.05 (gpu_count: found 3 GPUs; wanted 4 GPUs (g6e.12xlarge))",
        ),
        (
            "small_gpu",
            "g6e.xlarge",
            "failed: 1 x NVIDIA L4, driver 595.71.05 (gpu_name: GPU 0: found NVIDIA L4; wanted L40S (g6e.xlarge);"
            " and 1 more)",
        ),
        (
            "not_installed",
            "g6e.xlarge",
            "failed: no GPU (driver: found no nvidia-smi and no NVIDIA kernel module; wanted driver >= 580)",
        ),
        (
            "old_driver",
            "g6e.xlarge",
            "failed: 1 x NVIDIA L40S, driver 570.133.20 (driver_version: found 570.133.20; wanted >= 580)",
        ),
    ],
)
def test_the_summary_is_one_line(scenario: str, instance_type: str, summary: str, look: Look) -> None:
    seen = look(scenario)
    verdict, reasons = judge(seen, wanted(instance_type))
    assert summarise(verdict, seen, reasons) == summary


def test_the_summary_names_cuda_where_it_is_known() -> None:
    seen = Observation(GpuDriver(version="595.71.05", cuda_version="13.2"), [{"name": None}], [], [], [])
    assert summarise("ok", seen, []) == "ok: 1 x GPU without a name, driver 595.71.05, CUDA 13.2"


def test_a_foreign_process_of_unknown_size_may_hold_everything(look: Look) -> None:
    seen = look("unknown_size")
    verdict, reasons = judge(seen, wanted(allowed_units=()))
    assert verdict == "failed"
    assert "holds an unknown amount of memory; wanted only no process." in reasons[0].text()


def test_nouveau_is_only_named_where_it_runs(look: Look) -> None:
    seen = look("not_loaded")
    seen.driver.nouveau = False
    _verdict, reasons = judge(seen, wanted())
    assert reasons[0].found == "nvidia-smi is installed, the kernel module is not loaded"


def test_a_long_message_of_the_kernel_is_cut(look: Look) -> None:
    _verdict, reasons = judge(look("xid_31"), wanted())
    assert reasons[0].found.endswith("…)")
    assert len(reasons[0].found) < 250
