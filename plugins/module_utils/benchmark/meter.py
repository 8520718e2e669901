# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Memory and power of an instance's GPUs while it is measured."""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_json
from ansible_collections.inference.fleet.plugins.module_utils.core.paths import STATE_DIRECTORY
from ansible_collections.inference.fleet.plugins.module_utils.gpu import smi

_FIELDS = (
    smi.Field("index", "index", "number"),
    smi.Field("uuid", "uuid", "text"),
    smi.Field("memory.used", "memory_used_mib", "number"),
    smi.Field("power.draw", "power_w", "number"),
)
_TIMEOUT = 20.0
#: Which UUID each index had when the GPUs were first seen: roles/engine/files/instance_wait.py keeps it, and gives
#: instances their GPUs by it. A reboot may number them in another order.
GPUS_KNOWN = f"{STATE_DIRECTORY}/gpus.json"


@dataclasses.dataclass
class GpuMeter:
    """Readings of nvidia-smi.

    Args:
        gpus: the indices of the instance's GPUs; without any nothing is read.
        program: nvidia-smi.
        uuids: of those indices, where the host knows them.
    """

    gpus: t.Sequence[int]
    program: str = "nvidia-smi"
    uuids: t.Mapping[int, str] = dataclasses.field(default_factory=dict)

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
        shown = smi.parse_gpus(text, _FIELDS)[0]
        found = [gpu for index in self.gpus for gpu in shown if self._is(gpu, index)]
        if len(found) != len(self.gpus):
            self.problem = f"{self.program} shows {len(found)} of the instance's {len(self.gpus)} GPUs"
            return
        for key, readings in (("memory_used_mib", self._memory), ("power_w", self._watts)):
            values = [float(gpu[key]) for gpu in found if gpu.get(key) is not None]
            if len(values) == len(found):
                readings.append(sum(values))

    def _is(self, gpu: smi.GpuReading, index: int) -> bool:
        return bool(gpu["uuid"] == self.uuids[index] if index in self.uuids else gpu["index"] == index)

    def figures(self) -> dict[str, float]:
        """The most memory and the usual power, over all GPUs of the instance."""
        memory = {"gpu_memory_gib": max(self._memory) / 1024} if self._memory else {}
        return {**memory, **({"watts": statistics.median(self._watts)} if self._watts else {})}


def known_uuids(path: str = GPUS_KNOWN) -> dict[int, str]:
    """The UUID of each index on this host, as starts of instances recorded it; empty where none did."""
    try:
        found = read_json(path)
    except FleetError:
        # The next start writes it again.
        found = None
    items = found.items() if isinstance(found, dict) else ()
    return {int(index): str(uuid) for index, uuid in items if index.isdecimal()}
