# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The series that a host's records make, one function for each kind of record. Pure."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.clients import edge_values
from ansible_collections.inference.fleet.plugins.module_utils.core import times
from ansible_collections.inference.fleet.plugins.module_utils.edge import state
from ansible_collections.inference.fleet.plugins.module_utils.facts.access_log import AccessCounters
from ansible_collections.inference.fleet.plugins.module_utils.facts.answers import AnswerCounters
from ansible_collections.inference.fleet.plugins.module_utils.facts.certificates import first_expiry
from ansible_collections.inference.fleet.plugins.module_utils.facts.exposition import Series
from ansible_collections.inference.fleet.plugins.module_utils.rollout import claim as rollout_claim

#: The target of a mark that is the whole host's.
HOST = "host"


def of_host(labels: t.Mapping[str, str]) -> list[Series]:
    """The host itself."""
    return [Series("fleet_info", labels, 1)]


def of_release(instance: str, release: str, manifest: t.Mapping[str, t.Any]) -> list[Series]:
    """The release of an instance."""
    labels = {
        "instance": instance,
        "engine": str(manifest["engine"]),
        "version": str(manifest["version"]),
        "release": release,
        "model": str(manifest.get("served_name") or manifest["model"]),
    }
    return [Series("fleet_release_info", labels, 1)]


def of_gate(name: str, record: t.Mapping[str, t.Any]) -> list[Series]:
    """The last gate of a name."""
    labels = {"name": name}
    return [
        Series("fleet_gate_passed", labels, bool(record["passed"])),
        Series("fleet_gate_timestamp_seconds", labels, times.seconds(record["at"])),
    ]


def of_drains(document: t.Any, path: str) -> list[Series]:
    """What is out of service."""
    drains = state.read_drains(document, path)
    marks = [(HOST, mark) for mark in drains.marks] + list(drains.instances.items())
    return [
        Series(
            "fleet_drain_since_timestamp_seconds", {"target": target, "by": mark.by}, float(times.seconds(mark.since))
        )
        for target, mark in marks
    ]


def of_claim(document: t.Any, path: str) -> list[Series]:
    """The rollout that is not over for this host."""
    claim = rollout_claim.parse(document, path)
    if claim is None or claim.finished:
        return []
    labels = {"id": claim.id, "verb": claim.verb}
    return [Series("fleet_rollout_claim_timestamp_seconds", labels, times.seconds(claim.since))]


def of_accountant() -> list[Series]:
    """A gateway that has an accountant. What it counts, and when it did last, it says itself."""
    return [Series("fleet_accountant_wanted", {}, 1)]


def of_clients(keys_map: str, path: str) -> list[Series]:
    """The clients whose keys expire. Nothing of a key is in it, not even of its hash."""
    found: dict[str, int] = {}
    for _digest, value in state.parse_map(keys_map):
        edge_values.check_version(value, path)
        name, limits = edge_values.parse(value)
        expires = limits.get("expires")
        if expires:
            moment = times.seconds(expires)
            found[name] = min(moment, found.get(name, moment))
    return [Series("fleet_client_expires_timestamp_seconds", {"client": name}, found[name]) for name in sorted(found)]


def of_certificates(path: str, pem: bytes) -> list[Series]:
    """A file with certificates; the first one that expires ends the service."""
    return [Series("fleet_certificate_expires_timestamp_seconds", {"file": path}, first_expiry(pem, path))]


def of_disk(what: str, available: int, size: int) -> list[Series]:
    """The file system behind a directory."""
    return [
        Series("fleet_disk_available_bytes", {"what": what}, available),
        Series("fleet_disk_size_bytes", {"what": what}, size),
    ]


def of_requests(counters: AccessCounters) -> list[Series]:
    """What the access log said so far."""
    series = [
        Series("fleet_requests_rejected_total", {"client": client, "cause": cause}, count)
        for (client, cause), count in sorted(counters.rejected.items())
    ]
    for client, (count, milliseconds) in sorted(counters.served.items()):
        series.append(Series("fleet_request_seconds_sum", {"client": client}, milliseconds / 1000))
        series.append(Series("fleet_request_seconds_count", {"client": client}, count))
    return series + _of_answers(counters.answers)


def _of_answers(counters: AnswerCounters) -> list[Series]:
    """What answers used so far, and when their tokens came."""
    series = [
        Series("fleet_answers_total", {"client": client, "model": model, "usage": known}, count)
        for (client, model, known), count in sorted(counters.answers.items())
    ]
    for (client, model), (prompt, cached, completion) in sorted(counters.tokens.items()):
        labels = {"client": client, "model": model}
        series.append(Series("fleet_prompt_tokens_total", labels, prompt))
        series.append(Series("fleet_cached_tokens_total", labels, cached))
        series.append(Series("fleet_answer_tokens_total", labels, completion))
    for client, (count, milliseconds) in sorted(counters.first.items()):
        series.append(Series("fleet_first_token_seconds_sum", {"client": client}, milliseconds / 1000))
        series.append(Series("fleet_first_token_seconds_count", {"client": client}, count))
    for client, (count, milliseconds) in sorted(counters.gaps.items()):
        series.append(Series("fleet_token_gap_seconds_sum", {"client": client}, milliseconds / 1000))
        series.append(Series("fleet_token_gap_seconds_count", {"client": client}, count))
    return series


def of_look(problems: t.Mapping[str, int], now: float) -> list[Series]:
    """The look itself."""
    series = [Series("fleet_look_problems", {"what": what}, count) for what, count in problems.items()]
    return [*series, Series("fleet_last_look_timestamp_seconds", {}, now)]
