# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The program of inference-accountant.service: limits on tokens at a gateway that is HAProxy alone.

Module gateway_accountant installs it. HAProxy asks it before it lets a request of a client with such a limit through
(roles/edge/files/account.lua), and sends the request's line of the access log over a ring when it has ended. What it
must remember is in a file, and in the gateways' Redis where there is one, so it may end at any moment. While it is gone
HAProxy lets requests through by the last verdicts, and keeps their lines.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import grp
import json
import os
import signal
import socket
import struct
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.accountant import exposition, lines, shared
from ansible_collections.inference.fleet.plugins.module_utils.accountant.bounds import BoundsFile
from ansible_collections.inference.fleet.plugins.module_utils.accountant.ledger import (
    WINDOW,
    Admission,
    Booking,
    ClientBounds,
    Ledger,
    Posting,
    PriceList,
    Shortfall,
    wait_for,
)
from ansible_collections.inference.fleet.plugins.module_utils.accountant.settings import (
    AccountantSettings,
    read_settings,
)
from ansible_collections.inference.fleet.plugins.module_utils.accountant.workers import HeldWorkers, LastVerdicts
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_json, write_atomically
from ansible_collections.inference.fleet.plugins.module_utils.core.modes import make_directories
from ansible_collections.inference.fleet.plugins.module_utils.gateway import redis
from ansible_collections.inference.fleet.plugins.module_utils.watchdog.notify import notify

#: The sockets in the directory that HAProxy sees.
ASK, RING = "ask", "ring"
#: Seconds between two writes of the file: what a killed accountant forgets at most.
SAVE = 0.5
_TICK = 1.0
_METRICS = 15.0
#: Seconds in which lines that have been sent are still read at a stop.
_LAST_LINES = 0.3
_BACKLOG = 1024
#: A process's pid, user and group, as the kernel gives them.
_PEER = struct.Struct("3i")


class Accountant:
    """The service.

    Args:
        settings: of this gateway.
        say: prints a line for people.
    """

    def __init__(self, settings: AccountantSettings, say: t.Callable[[str], None]) -> None:
        self._settings = settings
        self._say = say
        self._bounds = BoundsFile(settings.keys_map, say)
        self._ledger = Ledger(settings.gateways, PriceList(settings.prices), settings.patience)
        self._store: shared.SharedAccounts | None = None
        if settings.redis_url:
            address = redis.parse(settings.redis_url, "gateway_redis_url")
            self._store = shared.SharedAccounts(address, time.monotonic, say)
        self._verdicts = LastVerdicts(settings.socket, say)
        self._workers = HeldWorkers(settings.socket, time.monotonic, self._take_former_line)
        self._postings: asyncio.Queue[Posting] = asyncio.Queue()
        self._reporting = asyncio.Lock()
        self._asked: set[str] = set()
        self._changed = False
        self._skipped = 0
        self._expired = 0
        self._connections: set[asyncio.Task[None]] = set()

    async def run(self, ended: asyncio.Event) -> None:
        """Serve until ``ended``."""
        self._restore()
        servers = [await self._listen(ASK, self._answer), await self._listen(RING, self._take_lines)]
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(work()) for work in (self._report, self._keep_file, self._tick, self._renew)]
        notify("READY=1")
        self._say(
            f"Counting for {self._settings.gateways} gateways, "
            + (
                f"together in {redis.parse(self._settings.redis_url, 'gateway_redis_url').place}."
                if self._store
                else "each for itself."
            )
        )
        stop = loop.create_task(ended.wait())
        done, _rest = await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for server in servers:
            server.close()
        await asyncio.sleep(_LAST_LINES)
        for task in [*tasks, stop, *self._connections]:
            task.cancel()
        self._write(self._document())
        self._workers.close()
        if self._store:
            await self._store.close()
        for task in done - {stop}:
            task.result()

    # What HAProxy asks, and what it sends.

    async def _listen(
        self,
        name: str,
        serve: t.Callable[[asyncio.StreamReader, asyncio.StreamWriter], t.Coroutine[t.Any, t.Any, None]],
    ) -> asyncio.AbstractServer:
        path = os.path.join(self._settings.directory, name)
        make_directories(self._settings.directory, 0o750)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

        async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = t.cast("asyncio.Task[None]", asyncio.current_task())
            self._connections.add(task)
            try:
                await serve(reader, writer)
            except (OSError, asyncio.CancelledError, ValueError) as error:
                if isinstance(error, ValueError):
                    self._say(f"A line on {path} cannot be read: {error}")
            finally:
                self._connections.discard(task)
                writer.close()

        server = await asyncio.start_unix_server(served, path, backlog=_BACKLOG)
        group = grp.getgrnam(self._settings.group).gr_gid
        for place, mode in ((self._settings.directory, 0o750), (path, 0o660)):
            os.chown(place, -1, group)
            os.chmod(place, mode)
        return server

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request that wants to be let through."""
        words = (await reader.readline()).decode("utf-8", "replace").split()
        if len(words) != 5:
            return
        request, client, model = words[:3]
        decision = await self.decide(request, client, model, int(words[3]), int(words[4]), _peer(writer))
        writer.write(f"{decision.finding.value if decision.finding else 'ok'} {decision.wait}\n".encode())
        await writer.drain()

    async def _take_lines(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The lines of requests that have ended, from one process of HAProxy."""
        self._workers.hold_soon(_peer(writer))
        self._verdicts.repeat()
        stream = lines.LineReader()
        while data := await reader.read(65536):
            for line in stream.feed(data):
                use = lines.parse(line)
                if use:
                    self._settle(use)
            self._skipped += stream.skipped
            stream.skipped = 0

    async def decide(
        self, request: str, client: str, model: str, prompt: int, completion: int, worker: int
    ) -> Admission:
        """Whether a request is let through. What it may use is booked then."""
        bounds, now = self._bounds.of(client), time.time()
        if not bounds.tokens and not bounds.budget:
            return Admission()
        self._asked.add(client)
        booking = self._ledger.book(request, client, bounds, model, prompt, completion, worker, now)
        decision = Admission()
        if bounds.tokens:
            decision = await self._decide_tokens(request, booking, bounds, now)
        if bounds.budget and not decision.finding:
            decision = await self._decide_budget(request, booking, bounds, now)
            if decision.finding and bounds.tokens:
                # Its tokens may have been booked in Redis.
                self._postings.put_nowait(Posting(request, client, "", 0, int(now)))
        if decision.finding:
            self._ledger.cancel(request)
        else:
            booking.sure = True
            self._changed = True
            self._workers.hold_soon(worker)
        self._verdicts.note(client, decision, now)
        return decision

    async def _decide_tokens(self, request: str, booking: Booking, bounds: ClientBounds, now: float) -> Admission:
        key = shared.tokens_key(booking.client)
        if self._store:
            answer = await self._store.book(
                key, bounds.tokens, booking.tokens, request, now, shared.TOKENS_KEPT, WINDOW
            )
            if answer:
                wait = wait_for(answer.seconds, answer.held, bounds.tokens, now)
                return Admission() if answer.booked else Admission(Shortfall.TOKENS, wait)
        return self._ledger.decide_tokens(request, bounds, now)

    async def _decide_budget(self, request: str, booking: Booking, bounds: ClientBounds, now: float) -> Admission:
        account = self._ledger.budgets[booking.budget]
        if self._store:
            limit = bounds.budget - account.unreported
            answer = await self._store.book(booking.budget, limit, booking.cost, request, now, booking.kept)
            if answer:
                account.known = answer.used
                if answer.booked:
                    return Admission()
                finding = Shortfall.SPENT if account.spent >= bounds.budget else Shortfall.RESERVED
                return self._ledger.refuse_budget(finding, bounds, now)
        return self._ledger.decide_budget(request, bounds, now)

    def _take_former_line(self, line: bytes) -> None:
        """A line of a process that a reload has left. It may have come over the ring before."""
        use = lines.parse(line)
        if use and use.request in self._ledger.bookings:
            self._settle(use)

    def _settle(self, use: lines.AnswerUse) -> None:
        bounds, now = self._bounds.of(use.client), time.time()
        posting = self._ledger.settle(use, bounds, now)
        if posting:
            self._changed = True
            self._postings.put_nowait(posting)
            self._verdicts.note_reached(use.client, self._ledger.reached(use.client, bounds, now), now)

    # What goes on beside that.

    async def _report(self) -> None:
        """Say to Redis what requests have used."""
        while True:
            posting = await self._postings.get()
            if not self._store:
                continue
            async with self._reporting:
                if self._bounds.of(posting.client).tokens:
                    await self._store.post(
                        shared.tokens_key(posting.client),
                        f"s{posting.second}",
                        posting.tokens,
                        shared.TOKENS_KEPT,
                        [posting.request],
                    )
                if posting.budget:
                    await self._report_budget(posting.budget, [posting.request])

    async def _report_budget(self, key: str, requests: t.Sequence[str]) -> None:
        account = self._ledger.budgets.get(key)
        if account is None or not self._store:
            return
        amount = account.unreported
        used = await self._store.post(key, shared.SPENT, amount, account.kept, requests)
        if used is not None:
            account.known = used
            account.unreported -= amount
            self._changed = True

    async def _keep_file(self) -> None:
        while True:
            await asyncio.sleep(SAVE)
            if self._changed:
                self._changed = False
                await asyncio.get_running_loop().run_in_executor(None, self._write, self._document())

    async def _tick(self) -> None:
        written = 0.0
        while True:
            now = time.time()
            expired = self._ledger.expire(now, _runs)
            self._expired += len(expired)
            for posting in expired:
                self._changed = True
                self._postings.put_nowait(posting)
            self._ledger.forget(now)
            self._workers.let_go(self._ledger.workers())
            await self._verdicts.send()
            if self._store and self._store.asks:
                async with self._reporting:
                    for key in [key for key, account in self._ledger.budgets.items() if account.unreported]:
                        await self._report_budget(key, [])
            if time.monotonic() - written >= _METRICS:
                written = time.monotonic()
                self._write_metrics(now)
            notify(f"WATCHDOG=1\nSTATUS={len(self._ledger.bookings)} requests have something booked")
            await asyncio.sleep(_TICK)

    async def _renew(self) -> None:
        while self._store:
            await asyncio.sleep(shared.RENEWAL)
            for request, booking in list(self._ledger.open_bookings()):
                if request not in self._ledger.bookings:
                    continue
                now = time.time()
                if self._bounds.of(booking.client).tokens:
                    key = shared.tokens_key(booking.client)
                    await self._store.renew(key, request, booking.tokens, now, shared.TOKENS_KEPT)
                if booking.budget:
                    await self._store.renew(booking.budget, request, booking.cost, now, booking.kept)
        await asyncio.Event().wait()

    def _write_metrics(self, now: float) -> None:
        ratio, left, tokens = {}, {}, {}
        for client in self._asked:
            bounds = self._bounds.of(client)
            if bounds.budget:
                spent = self._ledger.spent(client, bounds, now)
                ratio[client], left[client] = spent / bounds.budget, bounds.budget - spent
            if bounds.tokens:
                tokens[client] = self._ledger.used(client, now)
        figures = exposition.AccountFigures(
            ratio,
            left,
            tokens,
            len(list(self._ledger.open_bookings())),
            self._store is None or self._store.answers,
            self._skipped,
            self._expired,
            now,
        )
        try:
            make_directories(os.path.dirname(self._settings.metrics))
            write_atomically(self._settings.metrics, exposition.render(figures))
        except OSError as error:
            self._say(f"{self._settings.metrics} cannot be written: {error.strerror}")

    # The file.

    def _document(self) -> str:
        return json.dumps({**self._ledger.document(), "asked": sorted(self._asked)}) + "\n"

    def _write(self, text: str) -> None:
        try:
            write_atomically(self._settings.state, text, mode=0o600)
        except OSError as error:
            self._say(f"{self._settings.state} cannot be written, so a restart forgets spending: {error.strerror}")

    def _restore(self) -> None:
        path = self._settings.state
        make_directories(os.path.dirname(path))
        try:
            document = read_json(path)
            if document is not None:
                self._asked = {str(client) for client in document["asked"]}
                self._ledger.restore(document, time.time())
        except (FleetError, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
            aside = f"{path}.unreadable-{int(time.time())}"
            with contextlib.suppress(OSError):
                os.replace(path, aside)
            said = str(error) if isinstance(error, FleetError) else f"{type(error).__name__}: {error}"
            self._asked = set()
            self._say(
                f"{path} is not what an accountant wrote ({said}). It is now {aside}. "
                + ("Budgets go on as Redis has them." if self._store else "Budgets of this gateway begin at 0.")
            )


def _peer(writer: asyncio.StreamWriter) -> int:
    """The process at the other end."""
    connection = writer.get_extra_info("socket")
    return int(_PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[0])


def _runs(worker: int) -> bool:
    return bool(worker) and os.path.exists(f"/proc/{worker}")


def parse_arguments(arguments: t.Sequence[str] | None = None) -> argparse.Namespace:
    """The program's options."""
    parser = argparse.ArgumentParser(description="Limits on tokens at a gateway that is HAProxy alone.")
    parser.add_argument("--config", default="/etc/inference/accountant.json", metavar="FILE")
    return parser.parse_args(arguments)


async def _run(settings: AccountantSettings) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await Accountant(settings, _print).run(ended)


def main() -> None:
    """Serve until SIGTERM; a sentence says why it cannot."""
    try:
        asyncio.run(_run(read_settings(parse_arguments().config)))
    except FleetError as error:
        raise SystemExit(f"The accountant cannot start: {error}") from error


def _print(text: str) -> None:
    print(text, flush=True)
