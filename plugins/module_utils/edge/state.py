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
#: The server that stands for the pools there, on a gateway without instances, and the prefix of the pools' names.
POOLS = "pools"
POOL_PREFIX = "pool_"
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
#: Drains for what AWS announces; see folder notices.
AWS = "aws"

#: The states of a notice's mark in which it takes nothing out of service: an operator put the host back although AWS
#: announces something, and the mark is being removed.
OVERRIDDEN = "overridden"
ENDING = "ending"

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
        by: OPERATOR, AWS or ROLLOUT.
        reason: given by the operator or the rollout, or what AWS announces.
        since: when the state was reached, in UTC.
    """

    state: str
    by: str
    reason: str
    since: str


@dataclasses.dataclass(frozen=True)
class NoticeMark:
    """The host is out of service, or about to be, for what AWS announces. Beside the mark of an operator or a rollout,
    so that neither changes the other.

    Attributes:
        state: LAME_DUCK, DRAINED, OVERRIDDEN or ENDING.
        reason: what AWS announces, for people.
        since: when the state was reached, in UTC.
        notices: the identities of what AWS announces; empty where it announces nothing any more.
    """

    state: str
    reason: str
    since: str
    notices: tuple[str, ...] = ()

    @property
    def mark(self) -> Mark | None:
        """The mark on the host; None where it takes nothing out of service."""
        return Mark(self.state, AWS, self.reason, self.since) if self.state in (LAME_DUCK, DRAINED) else None

    def document(self) -> dict[str, t.Any]:
        return {**dataclasses.asdict(self), "notices": list(self.notices)}


@dataclasses.dataclass(frozen=True)
class Drains:
    """All the marks of one host.

    Attributes:
        host: the operator's or the rollout's mark of the whole host.
        instances: their marks of single instances.
        aws: the mark for what AWS announces.
    """

    host: Mark | None = None
    instances: t.Mapping[str, Mark] = dataclasses.field(default_factory=dict)
    aws: NoticeMark | None = None

    def of(self, instance: str | None) -> Mark | None:
        """The operator's or the rollout's mark of an instance, or of the host where ``instance`` is None."""
        return self.host if instance is None else self.instances.get(instance)

    @property
    def marks(self) -> list[Mark]:
        """The marks that take the whole host out of service; an operator's first, a rollout's last."""
        notice = self.aws.mark if self.aws else None
        by_hand = self.host is not None and self.host.by == OPERATOR
        return [mark for mark in ((self.host, notice) if by_hand else (notice, self.host)) if mark]

    @property
    def out(self) -> Mark | None:
        """The mark that decides what the whole host does; None where it serves."""
        marks = self.marks
        return next((mark for mark in marks if mark.state == DRAINED), marks[0] if marks else None)

    @property
    def announced(self) -> str:
        """What AWS announces, for people; empty where it announces nothing that the host is drained for."""
        return announced(self.document())

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
        if self.aws:
            document["aws"] = self.aws.document()
        return document

    def summary(self) -> dict[str, t.Any]:
        """The document for readers: it begins with the mark that decides what the host does, with any owner."""
        out = self.out
        beside = {name: value for name, value in self.document().items() if name in ("instances", "aws")}
        marks = {"marks": [dataclasses.asdict(mark) for mark in self.marks]} if out else {}
        return {**(dataclasses.asdict(out) if out else {}), **marks, **beside}

    def map_entries(self) -> Entries:
        """What HAProxy must know of the host; instances are drained by their servers' states."""
        return [("host", self.out.state)] if self.out else []

    def shown(self) -> dict[str, t.Any]:
        """For a diff: the drained targets and their states."""
        return {
            "host": self.out.state if self.out else SERVING,
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
        instances = {name: _mark(item) for name, item in document.get("instances", {}).items()}
        return Drains(host, instances, _notice(document["aws"]) if document.get("aws") else None)
    except (AttributeError, KeyError, TypeError) as error:
        raise FleetError(
            f"{path} is not a record of drains ({type(error).__name__}: {error}). Restore it, or remove it and drain "
            "again what has to be out of service."
        ) from error


def drained_by(summary: t.Mapping[str, t.Any]) -> set[str]:
    """Who took a host out of service, from Drains.summary(); for an instance, from its entry there."""
    marks = summary.get("marks") or ([summary] if summary.get("state") else [])
    return {str(mark.get("by")) for mark in marks}


def leaving(summary: t.Mapping[str, t.Any]) -> str:
    """What AWS announces for a host that drains itself for it, from Drains.summary(); empty for any other host."""
    aws = summary.get("aws") or {}
    return str(aws.get("reason")) if aws.get("state") in (LAME_DUCK, DRAINED) and aws.get("notices") else ""


def announced(summary: t.Mapping[str, t.Any]) -> str:
    """What AWS announces for a host, from Drains.summary(), also where an operator has overridden it."""
    aws = summary.get("aws") or {}
    return str(aws.get("reason")) if aws.get("notices") and aws.get("state") != ENDING else ""


def _mark(item: t.Mapping[str, t.Any]) -> Mark:
    return Mark(str(item["state"]), str(item["by"]), str(item.get("reason", "")), str(item["since"]))


def _notice(item: t.Mapping[str, t.Any]) -> NoticeMark:
    notices = tuple(str(one) for one in item.get("notices", ()))
    return NoticeMark(str(item["state"]), str(item.get("reason", "")), str(item["since"]), notices)


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


def announce(current: NoticeMark | None, wanted: NoticeMark, can_notice: bool, over: bool) -> NoticeMark:
    """The mark after one more look at what AWS announces. First the host is a lame duck, then it is drained.

    Args:
        current: the mark so far.
        wanted: what AWS announces now; its state counts nothing.
        can_notice: whether a balancer in front has something to notice: the host serves.
        over: whether a lame duck has been one for long enough.
    """
    if current and current.state == OVERRIDDEN and set(wanted.notices) <= set(current.notices):
        return current
    was = current.state if current else SERVING
    drains = over if was == LAME_DUCK else was == DRAINED or not can_notice
    state = DRAINED if drains else LAME_DUCK
    since = current.since if current and state == was else wanted.since
    return dataclasses.replace(wanted, state=state, since=since)


def undrain(aws: NoticeMark | None, by: str) -> NoticeMark | None:
    """The mark for what AWS announces after somebody put the host back into service.

    An operator may put it back although AWS announces something: then only something new drains it again. A rollout
    may where AWS announces nothing any more.
    """
    if aws is None or (by == ROLLOUT and aws.notices):
        return aws
    return dataclasses.replace(aws, state=OVERRIDDEN) if aws.notices else None


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


def request_limits(rows: t.Iterable[t.Mapping[str, str]]) -> dict[str, int]:
    """The concurrent requests that the edge gives each instance, where it has a limit."""
    return {row["svname"]: int(row["slim"]) for row in rows if row["pxname"].startswith(BACKEND_PREFIX) and _bound(row)}


def _bound(row: t.Mapping[str, str]) -> bool:
    return row["svname"] not in ("FRONTEND", "BACKEND") and (row.get("slim") or "").isdigit()
