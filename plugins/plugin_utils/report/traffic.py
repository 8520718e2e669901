# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The traffic driver's report of a rollout, in words. Pure."""

from __future__ import annotations

import typing as t

from ansible_collections.inference.fleet.plugins.plugin_utils.report import words
from ansible_collections.inference.fleet.plugins.plugin_utils.report.record import RolloutRecord
from ansible_collections.inference.fleet.plugins.plugin_utils.report.values import as_dict, as_dicts, as_number

_ERRORS = 100

_TITLES = {
    "requests": "Requests",
    "streams": "Streams",
    "longest_gap": "Longest time without an answer",
    "longest_stream_stall": "Longest stall within a stream",
    "latency": "Time to the whole answer",
    "first_token": "Time to first token",
    "error_counts": "Errors by kind",
    "first_answer": "First answer",
    "ended_because": "Why it ended",
}


def list_reports(record: RolloutRecord) -> list[dict[str, t.Any]]:
    """The traffic driver's reports of all runs."""
    return [*record["traffic_before"], *([record["traffic"]] if record["traffic"] else [])]


def count_requests(record: RolloutRecord) -> tuple[int, int]:
    """Failed requests and streams, and those that were sent; of all runs."""
    failed = sent = 0
    for report in list_reports(record):
        requests, streams = as_dict(report.get("requests")), as_dict(report.get("streams"))
        failed += _count(requests, "failed") + _count(streams, "failed") + _count(streams, "cut")
        sent += _count(requests, "sent") + _count(streams, "begun")
    return failed, sent


def summarize(report: dict[str, t.Any]) -> str:
    """A traffic driver's report in one line."""
    requests, streams = as_dict(report.get("requests")), as_dict(report.get("streams"))
    parts = [
        f"{words.count(_count(requests, 'sent'), 'request')}, {words.grouped(_count(requests, 'failed'))} failed",
        f"{words.count(_count(streams, 'begun'), 'stream')}, {words.grouped(_count(streams, 'failed'))} failed and "
        f"{words.grouped(_count(streams, 'cut'))} cut",
    ]
    gap = as_number(as_dict(report.get("longest_gap")).get("seconds"))
    if gap is not None:
        parts.append(f"longest time without an answer {words.duration(gap)}")
    return "; ".join(parts)


def list_figures(report: dict[str, t.Any]) -> list[list[str]]:
    """Every figure of a report, with its name."""
    shown = {name: value for name, value in report.items() if name not in ("seconds", "errors", "bucket_seconds")}
    return [
        [_TITLES.get(name, words.line(name, 60).replace("_", " ")), _describe(name, value)]
        for name, value in shown.items()
        if value is not None and value != {}
    ]


def list_errors(report: dict[str, t.Any]) -> list[list[str]]:
    """The errors of a report: time, kind, text and duration."""
    return [
        [
            words.clock(as_number(error.get("at"))),
            words.line(error.get("kind", ""), 60),
            words.line(error.get("what", ""), 300),
            words.duration(as_number(error.get("seconds"))),
        ]
        for error in as_dicts(report.get("errors"))[:_ERRORS]
    ]


def _describe(name: str, value: t.Any) -> str:
    """A value of a report: a moment, a duration, a count, or several with their names."""
    if isinstance(value, dict):
        named = ((words.line(key, 60).replace("_", " "), _describe(key, item)) for key, item in value.items())
        return ", ".join(said_ if key == "seconds" else f"{key} {said_}" for key, said_ in named) or "none"
    number = as_number(value)
    if number is None:
        return words.NOTHING if value is None else words.line(value, 200)
    if name in ("at", "began", "ended", "written"):
        return words.moment(number)
    return words.grouped(number) if isinstance(value, int) else words.duration(number)


def _count(of: dict[str, t.Any], name: str) -> int:
    return int(as_number(of.get(name)) or 0)
