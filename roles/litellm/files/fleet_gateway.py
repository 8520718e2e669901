# SPDX-License-Identifier: GPL-3.0-or-later
"""What LiteLLM calls of ours: who a caller is, what it may ask, and what it has spent. Part of a gateway's release."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import time
import typing as t
import uuid

import fleet_budgets
import fleet_cache
import fleet_clients
import fleet_costs
import fleet_figures
import fleet_history
import redis.asyncio
import request_guard
from fastapi import Request
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy._types import LitellmUserRoles, ProxyException, UserAPIKeyAuth

#: What a client may call; all else is refused.
ROUTES = {
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/models",
    "/v1/rerank",
    "/v1/responses",
}
METRICS = "/metrics"
#: The headers of the edge that hosts need, too: the request's name, and by what it finds its cache.
PASSED_ON = ("x-fleet-request", "x-fleet-affinity")
#: What a client has no say in: how often LiteLLM tries again, and headers that it would send to edges that take a
#: gateway's word for them.
RESERVED = ("extra_headers", "headers", "max_retries", "num_retries")
#: The key of this host, with which its own gate asks.
OWN = "engine"

CLIENTS = fleet_clients.Clients(os.environ["FLEET_CLIENTS"])
CACHED = frozenset(json.loads(os.environ.get("FLEET_CACHED_MODELS", "[]")))
#: The models that there are.
MODELS = frozenset(json.loads(os.environ.get("FLEET_MODELS", "[]")))
#: Deployments as the configuration has them, and as LiteLLM takes token ids for them.
CHAT, TEXT = "hosted_vllm/", "text-completion-openai/"

#: What LiteLLM calls requests to which no tokens are written.
READING = ("embedding", "rerank")
#: Seconds after the end of a request in which LiteLLM says what it has cost.
SETTLEMENT = 10.0

# Bodies that come slowly hold no place here. Media are the hosts' to check: they know what is allowed there.
request_guard.guard_applications(checks_media=False)

TARIFF = fleet_costs.parse(json.loads(os.environ.get("FLEET_TARIFF", "{}")))


def _store() -> fleet_budgets.Store | None:
    url = os.environ.get("REDIS_URL")
    if not url:
        return None
    return t.cast(fleet_budgets.Store, redis.asyncio.from_url(url, socket_timeout=1.0, socket_connect_timeout=1.0))


# LiteLLM loads this file once for each name that its configuration has of it; what counts is kept in the other module.
BUDGETS: fleet_budgets.Budgets = fleet_budgets.__dict__.setdefault("BUDGETS", fleet_budgets.Budgets(_store()))
if "FIGURES" not in fleet_budgets.__dict__:
    fleet_budgets.__dict__["FIGURES"] = fleet_figures.show(BUDGETS)
_RELEASES: set[asyncio.Task[None]] = fleet_budgets.__dict__.setdefault("RELEASES", set())


async def auth(request: Request, api_key: str) -> UserAPIKeyAuth:
    """Who is calling. LiteLLM bounds it by what is returned here.

    Raises:
        ProxyException: it may not.
    """
    fleet_history.answered()
    key = api_key or ""
    own = os.environ.get("ENGINE_API_KEY", "")
    if own and hmac.compare_digest(key.encode(), own.encode()):
        return _identity(fleet_clients.Client(OWN))
    client = CLIENTS.of(key)
    if client is None:
        raise _refusal(401, "The API key is not valid.", "invalid_request_error", "invalid_api_key")
    if client.expired(time.time()):
        raise _refusal(401, "The API key has expired.", "invalid_request_error", "expired_api_key")
    path = request.url.path.rstrip("/")
    if path not in ROUTES and path != METRICS and not path.startswith("/v1/models/"):
        raise _refusal(404, "There is no such path here.", "invalid_request_error", "unknown_url")
    known = _with_history(client, key) if fleet_history.WRITTEN else _identity(client)
    if client.budget is not None:
        known.metadata["request"] = _follow_request()
    return known


def _follow_request() -> str:
    """A name for what this task answers. What it has reserved is given back when it has ended, however it did."""
    name = uuid.uuid4().hex
    task = asyncio.current_task()
    if task is not None:
        task.add_done_callback(lambda ended: _release_later(ended, name))
    return name


def _release_later(ended: asyncio.Task[t.Any], request: str) -> None:
    if request in BUDGETS.reserved:
        release = ended.get_loop().create_task(_release(request))
        _RELEASES.add(release)
        release.add_done_callback(_RELEASES.discard)


async def _release(request: str) -> None:
    await asyncio.sleep(SETTLEMENT)
    await BUDGETS.release(request)


def _identity(client: fleet_clients.Client, **more: t.Any) -> UserAPIKeyAuth:
    """A client as LiteLLM knows it: the same with each of its keys, so that a rotation resets no limit."""
    known: dict[str, t.Any] = {
        "api_key": hashlib.sha256(f"client {client.name}".encode()).hexdigest(),
        "key_alias": client.name,
        "user_id": client.name,
        "user_role": LitellmUserRoles.INTERNAL_USER,
        "models": list(client.models),
        **client.counted_by_litellm(for_team=False),
        "metadata": {"budget": client.budget, "budget_seconds": client.budget_seconds},
    }
    return UserAPIKeyAuth(**{**known, **more})


def _with_history(client: fleet_clients.Client, key: str) -> UserAPIKeyAuth:
    """The same where what is spent is written down: by key and by client, which is a team there.

    The limits are the team's, too, because all keys of a client share them. LiteLLM has no such one for requests in
    flight, so each of two keys has its own there; what holds for both together is the edge's.
    """
    return _identity(
        client,
        api_key=hashlib.sha256(key.encode()).hexdigest(),
        team_id=f"fleet-{client.name}",
        team_alias=client.name,
        **client.counted_by_litellm(for_team=True),
    )


class Refusal(ProxyException):
    """The answer to a client. LiteLLM puts the status where OpenAI's clients look for the code."""

    def to_dict(self) -> dict[str, t.Any]:
        return {**super().to_dict(), "code": self.openai_code}


def _refusal(status: int, message: str, kind: str, code: str, param: str | None = None) -> Refusal:
    return Refusal(message=message, type=kind, param=param, code=status, openai_code=code)


def _pass_on(data: dict[str, t.Any]) -> None:
    """Have LiteLLM send on what the edge says of it; by its name the pools bound how often engines are asked."""
    for option in RESERVED:
        data.pop(option, None)
    received = (data.get("proxy_server_request") or {}).get("headers") or {}
    headers = {name.lower(): value for name, value in received.items() if name.lower() in PASSED_ON}
    if headers:
        data["headers"] = headers


class Hooks(CustomLogger):
    """Looks at each request before LiteLLM does, and at what it cost afterwards."""

    async def async_pre_call_hook(
        self, user_api_key_dict: UserAPIKeyAuth, cache: t.Any, data: dict[str, t.Any], call_type: str
    ) -> dict[str, t.Any]:
        """Refuse models that the client may not use, which LiteLLM without a database does not."""
        try:
            return await self._prepare(user_api_key_dict, data, call_type)
        except RecursionError:
            # LiteLLM would call it a failure of its own.
            raise _refusal(400, "The body is nested too deeply.", "invalid_request_error", "bad_request") from None

    async def _prepare(
        self, user_api_key_dict: UserAPIKeyAuth, data: dict[str, t.Any], call_type: str
    ) -> dict[str, t.Any]:
        allowed = user_api_key_dict.models
        for name in fleet_clients.names_in(data) if allowed else ():
            if name not in allowed:
                raise _refusal(
                    403,
                    f"The API key is not for the model {name}.",
                    "invalid_request_error",
                    "model_not_allowed",
                    "model",
                )
        model = data.get("model")
        if model is not None and not isinstance(model, str):
            raise _refusal(400, "model has to be a text.", "invalid_request_error", "bad_request", "model")
        # LiteLLM would call it a bad request.
        if MODELS and model is not None and model not in MODELS:
            raise _refusal(
                404, f"The model {model} does not exist.", "invalid_request_error", "model_not_found", "model"
            )
        fleet_cache.take_control(data, str(user_api_key_dict.key_alias), model in CACHED)
        _pass_on(data)
        await self._reserve(user_api_key_dict, data, call_type)
        return data

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, t.Any], call_type: t.Any) -> dict[str, t.Any]:
        """Send completions on as they are; LiteLLM would make messages of them, which token ids cannot be."""
        model = str(kwargs.get("model", ""))
        if kwargs.get("prompt") is not None and model.startswith(CHAT):
            return {**kwargs, "model": TEXT + model.removeprefix(CHAT)}
        return kwargs

    async def _reserve(self, who: UserAPIKeyAuth, data: dict[str, t.Any], call_type: str) -> None:
        """Let a request through for which the client's budget is enough."""
        limits = who.metadata
        if limits.get("budget") is None:
            return
        body = (data.get("proxy_server_request") or {}).get("body") or data
        generates = not any(word in call_type for word in READING)
        most = TARIFF.most(body, fleet_clients.names_in(data), generates)
        refusal = await BUDGETS.reserve(_client(str(who.key_alias), limits), limits["request"], most)
        if refusal is fleet_budgets.Refusal.SPENT:
            raise _refusal(429, refusal.value, "insufficient_quota", "budget_exceeded")
        if refusal is not None:
            raise _refusal(429, refusal.value, "rate_limit_error", "budget_reserved")

    async def async_log_success_event(
        self, kwargs: dict[str, t.Any], response_obj: t.Any, start_time: t.Any, end_time: t.Any
    ) -> None:
        parameters = kwargs.get("litellm_params") or {}
        for metadata in (parameters.get("metadata") or {}, parameters.get("litellm_metadata") or {}):
            limits = metadata.get("user_api_key_metadata") or {}
            if limits.get("budget") is not None:
                client = _client(metadata["user_api_key_alias"], limits)
                await BUDGETS.spend(client, limits["request"], float(kwargs.get("response_cost") or 0))
                return

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, t.Any],
        original_exception: Exception,
        user_api_key_dict: UserAPIKeyAuth,
        traceback_str: str | None = None,
    ) -> None:
        """Give back what a request has reserved that failed for good."""
        await BUDGETS.release(user_api_key_dict.metadata.get("request", ""))


def _client(name: str, limits: t.Mapping[str, t.Any]) -> fleet_clients.Client:
    return fleet_clients.Client(name, limits)


hooks = Hooks()
