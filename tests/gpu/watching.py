"""An engine under its watchdog: loads in which a hang could be suspected by mistake, then a hang."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import threading
import time
import typing as t
import urllib.error
import urllib.request
from pathlib import Path

from ansible_collections.inference.fleet.plugins.module_utils.edge import haproxy
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES
from ansible_collections.inference.fleet.plugins.module_utils.gate.png import data_url, solid_square
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.host import WatchedInstance
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.processes import cores, processes_of

from tests.gpu.client import IDS, Client, Streams, Workload
from tests.gpu.edge import RealEdge
from tests.gpu.hosts import Host
from tests.gpu.runs import Instance, Run, ask_gate, wait_ready
from tests.gpu.watchdog import HANGS, Stillness, Watchdog, metrics
from tests.project import open_directly

#: Random weights fill the JSON of a tool's arguments with spaces, which the gate refuses rightly.
NOT_GATED = ("forced_tool",)
LEAST_GATED = ("models", "text", "wrong_key")
#: A schema that its compiler has work with.
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "kind", "sizes", "parts"],
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Z][a-z]{2,12}( [A-Z][a-z]{2,12}){0,3}$"},
        "kind": {"enum": [f"kind-{number}" for number in range(64)]},
        "sizes": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 16},
        "parts": {
            "type": "array",
            "maxItems": 8,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["id", "notes"],
                "properties": {
                    "id": {"type": "integer"},
                    "notes": {"anyOf": [{"type": "string", "maxLength": 40}, {"type": "null"}]},
                },
            },
        },
    },
}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large the loads are.

    Attributes:
        streams, tokens: streams at the same time, and the tokens of each.
        prompt: tokens of the long prompt.
        pause: seconds without requests: more than ``idle``.
        burst: requests after it.
        pixels: of a picture's side.
        limits: of the watchdog, as options of module engine_watchdog; those left out are the product's.
        stuck: tokens of a stream that the hang interrupts.
        settle: seconds after a load, in which the watchdog sees its end.
    """

    streams: int = 64
    tokens: int = 400
    prompt: int = 30_000
    pause: float = 70
    burst: int = 128
    pixels: int = 1024
    limits: t.Mapping[str, float] = dataclasses.field(default_factory=dict)
    stuck: int = 6000
    settle: float = 3


#: For an engine that answers at once.
QUICK = Sizes(
    streams=8,
    tokens=20,
    prompt=500,
    pause=4,
    burst=16,
    pixels=64,
    limits={"quiet_seconds": 5, "confirm_seconds": 5, "idle_seconds": 2},
    settle=1,
)


class Watched:
    """One instance on one GPU behind the edge, with the watchdog beside it.

    Args:
        run: the run.
        name: of the step.
        host: this machine, its releases deployed.
        edge: its edge, which runs.
        sizes: of the loads.
    """

    def __init__(self, run: Run, name: str, host: Host, edge: RealEdge, sizes: Sizes) -> None:
        self.run = run
        self.name = name
        self.host = host
        self.edge = edge
        self.sizes = sizes
        (self.instance,) = host.instances
        self.client = edge.client(edge.targets[0])
        # Without it, evidence has no stacks.
        self.watchdog = Watchdog(host, stacks=shutil.which("py-spy") or "", **sizes.limits)
        own = self.instance
        self.watched = WatchedInstance(
            own["index"], own["engine"], "127.0.0.1", own["engine_port"], str(own["served_name"])
        )
        self.stillness = Stillness(self.watched)

    def start(self, what: str) -> bool:
        """Start the instance; whether it serves through the edge."""
        self.host.start(self.instance)
        if not wait_ready(self.run, f"{self.name}: {what}", self.host, self.instance):
            return False
        self.stillness.begin()
        if not self.edge.serve():
            self.run.note(f"{self.name}: {what}", failed="it serves, and the edge does not see that")
            return False
        return True

    def stop(self) -> None:
        self.stillness.rest()
        self.host.stop(self.instance)

    def load(self, what: str, send: t.Callable[[Client, Sizes], dict[str, t.Any]]) -> None:
        """Send one load, and note what the watchdog saw of it."""
        before = self.stillness.finished
        began = time.time()
        try:
            figures = send(self.client, self.sizes)
        except (OSError, urllib.error.URLError, ValueError) as error:
            figures = {"error": repr(error)[:300]}
        took = time.time() - began
        time.sleep(self.sizes.settle)
        self.run.note(
            f"{self.name}: {what}",
            took=round(took, 1),
            **figures,
            **self.stillness.take(),
            finished=self.stillness.finished - before,
            watchdog=self.watchdog.said(),
        )

    def conclude(self, what: str) -> None:
        """Note what the watchdog counts by now."""
        found = metrics()
        self.run.note(
            f"{self.name}: {what}",
            hangs=found.get("hangs_total"),
            restarts=found.get("restarts_total"),
            restarts_by_systemd=self.host.state(self.instance)["NRestarts"],
            evidence=len(list(HANGS.glob("*"))),
        )


def watch(run: Run, engine: str) -> None:
    """One instance on one GPU, under the product's own watchdog."""
    name = f"{engine} under its watchdog"
    if not RealEdge.exists():
        run.note(name, failed="there is no HAProxy here, and the watchdog watches what the edge leads to")
        return
    host = run.host(f"{engine}-one", checked=False)
    with RealEdge(host, run.out / "edge-watch.log") as edge:
        world = Watched(run, name, host, edge, QUICK if run.quick else Sizes())
        try:
            with world.stillness:
                _under_watch(world)
        finally:
            host.stop(world.instance)
            world.watchdog.install("off")
            run.keep_journals(f"watch-{engine}", host)


def _under_watch(world: Watched) -> None:
    world.watchdog.install("observe")
    if not world.start("start"):
        return
    for what, send in FIRST:
        world.load(what, send)
    world.conclude("after all loads")
    asked = {"instances": [dict(world.instance)], "api_key_file": "/etc/inference/engine_key.env"}
    checks = [check for check in world.host.checks if check not in NOT_GATED]
    model = world.instance["served_name"]
    # The gate of the restart asks the same, so it must be one that these weights can pass.
    if not ask_gate(world.run, f"{world.name}: gate", world.host, model=model, checks=checks, **asked):
        ask_gate(world.run, f"{world.name}: smaller gate", world.host, model=model, checks=LEAST_GATED, **asked)
    hang(world)
    if world.run.does("again"):
        world.stop()
        world.watchdog.install("observe")
        if world.start("start again"):
            for what, send in SECOND:
                world.load(what, send)
            world.conclude("after the second start")


def first_picture(client: Client, sizes: Sizes) -> dict[str, t.Any]:
    return _chat(client, _picture(sizes.pixels, sizes.pixels // 8))


def long_prompt(client: Client, sizes: Sizes) -> dict[str, t.Any]:
    return _complete(client, sizes.prompt)


def many_streams(client: Client, sizes: Sizes) -> dict[str, t.Any]:
    return Streams(client, sizes.streams, sizes.tokens).figures(120)


def clients_that_leave(client: Client, sizes: Sizes) -> dict[str, t.Any]:
    """Half of them in the middle of a stream, half while they wait for a whole answer."""

    def leave_stream(_number: int) -> str:
        document = {"messages": _words("Count without end."), "max_tokens": 2000, "ignore_eos": True, "stream": True}
        with client.open("/v1/chat/completions", document) as response:
            return f"{sum(1 for _line, _number in zip(response, range(4)))} lines"

    def leave_answer(number: int) -> str:
        try:
            client.complete(random.Random(number).choices(IDS, k=64), 2000, timeout=1)  # noqa: S311
        except OSError:
            return "left"
        return "answered"

    with concurrent.futures.ThreadPoolExecutor(sizes.streams) as pool:
        half = range(sizes.streams // 2)
        ends = [*pool.map(leave_stream, half), *pool.map(leave_answer, half)]
    return {"ends": {end: ends.count(end) for end in sorted(set(ends))}}


def grammar(client: Client, sizes: Sizes) -> dict[str, t.Any]:
    schema = {"type": "json_schema", "json_schema": {"name": "part", "schema": SCHEMA, "strict": True}}
    return _chat(client, _words("Describe a part as JSON."), response_format=schema, max_tokens=200)


def pause(_client: Client, sizes: Sizes) -> dict[str, t.Any]:
    time.sleep(sizes.pause)
    return {}


def burst(client: Client, sizes: Sizes) -> dict[str, t.Any]:
    return Workload(sizes.burst, sizes.burst, 512, 64).send([client], 7)


def all_at_once(client: Client, sizes: Sizes) -> dict[str, t.Any]:
    """Prompts of lengths that were not asked before, and pictures of another shape."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(_complete, client, sizes.prompt // part + part) for part in (2, 3, 5, 7)]
        asked += [pool.submit(_chat, client, _picture(sizes.pixels // 2 + 96 * number, number)) for number in range(4)]
        return {"statuses": [each.result().get("status") for each in asked]}


#: After a first start, without a warm-up.
FIRST: tuple[tuple[str, t.Callable[[Client, Sizes], dict[str, t.Any]]], ...] = (
    ("first picture", first_picture),
    ("long prompt", long_prompt),
    ("streams at once", many_streams),
    ("clients that leave", clients_that_leave),
    ("grammar", grammar),
    ("pause", pause),
    ("burst after the pause", burst),
)
SECOND = (
    ("other prompts at once after the second start", all_at_once),
    ("streams after the second start", many_streams),
)


def _words(text: str) -> list[dict[str, t.Any]]:
    return [{"role": "user", "content": text}]


def _picture(pixels: int, shade: int) -> list[dict[str, t.Any]]:
    """A question about a square; a seed in it, so that no cache has it."""
    url = data_url(solid_square((shade % 256, 64, 192), pixels))
    text = f"What is in picture {random.random()}?"  # noqa: S311
    return [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]}
    ]


def _chat(client: Client, messages: t.Any, **options: t.Any) -> dict[str, t.Any]:
    document = {"messages": messages, "max_tokens": 16, **options}
    return _figures(lambda: client.open("/v1/chat/completions", document))


def _complete(client: Client, length: int) -> dict[str, t.Any]:
    tokens = random.Random(length).choices(IDS, k=length)  # noqa: S311
    document = {"prompt": tokens, "max_tokens": 16, "temperature": 0, "ignore_eos": True}
    return _figures(lambda: client.open("/v1/completions", document))


def _figures(send: t.Callable[[], t.Any]) -> dict[str, t.Any]:
    try:
        with send() as response:
            return {"status": response.status, "usage": json.load(response).get("usage")}
    except urllib.error.HTTPError as error:
        return {"status": error.code, "error": error.read().decode(errors="replace")[:300]}


class StuckStream(threading.Thread):
    """A stream that a hang interrupts, and how it ends for its client."""

    def __init__(self, client: Client, tokens: int) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._tokens = tokens
        self.chunks = 0
        self.last = ""
        self.ended_at = 0.0
        self.start()

    def run(self) -> None:
        document = {"messages": _words("Count."), "max_tokens": self._tokens, "ignore_eos": True, "stream": True}
        try:
            with self._client.open("/v1/chat/completions", document) as response:
                for line in response:
                    self.chunks += line.startswith(b"data: {")
                    self.last = line.decode(errors="replace").strip()[-200:] or self.last
        except urllib.error.HTTPError as error:
            self.last = f"status {error.code}: {error.read().decode(errors='replace')[:160]}"
        except (OSError, ValueError) as error:
            self.last = repr(error)[:200]
        self.ended_at = time.time()


def hang(world: Watched) -> None:
    """Stop the engine's core while streams run, with a watchdog that acts, and wait until the instance is back."""
    before = set(HANGS.glob("*"))
    counted = metrics()
    world.watchdog.install("act")
    streams = [StuckStream(world.client, world.sizes.stuck) for _ in range(4)]
    until = time.time() + 30
    while not all(stream.chunks for stream in streams) and time.time() < until:
        time.sleep(0.05)
    # The watchdog has seen it well.
    time.sleep(3)
    stopped = stop_core(world.host, world.instance)
    began = time.time()
    world.run.note(f"{world.name}: core stopped", processes=stopped, chunks=[stream.chunks for stream in streams])
    seen = _follow(world, began, list(stopped), streams, counted.get("restarts_total", 0))
    world.stillness.take()
    new = sorted(set(HANGS.glob("*")) - before)
    world.run.note(
        f"{world.name}: hang",
        **seen,
        watchdog=world.watchdog.said(began),
        clients=[{"after": round(each.ended_at - began, 1), "last": each.last} for each in streams],
        restarts_by_systemd=world.host.state(world.instance)["NRestarts"],
        answers=world.client.refusal({}),
        metrics=metrics(),
        evidence=[{path.name: path.stat().st_size for path in sorted(each.iterdir())} for each in new],
    )
    for directory in new:
        _keep_evidence(directory, world.run.out)


def _follow(
    world: Watched, began: float, stopped: list[int], streams: list[StuckStream], restarts: float
) -> dict[str, t.Any]:
    """When the instance was out, its core killed, its clients free, its port open again, and it back."""
    seen: dict[str, t.Any] = {}
    until = began + 300

    def at_first(what: str, happened: bool) -> None:
        if happened and what not in seen:
            seen[what] = round(time.time() - began, 1)

    while time.time() < until and "back" not in seen:
        status = server_status(world.watched.server)
        at_first("out", not status.startswith("UP"))
        if "out" in seen:
            seen.setdefault("edge_said", status)
        at_first("killed", "out" in seen and metrics().get("restarts_total", 0) > restarts)
        at_first("core_gone", bool(stopped) and not any(Path(f"/proc/{pid}").exists() for pid in stopped))
        at_first("clients_free", not any(stream.is_alive() for stream in streams))
        if "killed" in seen and "serves" not in seen:
            world.stillness.rest()
            own = Client(world.instance["engine_port"], str(world.instance["served_name"]), world.host.key())
            at_first("serves", own.health() == 200)
        at_first("back", "serves" in seen and status.startswith("UP") and not metrics().get("out"))
        time.sleep(0.2)
    world.stillness.begin()
    return seen


def stop_core(host: Host, instance: Instance) -> dict[int, str]:
    """Stop the processes that the watchdog takes for the engine's core; their command lines.

    The stand-in for an engine has none of its own and has a fault in its place.
    """
    vitals = ENGINES[instance["engine"]].vitals
    assert vitals is not None
    found = cores(processes_of(int(host.state(instance)["MainPID"])), vitals.core)
    for process in found:
        os.kill(process.pid, signal.SIGSTOP)
    if not found:
        url = f"http://127.0.0.1:{instance['engine_port']}/fake/faults"
        open_directly(urllib.request.Request(url, json.dumps({"freeze": True}).encode()), timeout=10).close()
    return {process.pid: process.command[:120] for process in found}


def server_status(server: str) -> str:
    """HAProxy's word for the state of an instance."""
    for worker in haproxy.workers()[:1]:
        for row in worker.statistics():
            if row["pxname"].startswith("instances_") and row["svname"] == server:
                return row["status"]
    return ""


def _keep_evidence(directory: Path, out: Path) -> None:
    """One file of all evidence, for later reading."""
    with contextlib.suppress(OSError), (out / f"evidence-{directory.name}.txt").open("w", encoding="utf-8") as file:
        for path in sorted(directory.iterdir()):
            file.write(f"==== {path.name}\n{path.read_text(encoding='utf-8', errors='replace')[:20000]}\n")
