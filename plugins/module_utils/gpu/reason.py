# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A finding about a host's GPUs, and the expectations for the host."""

from __future__ import annotations

import dataclasses

from ansible_collections.inference.fleet.plugins.module_utils.gpu.hardware import Hardware

FAILED, DEGRADED, NOTE = "failed", "degraded", "note"


@dataclasses.dataclass(frozen=True)
class Reason:
    """One finding: ``severity`` failed and degraded decide the verdict, note only explains."""

    severity: str
    check: str
    found: str
    wanted: str
    advice: str
    gpu: int | None = None

    def headline(self) -> str:
        """Found and wanted, in short."""
        where = "" if self.gpu is None else f"GPU {self.gpu}: "
        return f"{self.check}: {where}found {self.found}; wanted {self.wanted}"

    def text(self) -> str:
        """The finding as one line for a person, with what to do."""
        return f"[{self.severity}] {self.headline()}. {self.advice}"


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The expectations for the host."""

    min_driver: str
    hardware: Hardware
    allowed_units: tuple[str, ...] = ()
    ignored_xids: frozenset[int] = frozenset()
    orphan_mib: int = 600


def gpus(count: int) -> str:
    """A number of GPUs in words."""
    return f"{count} GPU" if count == 1 else f"{count} GPUs"
