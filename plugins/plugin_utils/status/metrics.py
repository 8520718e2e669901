# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""A fleet's hosts as its Prometheus has them: its answers as readings of hosts. Pure.

Metrics are less than what a module reads on a host: reasons of drains, the owner of a rollout and a release's revision
are in none.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.edge.state import DRAINED, SERVER_PREFIX
from ansible_collections.inference.fleet.plugins.plugin_utils.prices.hourly import Cost
from ansible_collections.inference.fleet.plugins.plugin_utils.report import words
from ansible_collections.inference.fleet.plugins.plugin_utils.status.answers import (
    ALERTS,
    ANSWERS,
    KV_USAGE,
    RUNNING,
    SERVERS,
    STARTED,
    UNITS,
    WAITING,
    FoundSample,
    ScrapeTarget,
    by_name,
)
from ansible_collections.inference.fleet.plugins.plugin_utils.status.hosts import HostReading

#: Seconds after which a host's facts are old; they are written every 30.
_OLD_LOOK = 120
_LOW_DISK = 0.1
_LOW_CERTIFICATE = 21 * 86400
_VERDICTS = {0: "ok", 1: "degraded", 2: "failed"}
#: HAProxy's states of a server that is not taken for broken.
_WELL = ("UP", "DRAIN", "NOLB")
_HOST = "host"
_PRICED = "as of the last site.yml"
_REASON = "not in the metrics; playbooks/status.yml shows it"


@dataclasses.dataclass(frozen=True)
class FleetMetrics:
    """What is read from the answers.

    Attributes:
        hosts: each with what is known of it.
        expiries: when each client with a last day ends, Unix time.
        trouble: what needs attention and is no host's.
        notes: what else a reader should know.
    """

    hosts: list[HostReading]
    expiries: dict[str, float]
    trouble: list[str]
    notes: list[str]


def read_fleet(
    hosts: t.Mapping[str, str],
    targets: t.Sequence[ScrapeTarget],
    answers: t.Mapping[str, t.Sequence[FoundSample]],
    now: float,
) -> FleetMetrics:
    """The fleet of the answers.

    Args:
        hosts: the tier of each host that is to be there.
        targets: what Prometheus scrapes.
        answers: by the names of answers.list_questions().
        now: Unix time.
    """
    named = by_name(answers)
    prices = {one.labels.get("of", ""): one.value for one in named.get("fleet_price_dollars_per_hour", ())}
    readings = []
    for host, tier in hosts.items():
        own = _HostMetrics(host, targets, named, now)
        # Without any price, site.yml has written none; that is no unknown price of a host.
        cost = Cost(host, "", None, usd=prices.get(host), source=_PRICED, problem="not known") if prices else None
        readings.append(HostReading(host, tier, _read_status(own), _read_gpus(own), cost=cost))
    expiries: dict[str, float] = {}
    for one in named.get("fleet_client_expires_timestamp_seconds", ()):
        client = one.labels.get("client", "")
        expiries[client] = min(one.value, expiries.get(client, one.value))
    return FleetMetrics(readings, expiries, list(_find_trouble(named)), list(_list_notes(named)))


def _find_trouble(named: t.Mapping[str, t.Sequence[FoundSample]]) -> t.Iterator[str]:
    for one in named.get("fleet_probe_success", ()):
        if one.value == 0:
            yield (
                f"{words.line(one.labels.get('target', ''), 120)} does not answer a completion, as a client would ask "
                "for it: journalctl -u inference-probe on this host"
            )
    pages = [one for one in named.get(ALERTS, ()) if one.labels.get("severity") == "page"]
    for label in sorted({_describe_alert(one) for one in pages}):
        yield f"the alert {label} pages: docs/alerts.md says what to do"


def _list_notes(named: t.Mapping[str, t.Sequence[FoundSample]]) -> t.Iterator[str]:
    tickets = {_describe_alert(one) for one in named.get(ALERTS, ()) if one.labels.get("severity") == "ticket"}
    if tickets:
        yield f"Alerts that are tickets: {words.named(sorted(tickets), 12)}."


def _describe_alert(one: FoundSample) -> str:
    where = [one.labels[name] for name in (_HOST, "server", "kind", "client", "target") if one.labels.get(name)]
    return words.line(" ".join([one.labels.get("alertname", ""), *where]), 160)


class _HostMetrics:
    """What Prometheus has of a host.

    Args:
        host: its name.
        targets: of all hosts.
        named: the samples of all hosts.
        now: Unix time.
    """

    def __init__(
        self,
        host: str,
        targets: t.Sequence[ScrapeTarget],
        named: t.Mapping[str, t.Sequence[FoundSample]],
        now: float,
    ) -> None:
        self.targets = [one for one in targets if one.labels.get(_HOST) == host]
        self._named = {name: [one for one in found if one.labels.get(_HOST) == host] for name, found in named.items()}
        self.now = now

    def all(self, metric: str, /, **labels: str) -> list[FoundSample]:
        """The samples of a metric that have these labels."""
        found = self._named.get(metric, ())
        return [one for one in found if all(one.labels.get(label) == value for label, value in labels.items())]

    def value(self, metric: str, /, **labels: str) -> float | None:
        """The value of the first of them; None where there is none."""
        return next((one.value for one in self.all(metric, **labels)), None)

    def labelled(self, name: str, label: str) -> dict[str, float]:
        """The values of a metric by one of its labels."""
        return {one.labels.get(label, ""): one.value for one in self.all(name)}

    def job(self, name: str) -> list[ScrapeTarget]:
        """Its targets of a job."""
        return [one for one in self.targets if one.labels.get("job") == name]


def _read_status(own: _HostMetrics) -> dict[str, t.Any]:
    """What module fleet_status would say, as far as metrics know it; a failure for a host that cannot be read."""
    edges = own.job("edge")
    if not any(one.is_up for one in edges):
        why = next((one.problem for one in edges if one.problem), "it has not asked it yet")
        return {"unreachable": True, "msg": f"Prometheus cannot read its edge: {why}"}
    # An instance's number is its server in Prometheus; see plugin_utils/monitoring/scrape.py.
    labels = [one.labels for one in own.all("fleet_release_info") + own.all(SERVERS)]
    labels += [one.labels for one in own.job("engine")]
    indexes = {one.get("server", "").removeprefix(SERVER_PREFIX) for one in labels}
    instances = [_read_instance(own, int(index)) for index in sorted(filter(str.isdecimal, indexes), key=int)]
    drains = {one.labels.get("target", ""): _read_mark(one) for one in own.all("fleet_drain_since_timestamp_seconds")}
    marks = [mark for target, mark in drains.items() if target == _HOST]
    serves = any(one.labels.get("state") == "UP" for one in own.all(SERVERS))
    answers = own.labelled(ANSWERS, "code")
    return {
        "instances": instances,
        "edge": {
            "health": 200 if serves and not marks else 503,
            "responses": {name: answers[name] for name in ("2xx", "4xx", "5xx") if name in answers},
        },
        "drain": {"marks": marks, "instances": {name: mark for name, mark in drains.items() if name != _HOST}},
        "rollout": next(map(_read_claim, own.all("fleet_rollout_claim_timestamp_seconds")), None),
        "gates": {name: _read_gate(own, name) for name in own.labelled("fleet_gate_passed", "name")},
        "problems": list(_list_problems(own, instances)),
    }


def _read_instance(own: _HostMetrics, index: int) -> dict[str, t.Any]:
    server = f"{SERVER_PREFIX}{index}"
    release = next((one.labels for one in own.all("fleet_release_info", server=server)), {})
    target = next((one.labels for one in own.job("engine") if one.labels.get("server") == server), None)
    engine = release.get("engine") or (target or {}).get("engine", "")
    seen = {one.labels.get("state", "") for one in own.all(SERVERS, server=server)}
    unit = next((one.labels.get("state", "") for one in own.all(UNITS, name=f"{engine}@{index}.service")), "")
    running, started = own.value(RUNNING, server=server), own.value(STARTED, server=server)
    return {
        "index": index,
        "name": f"{engine}-{index}",
        "engine": engine,
        "version": release.get("version", ""),
        "release": release.get("release", ""),
        "model": release.get("model", ""),
        # Of an instance that spans hosts, only the first one has requests.
        "rank": int(target is None and not seen),
        "state": _judge_state(seen, unit),
        "since": None if started is None else times.moment(started),
        "running": running,
        "waiting": own.value(WAITING, server=server),
        "kv_usage": own.value(KV_USAGE, server=server),
    }


def _judge_state(seen: t.Collection[str], unit: str) -> str:
    """The unit's state, and if that is active or not known, the edge's view of the instance."""
    if unit not in ("", "active"):
        return unit
    if any(state in _WELL for state in seen) or (unit and not seen):
        return "active"
    return next((state.lower() for state in sorted(seen)), "not seen")


def _read_mark(one: FoundSample) -> dict[str, t.Any]:
    return {"state": DRAINED, "by": one.labels.get("by", ""), "reason": _REASON, "since": times.moment(one.value)}


def _read_claim(one: FoundSample) -> dict[str, t.Any]:
    return {"id": one.labels.get("id", ""), "verb": one.labels.get("verb", ""), "since": times.moment(one.value)}


def _read_gate(own: _HostMetrics, name: str) -> dict[str, t.Any]:
    at = own.value("fleet_gate_timestamp_seconds", name=name)
    return {
        "passed": own.value("fleet_gate_passed", name=name) == 1,
        "at": "" if at is None else times.moment(at),
        "message": f"its record is on the host, /var/lib/inference/gate/{name}.json",
    }


def _list_problems(own: _HostMetrics, instances: t.Sequence[t.Mapping[str, t.Any]]) -> t.Iterator[str]:
    nodes = own.job("node")
    if nodes and not any(one.is_up for one in nodes):
        why = next((one.problem for one in nodes if one.problem), "it has not been asked yet")
        yield f"drains, gates, releases and GPUs are not known, because its node exporter cannot be read: {why}"
    names = {f"{SERVER_PREFIX}{one['index']}": one["name"] for one in instances if one["state"] == "active"}
    for one in own.job("engine"):
        if one.problem and one.labels.get("server") in names:
            yield f"the metrics of {names[one.labels['server']]} cannot be read: {one.problem}"
    look = own.value("fleet_last_look_timestamp_seconds")
    if look is not None and own.now - look > _OLD_LOOK:
        yield f"its facts are {times.spoken(own.now - look)} old: systemctl status inference-facts.timer on the host"
    failed = sorted(what for what, count in own.labelled("fleet_look_problems", "what").items() if count)
    if failed:
        yield f"it could not read {', '.join(failed)}: journalctl -u inference-facts on the host"
    sizes = own.labelled("fleet_disk_size_bytes", "what")
    for what, free in own.labelled("fleet_disk_available_bytes", "what").items():
        if sizes.get(what) and free / sizes[what] < _LOW_DISK:
            yield f"the disk with its {what} has {free / sizes[what] * 100:.0f} % free ({free / 1e9:.1f} GB)"
    for file, at in own.labelled("fleet_certificate_expires_timestamp_seconds", "file").items():
        if at - own.now < _LOW_CERTIFICATE:
            left = f"expires in {times.spoken(at - own.now)}" if at > own.now else "has expired"
            yield f"the certificate {file} {left}"
    for server, gave_up in own.labelled("fleet_watchdog_gave_up", "server").items():
        if gave_up:
            yield f"the watchdog has given {server} up; what it saw is in /var/lib/inference/hangs on the host"


def _read_gpus(own: _HostMetrics) -> dict[str, t.Any] | None:
    """What module gpu_info would say; None for a host without GPUs, or whose facts cannot be read."""
    expected, count = own.value("fleet_gpu_expected"), own.value("fleet_gpu_count")
    if not expected:
        return None
    if count is None:
        return {"msg": "nvidia-smi says nothing: journalctl -u inference-facts on the host"}
    verdicts = own.labelled("fleet_gpu_verdict", "gpu")
    worst = max([int(value) for value in verdicts.values()] + [2 if count < expected else 0])
    report = [f"{count:.0f} of {words.count(expected, 'GPU')} answer"] if count < expected else []
    for gpu, value in verdicts.items():
        if value:
            xids = own.all("fleet_gpu_xid_last_timestamp_seconds", gpu=gpu)
            last = [f"XID {one.labels.get('xid', '')} at {times.minute(times.moment(one.value))}" for one in xids]
            state = f"GPU {gpu} is {_VERDICTS.get(int(value), 'failed')}"
            report.append(f"{state} ({', '.join(last) or 'no XID'}); playbooks/verify_gpu.yml says why")
    return {
        "verdict": _VERDICTS.get(worst, "failed"),
        "gpus": sorted(verdicts),
        "gpu_summary": words.count(count, "GPU"),
        "report": report,
    }
