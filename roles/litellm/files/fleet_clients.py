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

import client_schema

LOGGER = logging.getLogger("fleet")


@dataclasses.dataclass(frozen=True)
class Client:
    """What a client may do.

    Attributes:
        name: as in ``fleet_clients``.
        limits: by their names in the file; what is not there has no bound.
    """

    name: str
    limits: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)

    @property
    def models(self) -> tuple[str, ...]:
        """The only models that it may use; empty for all."""
        return tuple(self.limits.get("models") or ())

    @property
    def budget(self) -> float | None:
        """What it may spend, in the unit of the prices; None for no bound."""
        return self.limits.get("budget")

    @property
    def budget_seconds(self) -> int | None:
        """How long the budget is for; None for ever."""
        return self.limits.get("budget_seconds")

    def expired(self, now: float) -> bool:
        expires = self.limits.get("expires")
        return expires is not None and now >= expires

    def period(self, now: float) -> int:
        """When the present period of its budget began, in Unix time; 0 where it is for ever."""
        return int(now) // self.budget_seconds * self.budget_seconds if self.budget_seconds else 0

    def counted_by_litellm(self, for_team: bool) -> dict[str, t.Any]:
        """The limits that LiteLLM itself enforces, by its names for them.

        Args:
            for_team: whether it counts for all keys of the client, where it can.
        """
        found: dict[str, t.Any] = {}
        for row in client_schema.LIMITS:
            names, value = row.litellm, self.limits.get(row.in_gateways_file)
            if names.caller:
                found[names.caller] = None if for_team and names.team else value
            if names.team and for_team:
                found[names.team] = value
        return found


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
        """Whose key this is; None where it is no client's."""
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
    """The clients by the hashes of their keys.

    Raises:
        ValueError: a later collection wrote the document.
    """
    known = client_schema.GATEWAYS_FILE_VERSION
    # The first files have none.
    version = document.get("version", 1)
    if version > known:
        raise ValueError(f"the file has version {version}, this gateway reads version {known}; run playbooks/site.yml")
    names = {row.in_gateways_file for row in client_schema.LIMITS}
    unknown = sorted({name for item in document["clients"].values() for name in item} - names)
    if unknown:
        LOGGER.warning("This gateway does not enforce %s yet: run playbooks/site.yml", ", ".join(unknown))
    clients = {name: Client(name, dict(item)) for name, item in document["clients"].items()}
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
