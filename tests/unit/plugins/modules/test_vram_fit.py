from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.inference.fleet.plugins.module_utils.engines.memory import as_reported, engine_memory
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES
from ansible_collections.inference.fleet.plugins.modules import vram_fit

from ..module_utils.model import model_configs as models

if t.TYPE_CHECKING:
    from ...conftest import RunModule

L40S = {"name": "NVIDIA L40S", "memory_mib": 46068, "reserved_mib": 609}


@pytest.fixture
def model(tmp_path: Path) -> str:
    """The files of Qwen3-VL-8B-Instruct that are read."""
    files = {
        "config.json": models.QWEN3_VL_8B,
        "preprocessor_config.json": models.PREPROCESSOR,
        "video_preprocessor_config.json": models.VIDEO_PREPROCESSOR,
        "model.safetensors.index.json": {"metadata": {"total_size": models.QWEN3_VL_8B_BYTES}, "weight_map": {}},
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    return str(tmp_path)


def arguments(model: str, **changes: t.Any) -> dict[str, t.Any]:
    return {"model_path": model, "engine": "vllm", "options": {"max_model_len": 32768}, "gpus": [L40S], **changes}


def test_what_fits_has_all_figures(run_module: RunModule, model: str) -> None:
    result = run_module("vram_fit", arguments(model, engine_version="0.32.0"))
    assert not result.get("failed")
    assert result["changed"] is False
    assert (result["fits"], result["verdict"], result["certain"], result["source"]) == (True, "fits", True, "estimate")
    assert (result["wanted_length"], result["longest_length"], result["kv_cache_tokens"]) == (32768, 155968, 155984)
    assert (result["concurrency"], result["kv_bytes_per_token"]) == (4.76, 147456)
    assert (result["kv_cache_gib"], result["needed_kv_gib"], result["weights_gib"]) == (21.42, 4.5, 16.33)
    assert (result["gpu_gib"], result["budget_gib"], result["fraction"]) == (44.39, 40.84, 0.92)
    parts = {"activations": 2.25, "fixed": 0.84, "media": 0.0}
    assert (result["overhead_gib"], result["overhead_parts_gib"]) == (3.09, parts)
    assert result["weights_from"] == "model.safetensors.index.json"
    assert (result["suggestions"], result["notes"], result["estimate_error_percent"]) == ([], [], None)
    assert result["tensor_parallel_sizes"] == [1, 2, 4, 8]
    assert result["model"] == {
        "architecture": "Qwen3VLForConditionalGeneration",
        "layers": 36,
        "attention_heads": 32,
        "kv_heads": 8,
        "head_dim": 128,
        "max_length": 262144,
        "quantization": "",
    }


def test_everything_that_is_returned_is_documented(run_module: RunModule, model: str) -> None:
    result = run_module("vram_fit", arguments(model))
    # ansible-core 2.19 returns the invocation to every caller, later ones only where it is wanted.
    assert set(result) - {"changed", "invocation"} == set(yaml.safe_load(vram_fit.RETURN))


def test_the_documented_message_is_the_one_that_is_given(run_module: RunModule, model: str) -> None:
    result = run_module("vram_fit", arguments(model, options={"max_model_len": 262144, "gpu_memory_utilization": 0.92}))
    assert not result.get("failed")
    assert (result["fits"], result["verdict"]) == (False, "too_long")
    assert result["message"] == yaml.safe_load(vram_fit.RETURN)["message"]["sample"].strip()
    assert result["suggestions"] == [
        {"variable": "vllm_max_model_len", "value": 148480, "longest_length": 148480, "gpus": 0},
        {"variable": "vllm_kv_cache_dtype", "value": "fp8", "longest_length": 262144, "gpus": 0},
        {"variable": "vllm_tensor_parallel_size", "value": 2, "longest_length": 262144, "gpus": 2},
    ]


def test_check_mode_returns_the_same(run_module: RunModule, model: str) -> None:
    assert run_module("vram_fit", arguments(model)) == run_module("vram_fit", arguments(model), check=True)


def test_sglang_is_judged_by_its_own_rules(run_module: RunModule, model: str) -> None:
    options = {"context-length": "131072", "mem-fraction-static": "0.85"}
    result = run_module("vram_fit", arguments(model, engine="sglang", options=options))
    assert (result["verdict"], result["wanted_length"], result["fraction"]) == ("fits", 131072, 0.85)
    assert result["kv_cache_tokens"] == result["longest_length"]


def test_what_the_engine_reported_is_taken(run_module: RunModule, model: str) -> None:
    journal = [
        "(EngineCore pid=9) INFO [gpu_model_runner.py:5150] Model loading took 16.6 GiB memory and 6.35 seconds",
        "(EngineCore pid=9) INFO [gpu_worker.py:759] Available KV cache memory: 20.95 GiB",
        "(EngineCore pid=9) INFO [kv_cache_utils.py:2327] GPU KV cache size: 152,544 tokens, Maximum concurrency for "
        "32,768 tokens per request: 4.66x",
    ]
    there = {"gpu": "NVIDIA L40S", "engine_version": "0.32.0", "fraction": 0.92, "tensor_parallel_size": 1}
    reported = {**as_reported(engine_memory(journal, ENGINES["vllm"])), **there}
    given = arguments(model, engine_version="0.32.0", options={"max_model_len": 131072}, reported=reported)
    result = run_module("vram_fit", given)
    assert (result["source"], result["kv_cache_tokens"], result["weights_gib"]) == ("engine", 152544, 16.6)
    assert result["estimate_error_percent"] == 2.3
    assert result["overhead_gib"] == 3.29
    other = run_module("vram_fit", {**given, "engine_version": "0.33.0"})
    assert other["source"] == "estimate"
    assert other["notes"] == ["What the engine reported is left out: it is of version 0.32.0."]


def test_an_empty_report_is_none(run_module: RunModule, model: str) -> None:
    assert run_module("vram_fit", arguments(model, reported={}))["source"] == "estimate"


def test_weights_that_are_not_there_yet_are_worked_out(run_module: RunModule, model: str) -> None:
    (Path(model) / "model.safetensors.index.json").unlink()
    result = run_module("vram_fit", arguments(model))
    assert (result["weights_gib"], result["weights_from"]) == (16.33, "config.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"tensor_parallel_size": 3, "gpus": [L40S] * 4},
            "32 attention heads, which 3 does not divide. What works is 1,",
        ),
        ({"tensor_parallel_size": 2}, "vllm_tensor_parallel_size is 2, and the host has 1 GPU."),
        ({"gpus": []}, "There is no GPU to fit the model to."),
        ({"model_path": "/nowhere"}, "There is no config.json in /nowhere."),
        ({"options": {"max_model_len": "long"}}, "vllm_max_model_len is 'long', which is no length"),
    ],
)
def test_what_contradicts_the_model_or_the_host_fails(
    run_module: RunModule, model: str, changes: dict[str, t.Any], message: str
) -> None:
    result = run_module("vram_fit", arguments(model, **changes))
    assert result["failed"]
    assert message in result["msg"]


@pytest.mark.parametrize("options", [{"pipeline_parallel_size": 2}, {"kv_cache_dtype": "int4_per_token_head"}])
def test_an_unknown_verdict_does_not_fail(run_module: RunModule, model: str, options: dict[str, t.Any]) -> None:
    result = run_module("vram_fit", arguments(model, options=options))
    assert not result.get("failed")
    assert (result["fits"], result["verdict"], result["certain"]) == (True, "unknown", False)
    assert result["message"].startswith("Whether the model fits is unknown.")


def test_the_example_in_the_documentation_runs(run_module: RunModule, model: str) -> None:
    tasks = yaml.safe_load(vram_fit.EXAMPLES)
    (example,) = [task["inference.fleet.vram_fit"] for task in tasks if "inference.fleet.vram_fit" in task]
    assert run_module("vram_fit", {**example, "model_path": model})["verdict"] == "too_long"


def test_a_record_of_the_last_start_counts_more_than_the_estimate(
    run_module: RunModule, model: str, tmp_path: Path
) -> None:
    record = {
        "engine": "vllm",
        "version": "0.32.0",
        "model_path": model,
        "gpu": "NVIDIA L40S",
        "tensor_parallel_size": 1,
        "fraction": 0.92,
        "kv_cache_dtype": "auto",
        "quantization": "",
        "memory": {"kv_cache_gib": 19.0, "kv_cache_tokens": 138352},
    }
    path = tmp_path / "vllm-0.json"
    assert run_module("vram_fit", arguments(model, reported_file=str(path)))["source"] == "estimate"
    path.write_text(json.dumps(record))
    result = run_module("vram_fit", arguments(model, reported_file=str(path)))
    assert (result["source"], result["kv_cache_tokens"], result["estimate_error_percent"]) == ("engine", 138352, 12.7)
    path.write_text(json.dumps({**record, "gpu": "NVIDIA L4"}))
    other = run_module("vram_fit", arguments(model, reported_file=str(path)))
    assert other["source"] == "estimate"
    assert "it is of another GPU, NVIDIA L4" in other["notes"][0]


def test_a_model_that_is_not_there_yet_has_no_verdict(run_module: RunModule, tmp_path: Path) -> None:
    result = run_module("vram_fit", arguments(str(tmp_path / "none"), absent_ok=True))
    assert (result["verdict"], result["fits"], result["certain"]) == ("unknown", True, False)
    assert "not on the host yet" in result["message"]
    assert run_module("vram_fit", arguments(str(tmp_path / "none")))["failed"]
