# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The watchdog's state as metrics for a Prometheus text file. Pure."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.watchdog import judge
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.history import GAVE_UP, InstanceHistory

_VERDICTS = {judge.OK: 0, judge.SUSPECT: 1, judge.HANG: 2, judge.UNKNOWN: -1}
_GAVE_UP = 3

_HELP = {
    "fleet_watchdog_verdict": ("gauge", "0 well, 1 suspect, 2 hangs, 3 given up, -1 not judged."),
    "fleet_watchdog_out": ("gauge", "Whether the watchdog keeps the instance out of service."),
    "fleet_watchdog_gave_up": ("gauge", "Whether the watchdog has given the instance up: a person has to look."),
    "fleet_watchdog_hangs_total": ("counter", "Hangs that were found."),
    "fleet_watchdog_restarts_total": ("counter", "Restarts by the watchdog."),
    "fleet_watchdog_last_restart_timestamp_seconds": ("gauge", "Of the last restart by the watchdog."),
}


def render(mode: str, instances: t.Mapping[int, tuple[str, InstanceHistory]], now: float) -> str:
    """The text file.

    Args:
        mode: of the watchdog.
        instances: by index, the state of the last verdict and what is remembered.
        now: Unix time of the last look.
    """
    lines = []
    for name, (kind, text) in _HELP.items():
        samples = [
            # With every digit of a time.
            f'{name}{{instance="{index}"}} {value:.15g}'
            for index, (state, history) in sorted(instances.items())
            if (value := _value(name, state, history)) is not None
        ]
        if samples:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *samples]
    lines += [
        "# HELP fleet_watchdog_mode Whether it acts or only observes.",
        "# TYPE fleet_watchdog_mode gauge",
        f'fleet_watchdog_mode{{mode="{mode}"}} 1',
        "# HELP fleet_watchdog_last_look_timestamp_seconds Of the last look at all instances.",
        "# TYPE fleet_watchdog_last_look_timestamp_seconds gauge",
        f"fleet_watchdog_last_look_timestamp_seconds {now:.0f}",
    ]
    return "\n".join(lines) + "\n"


def _value(name: str, state: str, history: InstanceHistory) -> float | None:
    gave_up = history.phase == GAVE_UP
    if name == "fleet_watchdog_last_restart_timestamp_seconds":
        return round(history.restarts[-1]) if history.restarts else None
    return {
        "fleet_watchdog_verdict": _GAVE_UP if gave_up else _VERDICTS[state],
        "fleet_watchdog_out": int(bool(history.phase)),
        "fleet_watchdog_gave_up": int(gave_up),
        "fleet_watchdog_hangs_total": history.hangs,
        "fleet_watchdog_restarts_total": history.restarts_total,
    }[name]
