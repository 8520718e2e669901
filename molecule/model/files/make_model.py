"""Writes a model of 12 MB for tests without an engine: python3 make_model.py DIRECTORY."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

directory = Path(sys.argv[1])
directory.mkdir(parents=True)
names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
(directory / "config.json").write_text('{"architectures": ["Qwen3VLForConditionalGeneration"]}')
(directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": names[0], "b": names[1]}}))
for seed, name in enumerate(names):
    (directory / name).write_bytes(random.Random(seed).randbytes(6_000_000 + seed))  # noqa: S311 - weights, not secrets
