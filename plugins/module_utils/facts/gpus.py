# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The series of a host's GPUs: what nvidia-smi says of each, and the XIDs of the kernel log. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.facts.exposition import Series
from ansible_collections.inference.fleet.plugins.module_utils.gpu import device_rules, smi
from ansible_collections.inference.fleet.plugins.module_utils.gpu.hardware import Hardware
from ansible_collections.inference.fleet.plugins.module_utils.gpu.host import GpuDriver, Observation
from ansible_collections.inference.fleet.plugins.module_utils.gpu.kernel import XidEvent, bus_key, parse_xids
from ansible_collections.inference.fleet.plugins.module_utils.gpu.reason import DEGRADED, FAILED, Reason, Wanted

#: What is asked of each GPU. All that the rules read, and the power.
FIELDS = (*smi.GPU_FIELDS, smi.Field("power.draw", "power_watts", "number"))

_RULES = (device_rules.health, device_rules.links, device_rules.readable, device_rules.xids)
_GRADES = {DEGRADED: 1, FAILED: 2}
_READINGS = {
    "fleet_gpu_ecc_uncorrected_total": "ecc_uncorrected_volatile",
    "fleet_gpu_remap_pending": "remapped_rows_pending",
    "fleet_gpu_remap_failure": "remapped_rows_failure",
    "fleet_gpu_clock_event_reasons": "clocks_event_reasons",
    "fleet_gpu_power_watts": "power_watts",
}


@dataclasses.dataclass
class XidLog:
    """The XIDs of this boot.

    Attributes:
        times: when each was last in the kernel log, by its GPU's PCI address and number.
    """

    times: dict[tuple[str, int], float] = dataclasses.field(default_factory=dict)

    def add(self, line: str) -> None:
        """Take a line of the kernel log; its time is in front of it, in seconds."""
        if "NVRM: Xid" not in line:
            return
        for event in parse_xids([line]):
            self.times[(event.bus_id, event.xid)] = float(event.last)

    def document(self) -> list[t.Any]:
        """The XIDs, for a file."""
        return [[bus, xid, when] for (bus, xid), when in self.times.items()]

    @classmethod
    def read(cls, document: t.Iterable[t.Any]) -> XidLog:
        """What document() returned."""
        return cls({(str(bus), int(xid)): float(when) for bus, xid, when in document})


def known_fields(unknown: t.Collection[str]) -> list[smi.Field]:
    """What to ask an nvidia-smi that does not know some fields."""
    return [field for field in FIELDS if field.query not in unknown]


def parse(answer: str, fields: t.Sequence[smi.Field]) -> list[smi.GpuReading]:
    """The GPUs in nvidia-smi's answer about these fields. Other lines are about GPUs that do not answer."""
    gpus, _notices = smi.parse_gpus(answer, fields)
    return gpus


def places(gpus: t.Iterable[smi.GpuReading]) -> dict[str, str]:
    """The index of each GPU, by its PCI address."""
    return {gpu["bus_id"]: str(gpu["index"]) for gpu in gpus if gpu["bus_id"] and gpu["index"] is not None}


def of_gpus(gpus: t.Sequence[smi.GpuReading], log: XidLog, ignored: t.Collection[int]) -> list[Series]:
    """The GPUs that answer, each with the verdict that module gpu_info would give on it.

    Args:
        gpus: of nvidia-smi.
        log: the XIDs of this boot.
        ignored: XIDs that do not count.
    """
    worst: dict[int | None, int] = {}
    for reason in _reasons(gpus, log, ignored):
        worst[reason.gpu] = max(worst.get(reason.gpu, 0), _GRADES.get(reason.severity, 0))
    series = [Series("fleet_gpu_count", {}, len(gpus))]
    for gpu in gpus:
        labels = {"gpu": str(gpu["index"])}
        series.append(Series("fleet_gpu_verdict", labels, worst.get(gpu["index"], 0)))
        values = {name: gpu.get(key) for name, key in _READINGS.items()}
        series += [Series(name, labels, value) for name, value in values.items() if value is not None]
    return series


def of_xids(log: XidLog, known: t.Mapping[str, str]) -> list[Series]:
    """The XIDs. A GPU that was never seen has its PCI address in place of its index.

    Args:
        log: of this boot.
        known: the index of each GPU, by its PCI address, as places() returns it.
    """
    indexes = {bus_key(bus): index for bus, index in known.items()}
    return [
        Series("fleet_gpu_xid_last_timestamp_seconds", {"gpu": indexes.get(bus_key(bus), bus), "xid": str(xid)}, when)
        for (bus, xid), when in sorted(log.times.items())
    ]


def _reasons(gpus: t.Sequence[smi.GpuReading], log: XidLog, ignored: t.Collection[int]) -> t.Iterator[Reason]:
    events = [XidEvent(xid, bus, "", 1, "", "") for bus, xid in log.times]
    seen = Observation(GpuDriver(), list(gpus), [], [], events)
    wanted = Wanted("", Hardware(), ignored_xids=frozenset(ignored))
    for rule in _RULES:
        yield from rule(seen, wanted)
