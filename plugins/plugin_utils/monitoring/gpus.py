# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Alerts about GPUs, from the verdicts and the kernel log that each host writes as its own facts."""

from __future__ import annotations

from ansible_collections.inference.fleet.plugins.module_utils.gpu.xid import MEANINGS
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.alert import Alert
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.promql import DRAINED

_FATAL = "|".join(str(number) for number, meaning in sorted(MEANINGS.items()) if meaning.severity == "failed")
_REASONS = "fleet_gpu_clock_event_reasons"


def _bit(value: int) -> str:
    """Whether a bit of the reasons is set, as PromQL has no operators for bits."""
    return f"floor({_REASONS} / {value}) % 2 == 1"


ALERTS = (
    Alert(
        "GpuFault",
        "{{ $labels.host }} GPU {{ $labels.gpu }}: XID {{ $labels.xid }}",
        f'time() - fleet_gpu_xid_last_timestamp_seconds{{xid=~"{_FATAL}"}} < 600\nunless on (host) {DRAINED}',
        "page",
        "The kernel has logged a fatal error of a GPU within the last 10 minutes, and the host is in service. Engines "
        "on this GPU hang or give wrong answers.",
        "playbooks/drain.yml -l HOST, then playbooks/verify_gpu.yml -l HOST: it says what the number means and "
        "whether a reset, a reboot or another instance is due.",
    ),
    Alert(
        "GpuFailed",
        "{{ $labels.host }} GPU {{ $labels.gpu }} has failed",
        "(fleet_gpu_verdict == 2\nor increase(fleet_gpu_ecc_uncorrected_total[1h]) > 0\n"
        f"or fleet_gpu_remap_failure > 0)\nunless on (host) {DRAINED}",
        "page",
        "The host's own check calls the GPU failed: an uncorrectable memory error, a row that could not be remapped, "
        "or another rule of playbooks/verify_gpu.yml.",
        "playbooks/drain.yml -l HOST, then playbooks/verify_gpu.yml -l HOST. After a failed remap, stop and start the "
        "EC2 instance, so that it moves to other hardware, or replace it.",
    ),
    Alert(
        "GpuMissing",
        "{{ $labels.host }} has {{ $value }} GPUs fewer than its instance type",
        "fleet_gpu_expected - fleet_gpu_count > 0",
        "page",
        "A GPU has fallen off the bus, or the driver does not see it.",
        "playbooks/drain.yml -l HOST and playbooks/verify_gpu.yml -l HOST. Stop and start the EC2 instance, or replace "
        "it.",
        "2m",
    ),
    Alert(
        "GpuDegraded",
        "{{ $labels.host }} GPU {{ $labels.gpu }} works, but needs attention",
        "fleet_gpu_verdict == 1 or fleet_gpu_remap_pending > 0",
        "ticket",
        "The host's own check calls the GPU degraded, or a row of its memory is to be remapped at the next reset.",
        "playbooks/verify_gpu.yml -l HOST says why. A pending remap: drain the host when it suits, and reboot it.",
        "15m",
    ),
    Alert(
        "GpuThrottled",
        "{{ $labels.host }} GPU {{ $labels.gpu }} is slowed down by its hardware",
        f"{_bit(8)}\nor {_bit(64)}\nor {_bit(128)}",
        "ticket",
        "The hardware slows the GPU down: too hot, or the power supply says so. The power cap (0x4) is normal under "
        "load and is not in this alert.",
        "Replace the EC2 instance if it stays; its place in the data centre cannot be cooled from here.",
        "5m",
    ),
    Alert(
        "GpuHot",
        "{{ $labels.host }} GPU {{ $labels.gpu }} lowers its clocks because it is hot",
        _bit(32),
        "ticket",
        "The driver has lowered the clocks for half an hour because of temperature. Answers are slower.",
        "As for GpuThrottled. Compare the temperature with that of other hosts in dashboard GPU.",
        "30m",
    ),
)
