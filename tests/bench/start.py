"""What a start of each real engine takes, and what a disk adds to it that has to be read.

All starts of an engine follow each other on one host, in turns, so that ratios compare what ran at about the same time.
"""

from __future__ import annotations

import json
import subprocess
import typing as t
from pathlib import Path

from lab import hosts, state
from tests import page_cache
from tests.bench import starter
from tests.bench.fleet import Fleet, program
from tests.gpu.stages import Stages, journal_lines, split
from tests.project import ROOT

Report = t.Callable[[str, str], None]

ENGINES = {"inference-1": "vllm", "inference-2": "sglang"}
PORT = 8100
ROUNDS = 3
#: Prints how many bytes of runtimes and weights were taken out of the page cache.
DROP = """
import json
with open("/opt/inference/instances/0/current/manifest.json") as file:
    weights = json.load(file)["model_path"]
print(sum(drop(Path(place)) for place in ("/opt/inference/runtimes", weights)))
"""
#: An instance that no host has: nothing runs its runtime, so the libraries are read as for another version.
UNUSED = 9


class EngineHost:
    """One host with one engine, whose process is started again and again.

    Args:
        fleet: the lab.
        host: its name.
        engine: that it runs.
    """

    def __init__(self, fleet: Fleet, host: str, engine: str) -> None:
        self._fleet = fleet
        self._host = host
        self._engine = engine
        self._unit = f"{engine}@0.service"

    def stop(self) -> None:
        self._fleet.on(self._host, f"systemctl stop {self._unit}")

    def empty_caches(self) -> None:
        self._fleet.on(self._host, "find /var/cache/inference -mindepth 2 -delete")

    def drop(self) -> int:
        """Take all that a start reads out of the page cache; how many bytes that is."""
        return int(self._python(Path(page_cache.__file__), DROP))

    def read_ahead(self) -> dict[str, t.Any]:
        """Have the module read it, as before the drain of a host that gets another version."""
        release = self._fleet.on(self._host, "basename $(readlink /opt/inference/instances/0/current)")
        arguments = json.dumps({"release": release, "index": UNUSED, "seconds": 600})
        words = [program("ansible"), self._host, "--become", "-m", "inference.fleet.engine_read_ahead", "-a", arguments]
        environment = {**self._fleet.environment, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"bench: {' '.join(words)} failed:\n{done.stdout}{done.stderr}")
        found: dict[str, t.Any] = json.loads(done.stdout[done.stdout.index("{") :])
        return found

    def start(self) -> Stages:
        """Start it, and split the time until it serves."""
        found = json.loads(self._python(Path(starter.__file__), f"start({self._unit!r}, {PORT})"))
        return split(journal_lines(found["journal"]), self._engine, found["began"], found["ended"])

    def _python(self, source: Path, call: str) -> str:
        """What a call of one of our files prints on the host."""
        lab = state.require(self._fleet.name)
        return subprocess.run(
            hosts.ssh(lab, lab.host(self._host), "python3 -"),
            input=f"{source.read_text(encoding='utf-8')}\n{call}\n",
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=starter.LIMIT + 60,
        ).stdout


def starts(fleet: Fleet, report: Report) -> None:
    """The starts of each engine, one engine after the other."""
    fleet.grow(len(ENGINES))
    for host, engine in ENGINES.items():
        fleet.site([host], engine=engine)
        one = EngineHost(fleet, host, engine)
        one.stop()
        one.empty_caches()
        first = one.start()
        report("start", f"{engine}, caches empty: {first.seconds:.1f} s = {first}")
        later, cold, ahead = [], [], []
        for _round in range(ROUNDS):
            one.stop()
            later.append(one.start())
            one.stop()
            size = one.drop()
            cold.append(one.start())
            one.stop()
            one.drop()
            read = one.read_ahead()
            ahead.append(one.start())
        base = middle(later)
        report("", f"later: {described(later)}, {base.seconds / first.seconds:.2f} times the first = {base}")
        report("", f"with nothing of {size >> 20} MiB in memory: {compared(cold, base)}")
        report("", f"after {read['read_mib']} MiB were read ahead in {read['seconds']} s: {compared(ahead, base)}")


def middle(found: t.Sequence[Stages]) -> Stages:
    """The median by its seconds."""
    return sorted(found, key=lambda one: one.seconds)[len(found) // 2]


def described(found: t.Sequence[Stages]) -> str:
    """Their median, and how far they are apart."""
    seconds = [one.seconds for one in found]
    return f"{middle(found).seconds:.1f} s ({min(seconds):.1f} to {max(seconds):.1f})"


def compared(found: t.Sequence[Stages], base: Stages) -> str:
    """The same, beside other starts."""
    one = middle(found)
    return f"{described(found)}, {one.seconds / base.seconds:.2f} times the later one = {one}"
