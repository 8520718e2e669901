# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check whether a model fits a host's GPUs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vram_fit
version_added: 0.1.0
author:
  - inference.fleet contributors (@inference-fleet)
short_description: Check whether a model fits a host's GPUs, and the context length that it then serves
description:
  - Reads a model's C(config.json) and the size of its weights, and calculates what an instance would have left for its
    KV cache on each GPU, how many tokens that holds, and whether one request of the wanted length fits.
  - Where it does not, RV(suggestions) lists variables with which it does. Each was checked by the same calculation.
  - Sizes of weights and of a token are exact; the engine's overhead is an estimate that may be off by 1 GiB, until
    O(reported) replaces it with what the engine itself reported at its last start.
  - In 22 starts of vLLM and SGLang with Qwen3-VL-8B's architecture on one H200, most with an L40S's share of it, the
    KV cache was within 2.8 % of what the engine reported. Other GPUs and models were not measured.
  - Never fails because something does not fit. It fails where the options contradict each other or the host, for
    example where O(tensor_parallel_size) does not divide the model's attention heads.
  - Changes nothing.
attributes:
  check_mode:
    support: full
    description: Changes nothing.
  diff_mode:
    support: none
    description: Changes nothing.
options:
  model_path:
    description:
      - The model's directory on the host, as the hub has it.
      - The size of the weights is that of C(model.safetensors.index.json), else of the files. Where there are none yet
        it is calculated from C(config.json), if its layout is known.
    type: path
    required: true
  engine:
    description: The engine, as V(vllm).
    type: str
    required: true
  engine_version:
    description: Its version. A report of another version is ignored.
    type: str
    default: ""
  options:
    description:
      - The options that the engine starts with, with dashes or underscores, as in its config file.
      - Those that affect memory are read, the others are ignored.
      - Only O(tensor_parallel_size) sets the number of GPUs that share the model.
    type: dict
    default: {}
  gpus:
    description: The host's GPUs. The smallest decides.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Its name, as nvidia-smi prints it.
        type: str
        required: true
      memory_mib:
        description: C(memory.total) of nvidia-smi in MiB, 46068 for an L40S.
        type: float
        required: true
      reserved_mib:
        description: C(memory.reserved) of nvidia-smi in MiB, which CUDA cannot use; 616 where it is not given.
        type: float
  tensor_parallel_size:
    description: GPUs that share the model.
    type: int
    default: 1
  reported:
    description:
      - What the engine reported at its last start of this model with these options. If the wanted length, the share of
        the GPU or the type of the KV cache were different, set them here.
      - It is ignored, with a note, where it is of another GPU, version or number of GPUs.
    type: dict
    suboptions:
      kv_cache_gib:
        description: GiB of KV cache on one GPU.
        type: float
      kv_cache_tokens:
        description: Tokens of KV cache.
        type: int
      model_gib:
        description: GiB that loading the model took on one GPU.
        type: float
      requested_gib:
        description: GiB of a GPU by C(gpu_memory_utilization).
        type: float
      fraction:
        description: C(gpu_memory_utilization) or C(mem_fraction_static) at that start; the same as now where not given.
        type: float
      kv_cache_dtype:
        description: Type of the KV cache at that start; the same as now where not given.
        type: str
      tensor_parallel_size:
        description: GPUs that shared the model; the same as now where not given.
        type: int
      gpu:
        description: Name of the GPU; any where not given.
        type: str
      engine_version:
        description: The engine's version; the same as now where not given.
        type: str
      quantization:
        description: The quantisation while loading; the same as now where not given.
        type: str
  reported_file:
    description:
      - A record of M(inference.fleet.engine_memory) on the host, instead of O(reported).
      - Where there is none, or it is of another engine or model, the estimate is used.
    type: path
  absent_ok:
    description: Return V(unknown) where the model is not on the host yet, instead of failing.
    type: bool
    default: false
seealso:
  - module: inference.fleet.engine_memory
  - module: inference.fleet.gpu_info
"""

EXAMPLES = r"""
- name: Read the host's GPUs
  inference.fleet.gpu_info:
  register: gpu

- name: Check whether the model fits one of them
  inference.fleet.vram_fit:
    model_path: /opt/dlami/nvme/models/Qwen--Qwen3-VL-8B-Instruct
    engine: vllm
    options: {max_model_len: 262144, gpu_memory_utilization: 0.92}
    gpus:
      - {name: NVIDIA L40S, memory_mib: 46068, reserved_mib: 609}
  register: fit

- name: Stop where it does not
  ansible.builtin.assert:
    that: fit.fits
    fail_msg: "{{ fit.message }}"
"""

RETURN = r"""
fits:
  description:
    - False where the engine would not start (vLLM), or would refuse requests of the wanted length (SGLang).
    - True also where that is unknown; RV(verdict) is V(unknown) then.
  returned: always
  type: bool
verdict:
  description: V(fits), V(too_long), V(too_large) (the weights leave no KV cache) or V(unknown).
  returned: always
  type: str
  sample: too_long
certain:
  description: Whether the verdict holds within the error of the estimate.
  returned: always
  type: bool
message:
  description: The verdict for a person, with what to set.
  returned: always
  type: str
  sample: >-
    vllm_max_model_len 262144 does not fit NVIDIA L40S: a request of that length takes 36.00 GiB of KV cache on each
    GPU, and 21.42 GiB are left (by estimate) of 40.84 GiB; the engine would not start. What fits: vllm_max_model_len:
    148480; or vllm_kv_cache_dtype: fp8; or vllm_tensor_parallel_size: 2 on a host with 2 GPUs.
wanted_length:
  description: The wanted context in tokens; the model's own where none was wanted.
  returned: always
  type: int
longest_length:
  description: The longest context of a request that fits, at most what the model was made for.
  returned: always
  type: int
kv_cache_tokens:
  description: Tokens of KV cache, as the engine prints them at its start.
  returned: always
  type: int
concurrency:
  description: Requests of RV(wanted_length) that fit at once, as the engine prints it.
  returned: always
  type: float
kv_bytes_per_token:
  description: Bytes of KV cache that a token takes on one GPU.
  returned: always
  type: int
  sample: 147456
kv_cache_gib:
  description: GiB of KV cache on one GPU.
  returned: always
  type: float
needed_kv_gib:
  description: GiB of it that one request of RV(wanted_length) takes.
  returned: always
  type: float
weights_gib:
  description: GiB of weights on one GPU.
  returned: always
  type: float
weights_from:
  description: The file that says how large the weights are.
  returned: always
  type: str
  sample: model.safetensors.index.json
overhead_gib:
  description: GiB on one GPU that the engine takes besides weights and KV cache.
  returned: always
  type: float
overhead_parts_gib:
  description:
    - The parts of it by estimate, C(activations), C(fixed) (libraries, buffers, CUDA graphs) and C(media).
    - For SGLang activations are 0, because they depend on what C(mem_fraction_static) leaves.
  returned: always
  type: dict
gpu_gib:
  description: GiB of a GPU that CUDA sees.
  returned: always
  type: float
budget_gib:
  description: GiB of a GPU that the engine may use; for SGLang, of what it finds free when it starts.
  returned: always
  type: float
fraction:
  description: C(gpu_memory_utilization) or C(mem_fraction_static), the engine's own where none was set.
  returned: always
  type: float
source:
  description: V(engine) where the KV cache follows what the engine reported, else V(estimate).
  returned: always
  type: str
estimate_error_percent:
  description: How far the estimated KV cache is from the one that the engine reported; null where it did not.
  returned: always
  type: float
suggestions:
  description: Changes with which it fits, each enough by itself.
  returned: always
  type: list
  elements: dict
  contains:
    variable:
      description: What to set.
      type: str
    value:
      description: To what.
      type: raw
    longest_length:
      description: The longest context that fits then.
      type: int
    gpus:
      description: GPUs that the host must have for it, 0 where it has enough.
      type: int
notes:
  description: What is not counted, and other notes.
  returned: always
  type: list
  elements: str
tensor_parallel_sizes:
  description: The numbers of GPUs, up to 8 or as many as the host has, that can share the model.
  returned: always
  type: list
  elements: int
model:
  description: What determines the size of a token.
  returned: always
  type: dict
  sample:
    architecture: Qwen3VLForConditionalGeneration
    layers: 36
    attention_heads: 32
    kv_heads: 8
    head_dim: 128
    max_length: 262144
    quantization: ""
"""

import dataclasses
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_json
from ansible_collections.inference.fleet.plugins.module_utils.core.modules import finish
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES, check_engine
from ansible_collections.inference.fleet.plugins.module_utils.instances.memory import reported
from ansible_collections.inference.fleet.plugins.module_utils.memory.base import (
    GIB,
    Gpu,
    MemoryOptions,
    NotModelled,
    parse_version,
    read_options,
)
from ansible_collections.inference.fleet.plugins.module_utils.memory.fit import UNKNOWN, Fit, Reported, fit
from ansible_collections.inference.fleet.plugins.module_utils.memory.pool import parallel_sizes
from ansible_collections.inference.fleet.plugins.module_utils.model.config import ModelFiles, read_model


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "model_path": {"type": "path", "required": True},
            "engine": {"type": "str", "required": True},
            "engine_version": {"type": "str", "default": ""},
            "options": {"type": "dict", "default": {}},
            "gpus": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "memory_mib": {"type": "float", "required": True},
                    "reserved_mib": {"type": "float"},
                },
            },
            "tensor_parallel_size": {"type": "int", "default": 1},
            "reported": {
                "type": "dict",
                "options": {
                    "kv_cache_gib": {"type": "float"},
                    "kv_cache_tokens": {"type": "int", "no_log": False},
                    "model_gib": {"type": "float"},
                    "requested_gib": {"type": "float"},
                    "fraction": {"type": "float"},
                    "kv_cache_dtype": {"type": "str"},
                    "tensor_parallel_size": {"type": "int"},
                    "gpu": {"type": "str"},
                    "engine_version": {"type": "str"},
                    "quantization": {"type": "str"},
                },
            },
            "reported_file": {"type": "path"},
            "absent_ok": {"type": "bool", "default": False},
        },
        mutually_exclusive=[("reported", "reported_file")],
        supports_check_mode=True,
    )
    finish(module, lambda: {"changed": False, **look(module.params)})


def look(params: dict[str, t.Any]) -> dict[str, t.Any]:
    """What the module returns.

    Args:
        params: the module's.

    Raises:
        FleetError: the model cannot be read, or cannot run like that.
    """
    engine = ENGINES[check_engine(params["engine"])]
    if engine.memory is None:
        return _unknown(f"How {engine.title} uses a GPU's memory is not known here; its start shows whether it fits.")
    if params["absent_ok"] and not os.path.exists(os.path.join(params["model_path"], "config.json")):
        where = params["model_path"] or "no directory"
        return _unknown(f"The model is not on the host yet: there is no config.json in {where}.")
    files = read_model(params["model_path"])
    parallel = params["tensor_parallel_size"]
    gpus = [Gpu(gpu["name"], gpu["memory_mib"], gpu["reserved_mib"]) for gpu in params["gpus"]]
    try:
        options = read_options(engine.memory, params["options"], parallel, params["engine_version"])
    except NotModelled as reason:
        options = MemoryOptions(engine.memory, tensor_parallel=parallel)
        found = Fit(UNKNOWN, f"Whether the model fits is unknown. {reason} The engine's start will show it.")
    else:
        given = params["reported"]
        if params["reported_file"]:
            given = reported(read_json(params["reported_file"]), engine.name, params["model_path"])
        found = fit(files.config, files.weight_bytes, files.processor, gpus, options, _reported(given))
    return {**_figures(found, files), "tensor_parallel_sizes": parallel_sizes(files.config, options, max(8, len(gpus)))}


def _unknown(why: str) -> dict[str, t.Any]:
    return {"fits": True, "verdict": UNKNOWN, "certain": False, "message": why, "suggestions": [], "notes": []}


def _reported(given: dict[str, t.Any] | None) -> Reported | None:
    given = {name: value for name, value in (given or {}).items() if value is not None}
    if not given:
        return None
    return Reported(
        kv_cache_gib=given.get("kv_cache_gib"),
        kv_cache_tokens=given.get("kv_cache_tokens"),
        model_gib=given.get("model_gib"),
        requested_gib=given.get("requested_gib"),
        fraction=given.get("fraction"),
        kv_dtype=given.get("kv_cache_dtype"),
        tensor_parallel=given.get("tensor_parallel_size"),
        gpu=given.get("gpu"),
        version=parse_version(given.get("engine_version", "")) or None,
        quantization=given.get("quantization"),
    )


def _figures(found: Fit, files: ModelFiles) -> dict[str, t.Any]:
    model = files.config
    return {
        "fits": found.fits,
        "verdict": found.verdict,
        "certain": found.certain,
        "message": found.message,
        "wanted_length": found.length,
        "longest_length": found.longest,
        "kv_cache_tokens": found.kv_tokens,
        "concurrency": found.concurrency,
        "kv_bytes_per_token": found.token_bytes,
        "kv_cache_gib": _gib(found.kv_bytes),
        "needed_kv_gib": _gib(found.needed_bytes),
        "weights_gib": _gib(found.weight_bytes),
        "weights_from": files.weights_from or "config.json",
        "overhead_gib": _gib(found.besides_bytes),
        "overhead_parts_gib": {name: _gib(part) for name, part in dataclasses.asdict(found.overhead).items()},
        "gpu_gib": _gib(found.visible_bytes),
        "budget_gib": _gib(found.budget_bytes),
        "fraction": round(found.fraction, 4),
        "source": found.source,
        "estimate_error_percent": found.error_percent,
        "suggestions": [
            {
                "variable": suggestion.variable,
                "value": suggestion.value,
                "longest_length": suggestion.longest,
                "gpus": suggestion.gpus,
            }
            for suggestion in found.suggestions
        ],
        "notes": list(found.notes),
        "model": {
            "architecture": model.architecture,
            "layers": model.layers.total,
            "attention_heads": model.heads,
            "kv_heads": model.kv_heads,
            "head_dim": model.head_dim,
            "max_length": model.max_length,
            "quantization": model.quantization.method if model.quantization else "",
        },
    }


def _gib(size: int) -> float:
    return round(size / GIB, 2)


if __name__ == "__main__":
    main()
