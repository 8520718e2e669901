# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""How an engine uses a GPU's memory: each engine's module has a model of it, and its options under common names.

Pure.
"""

from __future__ import annotations

import abc
import dataclasses
import json
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.values import plain_name, typed
from ansible_collections.inference.fleet.plugins.module_utils.model.config import ModelConfig, Processor

MIB = 1024**2
GIB = 1024**3

#: The longest that fits, as a value of the length.
AUTO = -1

#: MiB of nvidia-smi's memory.total that CUDA does not see, where memory.reserved is not given: an H200's. An L40S has
#: 609.
RESERVED_MIB = 616

_KV_BYTES = {
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "bf16": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
    "fp8_inc": 1,
}
_MULTIPLIERS = {suffix: 1000**power for power, suffix in enumerate("kmgt", 1)}
_MULTIPLIERS.update({suffix: 1024**power for power, suffix in enumerate("KMGT", 1)})


class NotModelled(Exception):
    """The memory use is not known here, so there is no verdict."""


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: as nvidia-smi prints it.
        memory_mib: its memory.total in MiB.
        reserved_mib: its memory.reserved, None where that is not known.
    """

    name: str
    memory_mib: float
    reserved_mib: float | None = None

    @property
    def visible(self) -> int:
        """Bytes that CUDA can allocate."""
        reserved = RESERVED_MIB if self.reserved_mib is None else self.reserved_mib
        return int((self.memory_mib - reserved) * MIB)


@dataclasses.dataclass(frozen=True)
class EngineStep:
    """The largest step of an engine.

    Attributes:
        tokens: of all its requests.
        requests: in the step.
    """

    tokens: int
    requests: int


@dataclasses.dataclass(frozen=True)
class Overhead:
    """Bytes on each GPU besides weights and KV cache.

    Attributes:
        activations: the peak of a step, of the vision encoder or of the text model.
        fixed: libraries and buffers, CUDA graphs, and per-request state.
        media: set aside for images and videos.
    """

    activations: int = 0
    fixed: int = 0
    media: int = 0

    @property
    def total(self) -> int:
        return self.activations + self.fixed + self.media


class MemoryModel(abc.ABC):
    """How one engine uses a GPU's memory; its module has a subclass.

    On each GPU: KV cache = (visible memory - ``started``) x fraction - weights - ``overhead``. What the engine reported
        at its last start replaces the estimates here, so they need not be closer than 5 % of the KV cache.

    Attributes:
        variables: of its role, which messages name: ``length``, ``fraction``, ``kv_dtype``, ``quantization`` and
            ``tensor_parallel``.
        splits: options that split the model in unknown ways, where they are more than 1.
        uncounted: options that take memory that is not counted.
        fp8_kv: the option's value for a KV cache of one byte a number.
        fp8_kv_from: the checkpoint's setting that makes ``auto`` an fp8 KV cache: ``algorithm`` or ``scheme``.
        spare_blocks: of the KV cache, which are never used.
        knows_windows: whether a layer with a window keeps only the window.
        encoder_is_optional: whether the vision encoder is left out where requests have no media.
        encoder_is_quantised: whether it is quantised, too, where weights are quantised while loading.
        refuses_long: whether it refuses to start with a length that its cache does not hold.
        highest_fraction: the highest fraction to propose; 0 proposes none.
    """

    variables: t.ClassVar[t.Mapping[str, str]]
    splits: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()
    fp8_kv: str = "fp8"
    fp8_kv_from: tuple[str, ...] = ("algorithm",)
    spare_blocks: int = 0
    knows_windows: bool = True
    encoder_is_optional: bool = False
    encoder_is_quantised: bool = False
    refuses_long: bool = True
    highest_fraction: float = 0.0

    @abc.abstractmethod
    def read(self, options: t.Mapping[str, t.Any]) -> MemoryOptions:
        """Its options under common names.

        Args:
            options: by their plain names; None is not set.
        """

    @abc.abstractmethod
    def step(self, options: MemoryOptions, gpu: Gpu) -> EngineStep:
        """The largest step."""

    @abc.abstractmethod
    def fraction(self, model: ModelConfig, options: MemoryOptions, gpu: Gpu) -> float:
        """The default share of the GPU that it may use."""

    @abc.abstractmethod
    def overhead(self, model: ModelConfig, processor: Processor, options: MemoryOptions, gpu: Gpu) -> Overhead:
        """The memory of its share besides weights and KV cache."""

    def started(self) -> int:
        """Bytes of the GPU that are taken before the fraction applies."""
        return 0

    def beside(self, model: ModelConfig, processor: Processor, options: MemoryOptions, gpu: Gpu) -> int:
        """Bytes that must fit in the rest of its share."""
        return 0


@dataclasses.dataclass(frozen=True)
class MemoryOptions:
    """The memory options of an engine. None is "not set": the engine's default.

    Attributes:
        engine: its name.
        version: the engine's; empty where it is not known.
        tensor_parallel: GPUs that share the model.
        length: the longest context in tokens; AUTO for the longest that fits, None for the model's own.
        fraction: of the GPU's memory.
        kv_dtype: of the KV cache.
        kv_bytes: bytes of KV cache instead of a fraction of the GPU.
        kv_tokens: the most tokens of KV cache.
        dtype: of weights and activations.
        quantization: while loading, empty for none.
        block: tokens that are allocated together.
        batched_tokens: the most tokens in one step.
        requests: the most requests in one step.
        graphs: whether CUDA graphs are captured.
        images, videos: the most in one request.
        image_pixels: pixels of the largest image, where an option says so.
        split_encoder: whether the vision encoder is split over the GPUs rather than copied to each.
        split_experts: whether each expert is split over the GPUs rather than the experts divided among them.
        measures_encoder: whether memory is set aside for the vision encoder.
        reserved_bytes: taken from the KV cache for media.
        uncounted: options that take memory that is not counted.
    """

    engine: MemoryModel
    version: tuple[int, ...] = ()
    tensor_parallel: int = 1
    length: int | None = None
    fraction: float | None = None
    kv_dtype: str = "auto"
    kv_bytes: int | None = None
    kv_tokens: int | None = None
    dtype: str = "auto"
    quantization: str = ""
    block: int = 16
    batched_tokens: int | None = None
    requests: int | None = None
    graphs: bool = True
    images: int = 999
    videos: int = 999
    image_pixels: int | None = None
    split_encoder: bool = True
    split_experts: bool = True
    measures_encoder: bool = True
    reserved_bytes: int = 0
    uncounted: tuple[str, ...] = ()

    @property
    def variables(self) -> t.Mapping[str, str]:
        return self.engine.variables

    @property
    def media(self) -> bool:
        """Whether a request may have images or videos."""
        return self.images > 0 or self.videos > 0


def read_options(
    engine: MemoryModel, given: t.Mapping[str, t.Any], tensor_parallel: int, version: str = ""
) -> MemoryOptions:
    """The relevant options of those that an instance starts with.

    Args:
        engine: its name.
        given: its options, with dashes or underscores; values may be text, as those of ``-e`` are.
        tensor_parallel: GPUs that share the model.
        version: the engine's, empty where it is not known.

    Raises:
        FleetError: the engine would refuse a value.
        NotModelled: the model is split in an unknown way.
    """
    options = {plain_name(name): typed(value) for name, value in given.items()}
    options = {name: value for name, value in options.items() if value is not None}
    for name in engine.splits:
        if int(options.get(name) or 1) != 1:
            raise NotModelled(f"{name} is {options[name]}, and only tensor parallelism is known here.")
    try:
        read = engine.read(options)
    except (TypeError, ValueError) as error:
        raise FleetError(f"An option of the engine that must be a number is none: {error}.") from error
    return dataclasses.replace(
        read,
        version=parse_version(version),
        tensor_parallel=tensor_parallel,
        uncounted=tuple(name for name in engine.uncounted if options.get(name)),
    )


def parse_version(version: str) -> tuple[int, ...]:
    """The numbers of a version: (0, 32, 0) of ``0.32.0+cpu``; empty where it has none."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", version)
    return tuple(int(number) for number in found[1].split(".")) if found else ()


def parse_length(value: t.Any, variable: str) -> int | None:
    """A length in the engines' notation: 8192, ``8K`` (8192), ``8k`` (8000), ``auto`` and -1, None.

    Raises:
        FleetError: it is invalid.
    """
    if value is None or value == "":
        return None
    text = str(value).strip()
    if text.lower() in ("auto", "-1"):
        return AUTO
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT]?)", text)
    length = float(found[1]) * (_MULTIPLIERS[found[2]] if found[2] else 1) if found else 0
    if not found or length < 1 or ("." in found[1] and not found[2].islower()):
        raise FleetError(
            f"{variable} is {value!r}, which is no length: give a number of tokens, such as 32768, 32K or 32k."
        )
    return int(length)


def parse_mapping(value: t.Any) -> t.Mapping[str, t.Any]:
    """A dictionary, also in JSON; empty for anything else."""
    if isinstance(value, str) and value.strip().startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}


def parse_whole(value: t.Any) -> int | None:
    """A whole number; None where there is none."""
    return None if value is None or value == "" else int(value)


def kv_number_bytes(options: MemoryOptions, dtype: str, fp8_from: str) -> int:
    """Bytes of one number in the KV cache.

    Args:
        options: the engine's.
        dtype: the model's, which ``auto`` follows.
        fp8_from: the checkpoint's setting that makes it an fp8 cache, empty for none.

    Raises:
        NotModelled: a type with a different size, such as those with scales among the numbers.
    """
    if options.kv_dtype == "auto":
        return 1 if fp8_from in options.engine.fp8_kv_from else 4 if dtype in ("float32", "float") else 2
    if options.kv_dtype not in _KV_BYTES:
        raise NotModelled(
            f"{options.variables['kv_dtype']} is {options.kv_dtype}, and the size of a token is known here for "
            f"auto, {', '.join(_KV_BYTES)}."
        )
    return _KV_BYTES[options.kv_dtype]
