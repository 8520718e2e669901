# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The queries of nvidia-smi, and the parsers of its answers. Nothing here runs anything.

``--query-gpu`` rather than ``-q -x``: its field names are stable and old names stay as aliases, a field that this
nvidia-smi does not have is named in its error (so a missing check is known, where an XML element would be silently
absent), and a process name that is not valid XML cannot break the whole answer.
The version is queried as the field driver_version; the text of ``--version`` changed its wording in branch 610.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

GpuReading = dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Field:
    """One property: its name in nvidia-smi, its key in our result, and its parser."""

    query: str
    key: str
    kind: t.Literal["text", "number", "mask", "flag"]


GPU_FIELDS: tuple[Field, ...] = (
    Field("index", "index", "number"),
    Field("uuid", "uuid", "text"),
    Field("name", "name", "text"),
    Field("pci.bus_id", "bus_id", "text"),
    Field("driver_version", "driver_version", "text"),
    Field("compute_cap", "compute_cap", "text"),
    Field("memory.total", "memory_total_mib", "number"),
    Field("memory.reserved", "memory_reserved_mib", "number"),
    Field("memory.used", "memory_used_mib", "number"),
    Field("compute_mode", "compute_mode", "text"),
    Field("persistence_mode", "persistence_mode", "text"),
    Field("mig.mode.current", "mig_mode", "text"),
    Field("gpu_recovery_action", "recovery_action", "text"),
    Field("inforom.checksum_validation", "inforom", "text"),
    Field("ecc.mode.current", "ecc_mode", "text"),
    Field("ecc.errors.uncorrected.volatile.total", "ecc_uncorrected_volatile", "number"),
    Field("ecc.errors.uncorrected.aggregate.total", "ecc_uncorrected_aggregate", "number"),
    Field("ecc.errors.uncorrected.aggregate.sram.thresholdExceeded", "ecc_sram_threshold_exceeded", "flag"),
    Field("retired_pages.pending", "retired_pages_pending", "flag"),
    Field("remapped_rows.uncorrectable", "remapped_rows_uncorrectable", "number"),
    Field("remapped_rows.pending", "remapped_rows_pending", "flag"),
    Field("remapped_rows.failure", "remapped_rows_failure", "flag"),
    Field("pcie.link.width.current", "pcie_width", "number"),
    Field("pcie.link.width.max", "pcie_width_max", "number"),
    Field("temperature.gpu", "temperature_c", "number"),
    Field("clocks_event_reasons.active", "clocks_event_reasons", "mask"),
)

# The name comes last: only its value may contain a comma.
APP_FIELDS = ("pid", "gpu_uuid", "used_memory", "process_name")

FORMAT = "--format=csv,noheader,nounits"

# A property that the GPU does not have. Everything else in brackets is an error of the GPU or the driver.
_NOT_APPLICABLE = {
    "",
    "n/a",
    "[n/a]",
    "not supported",
    "[not supported]",
    "[requested functionality has been deprecated]",
}
_UNKNOWN_FIELD = re.compile(r'^Field "([^"]+)" is not a valid field to query', re.MULTILINE)
_NUMBER = re.compile(r"^-?\d+(?:\.\d+)?$")


def gpu_query(fields: t.Sequence[Field]) -> list[str]:
    """Arguments of nvidia-smi that query ``fields`` of every GPU."""
    return ["--query-gpu=" + ",".join(field.query for field in fields), FORMAT]


def app_query() -> list[str]:
    """Arguments of nvidia-smi that query the processes on every GPU."""
    return ["--query-compute-apps=" + ",".join(APP_FIELDS), FORMAT]


def unknown_field(text: str) -> str | None:
    """The field that this nvidia-smi does not have, where ``text`` is its error about one."""
    match = _UNKNOWN_FIELD.search(text)
    return match.group(1) if match else None


def parse_gpus(text: str, fields: t.Sequence[Field]) -> tuple[list[GpuReading], list[str]]:
    """Parse the answer to :func:`gpu_query`.

    Returns:
        The GPUs, and all other lines: warnings, and messages about GPUs that do not answer.
        A property that does not apply is None; one that could not be read is None and in the GPU's ``errors``.
    """
    gpus: list[GpuReading] = []
    notices: list[str] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        values = [value.strip() for value in line.split(",")]
        if len(values) != len(fields):
            notices.append(line)
            continue
        gpu: GpuReading = {field.key: None for field in GPU_FIELDS}
        gpu["errors"] = {}
        for field, value in zip(fields, values):
            try:
                gpu[field.key] = _read(value, field.kind)
            except ValueError:
                gpu["errors"][field.query] = value
        gpus.append(gpu)
    return gpus, notices


def parse_apps(text: str) -> list[dict[str, t.Any]]:
    """Parse the answer to :func:`app_query`: pid, gpu_uuid, used_mib (None where unknown) and name of each process."""
    processes = []
    for line in filter(None, map(str.strip, text.splitlines())):
        values = [value.strip() for value in line.split(",", len(APP_FIELDS) - 1)]
        if len(values) != len(APP_FIELDS) or not values[0].isdigit():
            continue
        pid, uuid, used, name = values
        processes.append(
            {"pid": int(pid), "gpu_uuid": uuid, "used_mib": int(used) if used.isdigit() else None, "name": name}
        )
    return processes


def failure_kind(rc: int | None, text: str) -> str | None:
    """Why nvidia-smi could not answer, from its message and, where that is unknown, its exit status.

    Returns:
        None where it did answer, else timeout, mismatch, not_loaded, no_library, no_devices, gpu_lost, no_permission or
        other. ``rc`` None means that it timed out.
    """
    if rc is None:
        return "timeout"
    lowered = text.lower()
    for kind, phrases in _PHRASES.items():
        if any(phrase in lowered for phrase in phrases):
            return kind
    # 14 is a damaged infoROM: the rest of the answer is good.
    if rc in (0, 14):
        return None
    return _STATUSES.get(rc, "other")


_PHRASES = {
    "mismatch": ("driver/library version mismatch",),
    "not_loaded": ("couldn't communicate with the nvidia driver", "driver not loaded"),
    "no_library": ("couldn't find libnvidia-ml",),
    "gpu_lost": ("unable to determine the device handle", "gpu is lost", "fallen off the bus"),
    "no_devices": ("no devices were found",),
    "no_permission": ("insufficient permissions",),
}
_STATUSES = {4: "no_permission", 6: "no_devices", 9: "not_loaded", 12: "no_library", 15: "gpu_lost", 18: "mismatch"}


def _read(value: str, kind: str) -> t.Any:
    """The value of one property; None where it does not apply; ValueError where it is an error's text."""
    if value.lower() in _NOT_APPLICABLE:
        return None
    if kind == "text":
        if value.startswith("[") or value == "ERR!":
            raise ValueError(value)
        return value
    if kind == "flag":
        if value not in ("Yes", "No"):
            raise ValueError(value)
        return value == "Yes"
    if kind == "mask":
        return int(value, 16)
    # Some versions print the unit in spite of "nounits" (a link width is "16x" in other outputs).
    number = re.sub(r"\s*(?:MiB|[xCW%])$", "", value)
    if not _NUMBER.match(number):
        raise ValueError(value)
    return int(float(number))
