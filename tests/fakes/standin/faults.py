"""What goes wrong with a deployed stand-in: FAKE_ENGINE_<NAME> in the environment of its release.

::

    vllm_environment:
      FAKE_ENGINE_START_ERROR: max_model_len     # does not start
      FAKE_ENGINE_WRONG_ANSWER: 1                # starts, and fails the gate
      FAKE_ENGINE_SLOW_TOKEN: 0.5

The names are those of START and of ``engine.FAULTS``. While it runs: POST /fake/faults at its own port.
"""

from __future__ import annotations

import json
import typing as t

from tests.fakes.engine import FAULTS

PREFIX = "FAKE_ENGINE_"

#: What can be said of the start alone, and what its value means.
START = {
    "start_seconds": "from the start of the process until it serves; without it 1",
    "start_error": "end instead of serving, as vLLM does: one of START_ERRORS, or the text of an error",
    "pace": "how many times as fast, by the values of options, as JSON: {option: {value: times}}",
    "wrong_where": "answer London where an option has one of these values, as JSON: {option: [value, …]}",
    "refuse": "have the parser refuse the options with this text, before anything is stopped",
}

#: Why an engine does not start, in vLLM's words.
START_ERRORS = {
    "max_model_len": (
        "ValueError: To serve at least one request with the model's max seq len (262144), (36.0 GiB KV cache is "
        "needed, which is larger than the available KV cache memory (6.94 GiB). Based on the available memory, the "
        "estimated maximum model length is 50512. Try increasing `gpu_memory_utilization` or decreasing "
        "`max_model_len` when initializing the engine."
    ),
    "out_of_memory": (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 192.00 MiB. GPU 0 has a total capacity of "
        "44.39 GiB of which 95.31 MiB is free."
    ),
    "gpu_memory_taken": (
        "ValueError: Free memory on device cuda:0 (3.1/44.39 GiB) on startup is less than desired GPU memory "
        "utilization (0.92, 40.84 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
    ),
    "kv_cache_memory": (
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
        "initializing the engine."
    ),
    "driver": "RuntimeError: The NVIDIA driver on your system is too old (found version 12080).",
    "unsupported_model": "ValueError: Model architectures ['FooForCausalLM'] are not supported for now.",
}


class Given(t.NamedTuple):
    """The faults of an environment: of the start, and of the server."""

    start: dict[str, t.Any]
    run: dict[str, t.Any]


def from_environment(environment: t.Mapping[str, str]) -> Given:
    """The faults that an environment asks for.

    Raises:
        ValueError: there is no such fault. A misspelt one would be none, and a test of it would pass.
    """
    given = Given({}, {})
    for variable, text in sorted(environment.items()):
        if not variable.startswith(PREFIX):
            continue
        name = variable[len(PREFIX) :].lower()
        known = given.start if name in START else given.run if name in FAULTS else None
        if known is None:
            raise ValueError(f"{variable} is no fault; known are {', '.join([*START, *FAULTS])}")
        value = _value(text)
        if value is not None and value is not False:
            known[name] = value
    return given


def times_as_fast(options: t.Mapping[str, t.Any], pace: t.Any) -> float:
    """How fast options make it, as ``pace`` has it; those that it does not name change nothing."""
    found = 1.0
    for name, times in (pace or {}).items():
        found *= float(times.get(str(options.get(name)), 1))
    return found


def is_wrong(options: t.Mapping[str, t.Any], where: t.Any) -> bool:
    """Whether an option has one of the values with which answers are wrong."""
    return any(options.get(name) in values for name, values in (where or {}).items())


def _value(text: str) -> t.Any:
    """A number, true, false, null or JSON as what it says; other text as it is. Ansible writes a boolean as True."""
    try:
        return json.loads(text.lower() if text.lower() in ("true", "false", "null", "none") else text)
    except ValueError:
        return None if text.lower() == "none" else text


def start_error(value: t.Any) -> str:
    """The last line of an engine that does not start."""
    return START_ERRORS.get(str(value), f"ValueError: {value}")
