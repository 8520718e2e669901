from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.model.config import (
    Layers,
    Processor,
    Quantization,
    parse_config,
    parse_processor,
    read_model,
)

from . import model_configs as models

TINY = Path(__file__).resolve().parents[5] / "lab" / "model" / "tiny"


def text(**changes: t.Any) -> dict[str, t.Any]:
    return {**models.QWEN3_8B, **changes}


def test_a_vision_model_is_read_from_its_parts() -> None:
    model = parse_config(models.QWEN3_VL_8B)
    assert (model.architecture, model.kind) == ("Qwen3VLForConditionalGeneration", "qwen3_vl")
    assert (model.layers, model.hidden_size, model.heads, model.kv_heads) == (Layers(36), 4096, 32, 8)
    assert (model.head_dim, model.intermediate_size, model.vocab_size) == (128, 12288, 151936)
    assert (model.max_length, model.dtype, model.tied, model.quantization) == (262144, "bfloat16", False, None)
    assert model.vision is not None
    assert (model.vision.depth, model.vision.hidden_size, model.vision.heads) == (27, 1152, 16)
    assert (model.vision.merge_size, model.vision.out_size, model.vision.extra_outputs) == (2, 4096, 3)
    assert model.vision.patch_values == 3 * 2 * 16 * 16


def test_the_parameters_are_those_that_were_published() -> None:
    model = parse_config(models.QWEN3_VL_8B)
    assert model.vision is not None
    assert model.text_parameters == 8_190_735_360
    assert model.vision.parameters == 576_388_336
    assert model.weight_bytes() == models.QWEN3_VL_8B_BYTES
    assert parse_config(models.QWEN3_VL_8B_FP8).weight_bytes() == models.QWEN3_VL_8B_FP8_BYTES
    assert parse_config(models.LLAMA_8B).text_parameters == 8_030_261_248
    assert parse_config(models.QWEN3_30B_A3B).text_parameters == 30_532_122_624


def test_the_size_of_weights_is_not_guessed() -> None:
    assert parse_config(models.DEEPSEEK_LITE).weight_bytes() is None
    assert parse_config(text(quantization_config={"quant_method": "awq", "bits": 4})).weight_bytes() is None


def test_the_lab_s_model_is_read() -> None:
    files = read_model(str(TINY))
    assert (files.config.layers, files.config.kv_heads, files.config.head_dim) == (Layers(4), 2, 64)
    assert files.config.max_length == 32768
    assert files.processor == Processor(262144, 262144)
    assert (files.weight_bytes, files.weights_from) == (
        (TINY / "model.safetensors").stat().st_size,
        "model.safetensors",
    )
    # The file has a header beside the weights.
    assert files.weight_bytes == pytest.approx(files.config.weight_bytes(), rel=0.05)


def test_a_mixture_of_experts_is_recognised() -> None:
    model = parse_config(models.QWEN3_30B_A3B)
    assert (model.experts, model.experts_per_token, model.expert_size) == (128, 8, 768)
    assert parse_config(models.QWEN3_8B).experts == 0


def test_a_compressed_kv_cache_is_recognised() -> None:
    assert parse_config(models.DEEPSEEK_LITE).latent_size == 512 + 64
    assert parse_config(models.QWEN3_8B).latent_size is None


@pytest.mark.parametrize(
    ("changes", "layers"),
    [
        ({}, Layers(36)),
        ({"sliding_window": 4096, "use_sliding_window": False}, Layers(36)),
        ({"sliding_window": 4096, "use_sliding_window": True}, Layers(0, 36)),
        (
            {
                "use_sliding_window": None,
                "sliding_window": 1024,
                "layer_types": [*["sliding_attention"] * 5, "full_attention"] * 6,
            },
            Layers(6, 30),
        ),
        ({"layer_types": ["sliding_attention", "full_attention"] * 18}, Layers(36)),
        ({"layer_types": [*["linear_attention"] * 3, "full_attention"] * 9}, Layers(9, 0, 27)),
        ({"full_attention_interval": 4}, Layers(9, 0, 27)),
        ({"use_sliding_window": None, "sliding_window": 1024, "sliding_window_pattern": 6}, Layers(6, 30)),
        ({"layers_block_type": ["mamba"] * 28 + ["attention"] * 8}, Layers(8, 0, 28)),
        ({"hybrid_override_pattern": "M-M-*-"}, Layers(1, 0, 2)),
    ],
)
def test_layers_are_counted_by_kind(changes: dict[str, t.Any], layers: Layers) -> None:
    assert parse_config(text(**changes)).layers == layers


@pytest.mark.parametrize(
    ("changes", "length"),
    [
        ({}, 40960),
        ({"rope_scaling": {"rope_type": "linear", "factor": 4.0}}, 163840),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, 81920),
        # Already in max_position_embeddings.
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 40960),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}, 40960),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0}}}, 327680),
        ({"seq_length": 8192}, 8192),
        ({"model_max_length": 65536}, 65536),
    ],
)
def test_the_longest_context_is_the_one_that_the_engine_derives(changes: dict[str, t.Any], length: int) -> None:
    assert parse_config(text(**changes)).max_length == length


def test_llama_s_scaling_is_in_its_length() -> None:
    assert parse_config(models.LLAMA_8B).max_length == 131072


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, Quantization("fp8", (128, 128))),
        ({"quant_method": "awq", "bits": 4}, Quantization("awq")),
        (
            {"quant_method": "compressed-tensors", "kv_cache_scheme": {"num_bits": 8, "type": "float"}},
            Quantization("compressed-tensors", None, "scheme"),
        ),
        (
            {"quant_method": "modelopt", "kv_cache_quant_algo": "FP8"},
            Quantization("modelopt", None, "algorithm"),
        ),
        (
            {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}},
            Quantization("fp8", None, "algorithm"),
        ),
    ],
)
def test_quantisation_is_read(quantization: dict[str, t.Any], expected: Quantization) -> None:
    assert parse_config(text(quantization_config=quantization)).quantization == expected


def test_quantisation_of_the_text_part_counts() -> None:
    document = json.loads(json.dumps(models.QWEN3_VL_8B))
    document["text_config"]["quantization_config"] = {"quant_method": "awq"}
    assert parse_config(document).quantization == Quantization("awq")


def test_other_names_for_the_same_are_known() -> None:
    old = {"n_layer": 24, "n_embd": 1024, "n_head": 16, "n_positions": 2048, "multi_query": True, "vocab_size": 50257}
    model = parse_config(old)
    assert (model.layers, model.hidden_size, model.heads, model.kv_heads) == (Layers(24), 1024, 16, 1)
    assert (model.head_dim, model.intermediate_size, model.max_length) == (64, 4096, 2048)


def test_the_part_of_another_name_is_found() -> None:
    nested = {"thinker_config": {"text_config": models.QWEN3_8B, "vision_config": models.QWEN3_VL_8B["vision_config"]}}
    model = parse_config(nested)
    assert model.layers == Layers(36)
    assert model.vision is not None
    assert parse_config({"llm_config": models.QWEN3_8B}).kv_heads == 8


def test_older_and_other_encoders_are_read() -> None:
    qwen2 = {"depth": 32, "embed_dim": 1280, "hidden_size": 3584, "mlp_ratio": 4, "num_heads": 16, "patch_size": 14}
    vision = parse_config({"text_config": models.QWEN3_8B, "vision_config": {**qwen2, "spatial_merge_size": 2}}).vision
    assert vision is not None
    assert (vision.hidden_size, vision.intermediate_size, vision.image_size) == (1280, 5120, None)
    siglip = {"num_hidden_layers": 27, "hidden_size": 1152, "image_size": 896, "patch_size": 14}
    vision = parse_config({"text_config": models.QWEN3_8B, "vision_config": siglip}).vision
    assert vision is not None
    assert (vision.depth, vision.image_size, vision.merge_size, vision.out_size) == (27, 896, 1, 4096)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(FleetError, match=r"^/m/config\.json does not say num_hidden_layers\. Is it the configuration"):
        parse_config({"model_type": "vit", "hidden_size": 768}, "/m/config.json")
    with pytest.raises(FleetError, match="has the dtype 'int3'; known are float32"):
        parse_config(text(dtype="int3"))


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ((models.PREPROCESSOR, models.VIDEO_PREPROCESSOR, {}), Processor(16777216, 25165824)),
        (({"max_pixels": 12845056}, {}, {}), Processor(12845056, None)),
        (({}, {}, {"image_processor": models.PREPROCESSOR}), Processor(16777216, None)),
        (({"size": {"longest_edge": 980}}, {}, {}), Processor(None, None)),
        (({}, {}, {}), Processor(None, None)),
    ],
)
def test_the_largest_image_is_read(documents: tuple[t.Any, t.Any, t.Any], expected: Processor) -> None:
    assert parse_processor(*documents) == expected


def write(directory: Path, **files: t.Any) -> str:
    for name, content in files.items():
        (directory / name.replace("__", ".")).write_text(json.dumps(content))
    return str(directory)


def test_the_index_says_how_large_the_weights_are(tmp_path: Path) -> None:
    index = {"metadata": {"total_size": models.QWEN3_VL_8B_BYTES}, "weight_map": {}}
    path = write(tmp_path, config__json=models.QWEN3_VL_8B, model__safetensors__index__json=index)
    (tmp_path / "model-00001-of-00004.safetensors").write_bytes(b"0" * 100)
    files = read_model(path)
    assert (files.weight_bytes, files.weights_from) == (models.QWEN3_VL_8B_BYTES, "model.safetensors.index.json")


def test_else_their_files_do_and_each_weight_counts_once(tmp_path: Path) -> None:
    path = write(tmp_path, config__json=models.QWEN3_8B, preprocessor_config__json=models.PREPROCESSOR)
    assert read_model(path).weight_bytes is None
    for name, size in (("model-00001-of-00002", 100), ("model-00002-of-00002", 50), ("consolidated", 150)):
        (tmp_path / f"{name}.safetensors").write_bytes(b"0" * size)
    files = read_model(path)
    assert (files.weight_bytes, files.weights_from) == (150, "model-*-of-*.safetensors")
    assert files.processor.image_pixels == 16777216


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match=f"There is no config.json in {tmp_path}"):
        read_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(FleetError, match="is not valid JSON"):
        read_model(str(tmp_path))
