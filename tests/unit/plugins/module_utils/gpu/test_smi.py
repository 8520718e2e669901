from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.gpu.smi import (
    GPU_FIELDS,
    Field,
    app_query,
    failure_kind,
    gpu_query,
    parse_apps,
    parse_gpus,
    unknown_field,
)

RECORDS = Path(__file__).parents[3] / "fixtures/nvidia"


def recorded(name: str) -> str:
    """A recorded GPU as it would answer our query: no header, no units."""
    header, row = (RECORDS / f"{name}.csv").read_text().splitlines()
    values = dict(zip((title.split(" [")[0] for title in header.split(", ")), row.split(", ")))
    return ", ".join(values[field.query].removesuffix(" MiB") for field in GPU_FIELDS) + "\n"


def line(**changes: str) -> str:
    """The answer of a healthy L40S with some values changed."""
    values = dict(zip((field.key for field in GPU_FIELDS), recorded("l40s-595").strip().split(", ")))
    return ", ".join({**values, **changes}.values())


def test_one_query_asks_for_everything_without_header_and_units() -> None:
    query, style = gpu_query(GPU_FIELDS)
    assert query.startswith("--query-gpu=index,uuid,name,pci.bus_id,driver_version,")
    assert style == "--format=csv,noheader,nounits"
    assert app_query() == ["--query-compute-apps=pid,gpu_uuid,used_memory,process_name", style]


def test_a_recorded_l40s_is_read() -> None:
    gpus, notices = parse_gpus(recorded("l40s-595"), GPU_FIELDS)
    assert notices == []
    assert gpus == [
        {
            "index": 0,
            "uuid": "GPU-a0000000-0000-4000-8000-000000000000",
            "name": "NVIDIA L40S",
            "bus_id": "00000000:30:00.0",
            "driver_version": "595.71.05",
            "compute_cap": "8.9",
            "memory_total_mib": 46068,
            "memory_reserved_mib": 609,
            "memory_used_mib": 0,
            "compute_mode": "Default",
            "persistence_mode": "Enabled",
            "mig_mode": None,
            "recovery_action": "None",
            "inforom": "valid",
            "ecc_mode": "Enabled",
            "ecc_uncorrected_volatile": 0,
            "ecc_uncorrected_aggregate": 0,
            "ecc_sram_threshold_exceeded": False,
            "retired_pages_pending": None,
            "remapped_rows_uncorrectable": 0,
            "remapped_rows_pending": False,
            "remapped_rows_failure": False,
            "pcie_width": 16,
            "pcie_width_max": 16,
            "temperature_c": 31,
            "clocks_event_reasons": 1,
            "errors": {},
        }
    ]


def test_a_recorded_h200_is_read() -> None:
    (gpu,), _notices = parse_gpus(recorded("h200-580"), GPU_FIELDS)
    assert (gpu["name"], gpu["memory_total_mib"], gpu["mig_mode"]) == ("NVIDIA H200", 143771, "Disabled")


@pytest.mark.parametrize(
    "text", ["N/A", "[N/A]", "[Not Supported]", "[Requested functionality has been deprecated]", ""]
)
def test_what_a_gpu_does_not_have_is_none_and_no_error(text: str) -> None:
    (gpu,), _notices = parse_gpus(line(ecc_uncorrected_volatile=text, remapped_rows_pending=text), GPU_FIELDS)
    assert gpu["ecc_uncorrected_volatile"] is None
    assert gpu["remapped_rows_pending"] is None
    assert gpu["errors"] == {}


@pytest.mark.parametrize("text", ["[Unknown Error]", "[GPU is lost]", "[GPU requires reset]", "ERR!"])
def test_a_field_that_a_gpu_cannot_report_is_an_error(text: str) -> None:
    changed = line(name=text, temperature_c=text, remapped_rows_pending=text, clocks_event_reasons=text)
    (gpu,), _notices = parse_gpus(changed, GPU_FIELDS)
    assert gpu["temperature_c"] is None
    assert gpu["errors"] == {
        "name": text,
        "temperature.gpu": text,
        "remapped_rows.pending": text,
        "clocks_event_reasons.active": text,
    }


def test_units_that_stay_in_spite_of_nounits_are_read() -> None:
    (gpu,), _notices = parse_gpus(line(pcie_width="16x", memory_total_mib="46068 MiB"), GPU_FIELDS)
    assert (gpu["pcie_width"], gpu["memory_total_mib"], gpu["errors"]) == (16, 46068, {})


def test_lines_that_are_no_gpu_are_kept_as_notices() -> None:
    message = "Unable to determine the device handle for GPU1: 0000:34:00.0: Unknown Error"
    gpus, notices = parse_gpus(f"{message}\n{recorded('l40s-595')}\n", GPU_FIELDS)
    assert len(gpus) == 1
    assert notices == [message]


def test_a_shorter_query_leaves_the_other_properties_none() -> None:
    (gpu,), _notices = parse_gpus("0, NVIDIA L40S", [Field("index", "index", "number"), Field("name", "name", "text")])
    assert (gpu["index"], gpu["name"], gpu["recovery_action"]) == (0, "NVIDIA L40S", None)


def test_processes_may_have_commas_in_their_names() -> None:
    text = "20037, GPU-a, 538, ffmpeg\n20038, GPU-a, [N/A], sglang::scheduler, TP0\nno such line\n\n"
    assert parse_apps(text) == [
        {"pid": 20037, "gpu_uuid": "GPU-a", "used_mib": 538, "name": "ffmpeg"},
        {"pid": 20038, "gpu_uuid": "GPU-a", "used_mib": None, "name": "sglang::scheduler, TP0"},
    ]


def test_no_processes_is_an_empty_list() -> None:
    assert parse_apps("") == []


def test_the_unknown_field_is_named() -> None:
    assert unknown_field('Field "no.such.field" is not a valid field to query.\n\n') == "no.such.field"
    assert unknown_field(recorded("l40s-595")) is None


@pytest.mark.parametrize(
    ("rc", "text", "kind"),
    [
        (0, "", None),
        (14, "WARNING: infoROM is corrupted at gpu 0000:30:00.0", None),
        (18, "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.159", "mismatch"),
        (9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make …", "not_loaded"),
        (12, "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.", "no_library"),
        (6, "No devices were found", "no_devices"),
        (0, "Unable to determine the device handle for GPU1: 0000:34:00.0: Unknown Error", "gpu_lost"),
        (15, "", "gpu_lost"),
        (4, "Failed to initialize NVML: Insufficient Permissions", "no_permission"),
        (255, "Failed to initialize NVML: Unknown Error", "other"),
        (None, "nvidia-smi did not answer in 60 s", "timeout"),
    ],
)
def test_each_failure_has_its_kind(rc: int | None, text: str, kind: str | None) -> None:
    assert failure_kind(rc, text) == kind
