# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The traffic driver: clients that send requests without pause and never retry, and a report of their results.

A separate program, which module traffic starts::

    driver=ansible_collections.inference.fleet.plugins.plugin_utils.traffic.driver
    PYTHONPATH=collections python3 -m $driver < config.json

The configuration comes on stdin because it holds the API key; its names are those of Config. Some clients stream long
answers one after the other; beside them short requests are sent at a fixed rate, whatever the result of earlier ones.
Every second request and every second streaming client opens a new connection each time, the others reuse theirs.

It exits on SIGTERM, when its owner process is gone, or when its time is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import traceback
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import processes
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import write_atomically
from ansible_collections.inference.fleet.plugins.module_utils.net.http import parse_url, tls_context
from ansible_collections.inference.fleet.plugins.plugin_utils.traffic.answer import (
    ENDED_EARLY,
    StreamedAnswer,
    judge,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.traffic.client import Broken, TrafficAnswer, TrafficClient
from ansible_collections.inference.fleet.plugins.plugin_utils.traffic.config import Config, pid_path, read_config
from ansible_collections.inference.fleet.plugins.plugin_utils.traffic.report import (
    Failure,
    SentRequest,
    SentStream,
    TrafficReport,
)

# Why it exited.
STOPPED = "stopped"
OWNER_GONE = "owner_gone"
TIME_OVER = "max_seconds"
NO_FIRST_ANSWER = "no_first_answer"
INTERNAL_ERROR = "internal_error"

#: Exit statuses beside 0.
FAILED = 1
BAD_CONFIG = 2
NO_ANSWER = 3

_TICK = 0.25
_WRITE_EVERY = 1.0
# The minimum interval of a streaming client: a fast engine must not turn it into a flood.
_STREAM_PAUSE = 0.2
_PAUSE_AFTER_FAILURE = 0.5
_MAX_REQUESTS_IN_FLIGHT = 200


class TrafficDriver:
    """The clients and their report."""

    def __init__(self, config: Config) -> None:
        self._config = config
        target = parse_url(config.url)
        context = tls_context(config.ca_path, config.validate_certs) if target.tls else None
        self._client = TrafficClient(target, config.api_key, context, config.timeout)
        # Wall clock time for the report, unaffected by clock changes.
        self._epoch = time.time() - time.monotonic()
        self._report = TrafficReport(self._now())
        self._owner_started = None if config.owner_pid is None else processes.start_ticks(config.owner_pid)
        self._stopping = asyncio.Event()
        self._in_flight: set[asyncio.Task[None]] = set()
        self._first_failure: Failure | None = None
        self._longest_lag = 0.0
        self._warned = False

    async def run(self) -> int:
        """Drive until stopped; return the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, STOPPED)
        os.makedirs(os.path.dirname(self._config.output), exist_ok=True)
        record = {"pid": os.getpid(), "started": processes.start_ticks(os.getpid())}
        write_atomically(pid_path(self._config.output), json.dumps(record) + "\n")
        ticking = self._background(self._tick())
        try:
            return await self._drive()
        finally:
            ticking.cancel()
            await self._client.close()
            self._report.ended = self._now()
            self._write(durably=True)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(pid_path(self._config.output))

    async def _drive(self) -> int:
        failure = await self._first_request()
        self._report.first_answer = {"ok": failure is None, "what": failure.what if failure else ""}
        if failure:
            self._stop(NO_FIRST_ANSWER)
            return NO_ANSWER
        self._write()
        for number in range(self._config.streams):
            self._start(self._stream_client(number))
        sending = self._background(self._send_requests())
        await self._stopping.wait()
        sending.cancel()
        await self._let_end()
        return FAILED if self._report.ended_because == INTERNAL_ERROR else 0

    async def _let_end(self) -> None:
        """Give requests in flight the grace period, and no more once the owner is gone."""
        until = self._now() + self._config.grace
        while self._in_flight and self._now() < until and not self._owner_gone():
            await asyncio.wait(self._in_flight, timeout=_TICK)
        for task in self._in_flight:
            task.cancel()
        if self._in_flight:
            await asyncio.wait(self._in_flight)

    async def _send_requests(self) -> None:
        rate = self._config.requests_per_second
        if not rate:
            return
        began = self._now()
        number = 0
        while True:
            number += 1
            await asyncio.sleep(began + number / rate - self._now())
            late = self._now() - (began + number / rate)
            if late > 1:
                # This process was suspended. Requests that were due meanwhile are not sent in one burst.
                began += late
            if len(self._in_flight) - self._config.streams < _MAX_REQUESTS_IN_FLIGHT:
                self._start(self._request(reuse=number % 2 == 0))
            else:
                self._report.request_skipped()

    async def _first_request(self) -> Failure | None:
        asking = self._start(self._request(reuse=True))
        stopped = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({asking, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not asking.done():
            asking.cancel()
            return Failure(STOPPED, "it was stopped before there was an answer")
        return self._first_failure

    async def _request(self, reuse: bool) -> None:
        config = self._config
        sent = self._report.request(self._now())
        try:
            async with self._client.ask(self._ask(config.request_prompt, config.request_tokens), reuse) as answer:
                failure = judge(answer.status, await answer.body(), config.api_key)
        except Broken as error:
            failure = error.failure
        self._finish_request(sent, failure)

    def _finish_request(self, sent: SentRequest, failure: Failure | None) -> None:
        if failure:
            self._first_failure = self._first_failure or failure
            sent.failed(self._now(), failure)
        else:
            sent.ok(self._now())

    async def _stream_client(self, number: int) -> None:
        # Staggered, so that they do not stay in step.
        await self._pause(number * 1.0 / self._config.streams)
        while not self._stopping.is_set():
            began = self._now()
            good = await self._stream(reuse=number % 2 == 0)
            await self._pause(began + _STREAM_PAUSE - self._now() if good else _PAUSE_AFTER_FAILURE)

    async def _stream(self, reuse: bool) -> bool:
        """One stream; return whether it was complete."""
        config = self._config
        options = {"stream": True, **({"ignore_eos": True} if config.ignore_eos else {})}
        sent = self._report.stream(self._now())
        try:
            async with self._client.ask(
                self._ask(config.stream_prompt, config.stream_tokens, **options), reuse
            ) as answer:
                if answer.status == 200 and answer.kind.startswith("text/event-stream"):
                    return await self._read_stream(answer, sent)
                failure = judge(answer.status, await answer.body(), config.api_key)
                sent.refused(self._now(), failure or Failure("no stream", "200, but no stream of events"))
        except Broken as error:
            sent.refused(self._now(), error.failure)
        return False

    async def _read_stream(self, answer: TrafficAnswer, sent: SentStream) -> bool:
        streamed = StreamedAnswer(self._config.api_key)
        broken: Failure | None = None
        try:
            async for piece in answer.pieces():
                sent.content(self._now(), streamed.feed(piece))
        except Broken as error:
            broken = error.failure
        # After [DONE], a client does not care how the connection ends.
        failure = streamed.verdict()
        if failure:
            sent.cut(self._now(), broken if broken and failure.kind == ENDED_EARLY else failure)
            return False
        sent.whole(self._now())
        return True

    def _ask(self, prompt: str, tokens: int, **options: t.Any) -> dict[str, t.Any]:
        messages = [{"role": "user", "content": prompt}]
        return {"model": self._config.model, "messages": messages, "max_tokens": tokens, "temperature": 0, **options}

    def _start(self, work: t.Coroutine[t.Any, t.Any, None]) -> asyncio.Task[None]:
        """Start a task that must finish before the program does."""
        task = self._background(work)
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)
        return task

    def _background(self, work: t.Coroutine[t.Any, t.Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._check)
        return task

    def _check(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error:
            # A bug in this program must not look like a quiet run.
            traceback.print_exception(type(error), error, error.__traceback__)
            self._stop(INTERNAL_ERROR)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), max(0.0, seconds))

    async def _tick(self) -> None:
        written = self._now()
        while True:
            due = self._now() + _TICK
            await asyncio.sleep(_TICK)
            now = self._now()
            self._longest_lag = max(self._longest_lag, now - due)
            if self._owner_gone():
                self._stop(OWNER_GONE)
            elif now - self._report.began > self._config.max_seconds:
                self._stop(TIME_OVER)
            if now - written > _WRITE_EVERY - _TICK / 2:
                written = now
                self._write()

    def _owner_gone(self) -> bool:
        owner = self._config.owner_pid
        return owner is not None and not processes.runs(owner, self._owner_started)

    def _stop(self, why: str) -> None:
        if not self._stopping.is_set():
            self._report.ended_because = why
            self._report.stop(self._now())
            self._stopping.set()

    def _write(self, durably: bool = False) -> None:
        document = self._report.document(self._now())
        document["driver"] = {
            "pid": os.getpid(),
            "cpu_seconds": round(time.process_time(), 2),
            "longest_lag": round(self._longest_lag, 3),
        }
        text = json.dumps(document) + "\n"
        try:
            if durably:
                write_atomically(self._config.output, text)
            else:
                # Not synced: that waits for the disk, and while this thread waits it sees no answer arrive.
                temporary = f"{self._config.output}.tmp"
                with open(temporary, "w", encoding="utf-8") as file:
                    file.write(text)
                os.replace(temporary, self._config.output)
        except OSError as error:
            if durably:
                raise
            if not self._warned:
                print(f"{self._config.output} cannot be written ({error.strerror}); trying on", file=sys.stderr)
            self._warned = True

    def _now(self) -> float:
        return self._epoch + time.monotonic()


async def _run(config: Config) -> int:
    return await TrafficDriver(config).run()


def main() -> int:
    try:
        return asyncio.run(_run(read_config(sys.stdin.read())))
    except FleetError as error:
        print(error.message, file=sys.stderr)
        return BAD_CONFIG
    except OSError as error:
        print(f"The report cannot be written ({error}).", file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
