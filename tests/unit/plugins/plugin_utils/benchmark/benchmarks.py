"""Records as the tests need them."""

from __future__ import annotations

import typing as t


def measured(name: str = "at_64", figure: str = "tokens_per_second", *values: float, **more: t.Any) -> dict[str, t.Any]:
    """A scenario with a figure of each repeat."""
    return {
        "scenario": {"name": name, "concurrency": 64, "prompt_tokens": 1024, "output_tokens": 128, "turns": 1},
        "repeats": [{figure: value} for value in values],
        "requests": 64 * len(values),
        "failed": 0,
        "problem": "",
        "prompt_tokens": 1030,
        "gpu": {},
        "gpu_problem": "",
        **more,
    }


def record(**changes: t.Any) -> dict[str, t.Any]:
    """A record of one instance."""
    return {
        "schema": 1,
        "id": "20261130T100000Z",
        "at": "2026-11-30T10:00:00Z",
        "host": "gpu-1",
        "instance": "vllm-0",
        "engine": "vllm",
        "version": "0.32.0",
        "model": "Qwen/Qwen3-VL-8B-Instruct",
        "release": "vllm-1",
        "context": 32768,
        "profile": "balanced",
        "hardware": "g6e.xlarge",
        "gpus": [0],
        "live": False,
        "usd_per_hour": 1.8,
        "price_problem": "",
        "left_out": {},
        "measured": {"at_64": measured("at_64", "tokens_per_second", 1000.0, 1010.0, 990.0)},
        **changes,
    }
