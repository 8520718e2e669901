# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The state of an edge: its map files, its instances, and which targets are drained, and by whom. Pure."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.core.paths import STATE_DIRECTORY
from ansible_collections.inference.fleet.plugins.module_utils.engines import metrics

CONFIG_PATH = "/etc/haproxy/haproxy.cfg"
KEYS_MAP_PATH = "/etc/haproxy/maps/keys.map"
KEYS_ORIGIN_PATH = "/etc/haproxy/maps/keys.origin.json"
ENGINE_KEY_MAP_PATH = "/etc/haproxy/maps/engine_key.map"
UPSTREAM_KEY_MAP_PATH = "/etc/haproxy/maps/upstream_key.map"
DRAIN_MAP_PATH = "/etc/haproxy/maps/drain.map"
ENGINE_KEY_PATH = "/etc/inference/engine_key.env"
DRAIN_RECORD_PATH = f"{STATE_DIRECTORY}/drain.json"

#: The prefix of the names of the backends that lead to instances; see the role's template.
BACKEND_PREFIX = "instances_"
#: The prefix of the names of the backends that pass requests on to those through a socket of the process, followed by
#: the port.
ROUNDS_PREFIX = "once_more_"
#: The prefix of the names of the servers that are engine instances, followed by the index. The engine is not in the
#: name: the server stays the same when the engine changes.
SERVER_PREFIX = "engine-"
#: The stick table with the client of a connection.
INFLIGHT_TABLE = "inflight"

LAME_DUCK = "lame_duck"
DRAINED = "drained"
SERVING = "serving"

OPERATOR = "operator"
ROLLOUT = "rollout"

Entries = list[tuple[str, str]]

_CLASSES = ("2xx", "4xx", "5xx")


@dataclasses.dataclass(frozen=True)
class EdgeServer:
    """An instance behind the edge, as HAProxy's configuration names it."""

    backend: str
    name: str
    address: str
    port: int


@dataclasses.dataclass(frozen=True)
class Mark:
    """A host or an instance is out of service, or about to be.

    Attributes:
        state: LAME_DUCK or DRAINED.
        by: OPERATOR or ROLLOUT.
        reason: given by the operator or the rollout.
        since: when the state was reached, in UTC.
    """

    state: str
    by: str
    reason: str
    since: str


@dataclasses.dataclass(frozen=True)
class Drains:
    """All the marks of one host."""

    host: Mark | None = None
    instances: t.Mapping[str, Mark] = dataclasses.field(default_factory=dict)

    def of(self, instance: str | None) -> Mark | None:
        """The mark of an instance, or of the host where ``instance`` is None."""
        return self.host if instance is None else self.instances.get(instance)

    def with_mark(self, instance: str | None, mark: Mark | None) -> Drains:
        """A copy with one mark set, or removed where it is None."""
        if instance is None:
            return dataclasses.replace(self, host=mark)
        others = {name: other for name, other in self.instances.items() if name != instance}
        return dataclasses.replace(self, instances={**others, instance: mark} if mark else others)

    def document(self) -> dict[str, t.Any]:
        """The document in the file; empty when nothing is out of service."""
        document: dict[str, t.Any] = dataclasses.asdict(self.host) if self.host else {}
        if self.instances:
            document["instances"] = {name: dataclasses.asdict(self.instances[name]) for name in sorted(self.instances)}
        return document

    def map_entries(self) -> Entries:
        """What HAProxy must know of the host; instances are drained by their servers' states."""
        return [("host", self.host.state)] if self.host else []

    def shown(self) -> dict[str, t.Any]:
        """For a diff: the drained targets and their states."""
        return {
            "host": self.host.state if self.host else SERVING,
            "instances": {name: self.instances[name].state for name in sorted(self.instances)},
        }


def read_drains(document: t.Any, path: str) -> Drains:
    """The marks in a record.

    Raises:
        FleetError: it is not a valid record.
    """
    if document is None:
        return Drains()
    try:
        host = _mark(document) if "state" in document else None
        return Drains(host, {name: _mark(item) for name, item in document.get("instances", {}).items()})
    except (AttributeError, KeyError, TypeError) as error:
        raise FleetError(
            f"{path} is not a record of drains ({type(error).__name__}: {error}). Restore it, or remove it and drain "
            "again what has to be out of service."
        ) from error


def _mark(item: t.Mapping[str, t.Any]) -> Mark:
    return Mark(str(item["state"]), str(item["by"]), str(item.get("reason", "")), str(item["since"]))


def decide(current: Mark | None, wanted: Mark | None, by: str) -> Mark | None:
    """The mark after a request for ``wanted`` (None: back into service).

    A rollout does not change what an operator drained.
    """
    if current and current.by == OPERATOR and by == ROLLOUT:
        return current
    if not current or not wanted:
        return wanted
    if current.state == wanted.state:
        return dataclasses.replace(current, by=by, reason=wanted.reason or current.reason)
    return wanted


def parse_instances(config: str) -> list[EdgeServer]:
    """The instances in HAProxy's configuration, as the role's template writes it."""
    found: list[EdgeServer] = []
    backend = ""
    for line in config.splitlines():
        section = re.match(r"(\w+)(?:\s+(\S+))?", line)
        if section:
            backend = section[2] or "" if section[1] == "backend" else ""
        # One that tracks another is not an instance: it is another gateway, or the same under another name.
        server = re.match(r"\s+server\s+(\S+)\s+(\S+):(\d+)(?!.*\strack\s)", line)
        if server and backend.startswith(BACKEND_PREFIX):
            found.append(EdgeServer(backend, server[1], server[2], int(server[3])))
    return found


def server_name(index: int) -> str:
    """The edge's name of the engine instance with this index."""
    return f"{SERVER_PREFIX}{index}"


def server_index(name: str) -> int | None:
    """The index of the engine instance with this name at the edge; None where it is none."""
    index = name[len(SERVER_PREFIX) :] if name.startswith(SERVER_PREFIX) else ""
    return int(index) if index.isdigit() else None


def find_instance(instances: list[EdgeServer], wanted: str) -> EdgeServer | None:
    """The instance with this name, or whose name ends in this index."""
    for instance in instances:
        if wanted == instance.name or (wanted.isdigit() and instance.name.rpartition("-")[2] == wanted):
            return instance
    return None


def render_map(title: str, entries: Entries) -> str:
    """A map file."""
    return "".join([f"# {title}\n", *(f"{key} {value}\n" for key, value in entries)])


def parse_map(text: str) -> Entries:
    """The entries of a map file."""
    entries = []
    for line in text.splitlines():
        key, _space, value = line.strip().partition(" ")
        if key and not key.startswith("#"):
            entries.append((key, value.strip()))
    return entries


def responses(rows: t.Iterable[t.Mapping[str, str]]) -> dict[str, int]:
    """The number of responses of each class that the instances' clients got since the edge's process began.

    Args:
        rows: HAProxy's statistics. What the edge refuses by itself (keys, drained) is not included.
    """
    backends = [row for row in rows if row.get("svname") == "BACKEND" and row["pxname"].startswith(BACKEND_PREFIX)]
    return {name: sum(int(row.get(f"hrsp_{name}") or 0) for row in backends) for name in _CLASSES}


def load(rows: t.Iterable[t.Mapping[str, str]], index: int, engine: str) -> metrics.Load | None:
    """The requests of an instance without counters of its own; None where the edge does not know it."""
    for row in rows:
        if row["pxname"].startswith(BACKEND_PREFIX) and row.get("svname") == server_name(index):
            return metrics.Load(engine, int(row.get("scur") or 0), int(row.get("qcur") or 0), None)
    return None


def request_limits(rows: t.Iterable[t.Mapping[str, str]]) -> dict[str, int]:
    """The concurrent requests that the edge gives each instance, where it has a limit."""
    return {row["svname"]: int(row["slim"]) for row in rows if row["pxname"].startswith(BACKEND_PREFIX) and _bound(row)}


def _bound(row: t.Mapping[str, str]) -> bool:
    return row["svname"] not in ("FRONTEND", "BACKEND") and (row.get("slim") or "").isdigit()
