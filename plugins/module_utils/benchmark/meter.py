# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Memory and power of an instance's GPUs while it is measured."""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.gpu import smi

_FIELDS = (
    smi.Field("index", "index", "number"),
    smi.Field("memory.used", "memory_used_mib", "number"),
    smi.Field("power.draw", "power_w", "number"),
)
_TIMEOUT = 20.0


@dataclasses.dataclass
class GpuMeter:
    """Readings of nvidia-smi.

    Args:
        gpus: the indices of the instance's GPUs; without any nothing is read.
        program: nvidia-smi.
    """

    gpus: t.Sequence[int]
    program: str = "nvidia-smi"

    def __post_init__(self) -> None:
        self._memory: list[float] = []
        self._watts: list[float] = []
        #: Why there is no reading; empty where there is one.
        self.problem = "" if self.gpus else "the instance has no GPU"

    def read(self) -> None:
        """Take a reading; one that fails is left out, and the reason kept."""
        if not self.gpus:
            return
        try:
            words = [self.program, *smi.gpu_query(_FIELDS)]
            done = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            self.problem = f"{self.program} gives no answer ({error})"
            return
        self.take(done.stdout)

    def take(self, text: str) -> None:
        """Take a reading from the answer of nvidia-smi."""
        found = [gpu for gpu in smi.parse_gpus(text, _FIELDS)[0] if gpu["index"] in self.gpus]
        if len(found) != len(self.gpus):
            self.problem = f"{self.program} shows {len(found)} of the instance's {len(self.gpus)} GPUs"
            return
        for key, readings in (("memory_used_mib", self._memory), ("power_w", self._watts)):
            values = [float(gpu[key]) for gpu in found if gpu.get(key) is not None]
            if len(values) == len(found):
                readings.append(sum(values))

    def figures(self) -> dict[str, float]:
        """The most memory and the usual power, over all GPUs of the instance."""
        memory = {"gpu_memory_gib": max(self._memory) / 1024} if self._memory else {}
        return {**memory, **({"watts": statistics.median(self._watts)} if self._watts else {})}
