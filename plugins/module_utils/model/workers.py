# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Processes that share a download, because TLS in one Python process reaches about 5 Gb/s, on any number of cores.

Installed on hosts as ``model_workers.py``, beside ``model_fetch.py``, so it imports nothing of Ansible. A worker reads
tasks from its standard input and answers on its standard output, both JSON lines. It ends with its input, so it never
outlives the process that started it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import subprocess
import threading
import typing as t

#: Connections that one process can serve without being the limit.
CONNECTIONS = 8
#: Seconds in which a worker must end when its input does.
LAST_WORDS = 5.0

WorkerLine = dict[str, t.Any]


def processes(connections: int, tasks: int) -> int:
    """How many processes to use.

    Args:
        connections: wanted at a time, by all of them.
        tasks: to do; a start of further processes is worth it only when they are more than one for each connection.
    """
    if tasks <= connections:
        return 1
    return max(1, min(len(os.sched_getaffinity(0)), -(-connections // CONNECTIONS)))


class Workers:
    """Some processes and the tasks that they work on.

    Args:
        command: of one of them.
        count: how many.
    """

    def __init__(self, command: list[str], count: int) -> None:
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._workers = [_Worker(command) for _ in range(count)]

    def run(self, task: WorkerLine, idle: float = 1.0) -> t.Iterator[WorkerLine]:
        """Have a task done; yields what its worker answers, and an empty message whenever it is silent.

        The last answer has ``end``: empty for success, otherwise the error. The caller stops there.
        """
        with self._lock:
            worker = min((one for one in self._workers if one.is_alive), key=lambda one: one.tasks, default=None)
            number = next(self._numbers)
            answers = worker.begin(number, task) if worker else None
        if worker is None or answers is None:
            yield {"end": "problem", "text": "Every process of the download has ended. Run again to go on."}
            return
        try:
            while True:
                try:
                    message = answers.get(timeout=idle)
                except queue.Empty:
                    message = {}
                yield message
        finally:
            worker.forget(number)

    def close(self) -> None:
        """End all of them, whatever they do."""
        for worker in self._workers:
            worker.close()


class _Worker:
    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self._tasks = t.cast("t.IO[str]", self._process.stdin)
        self._messages = t.cast("t.IO[str]", self._process.stdout)
        self._lock = threading.Lock()
        self._answers: dict[int, queue.SimpleQueue[WorkerLine]] = {}
        self.is_alive = True
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def tasks(self) -> int:
        return len(self._answers)

    def begin(self, number: int, task: WorkerLine) -> queue.SimpleQueue[WorkerLine]:
        answers: queue.SimpleQueue[WorkerLine] = queue.SimpleQueue()
        with self._lock:
            self._answers[number] = answers
            if not self.is_alive:
                answers.put(self._lost())
        with contextlib.suppress(OSError):
            self._tasks.write(json.dumps({**task, "number": number}) + "\n")
        return answers

    def forget(self, number: int) -> None:
        with self._lock:
            self._answers.pop(number, None)

    def _read(self) -> None:
        for line in self._messages:
            message = json.loads(line)
            with self._lock:
                answers = self._answers.get(message.get("number"))
            if answers is not None:
                answers.put(message)
        self._process.wait()
        with self._lock:
            self.is_alive = False
            for answers in self._answers.values():
                answers.put(self._lost())

    def _lost(self) -> WorkerLine:
        return {"end": "passing", "text": f"a process of the download ended with {self._process.returncode}"}

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._tasks.close()
        try:
            self._process.wait(LAST_WORDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
