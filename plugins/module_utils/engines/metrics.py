# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""An engine's load from its /metrics. Pure: Prometheus text in, numbers out."""

from __future__ import annotations

import math
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.engines.base import Histogram
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES

METRICS_PATH = "/metrics"

#: A histogram: the number of values up to each bound, the last of which is infinite.
Buckets = dict[float, float]


class Sample(t.NamedTuple):
    """One line of an exposition."""

    name: str
    labels: dict[str, str]
    value: float


class Load(t.NamedTuple):
    """How busy an engine is: its requests, and the share (0 to 1) of its KV cache in use."""

    engine: str
    running: int
    waiting: int
    kv_usage: float | None


#: Ranks that work on the same requests: with tensor or pipeline parallelism each may report them again.
SHARED_RANKS = frozenset({"tp_rank", "pp_rank", "moe_ep_rank"})

_LINE = re.compile(
    r"""^(?P<name>[A-Za-z_:][\w:]*)
        (?:\{(?P<labels>(?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?
        [ \t]+(?P<value>\S+)""",
    re.VERBOSE,
)
_LABEL = re.compile(r'([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")


def parse(text: str) -> list[Sample]:
    """The samples of an exposition; other lines (comments, invalid ones) are skipped."""
    samples = []
    for line in text.splitlines():
        match = _LINE.match(line)
        if not match:
            continue
        try:
            value = float(match["value"])
        except ValueError:
            continue
        labels = {name: _ESCAPE.sub(_unescaped, raw) for name, raw in _LABEL.findall(match["labels"] or "")}
        samples.append(Sample(match["name"], labels, value))
    return samples


def _unescaped(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]


def load(text: str) -> Load | None:
    """The load of the engine with this exposition; None unless it has both running and waiting."""
    samples = parse(text)
    for engine in ENGINES.values():
        names = engine.counters
        if names is None:
            continue
        running, waiting = _total(samples, names.running), _total(samples, names.waiting)
        if running is not None and waiting is not None:
            usage = [sample.value for sample in samples if sample.name == names.kv_usage and _finite(sample)]
            return Load(engine.name, round(running), round(waiting), max(usage) if usage else None)
    return None


def share_of_drafts(before: str, after: str) -> float | None:
    """The share of the proposed tokens that the model accepted, from 0 to 1; None where nothing was proposed.

    Args:
        before: an engine's exposition.
        after: the same engine's later one.
    """
    old, new = parse(before), parse(after)
    for names in (engine.counters for engine in ENGINES.values() if engine.counters):
        shares = [sample.value for sample in new if sample.name == names.taken_share and _finite(sample)]
        if shares and max(shares) > 0:
            return max(shares)
        proposed = (_total(new, names.proposed) or 0.0) - (_total(old, names.proposed) or 0.0)
        if proposed > 0:
            return ((_total(new, names.taken) or 0.0) - (_total(old, names.taken) or 0.0)) / proposed
    return None


def _total(samples: list[Sample], name: str) -> float | None:
    """The sum over independent engines, each counted once."""
    independent: dict[frozenset[tuple[str, str]], float] = {}
    for sample in samples:
        # One engine repeats the total, which has an empty priority, for each priority.
        if sample.name != name or not _finite(sample) or sample.labels.get("priority"):
            continue
        key = frozenset((label, value) for label, value in sample.labels.items() if label not in SHARED_RANKS)
        independent[key] = max(independent.get(key, 0.0), sample.value)
    return sum(independent.values()) if independent else None


def _finite(sample: Sample) -> bool:
    return math.isfinite(sample.value)


def latencies(text: str) -> tuple[Buckets, Buckets] | None:
    """The histograms of the seconds until the first token and between tokens of the engine with this exposition.

    Returns:
        Both, empty where it has none; None for an exposition that has neither.
    """
    samples = parse(text)
    for names in (engine.exposition for engine in ENGINES.values() if engine.exposition):
        found = _buckets(samples, names.first_token), _buckets(samples, names.token_gap)
        if any(found):
            return found
    return None


def _buckets(samples: list[Sample], histogram: Histogram) -> Buckets:
    """A histogram over all label sets that count: how many values were at most each bound."""
    series = f"{histogram.name}_bucket"
    if histogram.without:
        label, value = histogram.without
        samples = [sample for sample in samples if sample.labels.get(label) != value]
    bounds = {label for sample in samples if sample.name == series for label in [sample.labels.get("le", "")]}
    found: Buckets = {}
    for label in bounds:
        own = [sample for sample in samples if sample.name == series and sample.labels.get("le") == label]
        count = _total(own, series)
        try:
            bound = float(label)
        except ValueError:
            continue
        if count is not None and not math.isnan(bound):
            found[bound] = count
    return found
