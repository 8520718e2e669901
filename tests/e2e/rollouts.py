"""Clients that never retry a request, and runs of a playbook that can be watched and killed."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import time
import typing as t
from pathlib import Path

from ansible_collections.inference.fleet.plugins.plugin_utils.rollout import journal
from ansible_collections.inference.fleet.plugins.plugin_utils.traffic import control

from lab import state
from tests.project import MODEL, ROOT, Run

PATIENCE = 900.0


class Traffic:
    """The project's own traffic driver, through the lab's balancer, from its creation until it is stopped."""

    def __init__(
        self, environment: t.Mapping[str, str], output: Path, streams: int, requests_per_second: float, key: str = ""
    ) -> None:
        self._output = str(output)
        control.start(
            {
                "url": environment["OPENAI_BASE_URL"],
                "api_key": key or environment["OPENAI_API_KEY"],
                "model": MODEL,
                "streams": streams,
                "requests_per_second": requests_per_second,
                "output": self._output,
                "owner_pid": os.getpid(),
            }
        )

    def stop(self) -> dict[str, t.Any]:
        control.stop(self._output, grace=60)
        report = control.report(self._output)
        assert report is not None
        return report


def nothing_was_lost(report: dict[str, t.Any]) -> bool:
    """Whether the clients got answers, all of them complete."""
    print(json.dumps({name: value for name, value in report.items() if name != "seconds"}, indent=1))
    assert report["requests"]["ok"] > 0
    assert report["streams"]["whole"] > 0
    return not report["errors"] and not report["streams"]["cut"]


class Playbook:
    """A playbook that runs in parallel with the test.

    Args:
        environment: of the command; it names the lab.
        place: for its output.
        words: ansible-playbook's arguments.
    """

    def __init__(self, environment: t.Mapping[str, str], place: Path, *words: str) -> None:
        self._words = ["ansible-playbook", *words]
        self._log = place / f"{len(list(place.glob('*.log')))}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._words,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_until(self, condition: t.Callable[[], t.Any], what: str) -> t.Any:
        """The condition's result, once it has one; meanwhile the playbook must be running."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            assert self._process.poll() is None, self.output
            time.sleep(0.05)
        raise AssertionError(f"no {what} within {PATIENCE} s:\n{self.output}")

    def wait_for_task(self, name: str) -> None:
        """Wait until a task with this name begins."""
        self.wait_until(lambda: f"TASK [{name}]" in self.output, f"task {name}")

    def kill(self) -> None:
        """Simulate a failure of the controller's machine: it and all its children end at once."""
        for pid in (self._process.pid, *_descendants(self._process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def wait(self) -> Run:
        try:
            self._process.wait(timeout=PATIENCE)
        finally:
            if self._process.poll() is None:
                self.kill()
        print(f"$ {shlex.join(self._words)}\n{self.output}")
        return Run(self._process.returncode, self.output)

    @property
    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")


class Rollout(Playbook):
    """A rollout, which can be followed in its journal."""

    def __init__(self, environment: t.Mapping[str, str], place: Path, *words: str) -> None:
        self._records = state.require(environment["INFERENCE_FLEET_LAB"]).directory / "rollouts"
        self._before = {path: journal.size(str(path)) for path in self._journals()}
        super().__init__(environment, place, *words)

    def _journals(self) -> list[Path]:
        return list(self._records.glob(f"*/{journal.NAME}"))

    def events(self) -> list[dict[str, t.Any]]:
        """The events of this run in a journal so far."""
        for path in self._journals():
            offset = self._before.get(path, 0)
            if journal.size(str(path)) > offset:
                lines = path.read_bytes()[offset:].decode().splitlines()
                return [json.loads(line) for line in lines if line.endswith("}")]
        return []

    def wait_for(self, event: str, **fields: t.Any) -> dict[str, t.Any]:
        """The first event of this kind with these fields."""

        def found() -> dict[str, t.Any] | None:
            mine = (one for one in self.events() if one["event"] == event and fields.items() <= one.items())
            return next(mine, None)

        return dict(self.wait_until(found, f"event {event} {fields}"))

    @property
    def record(self) -> Path:
        """The directory of the newest record."""
        return max(self._journals()).parent


def _descendants(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, left = [], [pid]
    while left:
        children = parents.get(left.pop(), [])
        found += children
        left += children
    return found
