# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Times and sizes in users' notation: a plain number, or one with its unit. Pure."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import KINDS

Number = t.Union[int, float]

_NUMBER = r"(\d+(?:\.\d+)?)"
_TIMES = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_TIME = re.compile(rf"(?:{_NUMBER}\s*(ms|s|m|h|d))+\Z")
_TIME_PART = re.compile(rf"{_NUMBER}\s*(ms|s|m|h|d)")
_PREFIXES = ("K", "M", "G", "T")
_SIZE = re.compile(rf"{_NUMBER}\s*(?:([KMGT])(i?)B?|B)\Z", re.IGNORECASE)
_PLAIN = re.compile(r"\d+(?:\.\d+)?\Z")

#: The meaning of a plain number, by unit.
BYTES = {"B": 1, "MiB": 1024**2, "GiB": 1024**3}

#: The variables that take a time; a plain number is in seconds.
TIMES = frozenset(
    (
        "balancer_healthy_timeout",
        "balancer_settle",
        "edge_absence_limit",
        "edge_body_timeout",
        "edge_drain_timeout",
        "edge_keep_alive_timeout",
        "edge_lame_duck",
        "edge_maintenance_lead",
        "edge_queue_timeout",
        "edge_retry_after",
        "edge_stream_timeout",
        "engine_drain_timeout",
        "engine_lame_duck",
        "engine_read_ahead",
        "engine_start_timeout",
        "gate_deadline",
        "gate_timeout",
        "gpu_driver_timeout",
        "keys_absence_limit",
        "rollout_pause",
        "rollout_resume_within",
        "rollout_silence",
        "watchdog_confirm",
        "watchdog_idle",
        "watchdog_pause",
        "watchdog_quiet",
        "watchdog_window",
        *(f"{name}_{variable}" for name, engine in KINDS.items() for variable in engine.variables.times),
    )
)

#: The variables that take a size, with the unit of a plain number.
SIZES = {
    "edge_buffer_bytes": "B",
    "edge_max_body_bytes": "B",
    "engine_min_free_gib": "GiB",
    "gateway_store_memory": "MiB",
    "gpu_driver_expected_memory": "MiB",
    "gpu_driver_orphan_mib": "MiB",
    "preflight_runtime_gib": "GiB",
    **{f"{name}_{one}": unit for name, engine in KINDS.items() for one, unit in engine.variables.sizes.items()},
}

#: Those that may have a fraction.
FRACTIONS = frozenset(
    (
        "balancer_settle",
        "engine_min_free_gib",
        "gate_deadline",
        "gate_timeout",
        "preflight_runtime_gib",
        "rollout_pause",
        "rollout_resume_within",
        "rollout_silence",
        *(f"{name}_{variable}" for name, engine in KINDS.items() for variable in engine.variables.fractions),
    )
)


def seconds(value: t.Any) -> Number | None:
    """A time in seconds; None stays None.

    Raises:
        ValueError: it is invalid.
    """
    plain = _plain(value)
    if value is None or plain is not None:
        return plain
    text = str(value).strip()
    if not _TIME.match(text):
        raise ValueError("a time is a number of seconds, or numbers with units: 90s, 10m, 1h30m, 2d")
    return _whole(sum(float(number) * _TIMES[unit] for number, unit in _TIME_PART.findall(text)))


def size(value: t.Any, unit: str) -> Number | None:
    """A size in ``unit``, which is one of BYTES; None stays None. Bytes and MiB are rounded down.

    Raises:
        ValueError: it is invalid.
    """
    plain = _plain(value)
    if value is None or plain is not None:
        return plain
    match = _SIZE.match(str(value).strip())
    if not match:
        raise ValueError(f"a size is a number of {unit}, or one with its unit: 512MiB, 20GiB, 1.5GB")
    number, prefix, binary = match.groups()
    base = 1024 if binary or not str(value).strip().upper().endswith("B") else 1000
    count = float(number) * base ** (_PREFIXES.index(prefix.upper()) + 1 if prefix else 0) / BYTES[unit]
    return _whole(count if unit == "GiB" else int(count))


def _plain(value: t.Any) -> Number | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return value
    text = str(value).strip()
    return _whole(float(text)) if _PLAIN.match(text) else None


def _whole(number: float) -> Number:
    return int(number) if number == int(number) else round(number, 6)
