from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.memory.plan import (
    fit_answers,
    fit_cases,
    memory_rows,
    misfits,
)

GPUS = [
    {"index": 0, "name": "NVIDIA L40S", "memory_total_mib": 46068, "memory_reserved_mib": 609},
    {"index": 1, "name": "NVIDIA L40S", "memory_total_mib": 46068, "memory_reserved_mib": None},
    {"index": 2, "name": "NVIDIA L4", "memory_total_mib": 23034},
]
FITS = {
    "verdict": "fits",
    "fits": True,
    "certain": True,
    "message": "it fits",
    "weights_gib": 16.33,
    "kv_cache_gib": 20.9,
    "kv_cache_tokens": 151888,
    "longest_length": 151872,
    "concurrency": 4.64,
    "wanted_length": 32768,
    "source": "estimate",
}


def instance(index: int, *gpus: int, engine: str = "vllm") -> dict[str, t.Any]:
    return {"index": index, "name": f"{engine}-{index}", "engine": engine, "gpus": list(gpus)}


def test_instances_of_one_size_are_one_question_and_the_smallest_gpu_decides() -> None:
    cases = fit_cases([instance(0, 0), instance(1, 1)], GPUS)
    assert cases == [
        {
            "names": ["vllm-0", "vllm-1"],
            "tensor_parallel_size": 1,
            "gpus": [
                {"name": "NVIDIA L40S", "memory_mib": 46068, "reserved_mib": 609},
                {"name": "NVIDIA L40S", "memory_mib": 46068},
            ],
            "reported_file": "/var/lib/inference/memory/vllm-0.json",
        }
    ]
    assert [case["names"] for case in fit_cases([instance(0, 0), instance(1, 1, 2)], GPUS)] == [["vllm-0"], ["vllm-1"]]


def test_without_gpus_nothing_is_asked() -> None:
    assert fit_cases([instance(0)], GPUS) == []
    assert fit_cases([instance(0, 0)], []) == []


def test_of_an_instance_that_spans_hosts_nothing_is_known() -> None:
    spanning = {**instance(0, 0), "span": {"nodes": ["a", "b"], "rank": 0}}
    assert fit_cases([spanning], GPUS) == []


def test_only_what_is_certain_is_refused() -> None:
    case = {"__engine_case": {"names": ["vllm-0", "vllm-1"]}}
    bad = {**FITS, **case, "fits": False, "verdict": "too_long", "message": "does not fit; what fits: 144384"}
    answers = fit_answers([bad, {**bad, "certain": False}, {"skipped": True}])
    assert misfits(answers, "refuse") == ["vllm-0, vllm-1: does not fit; what fits: 144384"]
    assert misfits(answers, "warn") == []


def test_a_row_shows_the_estimate_beside_the_engines_figures() -> None:
    plans = [{"engine": "vllm", "version": "0.32.0", "profile": "balanced", "model": "m", "revision": "0123456789"}]
    record = {"at": "2026-11-28T01:02:03+00:00", "memory": {"kv_cache_gib": 20.5, "kv_cache_tokens": 149000}}
    records: list[dict[str, t.Any]] = [{"name": "vllm-0", "record": record}, {"name": "vllm-1", "record": None}]
    rows = memory_rows("h", [instance(0, 0), instance(1, 1)], plans, [{**FITS, "names": ["vllm-0"]}], records)
    assert rows == [
        {
            "host": "h",
            "instance": "vllm-0",
            "version": "0.32.0",
            "profile": "balanced",
            "model": "m@01234567",
            "gpus": "0",
            "fits": "yes",
            "weights": 16.33,
            "kv_gib": 20.9,
            "kv_tokens": 151888,
            "longest": 151872,
            "at_once": "4.6 x 32768",
            "from": "estimate",
            "said_tokens": 149000,
            "said_gib": 20.5,
            "said_at": "2026-11-28 01:02",
        },
        {
            "host": "h",
            "instance": "vllm-1",
            "version": "0.32.0",
            "profile": "balanced",
            "model": "m@01234567",
            "gpus": "1",
            "fits": "not known",
        },
    ]
    [row] = memory_rows(
        "h", [instance(0, 0)], plans, [{**FITS, "names": ["vllm-0"], "fits": False, "certain": False}], []
    )
    assert row["fits"] == "NO?"
