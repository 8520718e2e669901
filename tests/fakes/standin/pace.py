"""What the stand-ins share: how fast they are, and what they read of a model."""

from __future__ import annotations

import json
import os
import typing as t

START_SECONDS = 1.0
#: As fast as the tiny model on a core of the lab: slow enough that a gate's figures do not depend on who else works.
FIRST_TOKEN = 0.02
TOKEN = 0.005


def model_of(path: str) -> tuple[str, int]:
    """The architecture of a model and its longest context, from its directory.

    Raises:
        OSError: there is no model.
    """
    try:
        with open(os.path.join(path, "config.json"), encoding="utf-8") as file:
            config: dict[str, t.Any] = json.load(file)
    except OSError as error:
        why = f"Repo id must be in the form 'repo_name' or 'namespace/repo_name': '{path}'. Use `repo_type` argument"
        raise OSError(f"{why} if needed.") from error
    text = config.get("text_config", config)
    return (config.get("architectures") or ["?"])[0], int(text.get("max_position_embeddings", 2048))
