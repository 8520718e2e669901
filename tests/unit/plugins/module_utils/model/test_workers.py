from __future__ import annotations

import os
import sys
import threading
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.module_utils.model.workers import WorkerLine, Workers, processes

# Echoes what it gets; dies or is silent when it is asked to.
WORKER = """
import json, os, sys
for line in sys.stdin:
    task = json.loads(line)
    if task["do"] == "die":
        os._exit(3)
    if task["do"] == "answer":
        print(json.dumps({"number": task["number"], "wrote": 5}), flush=True)
        print(json.dumps({"number": task["number"], "end": "", "pid": os.getpid()}), flush=True)
"""


@pytest.fixture
def workers() -> t.Iterator[Workers]:
    started = Workers([sys.executable, "-c", WORKER], 2)
    yield started
    started.close()


def run(workers: Workers, what: str) -> list[WorkerLine]:
    answers = []
    for message in workers.run({"do": what}, idle=0.05):
        answers.append(message)
        if "end" in message:
            break
    return [message for message in answers if message]


@pytest.mark.parametrize(
    ("connections", "tasks", "processors", "expected"),
    [(32, 32, 16, 1), (32, 33, 16, 4), (32, 1000, 2, 2), (4, 1000, 16, 1), (9, 1000, 16, 2), (256, 1000, 8, 8)],
)
def test_processes_follow_connections_and_processors(
    connections: int, tasks: int, processors: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(processors)))
    assert processes(connections, tasks) == expected


def test_answers_go_to_their_task(workers: Workers) -> None:
    found: list[list[WorkerLine]] = []
    threads = [threading.Thread(target=lambda: found.append(run(workers, "answer"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    assert all([one.get("wrote") for one in answers] == [5, None] for answers in found)


def test_tasks_go_to_the_process_that_has_fewer(workers: Workers) -> None:
    silent = workers.run({"do": "nothing"}, idle=0.05)
    assert next(silent) == {}
    assert len({run(workers, "answer")[-1]["pid"] for _ in range(5)}) == 1


def test_a_process_that_dies_ends_its_tasks_and_no_other(workers: Workers) -> None:
    assert run(workers, "die") == [{"end": "passing", "text": "a process of the download ended with 3"}]
    assert run(workers, "answer")[-1]["end"] == ""
    run(workers, "die")
    assert run(workers, "answer")[-1]["end"] == "problem"


def test_closing_ends_processes(workers: Workers) -> None:
    pids = {run(workers, "answer")[-1]["pid"] for _ in range(2)}
    workers.close()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
