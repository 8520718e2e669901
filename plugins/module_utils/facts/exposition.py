# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Metrics of a host as the text that Prometheus reads. Pure."""

from __future__ import annotations

import typing as t

GAUGE = "gauge"
COUNTER = "counter"
SUMMARY = "summary"

#: Each metric with its type and its help. Alerts and dashboards use these names.
METRICS: dict[str, tuple[str, str]] = {
    "fleet_info": (GAUGE, "The host's place in the fleet."),
    "fleet_release_info": (GAUGE, "The release that an instance runs."),
    "fleet_gate_passed": (GAUGE, "Whether the last gate of this name passed."),
    "fleet_gate_timestamp_seconds": (GAUGE, "When the last gate of this name ended."),
    "fleet_drain_since_timestamp_seconds": (
        GAUGE,
        "Since when the host or an instance is drained, with the owner.",
    ),
    "fleet_rollout_claim_timestamp_seconds": (GAUGE, "When the rollout began that claims this host."),
    "fleet_client_expires_timestamp_seconds": (GAUGE, "When a client's keys expire at this edge."),
    "fleet_certificate_expires_timestamp_seconds": (GAUGE, "When the first certificate in a file expires."),
    "fleet_gpu_count": (GAUGE, "The GPUs that answer."),
    "fleet_gpu_expected": (GAUGE, "The GPUs that the host should have."),
    "fleet_gpu_verdict": (GAUGE, "The state of a GPU: 0 ok, 1 degraded, 2 failed."),
    "fleet_gpu_xid_last_timestamp_seconds": (GAUGE, "When an XID of a GPU was last in the kernel log of this boot."),
    "fleet_gpu_ecc_uncorrected_total": (COUNTER, "Uncorrectable ECC errors since the driver was loaded."),
    "fleet_gpu_remap_pending": (GAUGE, "Whether a row of a GPU's memory waits for a reset to be remapped."),
    "fleet_gpu_remap_failure": (GAUGE, "Whether a row of a GPU's memory could not be remapped."),
    "fleet_gpu_clock_event_reasons": (GAUGE, "The driver's mask of why a GPU is slower than it could be."),
    "fleet_gpu_power_watts": (GAUGE, "The power that a GPU draws."),
    "fleet_accountant_wanted": (GAUGE, "1 where an accountant should count the tokens of clients with limits on them."),
    "fleet_disk_available_bytes": (GAUGE, "Free space of the file system with weights, runtimes or journal."),
    "fleet_disk_size_bytes": (GAUGE, "Size of the file system with weights, runtimes or journal."),
    "fleet_requests_rejected_total": (COUNTER, "Requests that a limit refused, by client and cause."),
    "fleet_request_seconds": (SUMMARY, "How long requests of a client took that reached an instance."),
    "fleet_answers_total": (COUNTER, "Answers by client, model, and whether their usage is whole, partial or unknown."),
    "fleet_prompt_tokens_total": (COUNTER, "Tokens of prompts, by client and model."),
    "fleet_cached_tokens_total": (COUNTER, "Tokens of prompts that were in the cache, by client and model."),
    "fleet_answer_tokens_total": (COUNTER, "Tokens of answers, by client and model."),
    "fleet_first_token_seconds": (SUMMARY, "How long clients waited for the first token of a stream."),
    "fleet_token_gap_seconds": (SUMMARY, "How long clients waited for each further token of a stream."),
    "fleet_look_problems": (GAUGE, "Readings that failed in the last look; the journal has the reasons."),
    "fleet_last_look_timestamp_seconds": (GAUGE, "When these metrics were written."),
}

_SUFFIXES = ("_sum", "_count")


class Series(t.NamedTuple):
    """One value of a metric. Labels without a value are left out: to Prometheus they are not there either."""

    name: str
    labels: t.Mapping[str, str]
    value: float


def render(series: t.Iterable[Series]) -> str:
    """The exposition. Of two series with the same labels the last one counts: two would make the whole text invalid."""
    lines: dict[str, dict[str, str]] = {metric: {} for metric in METRICS}
    for one in series:
        metric = one.name if one.name in METRICS else _base(one.name)
        shown = _labels(one.labels)
        lines[metric][f"{one.name}{shown}"] = f"{one.name}{shown} {_number(one.value)}\n"
    text = []
    for metric, found in lines.items():
        if found:
            kind, help_text = METRICS[metric]
            text += [f"# HELP {metric} {help_text}\n", f"# TYPE {metric} {kind}\n", *found.values()]
    return "".join(text)


def _base(name: str) -> str:
    return next(name[: -len(suffix)] for suffix in _SUFFIXES if name.endswith(suffix))


def _labels(labels: t.Mapping[str, str]) -> str:
    shown = [f'{name}="{_escaped(value)}"' for name, value in labels.items() if value]
    return f"{{{','.join(shown)}}}" if shown else ""


def _escaped(value: str) -> str:
    # A lone surrogate, from a file name that is not UTF-8, cannot be written.
    plain = value.encode("utf-8", "replace").decode("utf-8")
    return plain.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
