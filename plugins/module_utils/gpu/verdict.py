# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The verdict on a host, from what was read there. Pure: no program, no file, no clock."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.gpu import device_rules, driver_rules
from ansible_collections.inference.fleet.plugins.module_utils.gpu.reason import DEGRADED, FAILED, NOTE, Reason, Wanted

if t.TYPE_CHECKING:
    from ansible_collections.inference.fleet.plugins.module_utils.gpu.host import Observation

_ORDER = (FAILED, DEGRADED, NOTE)


def judge(seen: Observation, wanted: Wanted) -> tuple[str, list[Reason]]:
    """Judge a host.

    Returns:
        The verdict (ok, degraded or failed), and the reasons, most severe first.
    """
    reasons = list(driver_rules.answering(seen, wanted))
    if seen.gpus:
        for rule in (*driver_rules.RULES, *device_rules.RULES):
            reasons.extend(rule(seen, wanted))
    # Judged without GPUs, too: the log says why a GPU is gone.
    reasons.extend(device_rules.xids(seen, wanted))
    reasons = [_addressed(reason) for reason in reasons]
    reasons.sort(key=lambda reason: _ORDER.index(reason.severity))
    worst = reasons[0].severity if reasons else NOTE
    return ("ok" if worst == NOTE else worst), reasons


def summarise(verdict: str, seen: Observation, reasons: t.Sequence[Reason]) -> str:
    """One line about a host: verdict, GPUs, driver and the most severe reason."""
    parts = [describe_gpus(seen)]
    if seen.driver.version:
        parts.append(f"driver {seen.driver.version}")
    if seen.driver.cuda_version:
        parts.append(f"CUDA {seen.driver.cuda_version}")
    if verdict == "ok":
        return f"ok: {', '.join(parts)}"
    more = sum(1 for reason in reasons[1:] if reason.severity != NOTE)
    why = reasons[0].headline() + (f"; and {more} more" if more else "")
    return f"{verdict}: {', '.join(parts)} ({why})"


def describe_gpus(seen: Observation) -> str:
    """Number and names of the GPUs: "4 x NVIDIA L40S"."""
    kinds: dict[str, int] = {}
    for gpu in seen.gpus:
        name = gpu["name"] or "GPU without a name"
        kinds[name] = kinds.get(name, 0) + 1
    return ", ".join(f"{count} x {name}" for name, count in kinds.items()) or "no GPU"


def _addressed(reason: Reason) -> Reason:
    """The same finding with the GPU's index in the suggested commands."""
    if reason.gpu is None:
        return reason
    return dataclasses.replace(reason, advice=reason.advice.replace("-i INDEX", f"-i {reason.gpu}"))
