# SPDX-License-Identifier: GPL-3.0-or-later
"""Which answers LiteLLM keeps, and for which request it gives them again. Knows nothing of LiteLLM.

LiteLLM makes the key of a cached answer from a list of parameters, the same for all clients. What an engine takes
beside them, such as a grammar or the settings of a chat template, would not count. So each request gets a namespace of
its own, of its client and of all that it says.
"""

from __future__ import annotations

import hashlib
import json
import typing as t

#: Whatever a client could steer LiteLLM's cache with: a key, a lifetime, whether there is one.
CONTROLS = ("cache", "cache_key", "caching", "caching_groups", "litellm_params", "preset_cache_key", "ttl")

#: What a client may ask for: that its request is answered by an engine, and that its answer is not kept.
REFUSALS = ("no-cache", "no-store")

#: What no engine sees. LiteLLM writes there about each request, too.
UNSEEN = ("metadata", "litellm_metadata")


def take_control(data: dict[str, t.Any], client: str, cached: bool) -> None:
    """Remove a request's orders to the cache, and give ours.

    Args:
        data: the request as LiteLLM has it, with the body as the client sent it under ``proxy_server_request``.
        client: whose it is.
        cached: whether answers of its model are kept.
    """
    asked = data.get("cache")
    for name in CONTROLS:
        data.pop(name, None)
    body = (data.get("proxy_server_request") or {}).get("body")
    # Without a body nothing says what the answer depends on.
    if cached and isinstance(body, dict):
        refused = {name: True for name in REFUSALS if isinstance(asked, dict) and asked.get(name)}
        data["cache"] = {"use-cache": True, "namespace": namespace(client, body), **refused}


def namespace(client: str, body: t.Mapping[str, t.Any]) -> str:
    """What the keys of an answer begin with: no two clients and no two different requests share it."""
    said = {name: value for name, value in body.items() if name not in (*CONTROLS, *UNSEEN)}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=repr).encode()).hexdigest()
    return f"litellm:{client}:{digest[:32]}"
