"""Configurations of published models, as far as memory is concerned."""

from __future__ import annotations

import typing as t

from tests.gpu.model import TEXT, VISION

#: Qwen/Qwen3-VL-8B-Instruct, with the figures that were published.
QWEN3_VL_8B: dict[str, t.Any] = {
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "image_token_id": 151655,
    "model_type": "qwen3_vl",
    "text_config": {**TEXT, "bos_token_id": 151643, "eos_token_id": 151645},
    "tie_word_embeddings": False,
    "transformers_version": "4.57.0.dev0",
    "video_token_id": 151656,
    "vision_config": VISION,
    "vision_end_token_id": 151653,
    "vision_start_token_id": 151652,
}

#: Qwen/Qwen3-VL-8B-Instruct-FP8.
QWEN3_VL_8B_FP8: dict[str, t.Any] = {
    **QWEN3_VL_8B,
    "quantization_config": {"activation_scheme": "dynamic", "quant_method": "fp8", "weight_block_size": [128, 128]},
}

#: Bytes of their weights.
QWEN3_VL_8B_BYTES = 17534247392
QWEN3_VL_8B_FP8_BYTES = 10589327840

PREPROCESSOR = {"size": {"longest_edge": 16777216, "shortest_edge": 65536}, "patch_size": 16, "merge_size": 2}
VIDEO_PREPROCESSOR = {"size": {"longest_edge": 25165824, "shortest_edge": 4096}, "patch_size": 16, "merge_size": 2}

#: Qwen/Qwen3-8B.
QWEN3_8B: dict[str, t.Any] = {
    **QWEN3_VL_8B["text_config"],
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "max_position_embeddings": 40960,
    "rope_scaling": None,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
}

#: Qwen/Qwen3-30B-A3B, a mixture of experts.
QWEN3_30B_A3B: dict[str, t.Any] = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "head_dim": 128,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "max_position_embeddings": 40960,
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 768,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 151936,
}

#: meta-llama/Llama-3.1-8B-Instruct.
LLAMA_8B: dict[str, t.Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rope_scaling": {"factor": 8.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}

#: deepseek-ai/DeepSeek-V2-Lite, whose keys and values share a compressed form.
DEEPSEEK_LITE: dict[str, t.Any] = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "model_type": "deepseek_v2",
    "moe_intermediate_size": 1408,
    "n_routed_experts": 64,
    "num_attention_heads": 16,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 27,
    "num_key_value_heads": 16,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "torch_dtype": "bfloat16",
    "v_head_dim": 128,
    "vocab_size": 102400,
}
