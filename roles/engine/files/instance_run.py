#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""ExecStart of an engine's unit, as the engines' user: the engine, on one host or on several as one.

usage: instance_run.py ROOT INDEX

On one host this program becomes the engine. Of an instance that spans hosts it stays on each node, the engine's
parent: the nodes keep in touch over their network, start the engine when all of them are there with releases that
agree, and end it on all of them when it ends on one, when one is asked to stop, or when one falls silent. An engine
alone waits for minutes, or for ever, for a node that is gone, and says of itself that it is healthy.

What they say is a line of JSON each:
  hello   a node names its rank and what has to agree    start   the first one: all are there
  alive   each, every ALIVE seconds                      leave   a node was asked to stop: end the engine first
  end     the first one: it has ended, or has to
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
import typing as t

import proxies
import waiting

# Seconds: between signs of life, until silence means that a node is gone, between two attempts to reach the first one,
# and for an engine that lost a node to end by itself.
ALIVE, SILENCE, RETRY, GRACE = 1.0, 10.0, 1.0, 5.0

Line = dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where this node stands."""

    rank: int
    nodes: list[str]
    addresses: list[str]
    port: int
    agreement: str

    @property
    def own(self) -> str:
        return self.addresses[self.rank]


class Peer:
    """The connection to another node."""

    def __init__(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.name = name
        self._reader = reader
        self._writer = writer

    def say(self, what: str, **more: t.Any) -> None:
        if not self._writer.is_closing():
            self._writer.write(json.dumps({"say": what, **more}).encode() + b"\n")

    async def hear(self) -> Line | None:
        """The next line; None when the node is gone, or says nothing for too long."""
        try:
            line = json.loads(await asyncio.wait_for(self._reader.readline(), SILENCE))
        except (OSError, ValueError, asyncio.TimeoutError):
            return None
        return line if isinstance(line, dict) else None

    async def close(self) -> None:
        with contextlib.suppress(OSError, RuntimeError, asyncio.TimeoutError):
            await asyncio.wait_for(self._writer.drain(), GRACE)
        self._writer.close()


class Node:
    """One node's part of the instance."""

    def __init__(self, place: Place, command: list[str], directory: str) -> None:
        self._place = place
        self._command = command
        self._directory = directory
        self._waits_for = ""
        self._peers: list[Peer] = []
        self._told_to_stop = asyncio.Event()
        # The first reason why the engine has to end, and whether it may finish what it works on.
        self._ending: asyncio.Future[tuple[str, bool]] = asyncio.get_running_loop().create_future()
        # It cannot finish anything any more.
        self._broken = asyncio.Event()

    async def run(self) -> int:
        """The status to leave with."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._told_to_stop.set)
        meeting = asyncio.create_task(self._gather() if self._place.rank == 0 else self._join())
        stopping = asyncio.create_task(self._told_to_stop.wait())
        await asyncio.wait({meeting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        waiting.withdraw(self._directory)
        if not meeting.done():
            meeting.cancel()
            return 0
        await meeting
        say(f"all of {', '.join(self._place.nodes)} are there")
        try:
            return await self._together(stopping)
        finally:
            for peer in self._peers:
                await peer.close()

    async def _together(self, stopping: asyncio.Task[t.Any]) -> int:
        engine = await asyncio.create_subprocess_exec(*self._command, start_new_session=True)
        ended = asyncio.create_task(engine.wait())
        talk = [asyncio.create_task(self._listen(peer)) for peer in self._peers]
        talk.append(asyncio.create_task(self._show_life()))
        stopping.add_done_callback(lambda _task: self._stop())
        either: set[asyncio.Future[t.Any]] = {ended, self._ending}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not self._ending.done():
            self._end(f"the engine ended on {self._place.nodes[self._place.rank]} (status {engine.returncode})", False)
        reason, gentle = self._ending.result()
        say(f"{reason}; the instance ends on all of its nodes")
        if not ended.done():
            with contextlib.suppress(ProcessLookupError):
                engine.send_signal(signal.SIGTERM)
            if gentle:
                broken = asyncio.create_task(self._broken.wait())
                await asyncio.wait({ended, broken}, return_when=asyncio.FIRST_COMPLETED)
                broken.cancel()
            await asyncio.wait({ended}, timeout=GRACE)
        # Its own processes, too, which have no peer left to work with.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(engine.pid, signal.SIGKILL)
        await ended
        for peer in self._peers:
            peer.say("end", reason=reason)
        for task in talk:
            task.cancel()
        return 0 if self._told_to_stop.is_set() else 1

    def _end(self, reason: str, gentle: bool) -> None:
        if not gentle:
            self._broken.set()
        if not self._ending.done():
            self._ending.set_result((reason, gentle))

    def _stop(self) -> None:
        """The unit is stopped here. The first node, where requests are answered, goes first."""
        if self._place.rank == 0:
            self._end("it was asked to stop", gentle=True)
        else:
            self._peers[0].say("leave")

    async def _listen(self, peer: Peer) -> None:
        while True:
            line = await peer.hear()
            if line is None:
                return self._end(f"{peer.name} is gone", gentle=False)
            if line.get("say") == "leave":
                self._end(f"{peer.name} was asked to stop", gentle=True)
            elif line.get("say") == "end":
                return self._end(str(line.get("reason") or f"it ended on {peer.name}"), gentle=False)

    async def _show_life(self) -> None:
        while True:
            for peer in self._peers:
                peer.say("alive")
            await asyncio.sleep(ALIVE)

    def _wait(self, kind: str, what: str) -> None:
        """Say what the start waits for, in the journal for people and in a file for programs."""
        if what != self._waits_for:
            self._waits_for = what
            waiting.announce(self._directory, waiting.Waiting(kind, what, time.time()))
            say(f"{what}; the start waits")

    async def _gather(self) -> None:
        """The first node waits for the others. One that comes again takes the place of its earlier connection."""
        place = self._place
        there: dict[int, Peer] = {}
        complete = asyncio.Event()
        watching: list[asyncio.Task[None]] = []

        async def watch(rank: int, peer: Peer) -> None:
            """Keep in touch with a node until all are there, and forget it when it leaves."""
            while await peer.hear():
                peer.say("alive")
            if there.get(rank) is peer:
                del there[rank]
                self._wait(waiting.NODES_MISSING, f"{peer.name} left; {missing(place, there)}")

        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            hello = await Peer("", reader, writer).hear() or {}
            rank, agreement = hello.get("rank"), hello.get("agreement")
            if complete.is_set() or not isinstance(rank, int) or not 0 < rank < len(place.nodes):
                return writer.close()
            peer = Peer(place.nodes[rank], reader, writer)
            if agreement != place.agreement:
                text = f"{peer.name} has another release; {missing(place, there)}"
                self._wait(waiting.RELEASE_DIFFERS, text)
                peer.say("end", reason=f"{place.nodes[0]} has another release")
                return await peer.close()
            there[rank] = peer
            if len(there) == len(place.nodes) - 1:
                return complete.set()
            self._wait(waiting.NODES_MISSING, missing(place, there))
            watching.append(asyncio.create_task(watch(rank, peer)))

        server = await listen(place, greet)
        self._wait(waiting.NODES_MISSING, missing(place, there))
        try:
            await complete.wait()
        finally:
            server.close()
            for task in watching:
                task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        self._peers = [there[rank] for rank in sorted(there)]
        for peer in self._peers:
            peer.say("start")

    async def _join(self) -> None:
        """The other nodes come to the first one, as often as it takes."""
        place = self._place
        first = place.nodes[0]
        while True:
            why = waiting.NODES_MISSING, f"{first} ({place.addresses[0]}:{place.port}) does not answer"
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                meeting = asyncio.open_connection(place.addresses[0], place.port, local_addr=(place.own, 0))
                peer = Peer(first, *await asyncio.wait_for(meeting, SILENCE))
                peer.say("hello", rank=place.rank, agreement=place.agreement)
                answer = await self._answer(peer)
                if answer.get("say") == "start":
                    self._peers = [peer]
                    return
                await peer.close()
                why = waiting.NODES_MISSING, f"{first} does not start"
                if answer.get("reason"):
                    why = waiting.RELEASE_DIFFERS, str(answer["reason"])
            self._wait(*why)
            await asyncio.sleep(RETRY)

    @staticmethod
    async def _answer(peer: Peer) -> Line:
        """What the first node says once all are there, which may take long."""

        async def live() -> None:
            while True:
                await asyncio.sleep(ALIVE)
                peer.say("alive")

        life = asyncio.create_task(live())
        try:
            while True:
                line = await peer.hear()
                if line is None or line.get("say") in ("start", "end"):
                    return line or {}
        finally:
            life.cancel()


def missing(place: Place, there: t.Collection[int]) -> str:
    names = [place.nodes[rank] for rank in range(1, len(place.nodes)) if rank not in there]
    return f"not there yet: {', '.join(names)}"


async def listen(
    place: Place, greet: t.Callable[[asyncio.StreamReader, asyncio.StreamWriter], t.Awaitable[None]]
) -> asyncio.Server:
    try:
        return await asyncio.start_server(greet, place.own, place.port)
    except OSError as error:
        sys.exit(f"this node cannot listen on {place.own}:{place.port}: {error.strerror}; see fleet_node_address")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    root, index = sys.argv[1:]
    # An engine asks itself whether it is ready.
    os.environ.update(proxies.exempt_own(os.environ))
    release = os.path.join(root, "instances", index, "current")
    with open(os.path.join(release, "manifest.json"), encoding="utf-8") as file:
        manifest = json.load(file)
    program, *words = manifest["command"]
    runtime_directory = os.environ["RUNTIME_DIRECTORY"]
    config = os.path.join(runtime_directory, "config.yaml")
    words = [os.path.join(release, word) if word in manifest["files"] else word for word in words]
    command = [os.path.join(release, "runtime", program), *words, config]
    span = manifest["span"]
    if not span:
        os.execv(command[0], command)  # noqa: S606 - there is no shell
    place = Place(span["rank"], span["nodes"], span["addresses"], span["link_port"], manifest["agreement"])

    async def node() -> int:
        return await Node(place, command, runtime_directory).run()

    sys.exit(asyncio.run(node()))


if __name__ == "__main__":
    main()
