"""What it is worth that a conversation meets the same instance: real engines behind the edge.

Sessions run at the same time, each with turns that repeat all before them. They go through the edge with its affinity,
through the edge without it, and, as the most that affinity can do, from a client that sends each session to one
instance. Each has texts of its own, so that none finds what another one has left in a cache.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import random
import statistics
import time
import typing as t
import urllib.error
import zlib

from tests.gpu.client import Client
from tests.gpu.edge import RealEdge
from tests.gpu.hosts import Host
from tests.gpu.runs import Run, client_of, run_bundle, stop, wait_ready

#: The words of the texts.
WORDS = ("river", "stone", "paper", "green", "seven", "under", "light", "house", "carry", "north", "glass", "water")

Messages = list[dict[str, str]]
#: The port that a session's next request goes to.
Choose = t.Callable[[int], Client]


@dataclasses.dataclass(frozen=True)
class Sessions:
    """Conversations at the same time.

    Attributes:
        count: of them.
        turns: of each.
        shared: tokens of the instructions that all begin with.
        own: tokens of the document that each is about.
        question: tokens of a turn.
        answer: tokens of its answer.
        pauses: seconds between an answer and the next turn, at least and at most.
    """

    count: int
    turns: int
    shared: int
    own: int
    question: int
    answer: int = 128
    pauses: tuple[float, float] = (0.5, 3.0)


#: For two instances with 8 GiB of KV cache each.
WORKLOADS = {
    "chat": Sessions(count=44, turns=8, shared=1500, own=0, question=150),
    "documents": Sessions(count=10, turns=5, shared=0, own=8000, question=60),
}
QUICK = {"chat": Sessions(count=6, turns=3, shared=100, own=0, question=20, answer=8, pauses=(0.0, 0.1))}


@dataclasses.dataclass(frozen=True)
class Turn:
    """What a turn was like: seconds to its first piece and to its end, and its tokens."""

    number: int
    first: float
    seconds: float
    prompt: int
    cached: int
    completion: int
    text: str


def make_text(numbers: random.Random, tokens: float, words_per_token: float) -> str:
    """A text of about so many tokens."""
    return " ".join(numbers.choices(WORDS, k=max(1, round(tokens * words_per_token))))


def ask(client: Client, messages: Messages, answer: int, number: int) -> Turn:
    """One turn, as a stream."""
    document = {
        "messages": messages,
        "max_tokens": answer,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began = time.monotonic()
    first, usage, text = 0.0, None, ""
    with client.open("/v1/chat/completions", document) as response:
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            usage = event.get("usage") or usage
            for choice in event.get("choices", []):
                first = first or time.monotonic() - began
                text += choice["delta"].get("content") or ""
    if usage is None:
        raise OSError("the stream ended without its usage")
    details = usage.get("prompt_tokens_details") or {}
    return Turn(
        number, first, time.monotonic() - began, usage["prompt_tokens"], details.get("cached_tokens") or 0,
        usage["completion_tokens"], text,
    )  # fmt: skip


def measure_words(client: Client) -> float:
    """Words of a text for each token that the engine counts."""
    numbers = random.Random(time.time())  # noqa: S311
    short, long = (
        ask(client, [{"role": "user", "content": make_text(numbers, words, 1)}], 1, 0).prompt for words in (100, 1100)
    )
    return 1000 / max(1, long - short)


def converse(sessions: Sessions, number: int, choose: Choose, shared: str, seed: str, words: float) -> list[Turn]:
    """One session, to its end."""
    numbers = random.Random(f"{seed} {number}")  # noqa: S311
    messages: Messages = [{"role": "system", "content": shared}] if shared else []
    turns: list[Turn] = []
    time.sleep(numbers.uniform(0, sessions.pauses[1]))
    for turn in range(sessions.turns):
        question = make_text(numbers, sessions.question + (0 if turn else sessions.own), words)
        messages.append(
            {"role": "user", "content": f"Session {number} of {seed}: {question}" if not turn else question}
        )
        turns.append(ask(choose(number), messages, sessions.answer, turn))
        messages.append({"role": "assistant", "content": turns[-1].text})
        time.sleep(numbers.uniform(*sessions.pauses))
    return turns


def hold(sessions: Sessions, choose: Choose, words: float) -> dict[str, t.Any]:
    """All sessions at the same time, and how their answers came."""
    seed = f"{time.time():.3f}"
    shared = make_text(random.Random(seed), sessions.shared, words) if sessions.shared else ""  # noqa: S311
    began = time.monotonic()
    turns: list[Turn] = []
    errors: list[str] = []
    with concurrent.futures.ThreadPoolExecutor(sessions.count) as pool:
        running = [
            pool.submit(converse, sessions, number, choose, shared, seed, words) for number in range(sessions.count)
        ]
        for one in running:
            try:
                turns += one.result()
            except (OSError, urllib.error.URLError) as error:
                errors.append(repr(error)[:200])
    return {**figures(turns, time.monotonic() - began), "sessions": sessions.count, "errors": errors[:3]}


def figures(turns: t.Sequence[Turn], seconds: float) -> dict[str, t.Any]:
    """Hits are the share of the prompts' tokens that the engines had; times are in milliseconds."""
    later = [turn.first * 1000 for turn in turns if turn.number]
    whole = [turn.seconds * 1000 for turn in turns]
    prompt = sum(turn.prompt for turn in turns)
    return {
        "answers": len(turns),
        "prompt_tokens": prompt,
        "hits": round(sum(turn.cached for turn in turns) / prompt, 3) if prompt else None,
        "later_first_token_ms": percentiles(later),
        "answer_ms": percentiles(whole),
        "tokens_per_second": round(sum(turn.completion for turn in turns) / seconds, 1),
    }


def percentiles(values: t.Sequence[float]) -> dict[str, float] | None:
    if len(values) < 2:
        return None
    parts = statistics.quantiles(values, n=20, method="inclusive")
    return {"p50": round(parts[9], 1), "p95": round(parts[18], 1)}


def affinity(run: Run, engine: str) -> None:
    """Two instances with a GPU each, and the three ways to them."""
    host = run.host(f"{engine}-affine", checked=False)
    # The same instances, behind an edge without affinity.
    without = Host(run_bundle(run, f"{engine}-spread"), run.sites)
    try:
        for instance in host.instances:
            host.start(instance)
        if not all([wait_ready(run, f"affinity: start of {each['name']}", host, each) for each in host.instances]):
            return
        direct = [client_of(host, instance) for instance in host.instances]
        words = measure_words(direct[0])
        run.note("affinity: words for each token", words=round(words, 3))
        for name, sessions in (QUICK if run.quick else WORKLOADS).items():
            found = hold(sessions, lambda number: direct[zlib.crc32(b"%d" % number) % len(direct)], words)
            run.note(f"affinity: {name}, each session at one instance", **found)
            for way, edge_host in (("affinity", host), ("the fewest requests", without)):
                with RealEdge(edge_host, run.out / f"edge-{name}-{edge_host.bundle.stem}.log") as edge:
                    edge.serve()
                    client = edge.client(edge.targets[0])
                    found = hold(sessions, lambda _number, client=client: client, words)  # type: ignore[misc]
                    answered = edge.instances_of()
                shares = {each: answered.count(each) for each in sorted(set(answered))}
                run.note(f"affinity: {name}, the edge by {way}", **found, answered=shares)
        for instance in host.instances:
            stop(run, f"affinity: stop of {instance['name']}", host, instance)
    finally:
        for instance in host.instances:
            host.stop(instance)
        run.keep_journals("affinity", host)
