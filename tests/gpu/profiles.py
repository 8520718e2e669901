"""What a profile is worth: the same load for several settings, each on a GPU and a host of its own.

``profiles:A,B,C`` takes the hosts of tests/gpu/inventory.yml two at a time, or one where the machine has one GPU. Each
runs as on another machine: directories, network and GPU are its own.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import random
import statistics
import subprocess
import sys
import time
import typing as t
import urllib.error

from tests.gpu.client import IDS, Client
from tests.gpu.hosts import ROOT, Host
from tests.gpu.runs import Instance, Run, client_of, rows, serve
from tests.gpu.spaces import Space, SpaceError


@dataclasses.dataclass(frozen=True)
class Load:
    """Streams of random prompts, which no cache has.

    Attributes:
        requests: in all.
        at_once: in flight at a time.
        prompt: tokens of a prompt.
        answer: tokens of an answer; the mean of them where they vary.
        varied: whether answers have a quarter to seven quarters of that. Answers of one length end together, so that
            the next prompts come at once as well, and each waits for the others.
    """

    requests: int
    at_once: int
    prompt: int = 896
    answer: int = 128
    varied: bool = False

    def answers(self, numbers: random.Random) -> list[int]:
        """Tokens of each answer."""
        if not self.varied:
            return [self.answer] * self.requests
        return [numbers.randint(self.answer // 4, self.answer * 7 // 4) for _ in range(self.requests)]


#: Runs before the others and is not reported.
WARM_UP = Load(requests=16, at_once=16)
_ONCE = (Load(8, 1), Load(160, 32), Load(320, 32, prompt=768, varied=True), Load(256, 64))
#: Each load runs twice, which shows the spread.
LOADS = _ONCE * 2
QUICK = (Load(2, 1, 20, 4), Load(8, 4, 20, 4), Load(8, 4, 20, 8, varied=True))


@dataclasses.dataclass(frozen=True)
class Stream:
    """One answer: seconds to its first piece, from there to its end, its longest gap, and its tokens."""

    first: float
    rest: float
    gap: float
    tokens: int


def stream(client: Client, prompt: list[int], answer: int) -> Stream:
    """One answer, piece by piece.

    Raises:
        OSError: it ended early, or the port refused it.
    """
    document = {"prompt": prompt, "max_tokens": answer, "temperature": 0, "ignore_eos": True, "stream": True}
    began = time.monotonic()
    moments: list[float] = []
    ended = False
    with client.open("/v1/completions", document) as response:
        for line in response:
            if line.startswith(b"data: {"):
                moments.append(time.monotonic())
            ended = ended or line.startswith(b"data: [DONE]")
    if not ended or len(moments) < 2:
        raise OSError(f"the stream ended after {len(moments)} pieces")
    gaps = [later - earlier for earlier, later in zip(moments, moments[1:])]
    return Stream(moments[0] - began, moments[-1] - moments[0], max(gaps), answer)


def send(client: Client, load: Load, seed: int) -> dict[str, t.Any]:
    """Send a load, and say how fast the answers came."""
    numbers = random.Random(seed)  # noqa: S311
    questions = [(numbers.choices(IDS, k=load.prompt), answer) for answer in load.answers(numbers)]
    failed: list[str] = []

    def ask(question: tuple[list[int], int]) -> Stream | None:
        try:
            return stream(client, *question)
        except (OSError, urllib.error.URLError) as error:
            failed.append(repr(error)[:200])
            return None

    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(load.at_once) as pool:
        found = [one for one in pool.map(ask, questions) if one]
    took = time.monotonic() - began
    return {"at_once": load.at_once, "varied": load.varied, "failed": failed[:3], **figures(found, took)}


def figures(found: t.Sequence[Stream], seconds: float) -> dict[str, t.Any]:
    """Times in milliseconds; the time of a token is a stream's rest shared by its tokens."""
    tokens = [one.rest / (one.tokens - 1) for one in found]
    return {
        "requests": len(found),
        "seconds": round(seconds, 2),
        "tokens_per_second": round(sum(one.tokens for one in found) / seconds, 1),
        "first_token_ms": middle_and_high([one.first for one in found]),
        "token_ms": middle_and_high(tokens),
        "longest_gap_ms": middle_and_high([one.gap for one in found]),
    }


def middle_and_high(values: t.Sequence[float]) -> dict[str, float] | None:
    """The median and the 95th percentile of some seconds, in milliseconds."""
    if len(values) < 2:
        return None
    high = statistics.quantiles(values, n=20, method="inclusive")[18]
    return {"p50": round(statistics.median(values) * 1000, 1), "p95": round(high * 1000, 1)}


def profile(run: Run, name: str) -> None:
    """One host with one instance, and the loads."""

    def send_loads(host: Host, instance: Instance) -> None:
        client = client_of(host, instance)
        send(client, QUICK[0] if run.quick else WARM_UP, int(time.time()))
        for load in QUICK if run.quick else LOADS:
            run.note(
                f"{name}: load", **send(client, load, time.time_ns()), memory=rows("--query-gpu=index,memory.used")
            )

    serve(run, name, send_loads)


def profiles(run: Run, names: str) -> None:
    """Some hosts, as many at a time as there are GPUs."""
    count = len(rows("--query-gpu=uuid"))
    left = names.split(",")
    while left:
        now, left = left[:count], left[count:]
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda pair: on(run, f"{pair[0]}:profile:{pair[1]}"), enumerate(now)))


def on(run: Run, argument: str) -> None:
    """A step on one of the machine's GPUs, as on a host of its own, so that others can run beside it."""
    gpu, _colon, step = argument.partition(":")
    error = apart(run, int(gpu), step)
    if error:
        run.note(f"{step}: broke off", error=error)


def apart(run: Run, gpu: int, step: str) -> str:
    """Do a step in namespaces of its own; what went wrong, or nothing."""
    hidden = [other for other in range(len(rows("--query-gpu=uuid"))) if other != gpu]
    words = [sys.executable, "-m", "tests.gpu.several", step, *run.words]
    try:
        with Space(f"gpu-{gpu}", hide_gpus=hidden, own=True) as space:
            done = subprocess.run(
                [*space.prefix, *words], cwd=ROOT, capture_output=True, text=True, timeout=900, check=False
            )
    except (SpaceError, OSError, subprocess.TimeoutExpired) as error:
        return repr(error)
    print(done.stdout, end="", flush=True)
    return "" if done.returncode == 0 else (done.stdout + done.stderr)[-1500:]
