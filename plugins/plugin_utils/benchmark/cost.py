# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What a million tokens cost, from a measurement and the price of a host. Pure."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.benchmark.compare import spread

_MILLION, _HOUR = 1e6, 3600.0
_FIGURE = "tokens_per_second"


def instance_price(usd: float | None, gpus: int, host_gpus: int, instances: int) -> float | None:
    """An instance's part of its host's price per hour: by its GPUs, without GPUs by the number of instances."""
    if usd is None:
        return None
    if gpus and host_gpus:
        return usd * gpus / host_gpus
    return usd / max(1, instances)


def most_tokens(record: t.Mapping[str, t.Any]) -> tuple[str, float] | None:
    """The scenario with the most tokens per second, and these; None where there is none."""
    found = {name: spread(measured, _FIGURE) for name, measured in (record.get("measured") or {}).items()}
    rates = [(known.middle, name) for name, known in found.items() if known and known.middle > 0]
    return (max(rates)[1], max(rates)[0]) if rates else None


def usd_per_million(record: t.Mapping[str, t.Any]) -> float | None:
    """US dollars for a million generated tokens at the highest rate that was measured; None where that is not known."""
    most, usd = most_tokens(record), record.get("usd_per_hour")
    # What was measured beside clients' requests is no rate of the whole instance.
    if most is None or not isinstance(usd, (int, float)) or record.get("live"):
        return None
    return usd / (most[1] * _HOUR) * _MILLION
