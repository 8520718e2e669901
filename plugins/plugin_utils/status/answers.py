# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""What a status page asks a Prometheus about its fleet, and the answers as samples. Pure."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.engines.metrics import SHARED_RANKS
from ansible_collections.inference.fleet.plugins.module_utils.engines.registry import ENGINES, KINDS
from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.promql import INSTANCE, TO_INSTANCES
from ansible_collections.inference.fleet.plugins.plugin_utils.report import words
from ansible_collections.inference.fleet.plugins.plugin_utils.report.values import as_dict, as_dicts, as_text
from ansible_collections.inference.fleet.plugins.plugin_utils.status import history

#: The facts of hosts that a page shows, by the names that hosts write.
FACTS = (
    "fleet_certificate_expires_timestamp_seconds",
    "fleet_client_expires_timestamp_seconds",
    "fleet_disk_available_bytes",
    "fleet_disk_size_bytes",
    "fleet_drain_since_timestamp_seconds",
    "fleet_gate_passed",
    "fleet_gate_timestamp_seconds",
    "fleet_gpu_count",
    "fleet_gpu_expected",
    "fleet_gpu_verdict",
    "fleet_gpu_xid_last_timestamp_seconds",
    "fleet_last_look_timestamp_seconds",
    "fleet_look_problems",
    "fleet_price_dollars_per_hour",
    "fleet_probe_success",
    "fleet_release_info",
    "fleet_rollout_claim_timestamp_seconds",
    "fleet_watchdog_gave_up",
)
#: What else is asked, by the name under which its answer is read.
FACTS_ANSWER = "facts"
ALERTS = "alerts"
ANSWERS = "answers"
KV_USAGE = "kv_usage"
RUNNING = "running"
SERVERS = "servers"
STARTED = "started"
UNITS = "units"
WAITING = "waiting"


class FoundSample(t.NamedTuple):
    """A series in an answer, with its last value."""

    labels: dict[str, str]
    value: float


class ScrapeTarget(t.NamedTuple):
    """What Prometheus scrapes, and why it could not; empty where it could, or has not yet."""

    labels: dict[str, str]
    is_up: bool
    problem: str


def list_questions() -> dict[str, str]:
    """What to ask, by the name under which the answer is read; facts have theirs in the answer."""
    engines = [one.counters for one in ENGINES.values() if one.counters]
    units = "|".join(sorted(KINDS))
    return {
        FACTS_ANSWER: f'{{__name__=~"{"|".join(FACTS)}"}}',
        ALERTS: 'ALERTS{alertstate="firing",severity=~"page|ticket"}',
        ANSWERS: f"sum by (host, code) (haproxy_backend_http_responses_total{{{TO_INSTANCES}}})",
        RUNNING: _of_instances("sum", [one.running for one in engines]),
        WAITING: _of_instances("sum", [one.waiting for one in engines]),
        KV_USAGE: _of_instances("max", [one.kv_usage for one in engines]),
        SERVERS: f"max by (host, server, state) (haproxy_server_status{{{INSTANCE}}}) == 1",
        STARTED: 'max by (host, server) (process_start_time_seconds{job="engine"})',
        UNITS: f'node_systemd_unit_state{{name=~"({units})@[0-9]+[.]service"}} == 1',
    }


def _of_instances(how: str, names: t.Iterable[str]) -> str:
    # Ranks of one instance repeat its value, and so do priorities.
    ranks = ", ".join(sorted(SHARED_RANKS))
    each = " or ".join(f'max without ({ranks}) ({name}{{priority=""}})' for name in names if name)
    return f"{how} by (host, server) ({each})"


def by_name(answers: t.Mapping[str, t.Sequence[FoundSample]]) -> dict[str, list[FoundSample]]:
    """The samples by their metric's name, where an answer has several metrics, else by the answer's."""
    named: dict[str, list[FoundSample]] = {}
    for name, samples in answers.items():
        for one in samples:
            named.setdefault(one.labels.get("__name__", name) if name == FACTS_ANSWER else name, []).append(one)
    return named


def parse_vector(document: t.Any) -> list[FoundSample]:
    """The series in an answer of Prometheus' ``query``.

    Raises:
        FleetError: it is an error of Prometheus, or no such answer.
    """
    try:
        return [
            FoundSample({str(name): str(value) for name, value in one["metric"].items()}, float(one["value"][1]))
            for one in history.read_result(document, "vector")
        ]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise FleetError(history.OTHER_FORMAT) from error


def parse_targets(document: t.Any) -> list[ScrapeTarget]:
    """What Prometheus scrapes, from its ``targets``.

    Raises:
        FleetError: it is an error of Prometheus, or no such answer.
    """
    found = as_dicts(as_dict(history.read_data(document)).get("activeTargets"))
    return [
        ScrapeTarget(
            {name: as_text(value) for name, value in as_dict(one.get("labels")).items()},
            one.get("health") == "up",
            words.line(one.get("lastError") or "", 200),
        )
        for one in found
    ]
