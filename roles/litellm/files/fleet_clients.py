# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may call this gateway and how much: what its LiteLLM looks up for each request. Knows nothing of LiteLLM.

The file of clients is written by module edge_keys and read again whenever it changes. It has hashes of keys, no keys.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import time
import typing as t

LOGGER = logging.getLogger("fleet")

#: Seconds for which a Redis that did not answer is not asked.
PATIENCE = 5.0


@dataclasses.dataclass(frozen=True)
class Client:
    """What a client may do; None is without bound.

    Attributes:
        name: as in ``fleet_clients``.
        models: the only models that it may use; empty for all.
        budget: what it may spend, in the unit of the prices.
        budget_seconds: how long the budget is for; None for ever.
        expires: Unix time from which on it is refused.
    """

    name: str
    models: tuple[str, ...] = ()
    requests_per_minute: int | None = None
    max_concurrent: int | None = None
    tokens_per_minute: int | None = None
    budget: float | None = None
    budget_seconds: int | None = None
    expires: int | None = None

    def expired(self, now: float) -> bool:
        return self.expires is not None and now >= self.expires

    def period(self, now: float) -> int:
        """When the present period of its budget began, in Unix time; 0 where it is for ever."""
        return int(now) // self.budget_seconds * self.budget_seconds if self.budget_seconds else 0


class Clients:
    """The clients of the file.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._by_hash: dict[str, Client] = {}

    def of(self, key: str) -> Client | None:
        """Whose key this is; None where it is nobody's."""
        self._read()
        return self._by_hash.get(hashlib.sha256(key.encode()).hexdigest())

    def _read(self) -> None:
        try:
            status = os.stat(self._path)
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen == self._seen:
                return
            with open(self._path, encoding="utf-8") as file:
                self._by_hash = parse(json.load(file))
            self._seen = seen
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            # Who was known stays known.
            LOGGER.error("%s cannot be read, so the clients are those of before: %r", self._path, error)


def parse(document: t.Mapping[str, t.Any]) -> dict[str, Client]:
    """The clients by the hashes of their keys."""
    clients = {
        name: Client(name, **{option: tuple(value) if option == "models" else value for option, value in item.items()})
        for name, item in document["clients"].items()
    }
    return {digest: clients[name] for digest, name in document["keys"].items()}


def names_in(request: t.Mapping[str, t.Any]) -> list[str]:
    """Every model that a request names, also those that it wants when the first one fails."""
    found: list[str] = []
    for option in ("model", "models", "fallbacks", "context_window_fallbacks", "content_policy_fallbacks"):
        _collect(request.get(option), found)
    return found


def _collect(value: t.Any, found: list[str]) -> None:
    if isinstance(value, str):
        found.append(value)
    elif isinstance(value, t.Mapping):
        _collect([*value, *value.values()], found)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _collect(item, found)


class Counter(t.Protocol):
    """Numbers that all gateways share; what the client of Redis has."""

    async def get(self, name: str) -> t.Any: ...

    async def incrbyfloat(self, name: str, amount: float) -> t.Any: ...

    async def expire(self, name: str, time: int) -> t.Any: ...


class Spending:
    """What clients with a budget have spent, together at all gateways that share a Redis.

    While Redis does not answer, each process goes on with what it last knew and what it has spent since, and tells
    Redis later.

    Args:
        counter: Redis; None where there is none.
        now: the clock.
    """

    def __init__(self, counter: Counter | None, now: t.Callable[[], float] = time.time) -> None:
        self._counter = counter
        self._now = now
        self._known: dict[str, float] = {}
        self._untold: dict[str, float] = {}
        # Seconds after which Redis may forget a number.
        self._kept: dict[str, int] = {}
        self._silent_until = 0.0

    async def over(self, client: Client) -> bool:
        """Whether a client has spent its budget."""
        if client.budget is None:
            return False
        name = self._name(client)
        if self._asks():
            try:
                self._known[name] = float(await self._counter.get(name) or 0)  # type: ignore[union-attr]
            except Exception as error:
                self._fails(error)
        return self._known.get(name, 0.0) + self._untold.get(name, 0.0) >= client.budget

    async def add(self, client: Client, cost: float) -> None:
        """Note what a request has cost."""
        if client.budget is None or cost <= 0:
            return
        name = self._name(client)
        self._untold[name] = self._untold.get(name, 0.0) + cost
        if client.budget_seconds:
            self._kept[name] = 2 * client.budget_seconds
        for untold in list(self._untold):
            if self._asks():
                await self._tell(untold)

    async def _tell(self, name: str) -> None:
        amount = self._untold.pop(name, 0.0)
        if not amount:
            # Another request has told it meanwhile.
            return
        try:
            self._known[name] = float(await self._counter.incrbyfloat(name, amount))  # type: ignore[union-attr]
        except Exception as error:
            self._untold[name] = self._untold.get(name, 0.0) + amount
            self._fails(error)
            return
        # By now it is counted, whatever becomes of this.
        if name in self._kept:
            try:
                await self._counter.expire(name, self._kept.pop(name))  # type: ignore[union-attr]
            except Exception as error:
                self._fails(error)

    def _name(self, client: Client) -> str:
        return f"fleet:spent:{client.name}:{client.period(self._now())}"

    def _asks(self) -> bool:
        return self._counter is not None and self._now() >= self._silent_until

    def _fails(self, error: Exception) -> None:
        self._silent_until = self._now() + PATIENCE
        LOGGER.warning("Redis does not answer, so budgets are counted here alone for now: %r", error)
