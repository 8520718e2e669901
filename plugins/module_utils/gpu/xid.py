# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What an XID means for a serving host.

Meaning and action are NVIDIA's (https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html).
The severity is this project's: failed is "send no work here", degraded is "works, but needs attention", note is
"explains another finding".
"""

from __future__ import annotations

import dataclasses

RESET = "Drain the host, stop its instances, then reset the GPU (nvidia-smi --gpu-reset -i INDEX) or reboot."
REBOOT = "Drain the host and reboot it."
REPLACE = "Drain the host, then stop and start the EC2 instance (it moves to other hardware), or replace it."
APPLICATION = "Look in the engine's journal for the request that failed; restart the instance if it comes again."
GSP = (
    "Drain the host and reboot it. If it comes again, go to another driver version; with the proprietary module GSP "
    "can be turned off (NVreg_EnableGpuFirmware=0), the open module needs it."
)


@dataclasses.dataclass(frozen=True)
class Meaning:
    """The meaning of an XID, its severity, and what to do."""

    text: str
    severity: str
    advice: str


UNKNOWN = Meaning(
    "not in this project's table", "degraded", "Look it up in NVIDIA's XID catalog and in the kernel log."
)

MEANINGS: dict[int, Meaning] = {
    13: Meaning("graphics engine exception, mostly the application's", "degraded", APPLICATION),
    31: Meaning("GPU memory page fault, mostly the application's", "degraded", APPLICATION),
    43: Meaning("GPU stopped processing an application's work", "note", APPLICATION),
    45: Meaning("work was removed after an earlier error or a killed process", "note", APPLICATION),
    46: Meaning("GPU stopped processing", "failed", RESET),
    48: Meaning("double-bit ECC error", "failed", RESET),
    61: Meaning("internal micro-controller breakpoint or warning", "failed", REPLACE),
    62: Meaning("internal micro-controller halt", "failed", RESET),
    63: Meaning(
        "a row of GPU memory was remapped", "degraded", "Reboot at the next opportunity if a remap is pending."
    ),
    64: Meaning("a row of GPU memory could not be remapped", "failed", REPLACE),
    69: Meaning("graphics engine class error, mostly the application's", "degraded", APPLICATION),
    74: Meaning("NVLink error", "failed", REPLACE),
    79: Meaning("GPU has fallen off the bus", "failed", REPLACE),
    92: Meaning("high rate of corrected ECC errors", "degraded", "Watch it; replace the EC2 instance if it goes on."),
    94: Meaning("contained uncorrectable ECC error", "failed", REBOOT),
    95: Meaning("uncontained uncorrectable ECC error", "failed", RESET),
    109: Meaning("context switch timeout", "failed", RESET),
    110: Meaning("security fault", "failed", RESET),
    119: Meaning("the GPU's system processor (GSP) did not answer", "failed", GSP),
    120: Meaning("the GPU's system processor (GSP) failed", "failed", GSP),
    121: Meaning("corrected error of the chip-to-chip link", "note", "Nothing to do."),
    136: Meaning("link training failed", "failed", RESET),
    140: Meaning("ECC error that could not be recovered", "failed", RESET),
    143: Meaning("GPU initialisation failed", "failed", RESET),
    # It only announces a change of gpu_recovery_action; the field's current value counts.
    154: Meaning("the recovery action of the GPU changed", "note", "See gpu_recovery_action."),
    156: Meaning("a part of the GPU was retired", "degraded", "Reboot at the next opportunity."),
    157: Meaning("a part of the GPU could not be retired", "degraded", "Reboot at the next opportunity."),
    171: Meaning("uncorrectable DRAM error", "failed", RESET),
    172: Meaning("uncorrectable SRAM error", "failed", RESET),
}
