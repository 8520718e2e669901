# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Checks that an answer was generated for its question and does not come from a cache.

Each question carries a nonce, and requests through a gateway bypass its cache. Neither helps against a cache whose key
ignores the nonce, so each answer is checked, too; and the check ``schema`` requires the nonce in the answer.
"""

from __future__ import annotations

import secrets
import typing as t

from ..engines.registry import KINDS
from .chat import Completion
from .golden import CheckFailure

# How much older than its request an answer may seem, because two hosts' clocks differ.
CLOCK_TOLERANCE = 60.0

_CACHES = [engine.cache for engine in KINDS.values() if engine.cache]

# Parameters of a request that bypass every cache.
PAST_THE_CACHE: dict[str, t.Any] = {name: value for cache in _CACHES for name, value in cache.bypass.items()}


def nonce() -> str:
    """A random word that no earlier request had."""
    return secrets.token_hex(4)


def with_nonce(prompt: str) -> str:
    """A prompt that is in no cache. The nonce comes first, where it does not change a golden answer."""
    return f"{nonce()}. {prompt}"


class Freshness:
    """The answers of one gate, each of which must belong to its own request."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def judge(self, answer: Completion, asked_at: float) -> None:
        """Accept an answer that was generated after its request.

        Args:
            answer: the result.
            asked_at: when the request was sent, in seconds since 1970.

        Raises:
            CheckFailure: it is an older one.
        """
        header = cached_by(answer.headers)
        if header is not None:
            raise CheckFailure("stale", f"an answer out of a cache, as its header {header} says")
        if answer.id is not None and answer.id in self._seen:
            raise CheckFailure("stale", f"the answer {answer.id} to an earlier question once more")
        if answer.id is not None:
            self._seen.add(answer.id)
        age = 0.0 if answer.created is None else asked_at - answer.created
        if age > CLOCK_TOLERANCE:
            raise CheckFailure(
                "stale", f"an answer made {age:.0f} s before its question (field created), or two clocks differ so much"
            )


def cached_by(headers: t.Mapping[str, str]) -> str | None:
    """The header by which a cache marks its own answers; None where there is none."""
    for cache in _CACHES:
        if headers.get(cache.header):
            return cache.header
    for name, value in headers.items():
        if name == "age" and value.strip() not in ("", "0"):
            return f"age: {value}"
        if name.endswith(("cache", "cache-status", "cache-hit")) and value.strip().lower().startswith(("hit", "true")):
            return f"{name}: {value}"
    return None
