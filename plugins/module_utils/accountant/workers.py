# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What the accountant has to do with HAProxy's socket: refusals for the time without it, and processes that wait."""

from __future__ import annotations

import asyncio
import contextlib
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.accountant.ledger import Admission, Shortfall

#: The table in HAProxy's configuration.
TABLE = "verdicts"
#: The ring there.
RING = "accountant"
#: A refusal without an end: the largest number that a table has room for.
FOR_EVER = 2**32 - 1
#: Seconds for an answer.
_PATIENCE = 2.0
#: Seconds for which a process is kept that a reload has left: it may have a request that has booked nothing yet.
_LINGERS = 2.0
#: Seconds between two tries to reach one process.
_RETRY = 1.0
_PID = re.compile(rb"^Pid: (\d+)", re.MULTILINE)
_NAME = re.compile(r"[\w.@-]+")
#: What holds until its end. Bookings end by themselves.
_ENTRIES = {Shortfall.TOKENS: "tokens", Shortfall.SPENT: "budget"}


class LastVerdicts:
    """The refusals that HAProxy goes by while no accountant answers.

    Args:
        socket: of HAProxy.
        say: prints a line for people.
    """

    def __init__(self, socket: str, say: t.Callable[[str], None]) -> None:
        self._socket = socket
        self._say = say
        self._known: dict[str, int] = {}
        self._waiting: dict[str, int] = {}
        self._problem = ""

    def note(self, client: str, decision: Admission, now: float) -> None:
        """Keep what a client's request got, for the next one."""
        for finding, what in _ENTRIES.items():
            entry = f"{client}/{what}"
            if decision.finding is finding:
                until = int(now) + decision.wait if decision.wait else FOR_EVER
            elif decision.finding is None:
                until = 0
            else:
                continue
            # Seconds make no difference here.
            if abs(self._known.get(entry, 0) - until) > 1 and _NAME.fullmatch(client):
                self._known[entry] = self._waiting[entry] = until

    def note_reached(self, client: str, decisions: t.Iterable[Admission], now: float) -> None:
        """Keep the limits that a client has reached, before a request meets them."""
        for decision in decisions:
            self.note(client, decision, now)

    def repeat(self) -> None:
        """Say all of it once more, to a new process."""
        self._waiting.update({entry: until for entry, until in self._known.items() if until})

    async def send(self) -> None:
        """Say what is new."""
        while self._waiting:
            entry, until = next(iter(self._waiting.items()))
            try:
                answer = await asyncio.wait_for(
                    _ask(self._socket, f"set table {TABLE} key {entry} data.gpt0 {until}"), _PATIENCE
                )
            except (OSError, asyncio.TimeoutError) as error:
                self._complain(f"{self._socket} does not answer: {error or 'no answer in time'}")
                return
            if answer.strip():
                self._complain(f"HAProxy does not take a verdict: {answer.strip()[:100]}")
            if self._waiting.get(entry) == until:
                del self._waiting[entry]

    def _complain(self, problem: str) -> None:
        if problem != self._problem:
            self._say(problem)
        self._problem = problem


class HeldWorkers:
    """HAProxy's processes, each kept by an open connection to its socket until its last lines have come.

    One that a reload has left sends nothing over its ring any more, and ends with its last request. So it is asked for
    the ring's lines on that connection, which keeps it, too.

    Args:
        socket: of HAProxy; the newest process listens there.
        clock: seconds that only grow.
        take: gets each line of the ring of a process that a reload has left, also those that it has sent before.
    """

    def __init__(self, socket: str, clock: t.Callable[[], float], take: t.Callable[[bytes], None]) -> None:
        self._socket = socket
        self._clock = clock
        self._take = take
        self._held: dict[int, asyncio.StreamWriter] = {}
        self._left: dict[int, float] = {}
        self._newest = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._tried: dict[int, float] = {}
        self._lock = asyncio.Lock()

    def hold_soon(self, worker: int) -> None:
        """Keep a process, if it is the newest one and not kept yet."""
        held, now = self._held.get(worker), self._clock()
        if (held and not held.is_closing()) or now - self._tried.get(worker, -_RETRY) < _RETRY:
            return
        self._tried = {pid: tried for pid, tried in self._tried.items() if now - tried < _RETRY}
        self._tried[worker] = now
        self._begin(self._hold())

    async def _hold(self) -> None:
        async with self._lock:
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                pid, reader, writer = await asyncio.wait_for(self._connect(), _PATIENCE)
                former = self._held.pop(pid, None)
                if former:
                    former.close()
                self._held[pid] = writer
                self._newest = pid
                self._begin(self._read(reader, writer))
                for left in [one for held, one in self._held.items() if held != pid]:
                    left.write(f"show events {RING} -w\n".encode())

    def let_go(self, needed: t.Collection[int]) -> None:
        """Let processes end that a reload has left and whose lines have come."""
        now = self._clock()
        for pid, writer in list(self._held.items()):
            if pid == self._newest or pid in needed:
                self._left.pop(pid, None)
            elif now - self._left.setdefault(pid, now) >= _LINGERS:
                writer.close()
                del self._held[pid], self._left[pid]

    def close(self) -> None:
        for writer in self._held.values():
            writer.close()
        self._held.clear()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            # A line that is too long is none of the ring's.
            while True:
                try:
                    line = await reader.readline()
                except ValueError:
                    continue
                if not line:
                    break
                self._take(line)
        writer.close()

    def _begin(self, work: t.Coroutine[t.Any, t.Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> tuple[int, asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_unix_connection(self._socket)
        try:
            # Interactive, and with no end of its own.
            writer.write(b"prompt\nset timeout cli 86400\nshow info\n")
            seen = b""
            while not (found := _PID.search(seen)):
                more = await reader.read(4096)
                if not more:
                    raise ConnectionResetError("HAProxy has closed the connection")
                seen += more
        except BaseException:
            writer.close()
            raise
        return int(found[1]), reader, writer


async def _ask(path: str, command: str) -> str:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(command.encode() + b"\n")
        return (await reader.read(-1)).decode("utf-8", "replace")
    finally:
        writer.close()
