"""The same step in several processes at the same time."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError

#: Longer than a busy machine takes to start some processes, in seconds.
PATIENCE = 300
_fork = multiprocessing.get_context("fork")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of one process's step; ``message`` is that of its error, or empty."""

    name: str
    pid: int
    message: str


def at_once(names: str, step: t.Callable[[str], object]) -> list[Outcome]:
    """Run the step for each name at once, each in its own process.

    None of the processes ends before all have tried: any process may continue the work of one that has ended.
    """
    outcomes: t.Any = _fork.Queue()
    begin, end = _fork.Barrier(len(names) + 1), _fork.Barrier(len(names) + 1)

    def work(name: str) -> None:
        begin.wait(PATIENCE)
        message = ""
        try:
            step(name)
        except FleetError as error:
            message = error.message
        outcomes.put(Outcome(name, os.getpid(), message))
        end.wait(PATIENCE)

    processes = [_fork.Process(target=work, args=(name,)) for name in names]
    for process in processes:
        process.start()
    begin.wait(PATIENCE)
    reported: list[Outcome] = [outcomes.get(timeout=PATIENCE) for _ in processes]
    end.wait(PATIENCE)
    for process in processes:
        process.join()
    return reported
