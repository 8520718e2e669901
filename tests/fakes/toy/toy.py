# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Toy: the engine of tests/fakes/toy. Nothing in it has the name that another engine has for it."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.progress import LOADING, SERVING
from ansible_collections.inference.fleet.plugins.module_utils.engines.base import (
    CURRENT_KEY,
    RESERVED,
    Cause,
    Counters,
    Engine,
    Figure,
    Journal,
    Launch,
    OptionTable,
    Phase,
    Program,
    RoleVariables,
    Setting,
    Vitals,
    last,
)
from ansible_collections.inference.fleet.plugins.module_utils.memory.base import (
    MIB,
    EngineStep,
    Gpu,
    MemoryModel,
    MemoryOptions,
    Overhead,
    parse_length,
    parse_whole,
)
from ansible_collections.inference.fleet.plugins.module_utils.model.config import ModelConfig, Processor

_CHECK = """
import json, sys
from tests.fakes.toy.server import Refused, known_options, read_options
print(json.dumps(known_options()))
try:
    read_options(sys.argv[1])
except Refused as refused:
    sys.exit(f"toy: error: {refused}")
"""


class _Memory(MemoryModel):
    """All of a GPU but a gibibyte."""

    variables = {  # noqa: RUF012
        "length": "toy_context",
        "fraction": "toy_share",
        "kv_dtype": "toy_kv_cache_dtype",
        "quantization": "toy_quantization",
        "tensor_parallel": "toy_tensor_parallel_size",
    }

    def read(self, options: t.Mapping[str, t.Any]) -> MemoryOptions:
        return MemoryOptions(
            engine=self,
            length=parse_length(options.get("context"), self.variables["length"]),
            fraction=float(options.get("share", 0.9)),
            requests=parse_whole(options.get("slots")),
        )

    def step(self, options: MemoryOptions, gpu: Gpu) -> EngineStep:
        return EngineStep(2048, options.requests or 4)

    def fraction(self, model: ModelConfig, options: MemoryOptions, gpu: Gpu) -> float:
        return 0.9

    def overhead(self, model: ModelConfig, processor: Processor, options: MemoryOptions, gpu: Gpu) -> Overhead:
        return Overhead(fixed=1024 * MIB)


def _settings(slots: int) -> tuple[Setting, ...]:
    return (
        Setting("context", 2048, "As much as the tiny model has.", "tests/fakes/toy"),
        Setting("slots", slots, "It is a toy.", "tests/fakes/toy"),
    )


ENGINE = Engine(
    name="toy",
    title="Toy",
    documentation="https://toy.invalid/manual",
    launch=Launch(
        command=("bin/toy", "run"),
        check_program=_CHECK,
        key_options={"secret": CURRENT_KEY},
        health_path="/alive",
    ),
    options=OptionTable(
        means={"context_length": "context", "max_requests": "slots", "memory_fraction": "share"},
        reserved={
            "weights": RESERVED["model"],
            "secret": RESERVED["api-key"],
            "address": RESERVED["host"],
            "port": RESERVED["port"],
            "alias": RESERVED["served-model-name"],
            "gpus": RESERVED["tensor-parallel-size"],
        },
        served_name="alias",
        default_limit=4,
        parallel="gpus",
        tool_parser="tools",
        tool_parsers={"qwen": "brackets"},
    ),
    journal=Journal(
        causes=(
            Cause(
                "kv_cache_memory",
                r"toy: (?P<wanted>\d+) tokens are more than (?P<fits>\d+)",
                "A context of {wanted} does not fit, {fits} do.",
                "Set toy_context to {fits} or less.",
            ),
        ),
        gpu_advice="Lower toy_share or toy_slots",
        host_advice="Use an instance type with more memory.",
        programs="toy",
        options=r"toy: options ",
        phases=(
            Phase(LOADING, r"toy: loading (?P<percent>\d+)%", "loading the weights"),
            Phase(SERVING, r"toy: open for requests", "serves", 100),
        ),
        figures=(Figure(("kv_cache_tokens", "max_length"), r"toy: room for (\d+) tokens, (\d+) each", last),),
    ),
    counters=Counters(running="toy_requests_active", waiting="toy_requests_queued", kv_usage="toy_cache_ratio"),
    # One process, without a core of its own.
    vitals=Vitals(progress=(("rate", "toy_tokens_total"),), finished="toy_requests_total"),
    variables=RoleVariables(times=("patience",)),
    memory=_Memory(),
    profiles={
        "balanced": _settings(4),
        "interactive": _settings(2),
        "throughput": _settings(8),
        "long_context": _settings(1),
        "low_memory": _settings(1),
        "speculative": _settings(2),
    },
    programs={"cuda": (Program("toycc", ("toycc",), "Toy compiles with it", "it does not", "install toycc"),)},
)
