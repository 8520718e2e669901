# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What an engine is doing while it starts, read from its journal.

Pure. The lines are those of vLLM 0.32 and SGLang 0.5.23; each rule has one of theirs in the unit tests. No rule repeats
free text of a line, because SGLang writes its API key to its journal.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

CHECKING = "checking"
DOWNLOADING = "downloading"
PREPARING = "preparing"
IMPORTING = "importing"
LOADING = "loading"
COMPILING = "compiling"
PROFILING = "profiling"
CAPTURING = "capturing"
WARMING_UP = "warming_up"
SERVING = "serving"

#: Every phase, in about the order in which an engine goes through them.
PHASES = (
    CHECKING,
    DOWNLOADING,
    PREPARING,
    IMPORTING,
    LOADING,
    COMPILING,
    PROFILING,
    CAPTURING,
    WARMING_UP,
    SERVING,
)


@dataclasses.dataclass(frozen=True)
class Progress:
    """What an engine is doing.

    Attributes:
        phase: one of PHASES.
        text: the same for a person, with the engine's own figures.
        percent: how much of the phase is done, where the engine says it.
    """

    phase: str
    text: str
    percent: int | None = None


class _Rule(t.NamedTuple):
    phase: str
    pattern: re.Pattern[str]
    text: str
    percent: int | None


# tqdm's bars, as "54%|#####4 | 36/67 [" and as "54% Completed | 36/67 [".
_BAR = r"[^|\r]*?(?P<percent>\d+)%(?: Completed ?)?\|[^|]*?(?:\| )?(?P<n>\d+)/(?P<total>\d+) \["

_RULES = tuple(
    _Rule(phase, re.compile(pattern.replace("<bar>", _BAR)), text, percent)
    for phase, pattern, text, percent in (
        # Whole configurations, in which any word may stand: before the others.
        (IMPORTING, r"non-default args: \{|server_args=", "reading its arguments", None),
        (IMPORTING, r"Initializing a V1 LLM engine \(v", "starting the engine's core", None),
        # Bars. Their percentage is their own.
        (
            LOADING,
            r"(?:Loading \S+ checkpoint shards|Multi-thread loading (?:pt checkpoint )?shards)<bar>",
            "loading the weights, {n} of {total} files",
            None,
        ),
        (
            CAPTURING,
            r"Capturing CUDA graphs \((?P<what>[\w ,-]+)\):<bar>",
            "capturing CUDA graphs ({what}), {n} of {total}",
            None,
        ),
        (
            CAPTURING,
            r"Capturing (?:CUDA graphs|batches|prefill shape)<bar>",
            "capturing CUDA graphs, {n} of {total}",
            None,
        ),
        (COMPILING, r"Compiling num tokens<bar>", "compiling, {n} of {total} shapes", None),
        (COMPILING, r"Compiling CuTeDSL kernels<bar>", "compiling kernels, {n} of {total}", None),
        (
            WARMING_UP,
            r"(?:JIT kernel warmup \(\d+ compile keys\)|DeepGEMM warmup):<bar>",
            "warming up kernels, {n} of {total}",
            None,
        ),
        # vLLM.
        (IMPORTING, r"█ +version (?P<version>[\w.+]+)", "starting vLLM {version}", None),
        (IMPORTING, r"Resolved architecture: \w+|Using max model len \d", "reading the model's configuration", None),
        (IMPORTING, r"world_size=\d+ rank=\d+ local_rank=\d+ ", "starting the workers", None),
        (LOADING, r"Starting to load model ", "building the model", None),
        (
            LOADING,
            r"Filesystem type for checkpoints: .*Checkpoint size: (?P<size>[\d.]+) GiB",
            "loading the weights, {size} GiB",
            0,
        ),
        (
            LOADING,
            r"Prefetching checkpoint files: (?P<percent>\d+)% \((?P<n>\d+)/(?P<total>\d+)\)",
            "reading the weights ahead, {n} of {total} files",
            None,
        ),
        (LOADING, r"Loading weights took (?P<took>[\d.]+) seconds", "weights loaded in {took} s", 100),
        (
            LOADING,
            r"Model loading took (?P<size>[\d.]+) GiB(?: memory)? and (?P<took>[\d.]+) seconds",
            "model loaded in {took} s, {size} GiB",
            100,
        ),
        (COMPILING, r"Starting torch\.compile", "compiling with torch.compile", None),
        (COMPILING, r"Using cache directory: .* for vLLM's torch\.compile", "compiling with torch.compile", None),
        (COMPILING, r"Dynamo bytecode transform time: (?P<took>[\d.]+) s", "torch.compile: traced in {took} s", None),
        (
            COMPILING,
            r"Directly load (?:the compiled graph\(s\)|AOT compilation)",
            "torch.compile: loading from the cache",
            None,
        ),
        (
            COMPILING,
            r"Cache the graph of compile range|Compiling a graph for compile range \((?P<range>[\d, ]+)\) takes ",
            "torch.compile: compiling for each size",
            None,
        ),
        (COMPILING, r"torch\.compile took (?P<took>[\d.]+) s in total", "torch.compile took {took} s", 100),
        (COMPILING, r"Compile and warming up model for size (?P<n>\d+)", "compiling for {n} tokens", None),
        (COMPILING, r"Warming up model for the compilation", "compiling", None),
        (COMPILING, r"Warming up done\.", "compiled", 100),
        (PROFILING, r"Encoder cache will be initialized with", "measuring the memory that requests need", None),
        (
            PROFILING,
            r"torch\.compile and initial profiling/warmup|Initial profiling/warmup run took",
            "measured the memory that requests need",
            None,
        ),
        (PROFILING, r"Profiling CUDA graph memory: ", "measuring the memory that CUDA graphs need", None),
        (PROFILING, r"Estimated CUDA graph memory: ", "measured the memory that CUDA graphs need", None),
        (PROFILING, r"Available KV cache memory: (?P<size>[\d.]+) GiB", "{size} GiB left for the KV cache", None),
        (PROFILING, r"\S+ KV cache size: (?P<n>[\d,]+) tokens", "KV cache of {n} tokens", 100),
        (WARMING_UP, r"JIT kernel warmup starting\.", "warming up kernels", None),
        (WARMING_UP, r"JIT kernel warmup finished in (?P<took>[\d.]+)s\.", "kernels warmed up in {took} s", None),
        (WARMING_UP, r"Warming up (?!model for|done)", "warming up kernels", None),
        (
            CAPTURING,
            r"Graph capturing finished in (?P<took>\d+) secs, took (?P<size>-?[\d.]+) GiB",
            "CUDA graphs captured in {took} s, {size} GiB",
            100,
        ),
        (CAPTURING, r"Encoder CUDA graph capture complete\.", "CUDA graphs of the encoder captured", None),
        (WARMING_UP, r"init engine \(profile, create kv cache, warmup model\) took", "the engine's core is up", None),
        (WARMING_UP, r"Starting vLLM server on ", "starting to listen", None),
        # SGLang.
        (IMPORTING, r"Init (?:parallel|torch distributed) begin\.", "starting the workers", None),
        (IMPORTING, r"Init (?:parallel|torch distributed) ends\.", "the workers are up", None),
        (LOADING, r"Load weight begin\.", "loading the weights", 0),
        (LOADING, r"Load weight end\. elapsed=(?P<took>[\d.]+) s", "weights loaded in {took} s", 100),
        (PROFILING, r"KV [Cc]ache (?:is )?allocated", "allocating the KV cache", None),
        (PROFILING, r"Memory pool end\.", "KV cache allocated", 100),
        (PROFILING, r"KV pool holds (?P<n>\d+) tokens", "KV cache of {n} tokens", 100),
        (PROFILING, r"max_total_num_tokens=(?P<n>\d+), ", "KV cache of {n} tokens", 100),
        (WARMING_UP, r"Running FlashInfer autotune", "tuning kernels", None),
        (WARMING_UP, r"FlashInfer autotune completed", "kernels tuned", None),
        (COMPILING, r"DeepGEMM JIT Compiling", "compiling kernels", None),
        (CAPTURING, r"Capture (?:\w+ )+[A-Za-z]+ graph begin\.", "capturing CUDA graphs", 0),
        (
            CAPTURING,
            r"Capture (?:\w+ )+[A-Za-z]+ graph end\..* elapsed=(?P<took>[\d.]+) s",
            "CUDA graphs captured in {took} s",
            100,
        ),
        (WARMING_UP, r"Engine startup timings \(s\): ", "the schedulers are up", None),
        (SERVING, r"The server is fired up and ready to roll!", "serves", 100),
        # systemd's own, of both.
        (PREPARING, r"^(?:Starting|Started|Stopping|Stopped) |^\S+\.service: ", "being started by systemd", None),
    )
)

_LISTENS = re.compile(r"Application startup complete\.")
_VLLM = re.compile(r"\(APIServer |vLLM", re.IGNORECASE)


def progress(lines: t.Iterable[str]) -> Progress | None:
    """What an engine is doing, None where it has written nothing.

    Args:
        lines: the journal of one start of one unit, oldest first. A line may hold many states of a progress bar.
    """
    pieces = [piece for line in lines for piece in re.split(r"[\r\n]", line) if piece.strip()]
    if not pieces:
        return None
    for number in range(len(pieces) - 1, -1, -1):
        if _LISTENS.search(pieces[number]):
            return _listening(pieces)
        found = _match(pieces[number])
        # What follows systemd's own last line is the engine's: nothing that is known, but Python runs.
        if found and (found.phase != PREPARING or number == len(pieces) - 1):
            return found
    return Progress(IMPORTING, "importing its libraries")


def _match(piece: str) -> Progress | None:
    for rule in _RULES:
        found = rule.pattern.search(piece)
        if found:
            values = found.groupdict()
            percent = values.get("percent")
            return Progress(rule.phase, rule.text.format(**values), rule.percent if percent is None else int(percent))
    return None


def _listening(pieces: list[str]) -> Progress:
    """What it means that the HTTP server is up: vLLM starts it last, SGLang asks itself a first question then."""
    if any(_VLLM.search(piece) for piece in pieces):
        return Progress(SERVING, "serves", 100)
    return Progress(WARMING_UP, "answering a first question of its own", None)
