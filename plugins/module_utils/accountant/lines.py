# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Lines of the edge's access log, as HAProxy's ring sends them: what answers used. Pure."""

from __future__ import annotations

import re
import typing as t

from ansible_collections.inference.fleet.plugins.module_utils.facts import answers

#: A longer line is none of HAProxy's: its ring has shorter ones.
_MOST = 65536

_LINE = re.compile(rb"client=(?P<client>\S+) key=\S+ .*? status=(?P<status>-?\d+) .* request=(?P<request>\S+) answer=")

_STREAM = b" answer=stream "


class AnswerUse(t.NamedTuple):
    """What a request has used.

    Attributes:
        request: its name.
        client: whose it was.
        begun: whether it has got an answer that costs.
        known: whether prompt and completion are known.
        prompt: tokens.
        completion: tokens.
    """

    request: str
    client: str
    begun: bool
    known: bool
    prompt: int = 0
    completion: int = 0


def parse(line: bytes) -> AnswerUse | None:
    """What a line says; None for a line of another kind."""
    match = _LINE.search(line)
    if not match:
        return None
    client, request = (match[name].decode("utf-8", "replace") for name in ("client", "request"))
    begun = match["status"] == b"200"
    text = line[match.start() :].decode("utf-8", "replace").rstrip("\r\n\0")
    answer = answers.parse(text, client, "")
    # A stream may be broken off before it says how long its answer is. What is no stream may have none to be written.
    is_cut = answer is not None and answer.completion is None and _STREAM in line
    if answer is None or answer.prompt is None or is_cut:
        return AnswerUse(request, client, begun, known=False)
    return AnswerUse(request, client, begun, True, answer.prompt, answer.completion or 0)


class LineReader:
    """The lines in a stream in which each has its length before it, as RFC 6587 says.

    What is no such stream, or ends within a line, costs what cannot be read and nothing more.
    """

    def __init__(self) -> None:
        self._rest = b""
        self.skipped = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are whole now."""
        self._rest += data
        lines = []
        while self._rest:
            size, space, _more = self._rest[:8].partition(b" ")
            if not size.isdigit() or (not space and len(self._rest) >= 8) or int(size) > _MOST:
                self._skip()
                continue
            end = len(size) + 1 + int(size)
            if not space or len(self._rest) < end:
                break
            lines.append(self._rest[len(size) + 1 : end])
            self._rest = self._rest[end:]
        return lines

    def _skip(self) -> None:
        """Leave out what is no line, up to the next thing that looks like the beginning of one."""
        self.skipped += 1
        found = re.search(rb"\d{1,5} <\d{1,3}>", self._rest[1:])
        self._rest = self._rest[1 + found.start() :] if found else b""
