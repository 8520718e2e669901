# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""How much memory an engine found and used when it started, read from its journal.

Pure. The lines are those of vLLM 0.32 and SGLang 0.5.23; each rule has one of theirs in the unit tests. Only numbers
are taken from a line, because SGLang writes its API key to its journal.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t


@dataclasses.dataclass(frozen=True)
class EngineMemory:
    """What an engine reported; None is "not reported". Of several workers: the one with the least KV cache.

    Both engines mean GiB, also where SGLang writes GB.

    Attributes:
        model_gib: taken by loading the model, on one GPU.
        kv_cache_gib: of the KV cache, on one GPU.
        kv_cache_tokens: that it holds.
        requested_gib: ``gpu_memory_utilization`` of the GPU (vLLM).
        gpu_gib: what CUDA sees of the GPU (vLLM).
        consumed_gib: weights and what is not PyTorch's (vLLM).
        activation_gib: the peak of a step, with what is set aside for CUDA graphs (vLLM).
        graphs_gib: taken by CUDA graphs (vLLM).
        max_length: the longest context that it serves.
        fitting_length: the longest that would fit, where it refused to start with a longer one (vLLM).
    """

    model_gib: float | None = None
    kv_cache_gib: float | None = None
    kv_cache_tokens: int | None = None
    requested_gib: float | None = None
    gpu_gib: float | None = None
    consumed_gib: float | None = None
    activation_gib: float | None = None
    graphs_gib: float | None = None
    max_length: int | None = None
    fitting_length: int | None = None


_GIB = r"(-?\d+(?:\.\d+)?) Gi?B"
_COUNT = r"([\d,]+)"


class _Rule(t.NamedTuple):
    names: tuple[str, ...]
    pattern: re.Pattern[str]
    choose: t.Callable[[list[float]], float]


def _first(values: list[float]) -> float:
    """Of a pool and those of a draft model, which follow it."""
    return values[0]


def _last(values: list[float]) -> float:
    return values[-1]


# Of a worker on each GPU, the one that took most of something, or has least left.
_RULES = tuple(
    _Rule(names, re.compile(pattern), choose)
    for names, pattern, choose in (
        # vLLM.
        (("model_gib",), rf"Model loading took {_GIB}", max),
        (("kv_cache_gib",), rf"Available KV cache memory: {_GIB}", min),
        (("kv_cache_gib",), rf"KV cache memory reduced to {_GIB}", min),
        (("kv_cache_tokens",), rf"\w+ KV cache size: {_COUNT} tokens", min),
        (("max_length",), rf"Maximum concurrency for {_COUNT} tokens per request", min),
        (("max_length",), rf"Auto-fit max_model_len: reduced from \d+ to {_COUNT}", min),
        (
            ("gpu_gib", "requested_gib", "consumed_gib", "activation_gib"),
            r"Free memory on device \([\d.]+/([\d.]+) GiB\) on startup\. Desired GPU memory utilization is "
            rf"\([\d.]+, ([\d.]+) GiB\)\. Actual usage is {_GIB} for consumed memory \(weights \+ non-torch\), "
            rf"{_GIB} for peak activation",
            _last,
        ),
        # The first is of those that vLLM estimates from, and then discards.
        (("graphs_gib",), rf"Graph capturing finished in \d+ secs, took {_GIB}", _last),
        (
            ("kv_cache_gib", "fitting_length"),
            r"larger than the available KV cache memory \(([\d.]+) GiB\).*?estimated maximum model length is (\d+)",
            min,
        ),
        # SGLang.
        (("model_gib",), rf"Load weight end\. .*mem usage={_GIB}", max),
        (("kv_cache_tokens", "max_length"), r"max_total_num_tokens=(\d+), .*context_len=(\d+)", min),
        (("kv_cache_gib",), rf"[\]:] KV (?:cache|Cache is) allocated\. .*KV size: {_GIB}", _first),
    )
)
_KEYS_AND_VALUES = re.compile(rf"\] KV Cache is allocated\. .*K size: {_GIB}, V size: {_GIB}")
# The options, in which any text may stand.
_OPTIONS = re.compile(r"server_args=|non-default args: ")


def engine_memory(lines: t.Iterable[str]) -> EngineMemory:
    """What an engine reported of memory.

    Args:
        lines: the journal of one start of one unit, oldest first.
    """
    found: dict[str, list[float]] = {}
    chosen: dict[str, t.Callable[[list[float]], float]] = {}
    for line in lines:
        if _OPTIONS.search(line):
            continue
        for rule in _RULES:
            for values in rule.pattern.findall(line):
                for name, value in zip(rule.names, [values] if isinstance(values, str) else values):
                    found.setdefault(name, []).append(float(value.replace(",", "")))
                    chosen[name] = rule.choose
        for keys, values in _KEYS_AND_VALUES.findall(line):
            found.setdefault("kv_cache_gib", []).append(round(float(keys) + float(values), 2))
            chosen["kv_cache_gib"] = _first
    numbers: dict[str, t.Any] = {name: chosen[name](values) for name, values in found.items()}
    for name in ("kv_cache_tokens", "max_length", "fitting_length"):
        if name in numbers:
            numbers[name] = int(numbers[name])
    return EngineMemory(**numbers)


def as_reported(memory: EngineMemory) -> dict[str, float | int]:
    """What module vram_fit takes as ``reported``, of what was read; its circumstances are for the caller to add."""
    names = ("kv_cache_gib", "kv_cache_tokens", "model_gib", "requested_gib")
    return {name: getattr(memory, name) for name in names if getattr(memory, name) is not None}
