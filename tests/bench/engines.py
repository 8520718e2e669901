"""Stand-in engines with a prefix cache, in a process of their own, so that they do not wait for their clients."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import threading
import time
import typing as t

from tests.fakes.engine import FakeEngine
from tests.fakes.prefix_cache import PrefixCache

#: Seconds for a token of an answer, and for one of a prompt that is not in the cache: eight times real speed.
TOKEN, PREFILL = 0.03, 1 / 56_000
LOOK = 0.01


@dataclasses.dataclass(frozen=True)
class Place:
    """Where an engine listens."""

    port: int


class Load(t.NamedTuple):
    """What an engine has done since its last reset: its requests, and how many ran at once on average."""

    requests: int
    running: float


class CachingEngines:
    """The engines. Use it as a context manager.

    Args:
        count: how many there are.
    """

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(count, other), daemon=True)
        self.places: list[Place] = []

    def __enter__(self) -> CachingEngines:
        self._process.start()
        self.places = [Place(port) for port in self._pipe.recv()]
        return self

    def __exit__(self, *_exception: object) -> None:
        self._pipe.send(("end",))
        self._process.join(10)
        self._process.kill()

    def reset(self, capacity: int) -> None:
        """Count from zero, with empty caches of so many tokens."""
        self._ask("reset", capacity)

    def forget(self, engine: int) -> None:
        """What a restart does to a cache."""
        self._ask("forget", engine)

    def count(self) -> None:
        """Count from zero, and keep the caches."""
        self._ask("count")

    def loads(self) -> list[Load]:
        return [Load(*one) for one in self._ask("loads")]

    def _ask(self, *words: t.Any) -> t.Any:
        self._pipe.send(words)
        return self._pipe.recv()


def _serve(count: int, pipe: multiprocessing.connection.Connection) -> None:
    with contextlib.ExitStack() as stack:
        engines = [
            stack.enter_context(FakeEngine(cache=PrefixCache(0), token=TOKEN, prefill=PREFILL, remember=False))
            for _ in range(count)
        ]
        pipe.send([engine.port for engine in engines])
        seen = [[0.0, 0.0] for _ in engines]
        done = threading.Event()
        threading.Thread(target=_watch, args=(engines, seen, done), daemon=True).start()
        capacity = 0
        while (words := pipe.recv())[0] != "end":
            found: t.Any = None
            if words[0] == "reset":
                capacity = words[1]
                for engine in engines:
                    engine.cache = PrefixCache(capacity)
            elif words[0] == "forget":
                engines[words[1]].cache = PrefixCache(capacity)
            if words[0] in ("reset", "count"):
                for engine, one in zip(engines, seen, strict=True):
                    engine.finished = 0
                    one[:] = [0.0, 0.0]
            elif words[0] == "loads":
                found = [
                    (engine.finished, one[0] / max(one[1], LOOK)) for engine, one in zip(engines, seen, strict=True)
                ]
            pipe.send(found)
        done.set()


def _watch(engines: list[FakeEngine], seen: list[list[float]], done: threading.Event) -> None:
    """Sum up what runs, over time."""
    before = time.monotonic()
    while not done.wait(LOOK):
        now = time.monotonic()
        for engine, one in zip(engines, seen, strict=True):
            one[0] += engine.running * (now - before)
            one[1] += now - before
        before = now
