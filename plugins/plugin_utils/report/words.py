# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A rollout in words, for the terminal and its page. Pure."""

from __future__ import annotations

import datetime
import re
import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.report.values import as_number

OUTCOMES = {
    "done": "done",
    "rolled_back": "rolled back",
    "stopped": "stopped",
    "drained": "left drained",
    "failed": "failed",
    "unrecorded": "serves, not recorded",
    "unregistered": "serves, not in its target groups",
    "unreachable": "unreachable",
}

#: The states of a host, beside the outcomes above.
DONE = OUTCOMES["done"]
NOT_BEGUN = "not begun"
IN_TURN = "in its turn"
BROKEN_OFF = "broken off"

#: The text for unknown values.
NOTHING = "-"

# A key has at least twenty characters; a fingerprint has an ellipsis instead of them.
_KEY = re.compile(r"\b(sk-|Bearer +)[A-Za-z0-9_~+/.=-]{12,}")


def safe(value: t.Any, lines: bool = False) -> str:
    """Safe text: no control or bidirectional characters, and no key.

    Args:
        value: anything.
        lines: whether line ends may stay.
    """
    text = "".join(letter if letter.isprintable() or (lines and letter == "\n") else " " for letter in str(value))
    return _KEY.sub(r"\1…", text)


def line(value: t.Any, limit: int = 300) -> str:
    """One line of at most ``limit`` characters."""
    text = " ".join(safe(value).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def outcome(name: str | None) -> str:
    """A host's outcome in words."""
    return "" if name is None else OUTCOMES.get(name, name.replace("_", " "))


def state(record: dict[str, t.Any], host: str) -> str:
    """The state of a host in a record."""
    of = record["hosts"][host]
    if of["outcome"] is not None:
        return outcome(of["outcome"])
    if not of["tries"]:
        return NOT_BEGUN
    return IN_TURN if record["outcome"] == "running" else BROKEN_OFF


def others(record: dict[str, t.Any]) -> list[str]:
    """How many hosts are not done, by their state, and how many were left out."""
    found: dict[str, int] = {}
    for host in record["hosts"]:
        word = state(record, host)
        if word != DONE:
            found[word] = found.get(word, 0) + 1
    parts = [f"{count_} {word}" for word, count_ in sorted(found.items())]
    return [*parts, f"{len(record['left_out'])} left out"] if record["left_out"] else parts


def duration(seconds: float | None) -> str:
    """A duration in words; a dash where it is unknown."""
    if seconds is None:
        return NOTHING
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds > 0 else "0 s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def elapsed(seconds: float) -> str:
    """Seconds since something, as a stopwatch shows them."""
    whole = max(int(seconds), 0)
    minutes = f"{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{whole // 3600}:{minutes}" if whole >= 3600 else f"{whole // 60}:{whole % 60:02d}"


def moment(at: float | None, form: str = "%-d %b %Y, %H:%M:%S UTC") -> str:
    """Unix time for a person, in UTC; a dash where it is unknown."""
    try:
        if at is not None:
            return datetime.datetime.fromtimestamp(at, datetime.timezone.utc).strftime(form)
    except (OverflowError, OSError, ValueError):
        pass
    return NOTHING


def clock(at: float | None) -> str:
    """The time of day, in UTC."""
    return moment(at, "%H:%M:%S")


def until(ended: float | None, began: float | None) -> str:
    """The end of something: only the time of day where the day is the same."""
    return clock(ended) if moment(began, "%F") == moment(ended, "%F") else moment(ended)


def count(number: float, one: str, many: str | None = None) -> str:
    """A number of things."""
    return f"{grouped(number)} {one if number == 1 else many or f'{one}s'}"


def grouped(number: float) -> str:
    """A whole number with thousands separated by a non-breaking space."""
    return f"{int(number):,}".replace(",", "\u00a0")


def figures(values: t.Any) -> str:
    """A gate's figures in words; nothing where there are none."""
    if not isinstance(values, dict):
        return ""
    first, rate = as_number(values.get("ttft_ms")), as_number(values.get("tokens_per_second"))
    parts = []
    if first is not None:
        parts.append(f"time to first token {first:.0f} ms")
    if rate is not None:
        parts.append(f"{rate:.{0 if rate >= 100 else 1}f} tokens/s")
    return ", ".join(parts)


def named(names: t.Sequence[str], limit: int = 6) -> str:
    """Some names, and how many more."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def split_numbers(name: str) -> list[t.Any]:
    """A sort key that puts inference-2 before inference-10."""
    parts: list[t.Any] = []
    for letter in name:
        if letter.isdecimal() and parts and isinstance(parts[-1][1], int):
            parts[-1] = (0, parts[-1][1] * 10 + int(letter), "")
        elif letter.isdecimal():
            parts.append((0, int(letter), ""))
        else:
            parts.append((1, 0.5, letter))
    return parts
