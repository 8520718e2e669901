# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""How much memory an engine found and used at its start, from its journal.

Pure. What one engine writes is in its own module. Only numbers are read from a line, because an engine may log its key
there.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.engines.base import Engine


@dataclasses.dataclass(frozen=True)
class EngineMemory:
    """What an engine reported; None is "not reported". Of several workers: the one with the least KV cache.

    Attributes:
        model_gib: taken by loading the model, on one GPU.
        kv_cache_gib: of the KV cache, on one GPU.
        kv_cache_tokens: that it holds.
        requested_gib: the share of the GPU that it may use.
        gpu_gib: what CUDA sees of the GPU.
        consumed_gib: weights and what is not PyTorch's.
        activation_gib: the peak of a step, with what is set aside for CUDA graphs.
        graphs_gib: taken by CUDA graphs.
        max_length: the longest context that it serves.
        fitting_length: the longest that would fit, where it refused to start with a longer one.
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


_WHOLE = ("kv_cache_tokens", "max_length", "fitting_length")


def engine_memory(lines: t.Iterable[str], engine: Engine) -> EngineMemory:
    """What an engine reported of memory.

    Args:
        lines: the journal of one start of one unit, oldest first.
        engine: what the unit runs.
    """
    found: dict[str, list[float]] = {}
    chosen: dict[str, t.Callable[[list[float]], float]] = {}
    options = engine.journal.options
    for line in lines:
        if options and re.search(options, line):
            continue
        for figure in engine.journal.figures:
            for values in re.findall(figure.pattern, line):
                numbers = [float(value.replace(",", "")) for value in ([values] if isinstance(values, str) else values)]
                if figure.is_sum:
                    numbers = [round(sum(numbers), 2)]
                for name, number in zip(figure.names, numbers):
                    found.setdefault(name, []).append(number)
                    chosen[name] = figure.choose
    result: dict[str, t.Any] = {name: chosen[name](values) for name, values in found.items()}
    return EngineMemory(**{name: int(value) if name in _WHOLE else value for name, value in result.items()})


def as_reported(memory: EngineMemory) -> dict[str, float | int]:
    """The argument ``reported`` of module vram_fit, of these figures; the caller adds their circumstances."""
    names = ("kv_cache_gib", "kv_cache_tokens", "model_gib", "requested_gib")
    return {name: getattr(memory, name) for name in names if getattr(memory, name) is not None}
