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
import typing as t

LOGGER = logging.getLogger("fleet")


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
