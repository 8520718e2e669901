# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Profiles: sets of role variables for one purpose each, every one with its reason and where that is from.

Pure data and a look-up. ``balanced`` is what the roles' defaults are; the others say what they change of it. An entry
for one GPU counts more than one for any. docs/profiles.md is written from this file by ``python -m
tests.profiles_page``.
"""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.gpu.hardware import is_named

DEFAULT = "balanced"


class Setting(t.NamedTuple):
    """One role variable.

    Attributes:
        name: without the role's prefix.
        value: what it is set to; None is the engine's own choice.
        why: the reason.
        source: where reason and figure are from.
        gpu: the GPU that it is for, as ``L40S``; empty for any.
    """

    name: str
    value: t.Any
    why: str
    source: str
    gpu: str = ""


class Profile(t.NamedTuple):
    """What a profile is for, and its settings by engine."""

    purpose: str
    settings: dict[str, tuple[Setting, ...]]


_FIT = "module vram_fit"
_ALB = "https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-load-balancer-attributes.html"
_VLLM_TUNING = "https://docs.vllm.ai/en/stable/configuration/optimization/"
_VLLM = "vLLM 0.32, config/"
_SGLANG = "SGLang 0.5.23, srt/"
_SGLANG_FIELDS = _SGLANG + "arg_groups/fields/"
_MEASURED = "measured on one H200 with this architecture, vLLM 0.26: docs/profiles.md"

PROFILES: dict[str, Profile] = {
    "balanced": Profile(
        "chat and pictures of mixed length; what the roles do when nobody says otherwise",
        {
            "vllm": (
                Setting(
                    "max_model_len",
                    32768,
                    "The model's own 262144 takes 36 GiB of KV cache, and an L40S has 20 left. This leaves room for "
                    "four requests of full length at once.",
                    _FIT,
                ),
                Setting(
                    "gpu_memory_utilization",
                    0.92,
                    "vLLM's own. The CUDA context is not in it, so it can go to 0.96, and no further.",
                    _VLLM + "cache.py",
                ),
                Setting(
                    "kv_cache_dtype", "auto", "The model's type: nothing is lost. fp8 halves it.", _VLLM + "cache.py"
                ),
                Setting("quantization", None, "As the checkpoint is.", _VLLM + "model.py"),
                Setting("max_num_seqs", None, "vLLM's own: 256 below 70 GiB.", "vLLM 0.32, engine/arg_utils.py"),
                Setting(
                    "max_num_batched_tokens",
                    None,
                    "vLLM's own, by GPU: 2048 on an L40S.",
                    "vLLM 0.32, engine/arg_utils.py",
                ),
                Setting(
                    "max_num_queued_reqs",
                    None,
                    "The edge holds back what is more than edge_instance_max_requests, and refuses what is more than "
                    "edge_queue_limit.",
                    "roles/edge",
                ),
                Setting(
                    "limit_mm_per_prompt",
                    {"image": 4, "video": 1},
                    "Without a limit one request may have 999 of each, up to 16384 tokens a picture.",
                    _VLLM + "multimodal.py",
                ),
                Setting(
                    "mm_processor_kwargs",
                    None,
                    "Pictures as they come. {max_pixels: 1003520} holds one to 980 tokens.",
                    "Qwen3-VL's preprocessor: one token for 32 x 32 pixels",
                ),
                Setting(
                    "mm_processor_cache_gb",
                    4,
                    "vLLM's own, and it holds two of them; a g6e.xlarge has 32 GiB in all.",
                    _VLLM + "multimodal.py",
                ),
                Setting("enforce_eager", False, "CUDA graphs answer faster; they take 0.3 to 0.9 GiB.", _FIT),
                Setting("enable_prefix_caching", True, "vLLM's own.", _VLLM + "cache.py"),
                Setting(
                    "speculative_config",
                    None,
                    "Off: drafts for this model were reported to be taken hardly ever, and to end the engine above 64 "
                    "requests. Profile speculative switches it on, behind a gate.",
                    "https://github.com/vllm-project/vllm/pull/29594, https://github.com/sgl-project/SpecForge/issues/310",
                ),
                Setting(
                    "sse_keep_alive_interval",
                    15,
                    "An ALB closes a connection that is silent for 60 s, and a stream is silent while it waits.",
                    _ALB,
                ),
                Setting(
                    "http_keep_alive",
                    75,
                    "Longer than an ALB's 60 s: else it answers 502 now and then. vLLM's own is 5 s.",
                    _ALB,
                ),
            ),
            "sglang": (
                Setting(
                    "context_length",
                    32768,
                    "As for vLLM. SGLang would start with the model's own 262144, and refuse requests that its cache "
                    "does not hold.",
                    _FIT,
                ),
                Setting(
                    "mem_fraction_static",
                    None,
                    "SGLang works it out from the GPU, and lowers it for a vision encoder.",
                    _SGLANG + "server_args.py",
                ),
                Setting(
                    "kv_cache_dtype",
                    "auto",
                    "The model's type: nothing is lost. fp8_e4m3 halves it.",
                    _SGLANG_FIELDS + "model.py",
                ),
                Setting("quantization", None, "As the checkpoint is.", _SGLANG_FIELDS + "model.py"),
                Setting(
                    "max_running_requests",
                    None,
                    "SGLang's own, from the size of its cache.",
                    _SGLANG_FIELDS + "schedule.py",
                ),
                Setting(
                    "chunked_prefill_size",
                    None,
                    "SGLang's own, by GPU: 4096 on an L40S.",
                    _SGLANG_FIELDS + "schedule.py",
                ),
                Setting(
                    "max_queued_requests",
                    None,
                    "The edge holds back and refuses. SGLang answers a full queue with 503, but a stream with 200 and "
                    "an error in it.",
                    "roles/edge; seen with 0.5.23",
                ),
                Setting(
                    "schedule_policy",
                    "lpm",
                    "Requests that share a prefix with what is cached go first: conversations, documents that are "
                    "asked about again.",
                    _SGLANG + "managers/schedule_policy.py",
                ),
                Setting(
                    "limit_mm_data_per_request",
                    {"image": 4, "video": 1},
                    "Without a limit one request may have any number, up to 16384 tokens a picture.",
                    _SGLANG_FIELDS + "mm.py",
                ),
                Setting("mm_process_config", None, "Pictures as they come.", _SGLANG_FIELDS + "mm.py"),
                Setting("cuda_graph", True, "CUDA graphs answer faster.", _FIT),
                Setting("radix_cache", True, "SGLang's own, and what it is chosen for.", _SGLANG_FIELDS + "memory.py"),
                Setting(
                    "speculative_algorithm",
                    None,
                    "Off, as for vLLM.",
                    "https://github.com/sgl-project/sglang/pull/17276",
                ),
                Setting(
                    "http_keep_alive",
                    75,
                    "Longer than an ALB's 60 s: else it answers 502 now and then. SGLang's own is 5 s.",
                    _ALB,
                ),
            ),
        },
    ),
    "interactive": Profile(
        "short turns that people wait for: each stream keeps its pace, and what is too much goes elsewhere at once",
        {
            "vllm": (
                Setting(
                    "max_num_seqs",
                    64,
                    "Each token of a step is shared by fewer, so that each stream is faster.",
                    _VLLM_TUNING,
                ),
                Setting(
                    "max_num_batched_tokens",
                    2048,
                    "A long prompt is taken in small pieces, between which the running streams go on.",
                    _VLLM_TUNING,
                ),
                Setting(
                    "max_num_queued_reqs",
                    96,
                    "64 that run and 32 that wait; more get a 503 at once, and whoever balances tries another host.",
                    _VLLM + "scheduler.py",
                ),
            ),
            "sglang": (
                Setting("max_running_requests", 64, "As for vLLM.", _VLLM_TUNING),
                Setting("chunked_prefill_size", 2048, "As for vLLM.", _VLLM_TUNING),
                Setting(
                    "max_queued_requests",
                    32,
                    "As for vLLM; here those that run are not counted.",
                    _SGLANG_FIELDS + "schedule.py",
                ),
            ),
        },
    ),
    "throughput": Profile(
        "batches that nobody waits for: as many tokens a second as the GPU gives",
        {
            "vllm": (
                Setting("max_num_seqs", 512, "The more share a step, the less each costs.", _VLLM_TUNING),
                Setting(
                    "max_num_batched_tokens",
                    16384,
                    "Above 8192 is advised for small models on large GPUs; the largest picture fits one step.",
                    _VLLM_TUNING,
                ),
                Setting(
                    "quantization",
                    "fp8",
                    "1.36 times the tokens at 64 requests, and 7 GiB more for the cache. Look at your answers: the "
                    "gate's golden ones do not show small losses.",
                    _MEASURED,
                ),
            ),
            "sglang": (
                Setting("max_running_requests", 512, "As for vLLM.", _VLLM_TUNING),
                Setting("chunked_prefill_size", 8192, "Larger steps, fewer of them.", _SGLANG_FIELDS + "schedule.py"),
                Setting("quantization", "fp8", "As for vLLM.", _MEASURED),
            ),
        },
    ),
    "long_context": Profile(
        "books and hours of video: the model's whole 262144 tokens, few requests at once",
        {
            "vllm": (
                Setting(
                    "max_model_len",
                    262144,
                    "What the model was made for. It takes 36 GiB of KV cache in bfloat16, more than an L40S has; in "
                    "fp8 18. In bfloat16 it needs two GPUs: vllm_tensor_parallel_size: 2.",
                    _FIT,
                ),
                Setting("kv_cache_dtype", "fp8", "Halves the cache, which is what lets it fit one L40S.", _FIT),
                Setting("gpu_memory_utilization", 0.95, "1.3 GiB more for the cache.", _FIT),
                Setting("max_num_seqs", 16, "The cache holds one of full length, and a few shorter ones.", _FIT),
                Setting("limit_mm_per_prompt", {"image": 64, "video": 2}, "There is room for many.", _FIT),
            ),
            "sglang": (
                Setting("context_length", 262144, "As for vLLM.", _FIT),
                Setting("kv_cache_dtype", "fp8_e4m3", "As for vLLM.", _FIT),
                Setting(
                    "chunked_prefill_size",
                    2048,
                    "SGLang sets memory aside for its largest step. Smaller ones leave 2.7 GiB more for the cache, "
                    "without which a request of full length would not fit.",
                    _FIT,
                    gpu="L40S",
                ),
                Setting("max_running_requests", 16, "As for vLLM.", _FIT),
                Setting("limit_mm_data_per_request", {"image": 64, "video": 2}, "As for vLLM.", _FIT),
            ),
        },
    ),
    "low_memory": Profile(
        "GPUs of 24 GB (g5, g6), or room for something else beside",
        {
            "vllm": (
                Setting("max_model_len", 16384, "Enough for a conversation with pictures.", _FIT),
                Setting("quantization", "fp8", "9.3 GiB of weights instead of 16.3.", _FIT),
                Setting("kv_cache_dtype", "fp8", "Halves the cache.", _FIT),
                Setting("gpu_memory_utilization", 0.9, "2 GiB of 22 stay free for what is not counted.", _FIT),
                Setting("max_num_seqs", 32, "Fewer graphs and a smaller sampler.", _FIT),
                Setting("max_num_batched_tokens", 2048, "Smaller activations.", _FIT),
                Setting("limit_mm_per_prompt", {"image": 2, "video": 0}, "No room is kept for video.", _FIT),
                Setting(
                    "mm_processor_kwargs",
                    {"max_pixels": 1003520},
                    "A picture takes 980 tokens at most instead of 16384, and the encoder less memory.",
                    _FIT,
                ),
                Setting("mm_processor_cache_gb", 1, "A g6.xlarge has 16 GiB of memory.", _VLLM + "multimodal.py"),
            ),
            "sglang": (
                Setting("context_length", 16384, "As for vLLM.", _FIT),
                Setting("quantization", "fp8", "As for vLLM.", _FIT),
                Setting("kv_cache_dtype", "fp8_e4m3", "As for vLLM.", _FIT),
                Setting("max_running_requests", 32, "As for vLLM.", _FIT),
                Setting("chunked_prefill_size", 2048, "As for vLLM.", _FIT),
                Setting("limit_mm_data_per_request", {"image": 2, "video": 0}, "As for vLLM.", _FIT),
                Setting("mm_process_config", {"image": {"max_pixels": 1003520}}, "As for vLLM.", _FIT),
            ),
        },
    ),
    "speculative": Profile(
        "few streams, each as fast as can be: a draft model (EAGLE3) proposes tokens, which the model checks "
        "several at a time. Needs model_draft; the gate refuses it where too few proposals are taken",
        {
            "vllm": (
                Setting(
                    "speculative_config",
                    {"method": "eagle3", "num_speculative_tokens": 3},
                    "Three proposals a step; each further one is taken less often.",
                    "https://docs.vllm.ai/en/stable/features/spec_decode/",
                ),
                Setting(
                    "max_num_seqs",
                    32,
                    "With many requests a step is full without proposals; above 64 engines were reported to end.",
                    "https://github.com/vllm-project/vllm/pull/29594",
                ),
            ),
            "sglang": (
                Setting("speculative_algorithm", "EAGLE3", "As for vLLM.", _SGLANG_FIELDS + "spec.py"),
                Setting("speculative_num_steps", 3, "As for vLLM.", _SGLANG_FIELDS + "spec.py"),
                Setting(
                    "speculative_eagle_topk",
                    1,
                    "A chain and no tree, as vLLM has it; a tree pays with very few requests only.",
                    _SGLANG_FIELDS + "spec.py",
                ),
                Setting(
                    "speculative_num_draft_tokens", 4, "Steps and the model's own token.", _SGLANG_FIELDS + "spec.py"
                ),
                Setting("max_running_requests", 32, "As for vLLM.", _SGLANG_FIELDS + "schedule.py"),
            ),
        },
    ),
}


def profile_settings(profile: str, engine: str, gpu: str = "") -> dict[str, t.Any]:
    """The role variables of a profile, those of ``balanced`` that it does not change included.

    Args:
        profile: one of PROFILES.
        engine: ``vllm`` or ``sglang``.
        gpu: the host's GPU, as ``L40S`` or ``NVIDIA L40S``; empty where it is not known.

    Raises:
        FleetError: there is no such profile.
    """
    if profile not in PROFILES:
        raise FleetError(f"engine_profile is {profile!r}, which is no profile. Valid are: {', '.join(PROFILES)}.")
    found: dict[str, t.Any] = {}
    for name in dict.fromkeys((DEFAULT, profile)):
        own = PROFILES[name].settings[engine]
        # Those for one GPU after those for any, whatever their order.
        for setting in sorted(own, key=lambda setting: setting.gpu != ""):
            if not setting.gpu or (gpu and is_named(setting.gpu, gpu)):
                found[setting.name] = setting.value
    return found
