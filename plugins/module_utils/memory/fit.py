# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Whether a model fits the GPUs of an instance, and the context length that it then serves.

Pure. On each GPU::

    KV cache = (visible memory - what is taken before) x fraction - weights - overhead

What the engine reported at its last start replaces the parts that are estimates.
"""

from __future__ import annotations

import dataclasses
import math
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.memory.base import (
    AUTO,
    GIB,
    EngineStep,
    Gpu,
    MemoryOptions,
    NotModelled,
    Overhead,
)
from ansible_collections.inference.fleet.plugins.module_utils.memory.pool import (
    Pool,
    parallel_problem,
    parallel_sizes,
    weights_on_gpu,
)
from ansible_collections.inference.fleet.plugins.module_utils.model.config import ModelConfig, Processor

#: How far the estimate of the overhead may be off on an L40S, where it was not measured: the uncertainty of its parts.
UNSURE = 1 * GIB

# An engine prints GiB with two decimals, and memory.reserved may be unknown.
_ROUNDING = int(0.02 * GIB)

FITS = "fits"
TOO_LONG = "too_long"
TOO_LARGE = "too_large"
UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True)
class Reported:
    """What the engine reported at its last start of this model, and its settings then; None is "as now".

    Attributes:
        kv_cache_gib: of the KV cache, on one GPU.
        kv_cache_tokens: that it held.
        model_gib: taken by loading the model, on one GPU.
        requested_gib: the fraction of the GPU in GiB.
        fraction: of the GPU that it could use.
        kv_dtype: of the KV cache.
        quantization: while loading, empty for none.
        tensor_parallel: GPUs that shared the model.
        gpu: name of the GPU.
        version: the engine's.
    """

    kv_cache_gib: float | None = None
    kv_cache_tokens: int | None = None
    model_gib: float | None = None
    requested_gib: float | None = None
    fraction: float | None = None
    kv_dtype: str | None = None
    quantization: str | None = None
    tensor_parallel: int | None = None
    gpu: str | None = None
    version: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """A change that makes it fit.

    Attributes:
        variable: what to set.
        value: to what.
        longest: the longest context that fits then.
        gpus: that the host needs for it, where it has fewer; else 0.
    """

    variable: str
    value: t.Any
    longest: int
    gpus: int = 0

    def __str__(self) -> str:
        where = f" on a host with {self.gpus} GPUs" if self.gpus else ""
        return f"{self.variable}: {self.value}{where}"


@dataclasses.dataclass(frozen=True)
class Fit:
    """The result. Bytes are those of one GPU.

    Attributes:
        verdict: FITS, TOO_LONG, TOO_LARGE (not even the weights fit) or UNKNOWN.
        certain: whether the verdict holds within the error of the estimate.
        message: the verdict for a person.
        length: the wanted context in tokens, 0 where none is set.
        longest: the longest context of a request that fits, at most what the model was made for.
        kv_tokens: tokens of KV cache, as the engine prints them.
        concurrency: requests of ``length`` that fit at once, as the engine prints it.
        token_bytes: KV cache of one token, over the layers that keep every token.
        kv_bytes, needed_bytes: the KV cache, and what one request of ``length`` takes of it.
        weight_bytes: the weights.
        visible_bytes, budget_bytes: of the GPU, and what the engine may use of it.
        besides_bytes: what the engine takes besides weights and KV cache.
        overhead: its parts, by estimate.
        fraction: of the GPU that the engine may use.
        source: ``engine`` where it follows what the engine reported, else ``estimate``.
        error_percent: how far the estimated KV cache is from the one that the engine reported.
        suggestions: changes that make it fit.
        notes: what is not counted, and other notes.
    """

    verdict: str
    message: str
    certain: bool = False
    length: int = 0
    longest: int = 0
    kv_tokens: int = 0
    concurrency: float = 0.0
    token_bytes: int = 0
    kv_bytes: int = 0
    needed_bytes: int = 0
    weight_bytes: int = 0
    visible_bytes: int = 0
    budget_bytes: int = 0
    besides_bytes: int = 0
    overhead: Overhead = dataclasses.field(default_factory=Overhead)
    fraction: float = 0.0
    source: str = "estimate"
    error_percent: float | None = None
    suggestions: tuple[Suggestion, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """False only where the engine would not start, or would refuse requests of the wanted length."""
        return self.verdict in (FITS, UNKNOWN)


def fit(
    model: ModelConfig,
    disk_bytes: int | None,
    processor: Processor,
    gpus: t.Sequence[Gpu],
    options: MemoryOptions,
    reported: Reported | None = None,
) -> Fit:
    """Whether the model fits, and what to change where it does not.

    Args:
        model: the model.
        disk_bytes: of its weights; None calculates them from the configuration.
        processor: the limits of its processor.
        gpus: of the host.
        options: the engine's.
        reported: what the engine reported at its last start of this model with these options; length, fraction, and
            type of
            the KV cache may differ.

    Raises:
        FleetError: the model cannot run on this host with this ``tensor_parallel_size``.
    """
    _check_gpus(gpus, options)
    problem = parallel_problem(model, options, options.tensor_parallel)
    if problem:
        sizes = ", ".join(str(size) for size in parallel_sizes(model, options, max(8, len(gpus))))
        raise FleetError(
            f"{options.variables['tensor_parallel']} is {options.tensor_parallel}, but {problem}. "
            f"What works is {sizes}; this host has {len(gpus)} GPU{'s' if len(gpus) != 1 else ''}."
        )
    if disk_bytes is None:
        disk_bytes = model.weight_bytes()
    try:
        if disk_bytes is None:
            raise NotModelled("There are no weights yet, and their size does not follow from config.json.")
        if model.quantization is None and options.quantization not in ("", "fp8"):
            raise NotModelled(
                f"{options.variables['quantization']} is {options.quantization}, and the size of the weights is known "
                "here for fp8 and as they are on the disk."
            )
        return _Case(model, disk_bytes, processor, tuple(gpus), options).with_report(reported).judge()
    except NotModelled as reason:
        return Fit(UNKNOWN, f"Whether the model fits is unknown. {reason} The engine's start will show it.")


def _check_gpus(gpus: t.Sequence[Gpu], options: MemoryOptions) -> None:
    variable = options.variables["tensor_parallel"]
    if not gpus:
        raise FleetError("There is no GPU to fit the model to. playbooks/verify_gpu.yml says what the host has.")
    if options.tensor_parallel < 1:
        raise FleetError(f"{variable} is {options.tensor_parallel}; it must be at least 1.")
    if options.tensor_parallel > len(gpus):
        raise FleetError(
            f"{variable} is {options.tensor_parallel}, and the host has {len(gpus)} "
            f"GPU{'s' if len(gpus) != 1 else ''}. Set it to {len(gpus)} or less, or use an instance type with more."
        )
    tiny = next((gpu for gpu in gpus if gpu.visible <= 0), None)
    if tiny:
        raise FleetError(f"{tiny.name} has {tiny.memory_mib:g} MiB of memory: give memory.total of nvidia-smi, in MiB.")


@dataclasses.dataclass(frozen=True)
class _Case:
    """One set of inputs, so that another can be tried by replacing one of them."""

    model: ModelConfig
    disk_bytes: int
    processor: Processor
    gpus: tuple[Gpu, ...]
    options: MemoryOptions
    reported: Reported | None = None

    def with_report(self, report: Reported | None) -> _Case:
        """A copy with a report whose "as now" is filled in."""
        if report is None:
            return self
        options = self.options
        filled = dataclasses.replace(
            report,
            fraction=report.fraction or self.fraction,
            kv_dtype=report.kv_dtype or options.kv_dtype,
            quantization=options.quantization if report.quantization is None else report.quantization,
            tensor_parallel=report.tensor_parallel or options.tensor_parallel,
            version=report.version or options.version,
        )
        return dataclasses.replace(self, reported=filled)

    @property
    def gpu(self) -> Gpu:
        """The smallest decides: the engine makes all KV caches as large as that of the GPU with the least memory."""
        return min(self.gpus, key=lambda gpu: gpu.visible)

    @property
    def step(self) -> EngineStep:
        return self.options.engine.step(self.options, self.gpu)

    @property
    def pool(self) -> Pool:
        return Pool(self.model, self.options, self.step.tokens, self._scale)

    @property
    def fraction(self) -> float:
        if self.options.fraction is not None:
            return self.options.fraction
        return self.options.engine.fraction(self.model, self.options, self.gpu)

    @property
    def budget(self) -> int:
        return math.ceil((self.gpu.visible - self.options.engine.started()) * self.fraction)

    @property
    def overhead(self) -> Overhead:
        return self.options.engine.overhead(self.model, self.processor, self.options, self.gpu)

    @property
    def weights(self) -> int:
        return weights_on_gpu(self.model, self.disk_bytes, self.options)

    @property
    def limit(self) -> int:
        """The longest context that the model was made for; without one, more than fits anywhere."""
        return self.model.max_length or 2**31

    @property
    def usable_report(self) -> Reported | None:
        """The report, where it is of the same GPU, version and split."""
        return None if self.reported is None or self.mismatch else self.reported

    @property
    def mismatch(self) -> str:
        """The GPU, version or split of the report, where it is different."""
        report, options = self.reported, self.options
        if report is None:
            return ""
        if report.tensor_parallel != options.tensor_parallel:
            return f"it is of {report.tensor_parallel} GPUs that share the model"
        if report.gpu and report.gpu.strip().lower() != self.gpu.name.strip().lower():
            return f"it is of another GPU, {report.gpu}"
        if report.version and options.version and report.version != options.version:
            return f"it is of version {'.'.join(map(str, report.version))}"
        if report.quantization != options.quantization:
            return f"it is of the quantisation {report.quantization or 'none'}"
        return ""

    @property
    def _scale(self) -> float:
        """The ratio of the reported size of a token to the calculated one; 1 where they agree within 2 %."""
        report = self.usable_report
        if report is None or not report.kv_cache_gib or not report.kv_cache_tokens or self.model.layers.window:
            return 1.0
        ratio = report.kv_cache_gib * GIB / report.kv_cache_tokens / self._as_reported(report).pool.token_bytes
        return 1.0 if abs(ratio - 1) <= 0.02 else ratio

    def estimated_kv(self) -> int:
        """Bytes of KV cache by the estimate alone."""
        if self.options.kv_bytes:
            return self.options.kv_bytes - self.options.reserved_bytes
        return self.budget - self.weights - self.overhead.total

    def reported_kv(self) -> int | None:
        """Bytes of KV cache that the engine reported; None without a report, or with one of something else."""
        report = self.usable_report
        if report is None:
            return None
        known = int(report.kv_cache_gib * GIB) if report.kv_cache_gib else None
        if report.kv_cache_tokens and not self.model.layers.window and self._scale == 1:
            # Exact, whereas GiB have two decimals.
            return report.kv_cache_tokens * self._as_reported(report).pool.token_bytes
        return known

    def _as_reported(self, report: Reported) -> _Case:
        options = dataclasses.replace(self.options, fraction=report.fraction, kv_dtype=report.kv_dtype or "auto")
        return dataclasses.replace(self, options=options, reported=None)

    def kv(self) -> tuple[int, str]:
        """Bytes of KV cache, and the source of the figure."""
        report, known = self.usable_report, self.reported_kv()
        if self.options.kv_bytes or report is None:
            return self.estimated_kv(), "estimate"
        if known is not None:
            # Everything except weights and KV cache stays as it was.
            then = int(report.requested_gib * GIB) if report.requested_gib else self._as_reported(report).budget
            more = self.budget - then
            return known + (more if abs(more) > _ROUNDING else 0), "engine"
        if report.model_gib is not None:
            return self.budget - int(report.model_gib * GIB) - self.overhead.total, "engine"
        return self.estimated_kv(), "estimate"

    def error_percent(self) -> float | None:
        """How far the estimate is from the report, with the settings of the report."""
        known, report = self.reported_kv(), self.usable_report
        if not known or report is None:
            return None
        return round(100 * (self._as_reported(report).estimated_kv() - known) / known, 1)

    def judge(self) -> Fit:
        kv_bytes, source = self.kv()
        pool, options = self.pool, self.options
        weights = self._weights_reported() or self.weights
        wanted = self.limit if options.length is None else options.length
        longest = pool.longest(kv_bytes, self.limit)
        length = longest if wanted == AUTO else wanted
        needed = pool.needed(length)
        verdict = FITS
        if kv_bytes <= 0 or longest < 1:
            verdict = TOO_LARGE
        elif length > longest:
            verdict = TOO_LONG
        # With "auto" the limit is that nothing fits.
        certain = (
            source == "engine" or length > self.limit or abs(kv_bytes - (0 if wanted == AUTO else needed)) > UNSURE
        )
        found = Fit(
            verdict=verdict,
            certain=certain,
            message="",
            length=length,
            longest=longest,
            kv_tokens=pool.tokens(kv_bytes, max(1, length)),
            concurrency=round(pool.concurrency(kv_bytes, max(1, length)), 2),
            token_bytes=pool.token_bytes,
            kv_bytes=max(0, kv_bytes),
            needed_bytes=needed,
            weight_bytes=weights,
            visible_bytes=self.gpu.visible,
            budget_bytes=self.budget,
            besides_bytes=self.budget - weights - kv_bytes if source == "engine" else self.overhead.total,
            overhead=self.overhead,
            fraction=self.fraction,
            source=source,
            error_percent=self.error_percent(),
            notes=tuple(self._notes(kv_bytes)),
        )
        if verdict != FITS:
            found = dataclasses.replace(found, suggestions=tuple(self._suggestions(found)))
        return dataclasses.replace(found, message=self._message(found))

    def _weights_reported(self) -> int | None:
        report = self.usable_report
        return int(report.model_gib * GIB) if report and report.model_gib is not None else None

    # Suggestions

    def _try(self, **changes: t.Any) -> Fit | None:
        """The result with other options; None where it does not fit either."""
        case = dataclasses.replace(self, options=dataclasses.replace(self.options, **changes))
        kv_bytes, _source = case.kv()
        wanted = case.limit if case.options.length is None else max(1, case.options.length)
        longest = case.pool.longest(kv_bytes, case.limit)
        return Fit(FITS, "", longest=longest) if longest >= wanted else None

    def _suggestions(self, found: Fit) -> t.Iterator[Suggestion]:
        options, names = self.options, self.options.variables
        if found.verdict == TOO_LONG:
            length = self._safe_length(found)
            yield Suggestion(names["length"], length, length)
        if found.length > self.limit:
            return
        if self._quantised_kv_helps():
            better = self._try(kv_dtype=options.engine.fp8_kv)
            if better:
                yield Suggestion(names["kv_dtype"], options.engine.fp8_kv, better.longest)
        if found.verdict == TOO_LARGE and self.model.quantization is None and not options.quantization:
            better = self._try(quantization="fp8")
            if better:
                yield Suggestion(names["quantization"], "fp8", better.longest)
        if not options.kv_bytes:
            highest = round(options.engine.highest_fraction * 100)
            for percent in range(math.floor(self.fraction * 100) + 1, highest + 1):
                better = self._try(fraction=percent / 100)
                if better:
                    yield Suggestion(names["fraction"], percent / 100, better.longest)
                    break
        for size in parallel_sizes(self.model, options, max(8, len(self.gpus))):
            better = self._try(tensor_parallel=size) if size > options.tensor_parallel else None
            if better:
                more = size if size > len(self.gpus) else 0
                yield Suggestion(names["tensor_parallel"], size, better.longest, more)
                break

    def _safe_length(self, found: Fit) -> int:
        """The length to suggest: for an estimate less its possible error, where that leaves most of it."""
        if found.source == "engine" or found.longest == self.limit:
            return found.longest
        careful = self.pool.longest(found.kv_bytes - UNSURE, self.limit) // 1024 * 1024
        return careful if 2 * careful > found.longest else found.longest

    def _quantised_kv_helps(self) -> bool:
        try:
            other = dataclasses.replace(self.options, kv_dtype=self.options.engine.fp8_kv)
            return Pool(self.model, other, self.step.tokens).token_bytes < self.pool.token_bytes
        except NotModelled:
            return False

    # Messages

    def _notes(self, kv_bytes: int) -> t.Iterator[str]:
        options, layers = self.options, self.model.layers
        if layers.state:
            yield (
                f"{layers.state} of {layers.total} layers have no KV cache but a state for each request, which is not "
                "counted."
            )
        if layers.window and not options.engine.knows_windows:
            yield f"{layers.window} layers with a window are counted as if they kept every token."
        if options.uncounted:
            yield f"The memory that {', '.join(options.uncounted)} takes is not counted."
        if self.model.vision and self.model.vision.image_size:
            yield "An image is counted as one square; tiles, into which some models cut it, are not."
        if self.mismatch:
            yield f"What the engine reported is left out: {self.mismatch}."
        highest = options.engine.highest_fraction
        if highest and not options.kv_bytes and self.fraction > highest:
            yield (
                f"{options.variables['fraction']} is {self.fraction:g}; the CUDA context is not in it, so above "
                f"{highest:g} the engine may not start."
            )
        left = self.gpu.visible - options.engine.started() - self.budget
        peak = options.engine.beside(self.model, self.processor, options, self.gpu)
        if left < peak:
            yield (
                f"{options.variables['fraction']} {self.fraction:.3g} leaves {left / GIB:.1f} GiB for activations "
                f"and CUDA graphs, which take up to about {peak / GIB:.1f} GiB: the engine may run out of memory."
            )
        if options.kv_bytes and kv_bytes + self.weights + self.overhead.total > self.gpu.visible:
            yield (
                f"With {kv_bytes / GIB:.2f} GiB of KV cache, {self.weights / GIB:.2f} GiB of weights and about "
                f"{self.overhead.total / GIB:.1f} GiB besides, the engine may run out of memory."
            )

    def _message(self, found: Fit) -> str:
        options, gpu = self.options, self.gpu
        name = self.model.architecture or "The model"
        where = f"{options.tensor_parallel} x {gpu.name}" if options.tensor_parallel > 1 else gpu.name
        variable = options.variables["length"]
        how = "as the engine reported it" if found.source == "engine" else "by estimate"
        needs = f"{found.needed_bytes / GIB:.2f} GiB"
        left = f"{found.kv_bytes / GIB:.2f} GiB"
        if found.verdict == FITS:
            text = (
                f"{name} fits {where}: {left} of KV cache ({how}) hold {found.kv_tokens} tokens, "
                f"{found.concurrency:.1f} requests of {found.length} tokens at once; {found.longest} fit at most."
            )
        elif found.verdict == TOO_LARGE:
            text = (
                f"{name} does not fit {where}: {found.weight_bytes / GIB:.2f} GiB of weights and about "
                f"{found.besides_bytes / GIB:.1f} GiB besides leave no KV cache of the "
                f"{found.budget_bytes / GIB:.2f} GiB that the engine may use on each GPU."
            )
        elif found.length > self.limit:
            text = f"{variable} is {found.length}, more than the model was made for ({self.limit})."
        else:
            does = "would not start" if options.engine.refuses_long else "then serves shorter requests only"
            set_to = f"{variable} {found.length}" if options.length else f"The model's own length {found.length}"
            text = (
                f"{set_to} does not fit {where}: a request of that length takes {needs} of KV cache on each GPU, and "
                f"{left} are left ({how}) of {found.budget_bytes / GIB:.2f} GiB; the engine {does}."
            )
        if found.suggestions:
            text += f" What fits: {'; or '.join(str(suggestion) for suggestion in found.suggestions)}."
        elif found.verdict != FITS:
            text += " Use GPUs with more memory, more of them, or a smaller or quantised model."
        if not found.certain:
            text += f" The estimate may be off by {UNSURE / GIB:.0f} GiB: the engine's start will show it."
        return text
