# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The program of inference-facts.service: one look at the host, written as metrics for node exporter.

Module edge_facts installs it, a timer runs it. A reading that fails leaves out its own series and nothing else. What
has to last from one look to the next is in a file of its own: the place in the journal, the counters that came from
it, and what was learned of the GPUs.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import subprocess
import time
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.files import read_json, read_text, write_atomically
from ansible_collections.inference.fleet.plugins.module_utils.core.modes import make_directories
from ansible_collections.inference.fleet.plugins.module_utils.core.paths import (
    ACCOUNTANT_SETTINGS,
    ENGINE_ROOT,
    STATE_DIRECTORY,
)
from ansible_collections.inference.fleet.plugins.module_utils.edge.state import KEYS_MAP_PATH
from ansible_collections.inference.fleet.plugins.module_utils.facts import gpus, series
from ansible_collections.inference.fleet.plugins.module_utils.facts.access_log import AccessCounters
from ansible_collections.inference.fleet.plugins.module_utils.facts.exposition import Series, render
from ansible_collections.inference.fleet.plugins.module_utils.facts.journal import JournalPlace, JournalReader
from ansible_collections.inference.fleet.plugins.module_utils.gpu import smi

METRICS_DIRECTORY = f"{STATE_DIRECTORY}/metrics"
FILE = "facts.prom"
MEMORY_PATH = f"{STATE_DIRECTORY}/facts.json"
LABELS = ("host", "tier", "engine", "ring", "model")

#: What a look reads, as fleet_look_problems names it.
SUBJECTS = ("releases", "gates", "drains", "rollout", "clients", "certificates", "disks", "gpus", "log")

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_JOURNALS = ("/var/log/journal", "/run/log/journal")
_EDGE_UNIT = "haproxy.service"
#: Seconds for nvidia-smi. One that hangs is not joined by a second.
_SMI_PATIENCE = 15.0
_VERSION = 1

#: What a record raises that is not what it should be.
_BROKEN = (FleetError, OSError, ValueError, TypeError, LookupError, AttributeError)


@dataclasses.dataclass
class HostPlaces:
    """Where to read.

    Attributes:
        state: the directory of the modules' records about the host.
        root: of releases and instances.
        keys_map: the edge's map of keys.
        certificates: files.
        nvidia_smi: the program; empty where the host has no GPU.
        gpus: how many it should have.
        ignored_xids: those that do not count.
        memory: what the looks before learned.
        journal: its directory; empty for the host's own.
        accountant: the settings of an accountant, which only a gateway that should have one has.
    """

    state: str = STATE_DIRECTORY
    root: str = ENGINE_ROOT
    keys_map: str = KEYS_MAP_PATH
    certificates: t.Sequence[str] = ()
    nvidia_smi: str = ""
    gpus: int = 0
    ignored_xids: t.Collection[int] = ()
    memory: str = MEMORY_PATH
    journal: str = ""
    accountant: str = ACCOUNTANT_SETTINGS


@dataclasses.dataclass
class LookMemory:
    """What lasts from one look to the next.

    Attributes:
        boot: the boot in which it was written.
        place: in the journal.
        requests: counted so far.
        xids: of this boot.
        gpus: the index of each GPU that was ever seen, by its PCI address.
        smi: the process of an nvidia-smi that did not end; 0 for none.
        unknown: fields that this host's nvidia-smi does not know. A newer one is asked for them after the next boot.
    """

    boot: str = ""
    place: JournalPlace = dataclasses.field(default_factory=JournalPlace)
    requests: AccessCounters = dataclasses.field(default_factory=AccessCounters)
    xids: gpus.XidLog = dataclasses.field(default_factory=gpus.XidLog)
    gpus: dict[str, str] = dataclasses.field(default_factory=dict)
    smi: int = 0
    unknown: list[str] = dataclasses.field(default_factory=list)

    def document(self) -> dict[str, t.Any]:
        """All of it, for a file."""
        return {
            "version": _VERSION,
            "boot": self.boot,
            "place": self.place.document(),
            "requests": self.requests.document(),
            "xids": self.xids.document(),
            "gpus": self.gpus,
            "smi": self.smi,
            "unknown": self.unknown,
        }

    @classmethod
    def read(cls, document: t.Any) -> LookMemory:
        """What document() returned; an empty one for none, and for that of another version."""
        if document is None or document["version"] != _VERSION:
            return cls()
        return cls(
            str(document["boot"]),
            JournalPlace.read(document["place"]),
            AccessCounters.read(document["requests"]),
            gpus.XidLog.read(document["xids"]),
            {str(bus): str(index) for bus, index in document["gpus"].items()},
            int(document["smi"]),
            [str(query) for query in document["unknown"]],
        )


class HostLook:
    """One look at the host.

    Args:
        places: where to read.
        say: prints a line for people.
    """

    def __init__(self, places: HostPlaces, say: t.Callable[[str], None]) -> None:
        self._places = places
        self._say = say
        self._series: list[Series] = []
        self.problems = dict.fromkeys(SUBJECTS, 0)

    def take(self, labels: t.Mapping[str, str]) -> str:
        """Read everything; the exposition."""
        self._series = series.of_host(labels)
        memory = self._remember()
        self._releases()
        self._gates()
        state = self._places.state
        drains, rollout = os.path.join(state, "drain.json"), os.path.join(state, "rollout.json")
        self._read("drains", lambda: series.of_drains(read_json(drains), drains))
        self._read("rollout", lambda: series.of_claim(read_json(rollout), rollout))
        keys = self._places.keys_map
        self._read("clients", lambda: series.of_clients(read_text(keys) or "", keys))
        for path in self._places.certificates:
            self._read("certificates", functools.partial(_certificates, path))
        if os.path.lexists(self._places.accountant):
            self._series += series.of_accountant()
        found = self._gpus(memory)
        self._log(memory)
        if self._places.nvidia_smi:
            if found is not None:
                self._series += gpus.of_gpus(found, memory.xids, self._places.ignored_xids)
            self._series += gpus.of_xids(memory.xids, memory.gpus)
        return render([*self._series, *series.of_look(self.problems, time.time())])

    def _read(self, what: str, reading: t.Callable[[], list[Series]]) -> None:
        """Take what a reading gives; where it fails, nothing of it."""
        try:
            self._series += reading()
        except _BROKEN as error:
            self._problem(what, error)

    def _problem(self, what: str, error: BaseException | str) -> None:
        self.problems[what] += 1
        said = str(error) if isinstance(error, (str, FleetError, OSError)) else f"{type(error).__name__}: {error}"
        self._say(f"{what} cannot be read: {said}")

    def _releases(self) -> None:
        """The releases of the instances, and the disks that they need."""
        instances = os.path.join(self._places.root, "instances")
        disks = {}
        for index in self._names("releases", instances):
            current = os.path.join(instances, index, "current")
            if not index.isdigit() or not os.path.lexists(current):
                continue
            manifest: dict[str, t.Any] = {}
            self._read("releases", functools.partial(_release, index, current, manifest))
            if manifest.get("model_path"):
                disks["weights"] = str(manifest["model_path"])
        if os.path.isdir(self._places.root):
            disks["runtimes"] = self._places.root
        journals = (self._places.journal,) if self._places.journal else _JOURNALS
        for path in filter(os.path.isdir, journals):
            disks.setdefault("journal", path)
        for what, path in disks.items():
            self._read("disks", functools.partial(_disk, what, path))

    def _gates(self) -> None:
        directory = os.path.join(self._places.state, "gate")
        for name in self._names("gates", directory):
            if name.endswith(".json"):
                self._read("gates", functools.partial(_gate, name[: -len(".json")], os.path.join(directory, name)))

    def _names(self, what: str, directory: str) -> list[str]:
        try:
            return sorted(name for name in os.listdir(directory) if not name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self._problem(what, error)
            return []

    def _gpus(self, memory: LookMemory) -> list[smi.GpuReading] | None:
        """What nvidia-smi says; None where it said nothing."""
        if not self._places.nvidia_smi:
            return None
        self._series.append(Series("fleet_gpu_expected", {}, self._places.gpus))
        try:
            found = _ask_gpus(self._places.nvidia_smi, memory)
        except _BROKEN as error:
            self._problem("gpus", error)
            return None
        memory.gpus.update(gpus.places(found))
        return found

    def _log(self, memory: LookMemory) -> None:
        """Count what the journal has got since the last look, and keep the counts before anybody sees them."""

        def read() -> list[Series]:
            reader = JournalReader(_EDGE_UNIT, memory.boot, memory.xids.add, memory.requests.add, self._places.journal)
            try:
                memory.place, missing = reader.go_on(memory.place)
                if missing:
                    self._problem("log", f"{missing}. Counting goes on.")
            except FleetError as error:
                self._problem("log", error)
            write_atomically(self._places.memory, json.dumps(memory.document()) + "\n", mode=0o600)
            return series.of_requests(memory.requests)

        self._read("log", read)

    def _remember(self) -> LookMemory:
        try:
            memory = LookMemory.read(read_json(self._places.memory))
        except _BROKEN as error:
            self._problem("log", f"{self._places.memory} is not what a look wrote ({error}). Counters begin at 0.")
            memory = LookMemory()
        boot = (read_text(_BOOT_ID) or "").strip()
        if boot != memory.boot:
            memory.boot, memory.xids, memory.unknown = boot, gpus.XidLog(), []
        return memory


def _gate(name: str, path: str) -> list[Series]:
    return series.of_gate(name, read_json(path))


def _disk(what: str, path: str) -> list[Series]:
    status = os.statvfs(path)
    return series.of_disk(what, status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize)


def _certificates(path: str) -> list[Series]:
    with open(path, "rb") as file:
        return series.of_certificates(path, file.read())


def _release(index: str, current: str, manifest: dict[str, t.Any]) -> list[Series]:
    """The release of an instance; its manifest is left in ``manifest``."""
    path = os.path.join(current, "manifest.json")
    document = read_json(path)
    if document is None:
        raise FleetError(f"{path} does not exist. Run playbooks/site.yml for this host.")
    manifest.update(document)
    return series.of_release(index, os.path.basename(os.readlink(current)), manifest)


def _ask_gpus(program: str, memory: LookMemory) -> list[smi.GpuReading]:
    """The GPUs, with the fields that nvidia-smi knows."""
    while True:
        fields = gpus.known_fields(memory.unknown)
        answer = _ask_smi(program, fields, memory)
        unknown = smi.unknown_field(answer)
        if unknown is None or unknown in memory.unknown:
            return gpus.parse(answer, fields)
        memory.unknown.append(unknown)


def _ask_smi(program: str, fields: t.Sequence[smi.Field], memory: LookMemory) -> str:
    """What nvidia-smi says of the GPUs. With a lost one it can sleep where not even SIGKILL ends it.

    Raises:
        FleetError: it says nothing.
    """
    if memory.smi and (read_text(f"/proc/{memory.smi}/comm") or "").strip() == os.path.basename(program)[:15]:
        raise FleetError(f"{program} of an earlier look still hangs (process {memory.smi}).")
    process = subprocess.Popen(
        [program, *smi.gpu_query(fields)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "LC_ALL": "C"},
    )
    memory.smi = 0
    try:
        answer, _none = process.communicate(timeout=_SMI_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        memory.smi = process.pid
        raise FleetError(f"{program} did not answer in {_SMI_PATIENCE:g} s.") from None
    kind = None if smi.unknown_field(answer) else smi.failure_kind(process.returncode, answer)
    if kind not in (None, "gpu_lost", "no_devices"):
        raise FleetError(f"{program} fails ({kind}): {answer.strip()[:200]}")
    return answer


def parse_arguments(arguments: t.Sequence[str] | None = None) -> argparse.Namespace:
    """The program's options."""
    parser = argparse.ArgumentParser(description="Write this host's state as metrics for node exporter.")
    for name in LABELS:
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--certificate", action="append", default=[], metavar="FILE")
    parser.add_argument("--gpus", type=int, default=0, metavar="COUNT")
    parser.add_argument("--nvidia-smi", default="", metavar="FILE")
    parser.add_argument("--ignore-xid", type=int, action="append", default=[], metavar="NUMBER")
    parser.add_argument("--state", default=STATE_DIRECTORY, metavar="DIRECTORY")
    parser.add_argument("--root", default=ENGINE_ROOT, metavar="DIRECTORY")
    parser.add_argument("--keys-map", default=KEYS_MAP_PATH, metavar="FILE")
    parser.add_argument("--memory", default=MEMORY_PATH, metavar="FILE")
    parser.add_argument("--output", default=METRICS_DIRECTORY, metavar="DIRECTORY")
    parser.add_argument("--journal", default="", metavar="DIRECTORY")
    parser.add_argument("--accountant", default=ACCOUNTANT_SETTINGS, metavar="FILE")
    return parser.parse_args(arguments)


def main() -> None:
    """Take one look."""
    options = parse_arguments()
    places = HostPlaces(
        options.state,
        options.root,
        options.keys_map,
        options.certificate,
        options.nvidia_smi,
        options.gpus,
        options.ignore_xid,
        options.memory,
        options.journal,
        options.accountant,
    )
    text = HostLook(places, print).take({name: getattr(options, name) for name in LABELS})
    make_directories(options.output)
    write_atomically(os.path.join(options.output, FILE), text)
