"""The part of an engine that keeps what it has computed of prompts: a stand-in for vLLM's and SGLang's prefix cache."""

from __future__ import annotations

import collections
import threading
import typing as t


class PrefixCache:
    """Blocks of tokens, each known by all tokens up to its end. What was not used for longest goes first, ends before
    beginnings.

    Args:
        capacity: in tokens.
        block: tokens of a block.
    """

    def __init__(self, capacity: int, block: int = 16) -> None:
        self._blocks: collections.OrderedDict[int, None] = collections.OrderedDict()
        self._size = capacity // block
        self._block = block
        self._lock = threading.Lock()

    def find(self, tokens: t.Sequence[str]) -> int:
        """How many tokens of a prompt are there, at its beginning. One is always computed."""
        found = 0
        with self._lock:
            for name in self._names(tokens[:-1]):
                if name not in self._blocks:
                    break
                found += self._block
        return found

    def keep(self, tokens: t.Sequence[str]) -> None:
        """Keep the whole blocks of a prompt and its answer."""
        with self._lock:
            for name in reversed(self._names(tokens)):
                self._blocks[name] = None
                self._blocks.move_to_end(name)
            while len(self._blocks) > self._size:
                self._blocks.popitem(last=False)

    def _names(self, tokens: t.Sequence[str]) -> list[int]:
        names: list[int] = []
        for end in range(self._block, len(tokens) + 1, self._block):
            names.append(hash((names[-1] if names else 0, *tokens[end - self._block : end])))
        return names
