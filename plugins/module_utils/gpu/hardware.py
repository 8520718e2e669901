# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The GPUs of each EC2 instance type, as nvidia-smi shows them.

Counts: EC2's DescribeInstanceTypes (as published in Karpenter's instance type reference) and the pages
https://aws.amazon.com/ec2/instance-types/{g5,g6,g6e,g7e,p5}/.
There is no size of g6e, g6 or g5 with two GPUs; a 4xlarge has one.

Memory: what ``nvidia-smi --query-gpu=memory.total`` prints with ECC on, which is not what EC2's API says
(45776 MiB for an L40S) nor what CUDA can allocate (memory.total less memory.reserved, 45459 MiB there).
L40S and H200 are from captures of real cards, the others from published nvidia-smi output.
"""

from __future__ import annotations

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Hardware:
    """The GPUs that a host should have; None means unknown and not checked."""

    count: int | None = None
    name: str | None = None
    memory_mib: int | None = None
    source: str = ""


# family: (word in the GPU's name, memory.total in MiB, {size: count})
_ONE = {"xlarge": 1, "2xlarge": 1, "4xlarge": 1, "8xlarge": 1, "16xlarge": 1}
_FAMILIES: dict[str, tuple[str, int, dict[str, int]]] = {
    "g5": ("A10G", 23028, {**_ONE, "12xlarge": 4, "24xlarge": 4, "48xlarge": 8}),
    "g6": ("L4", 23034, {**_ONE, "12xlarge": 4, "24xlarge": 4, "48xlarge": 8}),
    "g6e": ("L40S", 46068, {**_ONE, "12xlarge": 4, "24xlarge": 4, "48xlarge": 8}),
    "g7e": (
        "RTX PRO 6000",
        97887,
        {"2xlarge": 1, "4xlarge": 1, "8xlarge": 1, "12xlarge": 2, "24xlarge": 4, "48xlarge": 8},
    ),
    "p5": ("H100", 81559, {"4xlarge": 1, "48xlarge": 8}),
    "p5e": ("H200", 143771, {"48xlarge": 8}),
    "p5en": ("H200", 143771, {"48xlarge": 8}),
}


def hardware_of(instance_type: str) -> Hardware | None:
    """The GPUs of ``instance_type``, or None where it is not in the table."""
    family, _dot, size = instance_type.strip().lower().partition(".")
    if family not in _FAMILIES:
        return None
    name, memory_mib, counts = _FAMILIES[family]
    if size not in counts:
        return None
    return Hardware(count=counts[size], name=name, memory_mib=memory_mib, source=f"{family}.{size}")


def alternatives(instance_type: str, count: int) -> list[str]:
    """The instance types of the same family that have ``count`` GPUs; none for an unknown type."""
    if hardware_of(instance_type) is None:
        return []
    family = instance_type.strip().lower().partition(".")[0]
    return [f"{family}.{size}" for size, gpus in _FAMILIES[family][2].items() if gpus == count]


def expected_hardware(
    instance_type: str | None, count: int | None = None, name: str | None = None, memory_mib: int | None = None
) -> Hardware:
    """The GPUs that a host should have: by its settings, else by its instance type.

    Args:
        instance_type: EC2's name, or None where the host has none.
        count: overrides the instance type's number of GPUs; so do ``name`` and ``memory_mib``. None and 0 do not.
    """
    known = hardware_of(instance_type or "") or Hardware(source=instance_type or "")
    if not (count or name or memory_mib):
        return known
    return Hardware(
        count=count or known.count,
        name=name or known.name,
        memory_mib=memory_mib or known.memory_mib,
        source=", ".join(filter(None, [known.source, "with values set for this host"])),
    )


def is_named(wanted: str, reported: str) -> bool:
    """Whether ``reported`` ("NVIDIA L40S") is the GPU ``wanted`` ("L40S"); "L4" is not "L40S"."""
    pattern = r"(?<![A-Za-z0-9])" + re.escape(wanted.strip()) + r"(?![A-Za-z0-9])"
    return re.search(pattern, reported, re.IGNORECASE) is not None
