# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Judges speed: figures against the last good ones, which were taken in the same way. Pure.

Figures are taken several times, because a single bad one proves nothing, each time beside a fixed piece of work, which
takes longer on a machine that is slow itself.
"""

from __future__ import annotations

import typing as t

Figures = dict[str, t.Any]

# A machine whose own work takes this many times longer than at the last good figures is busy, or a slower one.
BUSY = 1.5


def slack(figures: Figures, good: Figures) -> float:
    """How many times slower the machine itself is than it was at the last good figures; never less than 1."""
    work, good_work = number(figures, "work_ms"), number(good, "work_ms")
    return max(1.0, work / good_work) if work is not None and good_work is not None else 1.0


def slowdown(measured: t.Sequence[Figures], good: Figures, limit: float, grace_ms: float) -> list[str]:
    """What is slower than the last good figures in every measurement; empty when all is well.

    Args:
        measured: the figures of each attempt.
        good: the last good figures.
        limit: the allowed slowdown, on a machine that is as fast as it was.
        grace_ms: how much the time to the first token may grow on such a machine, whatever the ratio.
    """
    late = [_late(figures, good, limit, grace_ms) for figures in measured]
    slow = [_slow(figures, good, limit) for figures in measured]
    return [min(one for one in found if one)[1] for found in (late, slow) if all(found)]


def best_of(measured: t.Sequence[Figures]) -> Figures:
    """The best of each figure."""
    best = dict(measured[-1])
    for name, choose in (("ttft_ms", min), ("total_ms", min), ("work_ms", min), ("tokens_per_second", max)):
        known = [value for figures in measured if (value := number(figures, name)) is not None]
        if known:
            best[name] = choose(known)
    return best


def _late(figures: Figures, good: Figures, limit: float, grace_ms: float) -> tuple[float, str] | None:
    """How late the first token was, and a description; nothing where it was not."""
    first, good_first = number(figures, "ttft_ms"), number(good, "ttft_ms")
    if first is None or good_first is None:
        return None
    times, allowed = first / good_first, limit * slack(figures, good)
    if times <= allowed or first - good_first <= grace_ms * slack(figures, good):
        return None
    words = f"first token after {first:.0f} ms, {times:.1f} times the last good {good_first:.0f} ms"
    return times, f"{words} (allowed: {allowed:.1f} times)"


def _slow(figures: Figures, good: Figures, limit: float) -> tuple[float, str] | None:
    """How slow the tokens were, and a description; nothing where they were not."""
    rate, good_rate = figures.get("tokens_per_second"), number(good, "tokens_per_second")
    if rate is None or good_rate is None:
        return None
    times, allowed = good_rate / max(rate, 0.01), limit * slack(figures, good)
    if times <= allowed:
        return None
    words = f"{rate:.1f} tokens/s, {times:.1f} times slower than the last good {good_rate:.1f}"
    return times, f"{words} (allowed: {allowed:.1f} times)"


def number(figures: t.Mapping[str, t.Any], name: str) -> float | None:
    """A usable figure; None for any other."""
    value = figures.get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 else None
