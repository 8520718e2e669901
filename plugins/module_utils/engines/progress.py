# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What an engine is doing while it starts, read from its journal.

Pure. What one engine writes is in its own module; here are the progress bars, which all have in common, and systemd's
lines. No rule repeats free text of a line, because an engine may write its key there.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.progress import (
    CAPTURING,
    COMPILING,
    IMPORTING,
    LOADING,
    PREPARING,
    WARMING_UP,
    EngineProgress,
)
from ansible_collections.inference.fleet.plugins.module_utils.engines.base import Engine, Phase

# tqdm's bars, as "54%|#####4 | 36/67 [" and as "54% Completed | 36/67 [". Their percentage is their own.
_BAR = r"[^|\r]*?(?P<percent>\d+)%(?: Completed ?)?\|[^|]*?(?:\| )?(?P<n>\d+)/(?P<total>\d+) \["

_BARS = (
    Phase(
        LOADING,
        rf"(?:Loading \S+ checkpoint shards|Multi-thread loading (?:pt checkpoint )?shards){_BAR}",
        "loading the weights, {n} of {total} files",
    ),
    Phase(
        CAPTURING,
        rf"Capturing CUDA graphs \((?P<what>[\w ,-]+)\):{_BAR}",
        "capturing CUDA graphs ({what}), {n} of {total}",
    ),
    Phase(
        CAPTURING,
        rf"Capturing (?:CUDA graphs|batches|prefill shape){_BAR}",
        "capturing CUDA graphs, {n} of {total}",
    ),
    Phase(COMPILING, rf"Compiling num tokens{_BAR}", "compiling, {n} of {total} shapes"),
    Phase(COMPILING, rf"Compiling CuTeDSL kernels{_BAR}", "compiling kernels, {n} of {total}"),
    Phase(
        WARMING_UP,
        rf"(?:JIT kernel warmup \(\d+ compile keys\)|DeepGEMM warmup):{_BAR}",
        "warming up kernels, {n} of {total}",
    ),
)
_SYSTEMD = Phase(PREPARING, r"^(?:Starting|Started|Stopping|Stopped) |^\S+\.service: ", "being started by systemd")


def progress(lines: t.Iterable[str], engine: Engine) -> EngineProgress | None:
    """What an engine is doing; None where it has written nothing.

    Args:
        lines: the journal of one start of one unit, oldest first. A line may hold many states of a progress bar.
        engine: what the unit runs.
    """
    pieces = [piece for line in lines for piece in re.split(r"[\r\n]", line) if piece.strip()]
    if not pieces:
        return None
    for number in range(len(pieces) - 1, -1, -1):
        found = _match(pieces[number], engine)
        # Lines after systemd's own last one are the engine's: unknown, but Python runs.
        if found and (found.phase != PREPARING or number == len(pieces) - 1):
            return found
    return EngineProgress(IMPORTING, "importing its libraries")


def _match(piece: str, engine: Engine) -> EngineProgress | None:
    journal = engine.journal
    options = (Phase(IMPORTING, journal.options, "reading its arguments"),) if journal.options else ()
    for rule in (*options, *_BARS, *journal.phases, _SYSTEMD):
        found = re.search(rule.pattern, piece)
        if found:
            values = found.groupdict()
            percent = values.get("percent")
            return EngineProgress(
                rule.phase, rule.text.format(**values), rule.percent if percent is None else int(percent)
            )
    return None
