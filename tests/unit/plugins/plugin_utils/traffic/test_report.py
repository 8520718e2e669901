from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.inference.fleet.plugins.plugin_utils.traffic import report as traffic_report
from ansible_collections.inference.fleet.plugins.plugin_utils.traffic.report import (
    BucketSeries,
    Failure,
    Spread,
    TrafficReport,
)

REFUSED = Failure("connection refused", "connection refused")
RESET = Failure("connection reset", "connection reset")


def test_everything_that_began_is_in_flight_or_ended_one_way() -> None:
    report = TrafficReport(100.0)
    requests = [report.request(100.0 + number) for number in range(4)]
    requests[0].ok(100.5)
    requests[1].failed(102.0, REFUSED)
    requests[2].ok(102.1)
    report.request_skipped()
    streams = [report.stream(101.0) for _ in range(4)]
    streams[0].content(101.5, 1)
    streams[0].whole(104.0)
    streams[1].refused(101.1, Failure("503 Service Unavailable", "503 Service Unavailable: drained"))
    streams[2].content(101.5, 2)
    streams[2].content(102.5, 1)
    streams[2].cut(102.9, RESET)
    shown = report.document(105.0)
    assert shown["requests"] == {"sent": 4, "ok": 2, "failed": 1, "in_flight": 1, "skipped": 1}
    assert shown["streams"] == {"begun": 4, "whole": 1, "failed": 1, "cut": 1, "in_flight": 1}
    assert shown["errors"] == [
        {"at": 102.0, "kind": "request", "what": "connection refused", "seconds": 1.0},
        {"at": 101.1, "kind": "stream", "what": "503 Service Unavailable: drained", "seconds": 0.1},
        {"at": 102.9, "kind": "stream", "what": "cut after 3 tokens: connection reset", "seconds": 1.9},
    ]
    assert shown["error_counts"] == {
        "request": {"connection refused": 1},
        "stream": {"503 Service Unavailable": 1, "cut (connection reset)": 1},
    }
    json.dumps(shown)


def test_the_gap_is_between_any_two_answers_of_all_clients() -> None:
    report = TrafficReport(100.0)
    streams = [report.stream(100.0), report.stream(100.0)]
    assert report.document(103.0)["longest_gap"] is None
    streams[0].content(104.0, 1)
    streams[1].content(105.0, 1)
    report.request(105.0).ok(105.5)
    streams[0].content(107.0, 1)
    assert report.document(107.2)["longest_gap"] == {"seconds": 1.5, "at": 105.5}
    assert report.document(109.0)["longest_gap"] == {"seconds": 2.0, "at": 107.0}, "one that still lasts"
    assert report.document(107.5)["longest_stream_stall"] == {"seconds": 4.0, "at": 105.0}, "the second one's"


def test_a_failed_request_or_an_empty_piece_ends_no_gap() -> None:
    report = TrafficReport(100.0)
    report.request(100.0).ok(100.0)
    report.request(100.0).failed(101.0, REFUSED)
    report.stream(100.0).content(102.0, 0)
    assert report.document(103.0)["longest_gap"] == {"seconds": 3.0, "at": 100.0}


def test_after_the_stop_silence_is_no_gap() -> None:
    report = TrafficReport(100.0)
    stream = report.stream(100.0)
    stream.content(101.0, 1)
    report.stop(103.0)
    stream.content(110.0, 1)
    shown = report.document(120.0)
    assert shown["longest_gap"] == {"seconds": 2.0, "at": 101.0}
    assert shown["longest_stream_stall"] == {"seconds": 10.0, "at": 110.0}


def test_the_wait_for_the_first_piece_is_no_stall() -> None:
    report = TrafficReport(100.0)
    stream = report.stream(100.0)
    stream.content(109.0, 1)
    stream.content(109.5, 1)
    stream.whole(109.75)
    shown = report.document(120.0)
    assert shown["longest_stream_stall"] == {"seconds": 0.5, "at": 109.0}
    assert shown["first_token"]["p50"] == pytest.approx(9.0, rel=0.01)


def test_percentiles_are_right_to_one_percent() -> None:
    spread, exact = Spread(), [0.0005 * 1.0021**number for number in range(5000)]
    for number in range(5000):
        spread.add(exact[number * 1237 % 5000])
    for percent in (50, 95, 99):
        assert spread.percentile(percent) == pytest.approx(exact[50 * percent - 1], rel=0.011)
    assert spread.largest() == exact[-1]


def test_percentiles_of_little() -> None:
    spread = Spread()
    assert (spread.percentile(50), spread.largest()) == (None, None)
    spread.add(0.0)
    assert spread.percentile(95) == 0.0
    spread.add(1.0)
    assert spread.percentile(50) == pytest.approx(0, abs=0.001)
    assert spread.percentile(95) == 1.0
    assert TrafficReport(1.0).document(2.0)["latency"] == {"p50": None, "p95": None, "max": None}


def seconds(report: TrafficReport, now: float) -> list[tuple[t.Any, ...]]:
    row = report.document(now)["seconds"]
    return [tuple(bucket[name] for name in ("at", "ok", "failed", "tokens", "in_flight")) for bucket in row]


def test_the_row_of_seconds_has_no_hole() -> None:
    report = TrafficReport(100.7)
    stream = report.stream(100.9)
    stream.content(103.2, 3)
    request = report.request(103.9)
    request.failed(104.0, REFUSED)
    stream.whole(104.1)
    assert seconds(report, 105.5) == [
        (100, 0, 0, 0, 1),
        (101, 0, 0, 0, 1),
        (102, 0, 0, 0, 1),
        (103, 0, 0, 3, 2),
        (104, 1, 1, 0, 2),
        (105, 0, 0, 0, 0),
    ]


def test_a_long_row_becomes_coarser_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic_report, "MAX_BUCKETS", 5)
    row = BucketSeries(100.0)
    for second in range(100, 123):
        row.at(second).ok += 1
        row.in_flight(second, 1)
    assert row.width == 8
    assert [bucket.at for bucket in row.buckets] == [100, 108, 116]
    assert [bucket.ok for bucket in row.buckets] == [8, 8, 7]
    assert [bucket.in_flight for bucket in row.buckets] == [8, 16, 23]


def test_four_hours_stay_small() -> None:
    report = TrafficReport(0.0)
    for second in range(4 * 3600):
        report.request(second).failed(second + 0.5, REFUSED)
    shown = report.document(4 * 3600)
    assert len(shown["errors"]) == 200
    assert shown["error_counts"]["request"] == {"connection refused": 14400}
    assert len(shown["seconds"]) <= 600
    assert sum(bucket["failed"] for bucket in shown["seconds"]) == 14400
    assert len(json.dumps(shown)) < 100_000


def test_a_server_that_invents_errors_does_not_fill_the_report() -> None:
    report = TrafficReport(0.0)
    for number in range(1000):
        report.request(0).failed(1, Failure(f"{number}", f"{number}"))
    counts = report.document(2)["error_counts"]["request"]
    assert len(counts) == 51
    assert counts["other"] == 950
