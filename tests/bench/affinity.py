"""Whether conversations find their cache again, and how even the load is, beside sessions fixed to an instance.

Four hosts with two instances each behind the real edges at both levels, all on loopback. The engines are stand-ins with
a prefix cache, and all is eight times as fast as with a GPU: answers, pauses, and what home.lua remembers. Nothing else
depends on the speed of this machine than how many requests are in flight.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import http.client
import itertools
import json
import random
import re
import tempfile
import threading
import time
import typing as t
from pathlib import Path

from tests.bench.apart import report as to_output
from tests.bench.engines import CachingEngines, Load
from tests.fakes.engine import MODEL, OTHER_ANSWER, tokens_of
from tests.fakes.prefix_cache import PrefixCache
from tests.integration.edge.conftest import KEY, ROLE, Edge
from tests.integration.edge.fleet import EdgeFleet, wait_for_servers

Report = t.Callable[[str, str], None]

HOSTS, EACH = 4, 2
SESSIONS, TURNS = 200, 10
SPEED = 8
#: Seconds between an answer and the next question, on average.
THINK = 6.4 / SPEED
#: How much of an even share of all tokens an engine's cache holds.
ROOM = 1.5
#: Seconds in which a drained host is noticed, and in which it is away.
NOTICED, AWAY = 1.5, 1.5
#: Every answer of the stand-in.
ANSWER = tokens_of([{"role": "assistant", "content": OTHER_ANSWER}])


@dataclasses.dataclass
class Talk:
    """A conversation.

    Attributes:
        opening: what it begins with: a system prompt, and the first question.
        words: of each further question.
    """

    number: int
    opening: list[dict[str, str]]
    words: int

    def another(self) -> Talk:
        """One about something else, of the same size and with the same system prompt."""
        *system, first = self.opening
        number = self.number + SESSIONS
        return Talk(number, [*system, {**first, "content": f"n{number} {first['content']}"}], self.words)

    def question(self, turn: int) -> dict[str, str]:
        text = " ".join(f"s{self.number}t{turn}w{word}" for word in range(self.words))
        return {"role": "user", "content": text}


def chats(numbers: t.Iterable[int]) -> list[Talk]:
    """Five system prompts of 1,500 words, and questions of 60 to 220."""
    chance = random.Random(1)  # noqa: S311 - a workload, no secret
    prompts = [" ".join(f"p{prompt}w{word}" for word in range(1500)) for prompt in range(5)]
    return [
        Talk(
            number,
            [
                {"role": "system", "content": prompts[number % 5]},
                {"role": "user", "content": " ".join(f"s{number}o{word}" for word in range(chance.randint(60, 220)))},
            ],
            chance.randint(60, 220),
        )
        for number in numbers
    ]


def documents(numbers: t.Iterable[int]) -> list[Talk]:
    """A document of 6,000 words each, and short questions about it."""
    return [
        Talk(number, [{"role": "user", "content": " ".join(f"d{number}w{word}" for word in range(6000))}], 60)
        for number in numbers
    ]


WORKLOADS: dict[str, t.Callable[[], list[Talk]]] = {
    "chat": lambda: chats(range(SESSIONS)),
    "documents": lambda: documents(range(SESSIONS)),
    "mixed": lambda: chats(range(0, SESSIONS, 2)) + documents(range(1, SESSIONS, 2)),
}


class Asked(t.NamedTuple):
    """A request, or with no messages a restart of a host."""

    session: int
    messages: list[dict[str, str]]
    out: frozenset[int]
    restarted: int = -1


class Play:
    """All sessions, each its turns one after the other.

    Args:
        fleet: what they ask.
        talks: the sessions.
    """

    def __init__(self, fleet: EdgeFleet, talks: list[Talk]) -> None:
        self._fleet = fleet
        self._talks = talks
        self.log: list[Asked] = []
        self.out: frozenset[int] = frozenset()
        self.prompted = self.cached = self.failed = 0
        #: Whether new conversations follow those that end.
        self.goes_on = threading.Event()
        self.last: list[Talk] = []
        self._lock = threading.Lock()

    def run(self) -> None:
        with concurrent.futures.ThreadPoolExecutor(len(self._talks)) as pool:
            list(pool.map(self._talks_of_one, self._talks))

    def _talks_of_one(self, talk: Talk) -> None:
        """One conversation, and further ones while it goes on."""
        self._talk(talk)
        while self.goes_on.is_set():
            talk = talk.another()
            self._talk(talk)
        with self._lock:
            self.last.append(talk)

    def restarted(self, host: int) -> None:
        with self._lock:
            self.log.append(Asked(-1, [], self.out, host))

    def _talk(self, talk: Talk) -> None:
        chance = random.Random(talk.number)  # noqa: S311 - a workload, no secret
        ports = [gateway.port for gateway in self._fleet.gateways]
        connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for port in ports]
        messages = list(talk.opening)
        time.sleep(chance.uniform(0, 2 * THINK))
        for turn in range(TURNS):
            if turn:
                messages = [*messages, talk.question(turn)]
            # The next question may come through another gateway.
            connection = connections[(talk.number + turn) % len(connections)]
            with self._lock:
                self.log.append(Asked(talk.number, messages, self.out))
            body = json.dumps({"model": MODEL, "messages": messages})
            headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
            connection.request("POST", "/v1/chat/completions", body, headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
            if response.status != 200:
                with self._lock:
                    self.failed += 1
                continue
            usage = answer["usage"]
            with self._lock:
                self.prompted += usage["prompt_tokens"]
                self.cached += usage["prompt_tokens_details"]["cached_tokens"]
            messages = [*messages, answer["choices"][0]["message"]]
            time.sleep(chance.uniform(0.5, 1.5) * THINK)
        for connection in connections:
            connection.close()


def sticky(log: t.Iterable[Asked], capacity: int, caches: list[PrefixCache]) -> float:
    """The share of cached tokens where each eighth session has an instance, with the same questions in the same order.

    While the host of its instance is away it has another one, always the same. A restart empties the host's caches.
    """
    prompted = cached = 0
    for one in log:
        if one.restarted >= 0:
            for number in range(one.restarted * EACH, (one.restarted + 1) * EACH):
                caches[number] = PrefixCache(capacity)
            continue
        ring = itertools.islice(itertools.cycle(range(len(caches))), one.session, one.session + len(caches))
        cache = caches[next(number for number in ring if number // EACH not in one.out)]
        tokens = tokens_of(one.messages)
        prompted += len(tokens)
        cached += cache.find(tokens)
        cache.keep(tokens + ANSWER)
    return cached / prompted


def capacity_of(talks: list[Talk]) -> int:
    """An engine's cache, in tokens: somewhat more than an even share of all conversations."""
    whole = sum(len(tokens_of(talk.opening)) + (TURNS - 1) * (talk.words + 12) for talk in talks)
    return int(ROOM * whole / (HOSTS * EACH))


class Bench:
    """The fleet with its engines, for one kind of affinity and a number of gateways."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        engines: CachingEngines,
        affinity: str,
        gateways: int,
        variables: t.Mapping[str, t.Any] | None = None,
    ) -> None:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        hosts = {f"inference-{host + 1}": engines.places[host * EACH : (host + 1) * EACH] for host in range(HOSTS)}
        self.engines = engines
        home = place / "home.lua"
        home.write_text(_faster((ROLE / "files" / "home.lua").read_text()))
        common = {"edge_affinity": affinity, "__edge_home_program": str(home)}
        self.fleet = EdgeFleet(
            stack, place, hosts, gateways, {KEY: "team-a"}, variables={**common, **(variables or {})}
        )

    def play(self, talks: list[Talk], restart: bool = False) -> tuple[Play, list[Load]]:
        """One run of a workload."""
        self.engines.count()
        play = Play(self.fleet, talks)
        if restart:
            play.goes_on.set()
        thread = threading.Thread(target=play.run)
        thread.start()
        if restart:
            for host, edge in enumerate(self.fleet.hosts.values()):
                self._restart(play, host, edge)
            play.goes_on.clear()
        thread.join()
        return play, self.engines.loads()

    def _restart(self, play: Play, host: int, edge: Edge) -> None:
        """A turn of a rolling restart: drained as by the rollout, its engines' caches lost, and back."""
        edge.drain(state="lame_duck")
        time.sleep(NOTICED)
        play.out = frozenset({host})
        if not edge.drain(state="drained", wait=30)["idle"]:
            raise SystemExit("bench: a host did not become idle within 30 s")
        for number in range(host * EACH, (host + 1) * EACH):
            self.engines.forget(number)
        play.restarted(host)
        time.sleep(AWAY)
        edge.drain(state="undrained")
        for gateway in self.fleet.gateways:
            wait_for_servers(gateway)
        play.out = frozenset()
        time.sleep(NOTICED)


def evenness(values: t.Sequence[float]) -> float:
    """The most of one, in relation to the mean."""
    return max(values) * len(values) / sum(values)


def affinity(report: Report) -> None:
    """All workloads with affinity through one gateway and two, and without; then through a rolling restart."""
    with CachingEngines(HOSTS * EACH) as engines:
        for kind, gateways in (("prefix", 1), ("prefix", 2), ("none", 1)):
            with contextlib.ExitStack() as stack:
                bench = Bench(stack, engines, kind, gateways)
                for name, make in WORKLOADS.items():
                    talks = make()
                    engines.reset(capacity_of(talks))
                    caches = [PrefixCache(capacity_of(talks)) for _ in range(HOSTS * EACH)]
                    show(
                        report, f"{name}, {kind}, {gateways} gateway(s)", bench.play(talks), capacity_of(talks), caches
                    )
        for gateways in (1, 2):
            with contextlib.ExitStack() as stack:
                rolling(report, Bench(stack, engines, "prefix", gateways))


def rolling(report: Report, bench: Bench) -> None:
    """The mixed workload before, during and after a restart of one host after the other."""
    talks = WORKLOADS["mixed"]()
    capacity = capacity_of(talks)
    bench.engines.reset(capacity)
    caches = [PrefixCache(capacity) for _ in range(HOSTS * EACH)]
    for when in ("before", "during", "after"):
        played = bench.play(talks, restart=when == "during")
        show(
            report, f"mixed, {when} a rolling restart, {len(bench.fleet.gateways)} gateway(s)", played, capacity, caches
        )
        talks = [talk.another() for talk in played[0].last]


def _faster(program: str) -> str:
    """home.lua with as much less memory as time is faster here."""
    found = re.search(r"^local MEMORY = (\d+)$", program, re.MULTILINE)
    if not found:
        raise SystemExit("bench: home.lua has no MEMORY any more: adapt tests/bench/affinity.py")
    return program.replace(found[0], f"local MEMORY = {int(found[1]) / SPEED}")


def show(report: Report, what: str, played: tuple[Play, list[Load]], capacity: int, caches: list[PrefixCache]) -> None:
    play, loads = played
    fixed = sticky(play.log, capacity, caches)
    hits = play.cached / play.prompted
    by_requests = evenness([load.requests for load in loads])
    by_time = evenness([load.running for load in loads])
    running = sum(load.running for load in loads) / len(loads)
    report(
        "affinity",
        f"{what}: hits {hits:.3f} = {hits / fixed:.3f} x sticky ({fixed:.3f}); max/mean {by_requests:.2f} of requests, "
        f"{by_time:.2f} of those in flight (mean {running:.1f}); {play.failed} of {len(play.log)} failed",
    )


if __name__ == "__main__":
    affinity(to_output)
