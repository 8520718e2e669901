# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Hosts as a status page shows them, from what was read of each. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.edge.state import AWS, OPERATOR, ROLLOUT
from ansible_collections.inference.fleet.plugins.module_utils.instances.status import short_revision
from ansible_collections.inference.fleet.plugins.plugin_utils.prices import hourly
from ansible_collections.inference.fleet.plugins.plugin_utils.report import words
from ansible_collections.inference.fleet.plugins.plugin_utils.report.values import (
    as_dict,
    as_dicts,
    as_integer,
    as_list,
    as_number,
    as_text,
)

OK, WARN, RUN, BAD, MUTED = "ok", "warn", "run", "bad", "muted"
#: The gravest first.
KINDS = (BAD, WARN, RUN, OK, MUTED)

_UNREACHABLE = "unreachable"
_IN_SERVICE = "in service"
_BY = {ROLLOUT: RUN, OPERATOR: WARN, AWS: WARN}


@dataclasses.dataclass(frozen=True)
class HostReading:
    """What is known of a host.

    Attributes:
        host: its name.
        tier: ``inference`` or ``gateway``.
        status: the result of module fleet_status, or the failure.
        gpu: the result of module gpu_info, or the failure; None where it was not asked.
        aws: its columns of module aws_status.
        cost: what it costs; None where it costs nothing.
    """

    host: str
    tier: str
    status: dict[str, t.Any]
    gpu: dict[str, t.Any] | None = None
    aws: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    cost: hourly.Cost | None = None


class InstanceRow(t.NamedTuple):
    """An instance; its kind is that of its state."""

    kind: str
    number: str
    engine: str
    version: str
    release: str
    model: str
    state: str
    since: str
    requests: str
    kv_use: str

    @property
    def runs(self) -> str:
        """Its engine and version."""
        return f"{self.engine} {self.version}".strip()

    @property
    def cells(self) -> list[str]:
        """Its line of a table."""
        return [cell or words.NOTHING for cell in self[1:]]


class GateRow(t.NamedTuple):
    """The last gate of a target."""

    target: str
    passed: bool
    at: str
    first_token: str
    rate: str
    reason: str


class OutRow(t.NamedTuple):
    """A host or an instance that is out of service, or announced to be."""

    kind: str
    host: str
    what: str
    state: str
    by: str
    reason: str
    since: str

    @property
    def cells(self) -> tuple[t.Any, ...]:
        """Its line of a table; the first cell is the row itself."""
        said = (self.what or "the host", self.state, self.by or "-", self.reason or "no reason given", self.since)
        return (self, *said)


@dataclasses.dataclass(frozen=True)
class StatusHost:
    """A host of the page.

    Attributes:
        name: the inventory's.
        anchor: of its part of the page.
        tier: ``inference`` or ``gateway``; empty for a host beyond the run.
        kind: the gravest of OK, WARN, RUN, BAD and MUTED.
        state: in few words.
        trouble: what needs attention, in sentences.
        serves: whether clients reach it.
        instances, gates, out: its rows.
        running, waiting: its requests; None where nothing is known.
        kv_use: the greatest share of a KV cache.
        responses: its edge's answers by class, since the edge's process began.
        gpu: the verdict on its GPUs in few words; empty where none was made.
        gpu_kind: of the verdict.
        gpu_report: the reasons.
        claim: the rollout that it is in; empty where that has ended.
        aws: what AWS says, as pairs.
        usd: its price per hour in words.
        price_of: where the price is from.
        problems: what could not be read.
    """

    name: str
    anchor: str
    tier: str = ""
    kind: str = MUTED
    state: str = ""
    trouble: list[str] = dataclasses.field(default_factory=list)
    serves: bool = False
    instances: list[InstanceRow] = dataclasses.field(default_factory=list)
    gates: list[GateRow] = dataclasses.field(default_factory=list)
    out: list[OutRow] = dataclasses.field(default_factory=list)
    running: int | None = None
    waiting: int | None = None
    kv_use: float | None = None
    responses: dict[str, int] = dataclasses.field(default_factory=dict)
    gpu: str = ""
    gpu_kind: str = MUTED
    gpu_report: list[str] = dataclasses.field(default_factory=list)
    claim: str = ""
    aws: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    usd: str = ""
    price_of: str = ""
    problems: list[str] = dataclasses.field(default_factory=list)

    @property
    def runs(self) -> str:
        """Its engines with their versions."""
        counted: dict[str, int] = {}
        for one in self.instances:
            counted[one.runs] = counted.get(one.runs, 0) + 1
        return ", ".join(name if count == 1 else f"{count} x {name}" for name, count in counted.items())

    @property
    def load(self) -> str:
        """Running and waiting requests."""
        return "" if self.running is None else f"{words.grouped(self.running)}/{words.grouped(self.waiting or 0)}"

    @property
    def kv(self) -> str:
        """The share of the KV cache in use."""
        return "" if self.kv_use is None else f"{self.kv_use * 100:.0f} %"

    @property
    def gate(self) -> GateRow | None:
        """The gate to show in one line: a failed one before a passed one, then the last."""
        return min(self.gates, key=lambda one: (one.passed, [-ord(letter) for letter in one.at]), default=None)


def show_host(reading: HostReading, number: int) -> StatusHost:
    """A host of the run.

    Args:
        reading: what is known of it.
        number: its place on the page, for its anchor.
    """
    cost = reading.cost
    common: dict[str, t.Any] = {
        "name": reading.host,
        "anchor": f"host-{number}",
        "tier": reading.tier,
        "aws": [(name, text) for name in ("balancer", "events") if (text := as_text(reading.aws.get(name)))],
        "usd": hourly.shown(cost.usd) if cost else "",
        "price_of": (cost.source or cost.problem) if cost else "",
    }
    status = reading.status
    if "instances" not in status:
        lost = bool(status.get("unreachable")) or not status.get("msg")
        state = _UNREACHABLE if lost else "not read"
        why = words.line(status.get("msg") or "it does not answer", 600)
        return StatusHost(kind=BAD, state=state, trouble=[f"{state}: {why}"], **common)
    return _show_read(reading, status, common)


def show_beyond(host: str, state: str, number: int) -> StatusHost:
    """A host of the fleet that the run did not ask, such as a stopped one."""
    return StatusHost(host, f"host-{number}", state=words.line(state, 60))


def _show_read(reading: HostReading, status: dict[str, t.Any], common: dict[str, t.Any]) -> StatusHost:
    instances = as_dicts(status.get("instances"))
    drain, edge = as_dict(status.get("drain")), as_dict(status.get("edge"))
    out = _list_out(reading.host, drain, edge)
    gates = _list_gates(as_dict(status.get("gates")))
    gpu, gpu_kind, report = _judge_gpu(reading.gpu)
    problems = [words.line(text, 400) for text in as_list(status.get("problems"))]
    findings = list(_find_trouble(instances, edge, out, gates))
    if gpu_kind in (BAD, WARN):
        findings.append((gpu_kind, "", f"GPUs {gpu}: {report[0] if report else 'no reason given'}"))
    findings += [(WARN, "", text) for text in problems]
    state = next((state for _kind, state, _text in findings if state), "")
    kinds = [kind for kind, _state, _text in findings]
    serves = edge.get("health") == 200 or _is_inner_node(instances)
    if not state:
        state = _IN_SERVICE if serves else "nothing installed"
    kind = min(kinds or [OK if serves else MUTED], key=KINDS.index)
    loads = [(as_integer(one.get("running")), as_integer(one.get("waiting"))) for one in instances]
    pools = as_dict(edge.get("pools"))
    loads.append((as_integer(pools.get("running")), as_integer(pools.get("waiting"))))
    known = [(running, waiting or 0) for running, waiting in loads if running is not None]
    return StatusHost(
        kind=kind,
        state=state,
        trouble=[text for kind, _state, text in findings if kind in (BAD, WARN) and text],
        serves=serves,
        instances=[_show_instance(one) for one in instances],
        gates=gates,
        out=out,
        running=sum(running for running, _waiting in known) if known else None,
        waiting=sum(waiting for _running, waiting in known) if known else None,
        kv_use=max((use for one in instances if (use := as_number(one.get("kv_usage"))) is not None), default=None),
        responses={name: int(as_number(count) or 0) for name, count in as_dict(edge.get("responses")).items()},
        gpu=gpu,
        gpu_kind=gpu_kind,
        gpu_report=report,
        claim=_describe_claim(as_dict(status.get("rollout"))),
        problems=problems,
        **common,
    )


def _find_trouble(
    instances: list[dict[str, t.Any]], edge: dict[str, t.Any], out: list[OutRow], gates: list[GateRow]
) -> t.Iterator[tuple[str, str, str]]:
    """What a person should see first: its kind, the host's state, and a sentence, where there are any."""
    whole = [row for row in out if not row.what]
    for row in out:
        label = f"{row.state} by {row.by}" if row.by else row.state
        named = f"{row.what} {label}" if row.what else label
        # A drain is somebody's intention: it is in the page's list of them.
        yield row.kind, named, f"{named}: {row.reason}" if row.kind == BAD else ""
    down = [one for one in instances if one.get("state") != "active"]
    for one in down if not whole else []:
        state = f"{words.line(one.get('name', ''), 60)} {words.line(one.get('state', ''), 30)}"
        yield BAD, state, f"{state}; its journal: journalctl -u {_unit(one)}"
    if instances and not whole and not down and edge.get("health") != 200 and not _is_inner_node(instances):
        health = as_integer(edge.get("health"))
        state = "edge does not answer" if health is None else f"health {health}"
        yield BAD, state, f"{state}, and nothing drained it"
    for gate in gates:
        if not gate.passed:
            yield BAD, "", f"the last gate on {gate.target} failed at {gate.at}: {gate.reason or 'no reason given'}"


def _unit(instance: dict[str, t.Any]) -> str:
    return f"{words.line(instance.get('engine') or '', 30)}@{as_integer(instance.get('index')) or 0}"


def _is_inner_node(instances: list[dict[str, t.Any]]) -> bool:
    """Whether the host serves through the first host of instances that span hosts."""
    return bool(instances) and all(as_integer(one.get("rank")) for one in instances)


def _show_instance(one: dict[str, t.Any]) -> InstanceRow:
    model, revision = as_text(one.get("served_name") or one.get("model")), as_text(one.get("revision"))
    running, use = as_integer(one.get("running")), as_number(one.get("kv_usage"))
    limit = as_integer(one.get("limit"))
    requests = "" if running is None else f"{running}/{as_integer(one.get('waiting')) or 0}"
    state = as_text(one.get("state"))
    return InstanceRow(
        OK if state == "active" else BAD,
        as_text(one.get("index")),
        as_text(one.get("engine")),
        as_text(one.get("version")),
        as_text(one.get("release")).rpartition("-")[2],
        f"{model}@{short_revision(revision)}" if model and revision else model,
        state,
        times.minute(as_text(one.get("since"))),
        f"{requests} of {limit}" if requests and limit else requests,
        "" if use is None else f"{use * 100:.0f} %",
    )


def _list_gates(gates: dict[str, t.Any]) -> list[GateRow]:
    rows = []
    for name, gate in sorted(gates.items()):
        if not isinstance(gate, dict):
            continue
        figures = as_dict(gate.get("figures"))
        first, rate = as_number(figures.get("ttft_ms")), as_number(figures.get("tokens_per_second"))
        passed = gate.get("passed") is True
        rows.append(
            GateRow(
                name,
                passed,
                times.minute(as_text(gate.get("at"))),
                "" if first is None else f"{first:.0f} ms",
                "" if rate is None else f"{rate:.{0 if rate >= 100 else 1}f}",
                "" if passed else words.line(gate.get("message") or gate.get("reason") or "", 400),
            )
        )
    return rows


def _list_out(host: str, drain: dict[str, t.Any], edge: dict[str, t.Any]) -> list[OutRow]:
    """Everything that keeps requests from the host or from an instance, or announces to."""
    rows = []
    held = as_dict(edge.get("held"))
    if held:
        reason = f"{words.line(held.get('why', ''), 300)}: its keys may be old. site.yml confirms them"
        rows.append(OutRow(BAD, host, "", "held", "", reason, times.minute(as_text(held.get("since")))))
    marks = as_dicts(drain.get("marks")) or ([drain] if drain.get("state") else [])
    rows += [_show_mark(host, "", mark) for mark in marks]
    rows += [_show_mark(host, name, as_dict(mark)) for name, mark in sorted(as_dict(drain.get("instances")).items())]
    notice = as_dict(drain.get("aws"))
    if notice and not any(row.by == AWS for row in rows):
        rows.append(_show_mark(host, "", {**notice, "by": AWS}))
    return rows


def _show_mark(host: str, what: str, mark: dict[str, t.Any]) -> OutRow:
    by = words.line(mark.get("by") or "somebody", 30)
    state = words.line(mark.get("state") or "", 30).replace("_", " ")
    reason, since = words.line(mark.get("reason") or "", 300), times.minute(as_text(mark.get("since")))
    return OutRow(_BY.get(by, WARN), host, what, state, by, reason, since)


def _judge_gpu(gpu: dict[str, t.Any] | None) -> tuple[str, str, list[str]]:
    """The verdict in few words, its kind and its reasons."""
    if gpu is None:
        return "", MUTED, []
    verdict = as_text(gpu.get("verdict"))
    if not verdict:
        return "not read", WARN, [words.line(gpu.get("msg") or "module gpu_info gave no verdict", 400)]
    report = [words.line(text, 600) for text in as_list(gpu.get("report"))]
    kind = {"ok": OK, "degraded": WARN}.get(verdict, BAD)
    if kind == OK and not gpu.get("gpus"):
        # A host of the accelerator cpu.
        kind = MUTED
    summary = words.line(gpu.get("gpu_summary") or "", 80)
    return f"{verdict}, {summary}" if summary else verdict, kind, report


def _describe_claim(claim: dict[str, t.Any]) -> str:
    if not claim or claim.get("finished"):
        return ""
    who, targets = words.line(claim.get("who") or "", 60), as_dict(claim.get("targets"))
    done = f", {words.count(len(as_dict(claim.get('done'))), 'instance')} of {len(targets)} done" if targets else ""
    return (
        f"{words.line(claim.get('verb', ''), 40)} {words.line(claim.get('id', ''), 80)}{f' of {who}' if who else ''} "
        f"since {times.minute(as_text(claim.get('since')))}{done}"
    )
