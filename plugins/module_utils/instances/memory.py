# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The record of an engine's memory figures at its last start, and the input of the memory fit from it. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.paths import STATE_DIRECTORY
from ansible_collections.inference.fleet.plugins.module_utils.core.values import plain_name
from ansible_collections.inference.fleet.plugins.module_utils.engines.memory import EngineMemory, as_reported
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import kind

#: Where the records are on a host, one file for each instance.
DIRECTORY = f"{STATE_DIRECTORY}/memory"


def record_of(
    memory: EngineMemory, release: str, manifest: t.Mapping[str, t.Any], gpu: str, at: str
) -> dict[str, t.Any] | None:
    """The record of a start; None where the engine reported no memory.

    Args:
        memory: the engine's figures.
        release: the running release.
        manifest: of that release.
        gpu: the name of its GPUs; empty for none.
        at: when it started.
    """
    said = {name: value for name, value in dataclasses.asdict(memory).items() if value is not None}
    if not as_reported(memory):
        return None
    table = kind(manifest.get("engine")).options
    options = {plain_name(name): value for name, value in (manifest.get("options") or {}).items()}
    return {
        "at": at,
        "release": release,
        "engine": manifest.get("engine"),
        "version": manifest.get("version"),
        "model": manifest.get("model"),
        "model_path": manifest.get("model_path"),
        "gpu": gpu,
        "tensor_parallel_size": int(options.get(table.parallel) or 1),
        "fraction": options.get(table.means.get("memory_fraction", "")) or None,
        "kv_cache_dtype": options.get("kv-cache-dtype") or "auto",
        "quantization": options.get("quantization") or "",
        "memory": said,
    }


def reported(record: t.Any, engine: str, model_path: str) -> dict[str, t.Any]:
    """The record as ``reported`` of module vram_fit; empty where it is of another engine or model, or missing.

    Args:
        record: as ``record_of`` made it.
        engine: whose fit is calculated.
        model_path: of the model.
    """
    if not isinstance(record, dict) or record.get("engine") != engine or record.get("model_path") != model_path:
        return {}
    names = ("kv_cache_gib", "kv_cache_tokens", "model_gib", "requested_gib")
    said = {name: record["memory"][name] for name in names if name in record["memory"]}
    about = ("fraction", "kv_cache_dtype", "quantization", "tensor_parallel_size", "gpu")
    return {**said, **{name: record.get(name) for name in about}, "engine_version": record.get("version")}
