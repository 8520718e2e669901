# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Rules about the GPUs: the expected ones, healthy, and free of other processes. Pure."""

from __future__ import annotations

import fnmatch
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.gpu import xid
from ansible_collections.inference.fleet.plugins.module_utils.gpu.hardware import is_named
from ansible_collections.inference.fleet.plugins.module_utils.gpu.kernel import bus_key
from ansible_collections.inference.fleet.plugins.module_utils.gpu.reason import (
    DEGRADED,
    FAILED,
    NOTE,
    Reason,
    Wanted,
    gpus,
)

if t.TYPE_CHECKING:
    from ansible_collections.inference.fleet.plugins.module_utils.gpu.host import Observation

# clocks_event_reasons.active; idle, application clocks and the power cap are part of normal work.
_SLOWDOWNS = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
_MEMORY_TOLERANCE = 0.02
_MESSAGE_LENGTH = 120


def hardware(seen: Observation, wanted: Wanted) -> t.Iterator[Reason]:
    """Number, kind and size of the GPUs match the instance type."""
    expected = wanted.hardware
    source = f" ({expected.source})" if expected.source else ""
    if expected.count is not None and len(seen.gpus) != expected.count:
        fewer = len(seen.gpus) < expected.count
        advice = xid.REPLACE if fewer else "Correct the instance type or the expected count in the inventory."
        yield Reason(FAILED, "gpu_count", gpus(len(seen.gpus)), gpus(expected.count) + source, advice)
    if expected.count is None:
        known = "a known number of GPUs"
        advice = "Set the expected count, name and memory for this host, so that a missing GPU is noticed."
        found = f"nothing known about {expected.source}" if expected.source else "no instance type"
        yield Reason(DEGRADED if expected.source else NOTE, "gpu_count", found, known, advice)
    for gpu in seen.gpus:
        name, size = gpu["name"], gpu["memory_total_mib"]
        if expected.name and "name" not in gpu["errors"] and not is_named(expected.name, name or ""):
            advice = "Correct the instance type or the expected name in the inventory."
            yield Reason(FAILED, "gpu_name", str(name), f"{expected.name}{source}", advice, gpu["index"])
        small = (size or 0) < (expected.memory_mib or 0) * (1 - _MEMORY_TOLERANCE)
        if small and "memory.total" not in gpu["errors"]:
            found = f"{size} MiB" if size is not None else "no size"
            yield Reason(FAILED, "gpu_memory", found, f"{expected.memory_mib} MiB{source}", xid.REPLACE, gpu["index"])


def health(seen: Observation, wanted: Wanted) -> t.Iterator[Reason]:
    """ECC, remapped rows, recovery action and modes of each GPU. None is "does not apply", which is never a fault."""
    for gpu in seen.gpus:
        index = gpu["index"]
        if (gpu["ecc_uncorrected_volatile"] or 0) > 0:
            found = f"{gpu['ecc_uncorrected_volatile']} uncorrectable ECC errors since the driver was loaded"
            advice = f"{xid.REBOOT} If they come again, replace the EC2 instance."
            yield Reason(FAILED, "ecc", found, "0", advice, index)
        elif (gpu["ecc_uncorrected_aggregate"] or 0) > 0:
            found = f"{gpu['ecc_uncorrected_aggregate']} uncorrectable ECC errors in the GPU's lifetime, none now"
            yield Reason(NOTE, "ecc", found, "0", "Nothing to do unless the number grows.", index)
        if gpu["ecc_sram_threshold_exceeded"]:
            yield Reason(FAILED, "ecc_sram", "SRAM errors above NVIDIA's threshold", "below it", xid.REPLACE, index)
        if gpu["remapped_rows_failure"]:
            yield Reason(FAILED, "remapped_rows", "a row that could not be remapped", "none", xid.REPLACE, index)
        if gpu["remapped_rows_pending"]:
            yield Reason(FAILED, "remapped_rows", "a pending row remap", "none", xid.REBOOT, index)
        if gpu["retired_pages_pending"]:
            yield Reason(FAILED, "retired_pages", "a pending page retirement", "none", xid.REBOOT, index)
        if gpu["recovery_action"] not in (None, "None"):
            action = gpu["recovery_action"]
            advice = f"The driver asks for it: drain the host, then do it ({action})."
            yield Reason(FAILED, "recovery_action", repr(action), "'None'", advice, index)
        if gpu["inforom"] not in (None, "valid"):
            yield Reason(DEGRADED, "inforom", repr(gpu["inforom"]), "'valid'", xid.REPLACE, index)
        if gpu["mig_mode"] == "Enabled":
            advice = "Turn it off (nvidia-smi -i INDEX -mig 0) when nothing runs on the GPU."
            yield Reason(FAILED, "mig", "MIG is on", "whole GPUs", advice, index)
        if gpu["compute_mode"] == "Prohibited":
            advice = "Allow compute work again: nvidia-smi -i INDEX -c DEFAULT."
            yield Reason(FAILED, "compute_mode", "'Prohibited'", "'Default'", advice, index)


def links(seen: Observation, wanted: Wanted) -> t.Iterator[Reason]:
    """PCIe width and slowdowns. The link's generation is not compared: it drops whenever a GPU is idle."""
    for gpu in seen.gpus:
        width, width_max = gpu["pcie_width"], gpu["pcie_width_max"]
        if width is not None and width_max is not None and width < width_max:
            found = f"PCIe x{width}"
            yield Reason(DEGRADED, "pcie_width", found, f"x{width_max}", xid.REPLACE, gpu["index"])
        mask = gpu["clocks_event_reasons"] or 0
        slowdowns = [text for bit, text in _SLOWDOWNS.items() if mask & bit]
        if slowdowns:
            found = f"{', '.join(slowdowns)} ({mask:#x}) at {gpu['temperature_c']} C"
            advice = "The GPU runs slower than it should. If it lasts, replace the EC2 instance."
            yield Reason(DEGRADED, "slowdown", found, "none", advice, gpu["index"])


def readable(seen: Observation, wanted: Wanted) -> t.Iterator[Reason]:
    """Properties that could not be read: a GPU that returns an error is not healthy."""
    for gpu in seen.gpus:
        for value in sorted(set(gpu["errors"].values())):
            queries = [query for query, text in gpu["errors"].items() if text == value]
            found = f"{value!r} as {', '.join(queries[:3])}" + (f" and {len(queries) - 3} more" if queries[3:] else "")
            bad = any(phrase in value.lower() for phrase in ("lost", "reset"))
            advice = xid.RESET if bad else "Run nvidia-smi -q on the host and see dmesg."
            yield Reason(FAILED if bad else DEGRADED, "readable", found, "values", advice, gpu["index"])
    if seen.driver.unknown_fields:
        found = "nvidia-smi does not know " + ", ".join(seen.driver.unknown_fields)
        yield Reason(NOTE, "fields", found, "all fields", "These properties were not checked with this driver.")


def memory(seen: Observation, wanted: Wanted) -> t.Iterator[Reason]:
    """Only instances hold memory on a GPU."""
    for gpu in seen.gpus:
        processes = [process for process in seen.processes if process["gpu_uuid"] == gpu["uuid"]]
        used = gpu["memory_used_mib"] or 0
        for process in processes:
            yield from _process(process, wanted, gpu["index"])
        owned = [process["used_mib"] for process in processes]
        unowned = used - sum(mib or 0 for mib in owned)
        if unowned <= wanted.orphan_mib or None in owned:
            continue
        limit = f"at most {wanted.orphan_mib} MiB"
        if processes:
            found = f"{unowned} of {used} MiB in use belong to no listed process"
            advice = "See fuser -v /dev/nvidia*; the engine may find less memory than it wants."
            yield Reason(DEGRADED, "gpu_memory_unowned", found, limit, advice, gpu["index"])
        else:
            found = f"{used} MiB in use by no process (an orphan)"
            yield Reason(FAILED, "gpu_orphan", found, limit, _orphan_advice(seen), gpu["index"])


def _orphan_advice(seen: Observation) -> str:
    suspects = ", ".join(
        f"PID {holder['pid']} ({holder['name']}, {holder['unit'] or 'no unit'}, {' '.join(holder['devices'])})"
        for holder in seen.holders
    )
    opened = f"These have a GPU open: {suspects}; end" if suspects else "Find (fuser -v /dev/nvidia*) and end"
    return f"{opened} what holds it, else drain the host and reset the GPU (nvidia-smi --gpu-reset -i INDEX) or reboot."


def _process(process: dict[str, t.Any], wanted: Wanted, index: int | None) -> t.Iterator[Reason]:
    """One process on a GPU."""
    unit = process["unit"]
    if unit and any(fnmatch.fnmatchcase(unit, pattern) for pattern in wanted.allowed_units):
        return
    used = process["used_mib"]
    severity = FAILED if used is None or used > wanted.orphan_mib else DEGRADED
    size = "an unknown amount of memory" if used is None else f"{used} MiB"
    if process["alive"]:
        who = f"PID {process['pid']} ({process['name']}, user {process['user']}, {unit or 'no unit'}) holds {size}"
        advice = "End it, or add its unit to the allowed units if it belongs there."
    else:
        who = f"PID {process['pid']} ({process['name']}), which is not a process of this host, holds {size}"
        advice = "End it where it runs (a container?), else drain the host and reset the GPU or reboot."
    allowed = ", ".join(wanted.allowed_units) or "no process"
    yield Reason(severity, "gpu_process", who, f"only {allowed}", advice, index)


def xids(seen: Observation, wanted: Wanted) -> t.Iterator[Reason]:
    """The kernel's log about the GPUs since boot."""
    if seen.xids is None:
        advice = "Run as root (become: true), and see journalctl -k -b and dmesg on the host."
        found = "neither the journal nor dmesg can be read"
        yield Reason(DEGRADED, "kernel_log", found, "the log of this boot", advice)
        return
    indexes = {bus_key(gpu["bus_id"] or ""): gpu["index"] for gpu in seen.gpus}
    for event in seen.xids:
        if event.xid in wanted.ignored_xids:
            continue
        meaning = xid.MEANINGS.get(event.xid, xid.UNKNOWN)
        times = "" if event.count == 1 else f", {event.count} times"
        said = event.message if len(event.message) <= _MESSAGE_LENGTH else f"{event.message[:_MESSAGE_LENGTH]}…"
        found = f"XID {event.xid} on {event.bus_id}{times}, last {event.last or '?'}: {meaning.text} ({said})"
        index = indexes.get(bus_key(event.bus_id))
        yield Reason(meaning.severity, f"xid_{event.xid}", found, "none in this boot", meaning.advice, index)


RULES = (hardware, health, links, readable, memory)
