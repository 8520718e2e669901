# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Whether an answer to a chat completion is complete, checked as it arrives. Pure.

An interrupted stream may look complete to a client that only waits for ``[DONE]``: engines and gateways send an error
event and then ``[DONE]``, or end it with the finish reason ``abort``.
"""

from __future__ import annotations

import http
import json
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.core.keys import fingerprint
from ansible_collections.inference.fleet.plugins.module_utils.net.http import excerpt
from ansible_collections.inference.fleet.plugins.plugin_utils.traffic.report import Failure

# A model's own finish reasons. Any other (abort, error) comes from the server.
_GOOD_ENDS = frozenset({"stop", "length", "tool_calls", "function_call", "content_filter"})
_SAID_LIMIT = 200

NO_COMPLETION = "no chat completion"
#: The kind of a stream that ends without any sign of an error.
ENDED_EARLY = "ended early"


class EventReader:
    """Server-sent events out of bytes that may be split anywhere; cheap, because a driver reads thousands a second."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of each event that ``chunk`` completes."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        events = []
        for line in lines:
            line = line.rstrip(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].lstrip(b" "))
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data = []
        return events


class StreamedAnswer:
    """A streamed answer, event by event.

    Args:
        key: the API key, which no message repeats.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._reader = EventReader()
        self._finish: str | None = None
        self._done = False
        self._failure: Failure | None = None

    def feed(self, chunk: bytes) -> int:
        """The number of content pieces in ``chunk``."""
        return sum(self._take(event) for event in self._reader.feed(chunk))

    def verdict(self) -> Failure | None:
        """None when the answer is complete at its end; else why it is not."""
        if self._failure:
            return self._failure
        if self._finish is None:
            missing = "without finish_reason" if self._done else "without finish_reason and [DONE]"
            return Failure(ENDED_EARLY, f"the stream ended {missing}")
        if self._finish not in _GOOD_ENDS:
            return Failure("finish_reason", f"finish_reason {excerpt(self._finish, 40)}")
        return None if self._done else Failure(ENDED_EARLY, "the stream ended without [DONE]")

    def _take(self, event: bytes) -> int:
        if event.strip() == b"[DONE]":
            self._done = True
            return 0
        try:
            document = json.loads(event)
            if "error" in document:
                self._fail("error event", f"error event: {_error_in(document, self._key)}")
                return 0
            pieces = 0
            for choice in document.get("choices") or []:
                delta = choice.get("delta") or {}
                if delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning"):
                    pieces += 1
                if choice.get("finish_reason") is not None:
                    self._finish = str(choice["finish_reason"])
            return pieces
        except (AttributeError, TypeError, ValueError):
            self._fail("malformed event", "an event that is no chat completion chunk")
            return 0

    def _fail(self, kind: str, what: str) -> None:
        self._failure = self._failure or Failure(kind, what)


def judge(status: int, body: bytes, key: str) -> Failure | None:
    """None when an answer without a stream is complete; else why it is not."""
    if status != 200:
        return refusal(status, body, key)
    try:
        document = json.loads(body)
        if "error" in document:
            return Failure("error in a 200", f"200, but an error: {_error_in(document, key)}")
        choice = document["choices"][0]
        message, finish = choice["message"], choice["finish_reason"]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return Failure(NO_COMPLETION, f"200, but {NO_COMPLETION}: {_said(body, key)}")
    if not isinstance(message, dict) or finish not in _GOOD_ENDS:
        return Failure("finish_reason", f"200, but finish_reason {excerpt(str(finish), 40)}")
    return None


def refusal(status: int, body: bytes, key: str) -> Failure:
    """A status other than 200, with the server's message."""
    try:
        named = f"{status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        named = str(status)
    said = _said(body, key)
    return Failure(named, f"{named}: {said}" if said else named)


def _said(body: bytes, key: str) -> str:
    try:
        return _error_in(json.loads(body), key)
    except (AttributeError, KeyError, TypeError, ValueError):
        return _shown(body.decode("utf-8", "replace"), key)


def _error_in(document: dict[str, t.Any], key: str) -> str:
    error = document["error"]
    return _shown(str(error.get("message", error) if isinstance(error, dict) else error), key)


def _shown(text: str, key: str) -> str:
    # Before it is shortened, which may leave half a key.
    return excerpt(text.replace(key, fingerprint(key)) if key else text, _SAID_LIMIT)
