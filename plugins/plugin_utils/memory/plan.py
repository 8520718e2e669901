# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Which memory fits to compute for a host, and how to show the results. Pure."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.instances.memory import DIRECTORY
from ansible_collections.inference.fleet.plugins.module_utils.instances.status import short_revision

REFUSE, WARN, OFF = "refuse", "warn", "off"


def fit_cases(instances: list[dict[str, t.Any]], gpus: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """The inputs of module vram_fit: one for all instances with equally many GPUs, because the smallest decides.

    Args:
        instances: of one engine, as ``Instance.as_dict`` gives them.
        gpus: of the host, as module gpu_info returns them.
    """
    by_index = {gpu["index"]: gpu for gpu in gpus}
    cases: dict[int, list[dict[str, t.Any]]] = {}
    for instance in instances:
        # The spread of layers over hosts is unknown here.
        if instance["gpus"] and not instance.get("span") and all(gpu in by_index for gpu in instance["gpus"]):
            cases.setdefault(len(instance["gpus"]), []).append(instance)
    return [
        {
            "names": [instance["name"] for instance in alike],
            "tensor_parallel_size": count,
            "gpus": [
                {
                    "name": gpu["name"],
                    "memory_mib": gpu["memory_total_mib"],
                    **({"reserved_mib": gpu["memory_reserved_mib"]} if gpu.get("memory_reserved_mib") else {}),
                }
                for gpu in (by_index[index] for instance in alike for index in instance["gpus"])
            ],
            "reported_file": f"{DIRECTORY}/{alike[0]['name']}.json",
        }
        for count, alike in sorted(cases.items())
    ]


def fit_answers(results: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """The results, each with the names of its instances.

    Args:
        results: of the task's loop over ``fit_cases``, whose variable is ``__engine_case``.
    """
    return [{**result, "names": result["__engine_case"]["names"]} for result in results if "verdict" in result]


def misfits(fits: list[dict[str, t.Any]], policy: str) -> list[str]:
    """The instances that must not be deployed, each with what would fit.

    Only a certain misfit is refused: within the error of the estimate, the engine's start shows it, and a failed start
        is rolled back.

    Args:
        fits: ``names`` of the instances and what module vram_fit returned.
        policy: REFUSE, WARN or OFF.
    """
    if policy != REFUSE:
        return []
    return [f"{', '.join(one['names'])}: {one['message']}" for one in fits if not one["fits"] and one["certain"]]


def memory_rows(
    host: str,
    instances: list[dict[str, t.Any]],
    plans: list[dict[str, t.Any]],
    fits: list[dict[str, t.Any]],
    records: list[dict[str, t.Any]],
) -> list[dict[str, t.Any]]:
    """A line for each instance of a host: the forecast, and what its engine reported at its last start.

    Args:
        host: its name.
        instances: as ``Instance.as_dict`` gives them.
        plans: engine, version, profile, model and revision of each engine.
        fits: ``names`` of the instances and what module vram_fit returned.
        records: what module engine_memory returned.
    """
    found = {name: one for one in fits for name in one["names"]}
    kept = {one["name"]: one["record"] for one in records}
    planned = {plan["engine"]: plan for plan in plans}
    return [
        {
            "host": host,
            "instance": instance["name"],
            **_planned(planned[instance["engine"]], instance),
            **_foreseen(found.get(instance["name"])),
            **_said(kept, instance),
        }
        for instance in instances
    ]


def _planned(plan: dict[str, t.Any], instance: dict[str, t.Any]) -> dict[str, t.Any]:
    model = f"{plan['model']}@{short_revision(plan['revision'])}" if plan["revision"] else plan["model"]
    gpus = ",".join(map(str, instance["gpus"])) or "none"
    return {"version": plan["version"], "profile": plan["profile"], "model": model, "gpus": gpus}


def _foreseen(fit: dict[str, t.Any] | None) -> dict[str, t.Any]:
    if fit is None or fit["verdict"] == "unknown":
        return {"fits": "not known"}
    sure = "" if fit["certain"] else "?"
    return {
        "fits": ("yes" if fit["fits"] else "NO") + sure,
        "weights": fit["weights_gib"],
        "kv_gib": fit["kv_cache_gib"],
        "kv_tokens": fit["kv_cache_tokens"],
        "longest": fit["longest_length"],
        "at_once": f"{fit['concurrency']:.1f} x {fit['wanted_length']}",
        "from": fit["source"],
    }


def _said(kept: dict[str, t.Any], instance: dict[str, t.Any]) -> dict[str, t.Any]:
    record = kept.get(instance["name"])
    if not record:
        return {}
    memory = record["memory"]
    return {
        "said_tokens": memory.get("kv_cache_tokens"),
        "said_gib": memory.get("kv_cache_gib"),
        "said_at": record["at"][:16].replace("T", " "),
    }
