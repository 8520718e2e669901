# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The results of the traffic driver's clients: counts, errors, gaps, percentiles, and a row of seconds for a chart.

Pure: every moment is passed in as Unix time. Its size does not grow with the length of the run.
"""

from __future__ import annotations

import collections
import math
import typing as t

REQUEST = "request"
STREAM = "stream"

#: How many errors are kept one by one; all are counted by kind.
MAX_ERRORS = 200
#: How many kinds are kept apart, in case a server has a different text for each error.
MAX_KINDS = 50
#: How many buckets the row of seconds has at most; then each becomes twice as wide.
MAX_BUCKETS = 600


class Failure(t.NamedTuple):
    """Why a request or stream failed.

    Attributes:
        kind: a short name out of a small set, to count by.
        what: the same for a person, with the server's message.
    """

    kind: str
    what: str


class Spread:
    """Percentiles of any number of durations in constant space, accurate to one percent."""

    _SMALLEST = 1e-4
    _STEP = math.log(1.02)

    def __init__(self) -> None:
        self._counts: collections.Counter[int] = collections.Counter()
        self._largest = 0.0

    def add(self, seconds: float) -> None:
        self._counts[int(math.log(max(seconds, self._SMALLEST) / self._SMALLEST) / self._STEP)] += 1
        self._largest = max(self._largest, seconds)

    def percentile(self, percent: float) -> float | None:
        """The duration that ``percent`` of them do not exceed; None where there are none."""
        wanted = sum(self._counts.values()) * percent / 100
        seen = 0
        for slot in sorted(self._counts):
            seen += self._counts[slot]
            if seen >= wanted:
                return min(self._largest, self._SMALLEST * math.exp((slot + 0.5) * self._STEP))
        return None

    def largest(self) -> float | None:
        return self._largest if self._counts else None


class Longest:
    """The longest of some spans of time, and when it began."""

    def __init__(self) -> None:
        self.seconds = -1.0
        self.at = 0.0

    def see(self, began: float, ended: float) -> None:
        if ended - began > self.seconds:
            self.seconds, self.at = ended - began, began

    def document(self) -> dict[str, float] | None:
        return None if self.seconds < 0 else {"seconds": round(self.seconds, 3), "at": round(self.at, 3)}


class Bucket:
    """What happened in a stretch of time."""

    __slots__ = ("at", "failed", "in_flight", "ok", "tokens")

    def __init__(self, at: float, in_flight: int) -> None:
        self.at = at
        self.ok = 0
        self.failed = 0
        self.tokens = 0
        # The most at any one time.
        self.in_flight = in_flight

    def add(self, other: Bucket) -> None:
        self.ok += other.ok
        self.failed += other.failed
        self.tokens += other.tokens
        self.in_flight = max(self.in_flight, other.in_flight)

    def document(self) -> dict[str, float]:
        return {"at": self.at, **{name: getattr(self, name) for name in ("ok", "failed", "tokens", "in_flight")}}


class BucketSeries:
    """Buckets without a hole between them, of one second, or of more once the run is long."""

    def __init__(self, now: float) -> None:
        self.width = 1
        self.buckets = [Bucket(math.floor(now), 0)]
        self._in_flight = 0

    def at(self, now: float) -> Bucket:
        """The bucket of a moment, created on first use."""
        while now >= self.buckets[-1].at + self.width:
            self.buckets.append(Bucket(self.buckets[-1].at + self.width, self._in_flight))
            if len(self.buckets) > MAX_BUCKETS:
                self._coarsen()
        return self.buckets[-1]

    def in_flight(self, now: float, change: int) -> None:
        bucket = self.at(now)
        self._in_flight += change
        bucket.in_flight = max(bucket.in_flight, self._in_flight)

    def _coarsen(self) -> None:
        self.width *= 2
        kept = self.buckets[0::2]
        for first, second in zip(kept, self.buckets[1::2]):
            first.add(second)
        self.buckets = kept


class SentRequest:
    """A request without a stream, in flight."""

    def __init__(self, report: TrafficReport, now: float) -> None:
        self._report = report
        self._began = now

    def ok(self, now: float) -> None:
        self._report.request_ended(now, now - self._began, None)

    def failed(self, now: float, failure: Failure) -> None:
        self._report.request_ended(now, now - self._began, failure)


class SentStream:
    """A streamed answer, in flight.

    Attributes:
        tokens: pieces of content so far.
        last: when the last of them came, None before the first.
    """

    def __init__(self, report: TrafficReport, now: float) -> None:
        self._report = report
        self.began = now
        self.last: float | None = None
        self.tokens = 0

    def content(self, now: float, pieces: int) -> None:
        """Some pieces of the answer arrived."""
        if pieces:
            self._report.stream_content(self, now, pieces)
            self.last = now
            self.tokens += pieces

    def whole(self, now: float) -> None:
        """It ended properly."""
        self._report.stream_ended(self, now, None, False)

    def refused(self, now: float, failure: Failure) -> None:
        """The server did not begin to answer it."""
        self._report.stream_ended(self, now, failure, False)

    def cut(self, now: float, failure: Failure) -> None:
        """The server began to answer, and did not finish."""
        count = f"{self.tokens} token{'' if self.tokens == 1 else 's'}"
        named = Failure(f"cut ({failure.kind})", f"cut after {count}: {failure.what}")
        self._report.stream_ended(self, now, named, True)


class TrafficReport:
    """The whole report. Once begun, a request or stream is in flight until one of its own methods ends it."""

    def __init__(self, now: float) -> None:
        self.began = now
        self.ended: float | None = None
        self.ended_because: str | None = None
        self.first_answer: dict[str, t.Any] | None = None
        self._requests = {"sent": 0, "ok": 0, "failed": 0, "in_flight": 0, "skipped": 0}
        self._streams = {"begun": 0, "whole": 0, "failed": 0, "cut": 0, "in_flight": 0}
        self._open: set[SentStream] = set()
        self._errors: list[dict[str, t.Any]] = []
        self._error_counts: dict[str, dict[str, int]] = {REQUEST: {}, STREAM: {}}
        self._gap = Longest()
        self._stall = Longest()
        self._latency = Spread()
        self._first_token = Spread()
        self._row = BucketSeries(now)
        self._last_content: float | None = None
        self._watches_gaps = True

    def request(self, now: float) -> SentRequest:
        """A request is sent."""
        self._requests["sent"] += 1
        self._requests["in_flight"] += 1
        self._row.in_flight(now, 1)
        return SentRequest(self, now)

    def request_skipped(self) -> None:
        """A request was due, but too many are in flight."""
        self._requests["skipped"] += 1

    def stream(self, now: float) -> SentStream:
        """A streamed request is sent."""
        self._streams["begun"] += 1
        self._streams["in_flight"] += 1
        self._row.in_flight(now, 1)
        stream = SentStream(self, now)
        self._open.add(stream)
        return stream

    def stop(self, now: float) -> None:
        """No new work begins: from here on, silence between the last answers is not a gap."""
        self._see_gap(now)
        self._watches_gaps = False

    def request_ended(self, now: float, seconds: float, failure: Failure | None) -> None:
        self._requests["in_flight"] -= 1
        if failure is None:
            self._requests["ok"] += 1
            self._latency.add(seconds)
            self._content(now)
        else:
            self._requests["failed"] += 1
            self._error(now, REQUEST, seconds, failure)
        self._ended(now, failure)

    def stream_content(self, stream: SentStream, now: float, pieces: int) -> None:
        if stream.last is None:
            self._first_token.add(now - stream.began)
        else:
            self._stall.see(stream.last, now)
        self._content(now)
        self._row.at(now).tokens += pieces

    def stream_ended(self, stream: SentStream, now: float, failure: Failure | None, cut: bool) -> None:
        self._open.discard(stream)
        self._streams["in_flight"] -= 1
        if stream.last is not None:
            self._stall.see(stream.last, now)
        if failure is None:
            self._streams["whole"] += 1
        else:
            self._streams["cut" if cut else "failed"] += 1
            self._error(now, STREAM, now - stream.began, failure)
        self._ended(now, failure)

    def document(self, now: float) -> dict[str, t.Any]:
        """The current report, including running gaps and stalls."""
        self._row.at(now)
        self._see_gap(now)
        for stream in self._open:
            if stream.last is not None:
                self._stall.see(stream.last, now)
        return {
            "began": round(self.began, 3),
            "ended": None if self.ended is None else round(self.ended, 3),
            "ended_because": self.ended_because,
            "written": round(now, 3),
            "first_answer": self.first_answer,
            "requests": dict(self._requests),
            "streams": dict(self._streams),
            "errors": self._errors,
            "error_counts": self._error_counts,
            "longest_gap": self._gap.document(),
            "longest_stream_stall": self._stall.document(),
            "latency": {
                "p50": _rounded(self._latency.percentile(50)),
                "p95": _rounded(self._latency.percentile(95)),
                "max": _rounded(self._latency.largest()),
            },
            "first_token": {
                "p50": _rounded(self._first_token.percentile(50)),
                "p95": _rounded(self._first_token.percentile(95)),
            },
            "bucket_seconds": self._row.width,
            "seconds": [bucket.document() for bucket in self._row.buckets],
        }

    def _content(self, now: float) -> None:
        self._see_gap(now)
        self._last_content = now

    def _see_gap(self, now: float) -> None:
        if self._watches_gaps and self._last_content is not None:
            self._gap.see(self._last_content, now)

    def _ended(self, now: float, failure: Failure | None) -> None:
        self._row.in_flight(now, -1)
        bucket = self._row.at(now)
        if failure is None:
            bucket.ok += 1
        else:
            bucket.failed += 1

    def _error(self, now: float, source: str, seconds: float, failure: Failure) -> None:
        counts = self._error_counts[source]
        kind = failure.kind if failure.kind in counts or len(counts) < MAX_KINDS else "other"
        counts[kind] = counts.get(kind, 0) + 1
        if len(self._errors) < MAX_ERRORS:
            error = {"at": round(now, 3), "kind": source, "what": failure.what, "seconds": round(seconds, 3)}
            self._errors.append(error)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
